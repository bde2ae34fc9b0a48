"""May the queue send now? Stops on trouble, counts what failed in a row, resumes; keeps the run slots.

Knows no network: the probe's call is made by ``delivery``, which tells the outcome here.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connections, router, transaction
from django.db.models import QuerySet
from django.utils import timezone

from .client import Verdict
from .conf import conf
from .exceptions import ConfigurationError
from .models import Commitment, Gate, KoomaloomaUser
from .querysets import database_now
from .signals import queue_resumed, queue_stopped

logger = logging.getLogger("django_koomalooma")


class Cause(enum.StrEnum):
    """Why sending is stopped."""

    NO_TOKEN = "no_token"
    FIRST_TOKEN = "first_token"
    ACCOUNT = "account"
    CONFIGURATION = "configuration"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    IN_DOUBT = "in_doubt"
    LATER = "later"
    CAP = "cap"
    MOVED = "moved"
    COPY = "copy"
    PERSON = "person"


NEEDS_PERSON = frozenset({Cause.FIRST_TOKEN, Cause.MOVED, Cause.COPY, Cause.PERSON})
OPENS_BY_TIME = frozenset({Cause.LATER, Cause.CAP})
PROBE_MINUTES = (1, 2, 5, 15, 30, 60)
LIMITS = {Verdict.NOT_SENT: 5, Verdict.REFUSED: 5, Verdict.IN_DOUBT: 3}
WARN_AT = 0.8
MOVED = (
    "The {what} is another one than before. "
    "Decide: this is the live shop; or this is a copy, which never sends."
)
TOKEN_IS_THERE = (
    "The token is there now. The next delivery run goes on, or asks what to do with what was recorded."
)
RUN_SLOT = dt.timedelta(seconds=40)


@dataclass(frozen=True, slots=True)
class State:
    """Whether the queue is sending, and if not why, since when and when it tries again by itself."""

    is_sending: bool
    code: str
    reason: str
    since: dt.datetime | None
    next_probe_at: dt.datetime | None
    needs_person: bool


def read() -> Gate:
    """Return the gate's row, made at the first call."""
    using = router.db_for_write(Gate)
    return Gate.objects.using(using).get_or_create(pk=1)[0]


def opened() -> QuerySet[Gate]:
    """Return the query that has a row while sending is not stopped; a lease asks it in its own statement."""
    return Gate.objects.using(router.db_for_write(Gate)).filter(pk=1, is_stopped=False)


def state() -> State:
    """Return what the gate says now; a missing token counts at once, before any run has seen it."""
    gate = read()
    if gate.code not in NEEDS_PERSON and (missing := _missing_token()):
        return State(False, missing[1], missing[0], gate.since, None, False)
    if gate.code == Cause.NO_TOKEN:
        return State(False, gate.code, TOKEN_IS_THERE, gate.since, None, False)
    return State(
        not gate.is_stopped,
        gate.code if gate.is_stopped else "",
        gate.reason if gate.is_stopped else "",
        gate.since,
        gate.next_probe_at,
        gate.is_stopped and gate.code in NEEDS_PERSON,
    )


def _missing_token() -> tuple[str, Cause] | None:
    try:
        named = (("PARTNER_ID", conf.partner_id), ("API_TOKEN", conf.api_token))
    except ConfigurationError as error:
        return str(error), Cause.CONFIGURATION
    names = " and ".join(f"KOOMALOOMA_{name}" for name, value in named if not value)
    if not names:
        return None
    return f"No token yet: set {names}. Everything is recorded, nothing is lost.", Cause.NO_TOKEN


