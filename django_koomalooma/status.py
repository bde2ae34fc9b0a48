"""How things stand, as facts and sentences: for `koomalooma_status`, the admin's first page and the alarms.

Reads and counts; decides and sends nothing. Wrong settings are the checks' work.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from django.db import router
from django.db.models import Count, Min, QuerySet
from django.utils import timezone
from django.utils.timesince import timesince

from . import gate, shops
from .conf import conf
from .deciding import NO_CAMPAIGN
from .models import Campaign, Commitment, DeliveryAttempt, Gate
from .querysets import CommitmentQuerySet, database_now
from .statuses import CommitmentStatus

SWEEP_LATE = dt.timedelta(minutes=15)
"""After this long without a sweep somebody should look; the usual interval is a minute."""
FIRST_SWEEP_LATE = dt.timedelta(minutes=5)
"""After this long something waits in a shop that has never had a sweep: it was not set up."""
OWED_LATE = dt.timedelta(days=1)
HOW_TO_RECORD = "Once it is mended, koomalooma_backfill records what was missed."
_S = CommitmentStatus


class Level(enum.IntEnum):
    """What monitoring should make of it; also the exit code of `koomalooma_status`."""

    FINE = 0
    ATTENTION = 1
    STOPPED = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should look at."""

    level: Level
    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Cap:
    """How much of a cap is used, in points; ``cap`` is ``None`` where it is switched off."""

    word: str
    units: int
    cap: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The facts at one moment, by the database's clock."""

    now: dt.datetime
    mode: str
    gate: gate.State
    counts: Mapping[str, int]
    """Commitments by status; a status without any is 0."""
    due: int
    held: int
    oldest_due_at: dt.datetime | None
    oldest_owed_at: dt.datetime | None
    """Since when the oldest of those that should be sent by now waits, failed tries included."""
    stuck: int
    """Leased by a run that is gone; the next sweep puts them in doubt."""
    without_campaign: int
    campaigns: int
    swept_at: dt.datetime | None
    ran_at: dt.datetime | None
    is_unswept: bool
    """Whether the regular sweep (Celery beat or cron) is missing."""
    caps: tuple[Cap, ...]
    over_issued: int
    """How many were sent with more than they are worth now; koomalooma takes no points back."""
    over_issued_value: Mapping[str, Decimal]
    """By how much, by currency."""
    unrecorded: str
    """A sentence where what the shop tells is not recorded, since a setting is wrong; else ``""``."""

    @property
    def lacks_first_sweep(self) -> bool:
        """Whether something waits, and nothing has ever swept."""
        return lacks_first_sweep(self.swept_at, self.oldest_owed_at, self.now)

    @property
    def recorded(self) -> int:
        """Every commitment there is."""
        return sum(self.counts.values())

    @property
    def is_idle(self) -> bool:
        """Whether wake-ups bring no run either."""
        return self.is_unswept and (self.ran_at is None or self.now - self.ran_at > SWEEP_LATE)

    @property
    def headline(self) -> str:
        """One sentence or two on the state of sending, for a person who is in a hurry."""
        if self.unrecorded:
            return self.unrecorded
        if self.mode != "live":
            return f"Not sending. KOOMALOOMA_MODE is {self.mode}. {self.recorded} recorded."
        if self.gate.code == gate.Cause.NO_TOKEN and self.gate.reason != gate.TOKEN_IS_THERE:
            return f"Not sending. No token yet. {self.recorded} recorded, nothing lost."
        if not self.gate.is_sending:
            return f"Not sending. {self.gate.reason} {self.due} waiting, nothing lost."
        since = f"since {moment(self.swept_at)}" if self.swept_at else "so far"
        if self.is_idle:
            return f"Nobody is sending. No worker or cron {since}. Tell your developer."
        if self.is_unswept:
            return f"Sending, but only when a new order comes: no sweep {since}. Tell your developer."
        if not self.campaigns:
            if not self.without_campaign:
                return "No campaign yet: nothing earns points."
            return f"No campaign. {self.without_campaign} paid orders earned nothing."
        if not self.due:
            return "Sending. Nothing is waiting."
        waiting = f"{self.due} waiting, oldest {age(self.oldest_owed_at, self.now)}."
        if self.lacks_first_sweep:
            return f"{waiting} No sweep so far. Tell your developer."
        return f"Sending. {waiting}"

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What a person should look at, the worst first."""
        return tuple(sorted(self._find_problems(), key=lambda problem: -problem.level))

    @property
    def level(self) -> Level:
        """The worst of the problems."""
        return max((problem.level for problem in self.problems), default=Level.FINE)

    def _find_problems(self) -> list[Problem]:
        found: list[Problem] = []
        attention, stopped = Level.ATTENTION, Level.STOPPED
        if self.unrecorded:
            found.append(Problem(attention, "unrecorded", f"{self.unrecorded} {HOW_TO_RECORD}"))
        if self.mode == "live" and not self.gate.is_sending:
            found.append(Problem(stopped, "stopped", f"Sending is stopped: {self.gate.reason}"))
        if self.is_unswept:
            found.append(
                Problem(
                    stopped if self.is_idle and self.due else attention,
                    "unswept",
                    _say_unswept(self.swept_at, self.now),
                )
            )
        elif self.lacks_first_sweep:
            found.append(Problem(attention, "unswept", _say_unswept(None, self.now)))
        for status, sentence in (
            (_S.IN_DOUBT, "unclear: they may have arrived, a person decides."),
            (_S.REFUSED, "refused by koomalooma: correct and send again, or cancel."),
        ):
            if count := self.counts[status]:
                found.append(Problem(attention, status.value, f"{count} {sentence}"))
        if self.stuck:
            found.append(
                Problem(attention, "stuck", f"{self.stuck} stuck: their worker stopped while sending them.")
            )
        if self.mode == "live" and self.oldest_owed_at and self.now - self.oldest_owed_at > OWED_LATE:
            waited = age(self.oldest_owed_at, self.now)
            found.append(Problem(attention, "late", f"The oldest that should be sent waits for {waited}."))
        if self.mode != "off" and not self.campaigns:
            found.append(Problem(attention, "no_campaign", "No campaign is active: nothing earns points."))
        for cap in self.caps:
            if cap.cap is not None and cap.units >= cap.cap * gate.WARN_AT:
                found.append(
                    Problem(
                        attention,
                        f"{cap.word}_cap",
                        f"{cap.units:,} of the {cap.word} {cap.cap:,} points are used.",
                    )
                )
        return found


def read_status() -> Status:
    """Return how things stand. A handful of statements, each over an index.

    Raises:
        DatabaseError: The database cannot be reached, or its tables are not there yet.
        ConfigurationError: A setting of ours is wrong.
    """
    using = router.db_for_write(Commitment)
    now = database_now(using)
    row = gate.read()
    rows = Commitment.objects.using(using)
    due = rows.due(now).aggregate(count=Count("pk"), oldest=Min("due_at"))
    counts = {
        row["status"]: row["count"] for row in rows.order_by().values("status").annotate(count=Count("pk"))
    }
    over_issued_value = rows.over_issued_value()
    return Status(
        now=now,
        mode=conf.mode,
        gate=gate.state(),
        counts={status.value: counts.get(status.value, 0) for status in _S},
        due=due["count"],
        held=counts.get(_S.QUEUED, 0) - due["count"],
        oldest_due_at=due["oldest"],
        oldest_owed_at=oldest_owed_at(rows, now),
        stuck=rows.abandoned(now).count(),
        without_campaign=without_campaign(rows).count(),
        campaigns=Campaign.objects.using(using).running(now).count(),
        swept_at=row.swept_at,
        ran_at=row.ran_at,
        is_unswept=is_sweep_late(row.swept_at, _first_at(rows), now),
        caps=tuple(Cap(word, rows.issued_units(since), cap) for word, cap, since, _ in gate.cap_periods(now)),
        over_issued=rows.over_issued().count() if over_issued_value else 0,
        over_issued_value=over_issued_value,
        unrecorded=find_unrecorded(),
    )


def find_unrecorded() -> str:
    """Return a sentence where the settings name a shop or a trigger that could not be connected."""
    errors = shops.connection_errors()
    if conf.mode == "off" or not errors:
        return ""
    what = "Not everything is recorded" if shops.connected_shop() else "Orders are not recorded"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{what}: {str(errors[0]).rstrip('.')}{more}."


def without_campaign(rows: QuerySet[Commitment]) -> QuerySet[Commitment]:
    """Keep the paid orders that no campaign rewards, so that all who count them count the same."""
    return rows.filter(status=_S.SKIPPED, reason=NO_CAMPAIGN)


def oldest_owed_at(rows: CommitmentQuerySet, now: dt.datetime) -> dt.datetime | None:
    """Return since when the oldest of those that should be sent by now waits, failed tries included.

    A failed try moves ``due_at``, so for the oldest 500 of those that were tried the first try counts.
    """
    due = rows.due(now)
    oldest = due.values_list("due_at", flat=True).first()
    tried = list(due.filter(tries__gt=0).values_list("pk", flat=True)[:500])
    if not tried:
        return oldest
    attempts = DeliveryAttempt.objects.using(rows.db).filter(commitment__in=tried, number=1)
    first: dt.datetime | None = attempts.aggregate(at=Min("started_at"))["at"]
    return min((at for at in (oldest, first) if at), default=None)


def is_sweep_late(swept_at: dt.datetime | None, first_at: dt.datetime | None, now: dt.datetime) -> bool:
    """Tell whether a sweep is overdue. Before the first event, and without a token, nobody needs one."""
    since = swept_at or first_at
    return conf.mode == "live" and conf.names_token() and since is not None and now - since > SWEEP_LATE


def lacks_first_sweep(swept_at: dt.datetime | None, oldest: dt.datetime | None, now: dt.datetime) -> bool:
    """Tell whether something waits since ``oldest`` for the first sweep of all."""
    if swept_at is not None or oldest is None or conf.mode != "live" or not conf.names_token():
        return False
    return now - oldest > FIRST_SWEEP_LATE


def find_late_sweep() -> str:
    """Return a sentence where the sweep is missing, ``""`` where all is well. Writes nothing.

    Raises:
        DatabaseError: As in :func:`read_status`.
    """
    using = router.db_for_write(Gate)
    row = Gate.objects.using(using).filter(pk=1).first()
    swept_at, now = row.swept_at if row else None, database_now(using)
    if not is_sweep_late(swept_at, _first_at(Commitment.objects.using(using)), now):
        return ""
    return _say_unswept(swept_at, now)


def _first_at(rows: CommitmentQuerySet) -> dt.datetime | None:
    return rows.order_by("pk").values_list("created_at", flat=True).first()


def _say_unswept(swept_at: dt.datetime | None, now: dt.datetime) -> str:
    since = f"for {age(swept_at, now)}" if swept_at else "yet"
    return f"No sweep {since}: neither Celery beat nor cron (koomalooma_deliver) is running."


def age(since: dt.datetime | None, now: dt.datetime) -> str:
    """Return how long ago it was, in words."""
    if since is None:
        return "never"
    seconds = max(int((now - since).total_seconds()), 0)
    if seconds < 120:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return timesince(since, now, depth=1).replace("\xa0", " ")


def moment(at: dt.datetime | None) -> str:
    """Return a time for a person in the project's time zone: the hour alone where it was today."""
    if at is None:
        return "never"
    local = timezone.localtime(at) if timezone.is_aware(at) else at
    today = timezone.localdate() if timezone.is_aware(at) else dt.date.today()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%Y-%m-%d %H:%M}"
