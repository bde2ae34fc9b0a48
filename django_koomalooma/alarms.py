"""Mails when a person is needed: outages to ``ADMINS``, decisions to ``MANAGERS``; one digest for all rows.

The sweep asks. What was mailed is kept in ``Gate.warned``, so that each kind comes at most once a day, and
again only when something has changed, or after a week.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.core.mail import mail_admins, mail_managers
from django.db import transaction
from django.db.models import Count, Max

from . import gate
from .conf import conf
from .gate import Cause
from .models import Commitment, Gate
from .querysets import CommitmentQuerySet, database_now
from .status import OWED_LATE, age, moment, oldest_owed_at
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

AT_MOST_EVERY: Final = dt.timedelta(days=1)
REMIND_AFTER: Final = dt.timedelta(days=7)
AGAIN_AFTER_FAILURE: Final = dt.timedelta(hours=1)
#: How long a stop is nobody's trouble yet: a person knows of his own, and a wait of minutes is no outage.
PATIENCE: Final = {Cause.PERSON: dt.timedelta(days=1), Cause.LATER: dt.timedelta(hours=1)}
SHOWN: Final = 10
_S = CommitmentStatus


def send_alarms() -> None:
    """Mail what a person must know and has not been told. Never raises: delivery matters more."""
    try:
        if conf.mode != "live" or not (settings.ADMINS or settings.MANAGERS):
            return
        row = gate.read()
        using = row._state.db or "default"
        now = database_now(using)
        if settings.ADMINS and (outage := _find_outage(row, now)):
            _mail("stopped", outage, now, using, mail_admins)
        if settings.MANAGERS and _may_mail(row.warned, "decisions", now):
            decisions = _find_decisions(Commitment.objects.using(using), now)
            if decisions:
                _mail("decisions", decisions, now, using, mail_managers)
    except Exception:
        logger.exception("The alarms failed; the next sweep tries again.")


class _Letter:
    """A mail, and the mark that tells it from another."""

    def __init__(self, mark: object, subject: str, lines: list[str]) -> None:
        self.mark = mark
        self.subject = subject
        self.text = "\n".join(lines)


def _find_outage(row: Gate, now: dt.datetime) -> _Letter | None:
    if not row.is_stopped or row.code == Cause.COPY:
        return None
    patience = PATIENCE.get(Cause(row.code), dt.timedelta())
    if row.code == Cause.NO_TOKEN and not row.fingerprint:
        patience = AT_MOST_EVERY  # there never was one: a shop that is being set up
    if row.since is None or now - row.since < patience:
        return None
    return _Letter(
        row.code,
        "koomalooma: sending is stopped",
        [
            row.reason,
            "",
            f"Stopped since {moment(row.since)}. Nothing is lost: what is earned is recorded and waits.",
            _next(row),
            "More: manage.py koomalooma_status",
        ],
    )


def _next(row: Gate) -> str:
    if row.code in gate.NEEDS_PERSON:
        return "It goes on when a person has decided, in the admin under “koomalooma points”."
    if row.next_probe_at:
        return f"It tries again by itself, next at {moment(row.next_probe_at)}."
    return "It goes on by itself when that is mended."


def _find_decisions(rows: CommitmentQuerySet, now: dt.datetime) -> _Letter | None:
    found = rows.undecided().order_by().values("status").annotate(count=Count("pk"), newest=Max("pk"))
    counts = {row["status"]: (row["count"], row["newest"]) for row in found}
    unclear, refused = counts.get(_S.IN_DOUBT, (0, 0)), counts.get(_S.REFUSED, (0, 0))
    oldest = oldest_owed_at(rows, now)
    late = oldest is not None and now - oldest > OWED_LATE
    if not (unclear[0] or refused[0] or late):
        return None
    lines = []
    if unclear[0]:
        lines.append(f"{unclear[0]} unclear: the points may have arrived. Ask koomalooma, then settle each.")
    if refused[0]:
        lines.append(f"{refused[0]} refused by koomalooma: correct and send again, or cancel.")
    if late:
        lines.append(f"The oldest that should be sent waits for {age(oldest, now)}.")
    oldest_rows = list(rows.undecided()[:SHOWN])
    if oldest_rows:
        lines += ["", "The oldest:"]
        lines += [
            f"  {row.reference}  KL-{row.trace_key}  {row.get_status_display()}  {moment(row.updated_at)}"
            for row in oldest_rows
        ]
    lines += ["", "Decide in the admin under “koomalooma points”."]
    mark = [*unclear, *refused, late]
    return _Letter(mark, f"koomalooma: {unclear[0] + refused[0]} need a decision", lines)


def _may_mail(warned: dict[str, Any], kind: str, now: dt.datetime) -> bool:
    last = warned.get(kind)
    return last is None or now - dt.datetime.fromisoformat(last["at"]) >= AT_MOST_EVERY


def _is_news(warned: dict[str, Any], kind: str, mark: object, now: dt.datetime) -> bool:
    last = warned.get(kind)
    if last is None:
        return True
    since = now - dt.datetime.fromisoformat(last["at"])
    if last["mark"] != mark:
        # Another cause of a stop is told at once; another number of decisions is no second mail a day.
        return kind == "stopped" or since >= AT_MOST_EVERY
    return since >= (AT_MOST_EVERY if kind == "stopped" else REMIND_AFTER)


def _mail(kind: str, letter: _Letter, now: dt.datetime, using: str, send: Callable[[str, str], None]) -> None:
    """Mark it as mailed, then mail it: two sweeps at once must not both do it."""
    with transaction.atomic(using=using):
        row = Gate.objects.using(using).select_for_update().get(pk=1)
        if not _is_news(row.warned, kind, letter.mark, now):
            return
        row.warned[kind] = {"at": now.isoformat(), "mark": letter.mark}
        row.save(update_fields=["warned"], using=using)
    logger.warning("%s: %s", letter.subject, letter.text.splitlines()[0])
    try:
        send(letter.subject, letter.text)
    except Exception:
        logger.exception("The mail “%s” could not be sent; tried again in an hour.", letter.subject)
        retry = now - (AT_MOST_EVERY if kind == "stopped" else REMIND_AFTER) + AGAIN_AFTER_FAILURE
        row.warned[kind]["at"] = retry.isoformat()
        row.save(update_fields=["warned"], using=using)