def stop(reason: str, code: str = Cause.PERSON, *, until: dt.datetime | None = None) -> None:
    """Stop sending. Nothing is leased from now on; calls under way finish and are recorded.

    Args:
        reason: A sentence for the staff.
        code: A :class:`Cause`; a person's stop by default, which only a person ends.
        until: When to try again; by default the next of the growing intervals where the cause allows.
    """
    gate = read()
    now = database_now(gate._state.db or "default")
    code = Cause(code)
    if gate.is_stopped and (gate.code == code or (gate.code in NEEDS_PERSON and code not in NEEDS_PERSON)):
        return
    if is_probed(gate) and code in OPENS_BY_TIME:
        # Time alone does not mend what it is stopped for; the probe only comes no earlier than asked.
        if code is Cause.LATER and until is not None and gate.next_probe_at is not None:
            rows = Gate.objects.using(gate._state.db).filter(pk=gate.pk, code=gate.code)
            rows.update(next_probe_at=max(until, gate.next_probe_at))
        return
    if _close(gate, reason, code, until, now):
        logger.error("Sending is stopped: %s", reason)
        queue_stopped.send_robust(sender=Gate, reason=reason, code=str(code))


def postpone(reason: str, code: str, *, until: dt.datetime | None = None) -> None:
    """Note that a probe failed: the queue stays stopped, for the next of the growing intervals."""
    gate = read()
    if gate.is_stopped and gate.code not in NEEDS_PERSON:
        _close(gate, reason, Cause(code), until, database_now(gate._state.db or "default"))


def _close(gate: Gate, reason: str, code: Cause, until: dt.datetime | None, now: dt.datetime) -> bool:
    """Write the stop; tell whether it was written. What stops by itself never overwrites a person's word."""
    rows = Gate.objects.using(gate._state.db).filter(pk=gate.pk)
    if code not in (Cause.PERSON, Cause.COPY):
        rows = rows.filter(code=gate.code)
    probes = gate.probes
    if code in NEEDS_PERSON or code is Cause.NO_TOKEN:
        until = None
    elif until is None:
        until = now + dt.timedelta(minutes=PROBE_MINUTES[min(probes, len(PROBE_MINUTES) - 1)])
        probes += 1
        if gate.code in OPENS_BY_TIME and gate.next_probe_at is not None:
            until = max(until, gate.next_probe_at)
    written = rows.update(
        is_stopped=True,
        code=code,
        reason=reason,
        since=gate.since if gate.is_stopped else now,
        next_probe_at=until,
        probes=probes,
        is_careful=True,
    )
    return written > 0


def resume() -> None:
    """Start sending again, by a person's word: one commitment first, then as many as are due.

    At the first token it says "send what was recorded"; after a change of database or partner, once that
    is what sending is stopped for, "this is the live shop, moved". Before that it asks: a copy of a shop
    that was stopped for another reason must not be set off by a click.
    """
    gate = read()
    moved = _what_moved(gate)
    if moved and gate.code not in (Cause.MOVED, Cause.COPY):
        stop(MOVED.format(what=moved), Cause.MOVED)
        return
    if "partner" in moved:
        # Another partner's koomalooma does not know our customers, nor we their ids there.
        KoomaloomaUser.objects.using(gate._state.db).update(registered_at=None, remote_id="")
    _open(gate, fingerprint=fingerprint(), unsent_in_row=0, refused_in_row=0, in_doubt_in_row=0, probes=0)


def reopen() -> None:
    """Start sending again after a probe, or because the time has come.

    One commitment until the first success.
    """
    gate = read()
    if gate.code not in NEEDS_PERSON:
        _open(gate)


def _open(gate: Gate, **values: object) -> None:
    written = (
        Gate.objects.using(gate._state.db)
        .filter(pk=gate.pk, code=gate.code)
        .update(
            is_stopped=False, code="", reason="", since=None, next_probe_at=None, is_careful=True, **values
        )
    )
    if written and gate.is_stopped:
        logger.warning("Sending goes on.")
        queue_resumed.send_robust(sender=Gate)


def fingerprint() -> str:
    """Return what tells this database and this partner from others, in two halves.

    Never machine or path, which change by themselves.
    """
    settings = connections[router.db_for_write(Commitment)].settings_dict
    parts = [settings["ENGINE"], settings.get("HOST"), settings.get("PORT")]
    if "sqlite" not in settings["ENGINE"]:
        parts.append(settings["NAME"])
    database = "\n".join(str(part or "") for part in parts)
    return "-".join(hashlib.sha256(text.encode()).hexdigest()[:30] for text in (database, conf.partner_id))


