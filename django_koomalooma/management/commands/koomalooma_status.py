"""``koomalooma_status``: how things stand, for people, for monitoring and for trying a new token.

The facts are read by `status.py`; this module words them, asks the broker, and with ``--live`` koomalooma.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, run_checks
from django.core.management.base import BaseCommand, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, connections, router

from ... import review, shops, wakeup
from ...conf import conf
from ...delivery import open_client
from ...events import format_amount
from ...exceptions import AccountTrouble, CallFailed, ConfigurationError, Misconfigured
from ...models import Commitment
from ...status import Level, Problem, Status, age, moment, read_status
from ...statuses import CommitmentStatus
from ..database import say_unreadable


class Command(BaseCommand):
    """Say what is connected, recorded, sent and stuck; exit with 0, 1 or 2."""

    help = (
        "Say what is connected, recorded, sent and stuck. "
        "Exit code: 0 all is well, 1 something needs attention, 2 nothing is sent."
    )
    requires_system_checks = ()  # their messages are part of the answer

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the two options."""
        parser.add_argument("--json", action="store_true", help="the same facts for a program")
        parser.add_argument(
            "--live",
            action="store_true",
            help="try address and token with one POST /users; it issues no points, but makes one customer at "
            "koomalooma, with a random id that is kept nowhere",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Collect the facts, print them, and exit with the worst level."""
        found = [message for message in run_checks(tags=["koomalooma"]) if not message.is_silenced()]
        problems = [
            Problem(Level.ATTENTION, str(message.id), message.msg)
            for message in found
            if str(message.id).startswith("koomalooma.E")
        ]
        status: Status | None = None
        try:
            status = read_status()
        except ConfigurationError as error:
            problems.append(Problem(Level.STOPPED, "setting", str(error)))
        except DatabaseError as error:
            problems.append(Problem(Level.STOPPED, "database", say_unreadable(error)))
        else:
            problems += status.problems
        facts = _connections()
        if options["live"]:
            tried = try_token()
            facts["token tried"] = tried.sentence
            if tried.level:
                problems.append(tried)
        problems.sort(key=lambda problem: -problem.level)
        level = max((problem.level for problem in problems), default=Level.FINE)
        if options["json"]:
            self.stdout.write(_as_json(level, status, problems, facts, found))
        else:
            for line in _lines(status, problems, facts, found):
                self.stdout.write(line)
        if level:
            sys.exit(level)


def try_token() -> Problem:
    """Make one customer at koomalooma, with random ids, to see whether address and token work."""
    try:
        with open_client() as client:
            answer = client.create_user(uuid.uuid4().hex, uuid.uuid4().hex)
    except ConfigurationError as error:
        return Problem(Level.STOPPED, "live", str(error))
    except (AccountTrouble, Misconfigured) as failure:
        return Problem(Level.STOPPED, "live", str(failure))
    except CallFailed as failure:
        return Problem(Level.ATTENTION, "live", str(failure))
    return Problem(
        Level.FINE,
        "live",
        f"Address and token work (HTTP {answer.http_status} after {answer.duration:.1f} s). "
        "It now has one customer more, with a random id that is kept nowhere.",
    )


def _connections() -> dict[str, Any]:
    """Return what is connected, each as a sentence; no fact may cost the others."""
    facts: dict[str, Any] = {}
    for name, read in (
        ("shop", _shop),
        ("koomalooma", _koomalooma),
        ("database", _database),
        ("broker", _broker),
    ):
        try:
            facts[name] = read()
        except Exception as error:  # noqa: BLE001 - a wrong setting is told under the settings
            facts[name] = f"unknown ({wakeup.name_error(error)})"
    return facts


def _shop() -> list[str]:
    broken = [f"Not connected: {error}" for error in shops.connection_errors()]
    return [*shops.connected(), *broken] or [
        "Nothing is connected by settings; your code may call earn() or send order_paid."
    ]


def _koomalooma() -> str:
    token = "a token is set" if conf.api_token else "no token yet"
    partner = f"partner {conf.partner_id}" if conf.partner_id else "no partner id yet"
    return f"{conf.api_url}, {partner}, {token}"


def _database() -> str:
    using = router.db_for_write(Commitment)
    return f"{using} ({connections[using].vendor})"


def _broker() -> str:
    if not conf.wake_up:
        return "not asked, KOOMALOOMA_WAKE_UP is off: the sweep sends."
    if current_app.conf.task_always_eager:
        return "Celery runs tasks eagerly: nobody is woken, the sweep sends."
    if not current_app.conf.broker_write_url:
        return "none is set for Celery: cron sends."
    with current_app.connection_for_write() as connection:
        name = connection.as_uri(include_password=False)
    if wakeup.is_reachable(current_app):
        return f"{name} answers."
    return f"{name} does not answer: nobody is woken, the sweep sends."


def _lines(
    status: Status | None, problems: list[Problem], facts: Mapping[str, Any], found: list[CheckMessage]
) -> Iterator[str]:
    yield status.headline if status else "Not known: see below."
    yield ""
    yield "Connected"
    for name, value in facts.items():
        for sentence in [value] if isinstance(value, str) else value:
            yield f"  {name + ':':13} {sentence}"
            name = ""
    if status:
        yield f"  {'sweep:':13} {_ago(status.swept_at, status)} (Celery beat or cron)"
        yield f"  {'last run:':13} {_ago(status.ran_at, status)}"
        yield ""
        yield from _numbers(status)
        if not status.gate.is_sending and status.mode == "live":
            yield ""
            yield f"Stopped: {status.gate.reason}"
            yield f"  since {moment(status.gate.since)}" if status.gate.since else "  since the start"
            yield f"  {_next(status)}"
    if problems:
        yield ""
        yield "To look at"
        yield from (f"  {problem.sentence}" for problem in problems)
    if found:
        yield ""
        yield "Settings"
        for message in found:
            yield f"  {message.id}: {message.msg}"
            if message.hint:
                yield f"    {message.hint}"


def _numbers(status: Status) -> Iterator[str]:
    yield f"Recorded: {status.recorded}"
    for name, count in status.counts.items():
        held = f" ({status.held} of them on hold)" if name == CommitmentStatus.QUEUED and status.held else ""
        yield f"  {CommitmentStatus(name).label + ':':13} {count}{held}"
    if status.stuck:
        yield f"  {'Stuck:':13} {status.stuck}"
    if status.without_campaign:
        yield f"  {'No campaign:':13} {status.without_campaign}"
    if status.over_issued:
        sums = ", ".join(f"{amount} {currency}" for currency, amount in _too_much(status).items())
        yield f"Sent too much: {status.over_issued}, together {sums} (worth less now than was sent)"
    for cap in status.caps:
        of = f"of {cap.cap:,}" if cap.cap is not None else "(no cap)"
        yield f"Points sent, {cap.word}: {cap.units:,} {of}"


def _too_much(status: Status) -> dict[str, str]:
    sums = sorted(status.over_issued_value.items())
    return {currency: format_amount(value, currency) for currency, value in sums}


def _next(status: Status) -> str:
    if status.gate.needs_person:
        return "A person must decide, in the admin."
    if status.gate.next_probe_at:
        at_once = any(choice.name == "go_on" for choice in review.choices(status.gate.code))
        sooner = "; “Go on” in the admin tries at once." if at_once else ""
        return f"Tries again by itself: {moment(status.gate.next_probe_at)}{sooner}"
    return "Goes on by itself when that is mended."


def _ago(at: Any, status: Status) -> str:
    return f"{age(at, status.now)} ago" if at else "never"


def _as_json(
    level: Level,
    status: Status | None,
    problems: list[Problem],
    facts: Mapping[str, Any],
    found: list[CheckMessage],
) -> str:
    told: dict[str, Any] = {
        "level": level.name.lower(),
        "exit_code": int(level),
        "problems": [
            {"level": problem.level.name.lower(), "code": problem.code, "sentence": problem.sentence}
            for problem in problems
        ],
        "connected": dict(facts),
        "settings": [
            {"id": message.id, "message": message.msg, "hint": message.hint or ""} for message in found
        ],
    }
    if status:
        told |= {
            "headline": status.headline,
            "now": status.now,
            "mode": status.mode,
            "sending": {
                "is_sending": status.gate.is_sending and status.mode == "live",
                "code": str(status.gate.code),
                "reason": status.gate.reason,
                "since": status.gate.since,
                "next_probe_at": status.gate.next_probe_at,
                "needs_person": status.gate.needs_person,
            },
            "recorded": status.recorded,
            "counts": dict(status.counts),
            "due": status.due,
            "held": status.held,
            "stuck": status.stuck,
            "without_campaign": status.without_campaign,
            "over_issued": {"count": status.over_issued, "value": _too_much(status)},
            "oldest_owed_at": status.oldest_owed_at,
            "swept_at": status.swept_at,
            "ran_at": status.ran_at,
            "caps": {cap.word: {"units": cap.units, "cap": cap.cap} for cap in status.caps},
        }
    return json.dumps(told, cls=DjangoJSONEncoder, indent=2)