def _what_moved(gate: Gate) -> str:
    """Return what is another one than before: ``""``, the database, the partner id, or both."""
    if not gate.fingerprint:
        return ""
    (database, _, partner), (new_database, _, new_partner) = (
        text.partition("-") for text in (gate.fingerprint, fingerprint())
    )
    changed = {"database": database != new_database, "partner id": partner != new_partner}
    return " and the ".join(name for name, is_new in changed.items() if is_new)


def look() -> Gate:
    """Decide at a run's start whether it may send, from settings, fingerprint and time; write what changed.

    Returns:
        The gate as it is now: open, stopped, or stopped with a probe that is due (:func:`wants_probe`).
    """
    gate = read()
    using = gate._state.db or "default"
    if missing := _missing_token():
        stop(*missing)
        return read()
    if gate.is_stopped and gate.code in NEEDS_PERSON:
        return gate
    if not gate.fingerprint:
        recorded = Commitment.objects.using(using).open().filter(terms__before_token=True).count()
        if recorded:
            stop(
                f"The token is there. Decide: send the {recorded} recorded, or only what comes from now on.",
                Cause.FIRST_TOKEN,
            )
            return read()
        Gate.objects.using(using).filter(pk=gate.pk).update(fingerprint=fingerprint())
    elif moved := _what_moved(gate):
        stop(MOVED.format(what=moved), Cause.MOVED)
        return read()
    now = database_now(using)
    if gate.is_stopped and (
        gate.code == Cause.NO_TOKEN
        or (gate.code in OPENS_BY_TIME and gate.next_probe_at is not None and gate.next_probe_at <= now)
        or (gate.code == Cause.CAP and caps_have_room(now))
    ):
        reopen()
    return read()


def is_probed(gate: Gate) -> bool:
    """Tell whether it is stopped for something that a probe can find mended."""
    return gate.is_stopped and gate.code not in NEEDS_PERSON | OPENS_BY_TIME | {Cause.NO_TOKEN}


def wants_probe(gate: Gate, now: dt.datetime) -> bool:
    """Tell whether the stopped gate should now be tried with a call that issues nothing."""
    return is_probed(gate) and gate.next_probe_at is not None and gate.next_probe_at <= now


def cap_periods(now: dt.datetime) -> tuple[tuple[str, int | None, dt.datetime, dt.datetime], ...]:
    """Return day and month as ``(word, cap, since, until)``, in the project's time zone (R1)."""
    local = timezone.localtime(now) if timezone.is_aware(now) else now
    today = local.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = (today + dt.timedelta(days=1)).replace(hour=0)
    month = today.replace(day=1)
    next_month = (month + dt.timedelta(days=32)).replace(day=1)
    return ("daily", conf.daily_cap, today, tomorrow), ("monthly", conf.monthly_cap, month, next_month)


def remember(what: str, text: str) -> None:
    """Keep a mark of what was done last, a warning for instance, beside those that others keep."""
    using = read()._state.db or "default"
    with transaction.atomic(using=using):
        _touch(using, sweep=False)
        gate = Gate.objects.using(using).get(pk=1)
        Gate.objects.using(using).filter(pk=1).update(warned={**gate.warned, what: text})


def caps_have_room(now: dt.datetime) -> bool:
    """Tell whether no cap is reached, because a setting was raised for instance."""
    rows = Commitment.objects.using(router.db_for_write(Commitment))
    return all(cap is None or rows.issued_units(since) < cap for _, cap, since, _ in cap_periods(now))


def check_caps(now: dt.datetime) -> int | None:
    """Stop until the next day or month where a cap is reached, in the project's time zone; warn at 80 % (R1).

    Returns:
        The points that may still be sent; ``None`` where there is no cap.
    """
    left: list[int] = []
    gate = read()
    commitments = Commitment.objects.using(gate._state.db)
    for word, cap, since, until in cap_periods(now):
        if cap is None:
            continue
        units = commitments.issued_units(since)
        left.append(max(cap - units, 0))
        if units >= cap:
            stop(f"The {word} cap of {cap:,} points is reached: {units:,} were sent.", Cause.CAP, until=until)
            return 0
        if units >= cap * WARN_AT and gate.warned.get(word) != since.isoformat():
            remember(word, since.isoformat())
            logger.warning("%s of the %s cap of %s points are sent.", f"{units:,}", word, f"{cap:,}")
    return min(left, default=None)


class Counters:
    """What failed in a row, as one run sees it.

    Read once, written when it changed, and it stops the queue.
    """

    def __init__(self, gate: Gate) -> None:
        self._using = gate._state.db
        self._saved = self._now = (
            gate.unsent_in_row, gate.refused_in_row, gate.in_doubt_in_row, gate.is_careful
        )  # fmt: skip

    @property
    def is_careful(self) -> bool:
        """Whether one commitment at a time is sent, until the first success."""
        return self._now[3]

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Count outcomes in the order in which they came. Only a success says that all is well again."""
        unsent, refused, in_doubt, careful = self._now
        for verdict in verdicts:
            if verdict is Verdict.ANSWERED:
                unsent, refused, in_doubt, careful = 0, 0, 0, False
            elif verdict is Verdict.NOT_SENT:
                unsent += 1
            elif verdict is Verdict.REFUSED:
                unsent, refused = 0, refused + 1
            elif verdict is Verdict.IN_DOUBT:
                in_doubt, careful = in_doubt + 1, True
        self._now = (unsent, refused, in_doubt, careful)

    def write(self) -> None:
        """Save what changed, and stop the queue where a limit is reached."""
        if self._now == self._saved:
            return
        unsent, refused, in_doubt, careful = self._saved = self._now
        values = {"unsent_in_row": unsent, "refused_in_row": refused, "in_doubt_in_row": in_doubt}
        if not any(self._now):
            values["probes"] = 0
        Gate.objects.using(self._using).filter(pk=1).update(is_careful=careful, **values)
        if in_doubt >= LIMITS[Verdict.IN_DOUBT]:
            stop(f"{in_doubt} answers in a row were unclear.", Cause.IN_DOUBT)
        elif unsent >= LIMITS[Verdict.NOT_SENT]:
            stop(f"koomalooma could not be reached {unsent} times in a row.", Cause.UNREACHABLE)
        elif refused >= LIMITS[Verdict.REFUSED]:
            stop(f"koomalooma refused {refused} commitments in a row.", Cause.REFUSED)


def take_slot(run: uuid.UUID, *, sweep: bool) -> bool:
    """Take one of ``KOOMALOOMA_RUNS`` slots for a delivery run, over all machines; leave the heartbeat.

    The slot ends by itself unless it is renewed, so that a killed worker holds none.
    """
    using = read()._state.db or "default"
    with transaction.atomic(using=using):
        now = _touch(using, sweep=sweep)
        gate = Gate.objects.using(using).get(pk=1)
        live = {key: until for key, until in gate.runs.items() if until > now.timestamp()}
        taken = str(run) in live or len(live) < conf.runs
        if taken:
            live[str(run)] = (now + RUN_SLOT).timestamp()
        Gate.objects.using(using).filter(pk=1).update(runs=live)
    return taken


def free_slot(run: uuid.UUID) -> None:
    """Give the slot back."""
    using = read()._state.db or "default"
    with transaction.atomic(using=using):
        _touch(using, sweep=False)
        runs = Gate.objects.using(using).get(pk=1).runs
        runs.pop(str(run), None)
        Gate.objects.using(using).filter(pk=1).update(runs=runs)


def _touch(using: str, *, sweep: bool) -> dt.datetime:
    # Write first, so that the row is locked before it is read (and SQLite never has to upgrade a lock).
    now = database_now(using)
    Gate.objects.using(using).filter(pk=1).update(ran_at=now, **({"swept_at": now} if sweep else {}))
    return now
