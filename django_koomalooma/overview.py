"""What the admin's first page says: how sending stands in a sentence, what needs a decision, how many.

Never counts further than :data:`MOST`, so that it costs the same over a million rows as over two hundred.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from django.db import connections, router
from django.db.models import QuerySet, Subquery

from . import gate, review
from .conf import conf
from .history import LATE_ANSWER
from .models import Campaign, Commitment, Decision, Gate
from .querysets import database_now
from .status import (
    HOW_TO_RECORD,
    SWEEP_LATE,
    age,
    find_unrecorded,
    lacks_first_sweep,
    moment,
    without_campaign,
)
from .statuses import CommitmentStatus

MOST: Final = 1000
SHOWN: Final = 10

_S = CommitmentStatus


class _Capped(Subquery):
    """The number of rows of a sliced query."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) capped)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How sending stands: ``tone`` is ``good``, ``warning`` or ``bad``; ``code`` says why it is stopped."""

    tone: str
    headline: str
    detail: str = ""
    code: str = ""
    next_probe_at: dt.datetime | None = None

    @property
    def choices(self) -> list[review.Choice]:
        """What a person can decide about it now."""
        return review.choices(self.code)

    @property
    def can_go_on(self) -> bool:
        """Whether “Go on” tries at once what is tried again by itself later."""
        return any(choice.name == "go_on" for choice in self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number that links to its list; ``query`` is the list's filter."""

    label: str
    number: str
    query: str
    is_empty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that the first page shows."""

    sending: Sending
    tiles: list[Tile]
    undecided: list[Commitment]
    has_more: bool
    lacks_campaign: bool


def read_overview() -> Overview:
    """Read the first page: counts in one statement, and the oldest that wait for a person."""
    counts = _read_counts()
    sending = _describe(counts)
    if unrecorded := find_unrecorded():
        told = " ".join(part for part in (HOW_TO_RECORD, sending.headline, sending.detail) if part)
        sending = replace(sending, tone="bad", headline=unrecorded, detail=told)
    tiles = [
        _tile(str(_S.QUEUED.label), counts["due"], "status=queued"),
        _tile("On hold", counts["held"], "status=held"),
    ]
    for status in (_S.SENDING, _S.ISSUED, _S.IN_DOUBT, _S.REFUSED, _S.WRITTEN_OFF, _S.CANCELLED, _S.SKIPPED):
        tiles.append(_tile(str(status.label), counts[status], f"status={status.value}"))
    tiles.append(_tile("No campaign", counts["unrewarded"], "status=skipped&campaign=none"))
    tiles.append(_over_issued_tile(counts))
    undecided = _read_undecided()
    return Overview(
        sending=sending,
        tiles=tiles,
        undecided=undecided[:SHOWN],
        has_more=len(undecided) > SHOWN,
        lacks_campaign=not counts["campaigns"],
    )


def read_sending() -> Sending:
    """Say how sending stands, for the head of every page."""
    return _describe(_read_counts())


def read_stop() -> Sending | None:
    """Say why sending is stopped, in one statement, for the head of every list; ``None`` while it is not."""
    state = gate.state()
    if conf.mode == "live" and state.is_sending:
        return None
    return _describe_stop(state, "")


def _read_counts() -> dict[str, Any]:
    gate.read()  # makes the row at the first call
    using = router.db_for_write(Commitment)
    rows = Commitment.objects.using(using).order_by()
    now = database_now(using)
    due = rows.due(now)
    queries: dict[str, QuerySet[Any]] = {status.value: rows.filter(status=status) for status in _S} | {
        "due": due.order_by(),
        "held": rows.filter(status=_S.QUEUED, due_at__gt=now),
        "unrewarded": without_campaign(rows),
        "campaigns": Campaign.objects.using(using).order_by().running(now),
    }
    if connections[using].features.supports_partial_indexes:
        queries["over_issued"] = rows.over_issued()
    numbers = {name: _Capped(query.values("pk")[: MOST + 1]) for name, query in queries.items()}
    counts = (
        Gate.objects.using(using)
        .annotate(
            **{f"n_{name}": number for name, number in numbers.items()},
            oldest=Subquery(due.values("due_at")[:1]),
            first=Subquery(rows.order_by("pk").values("created_at")[:1]),
        )
        .values()
        .get(pk=1)
    )
    return {name.removeprefix("n_"): value for name, value in counts.items()} | {"now": now}


def _describe_stop(state: gate.State, waiting: str) -> Sending:
    if conf.mode == "dry_run":
        detail = "This is a dry run: every order is recorded, nothing leaves (KOOMALOOMA_MODE)."
        return Sending(tone="warning", headline="Not sending.", detail=detail, code="mode")
    if conf.mode == "off":
        detail = "It is switched off: nothing is recorded (KOOMALOOMA_MODE)."
        return Sending(tone="bad", headline="Not sending.", detail=detail, code="mode")
    if state.code == gate.Cause.NO_TOKEN and state.reason != gate.TOKEN_IS_THERE:
        missing = "KOOMALOOMA_API_TOKEN" if conf.partner_id else "KOOMALOOMA_PARTNER_ID"
        return Sending(
            tone="warning",
            headline=f"Not sending. No token yet.{waiting and f' {waiting} recorded, nothing lost.'}",
            detail=f"koomalooma's support hands it out. Your developer puts it into {missing}.",
            code=state.code,
        )
    return Sending(
        tone="warning" if state.code == gate.Cause.NO_TOKEN else "bad",
        headline=f"Not sending.{waiting and f' {waiting} waiting, nothing lost.'}",
        detail=state.reason,
        code=state.code,
        next_probe_at=state.next_probe_at,
    )


def _describe(counts: Mapping[str, Any]) -> Sending:
    state = gate.state()
    waiting, now = _number(counts["due"]), counts["now"]
    if conf.mode != "live" or not state.is_sending:
        return _describe_stop(state, _orders(counts[_S.QUEUED]))
    last = max((at for at in (counts["ran_at"], counts["swept_at"]) if at), default=None)
    if counts["due"] and now - (last or counts["first"]) > SWEEP_LATE:
        since = f"since {moment(last)}" if last else "so far"
        return Sending(
            tone="bad",
            headline=f"Nobody is sending. No worker or cron {since}. Tell your developer.",
            detail=f"{_orders(counts['due'])} waiting, nothing lost.",
        )
    if not counts["campaigns"]:
        return Sending(
            tone="warning",
            headline=f"No campaign. {_number(counts['unrewarded'])} paid orders earned nothing.",
            detail="Add a campaign from koomalooma's panel; then give points for those orders after all.",
        )
    swept_at = counts["swept_at"]
    detail = ""
    if counts["first"] and now - (swept_at or counts["first"]) > SWEEP_LATE:
        since = f"since {moment(swept_at)}" if swept_at else "so far"
        detail = (
            f"The regular sweep has not run {since}: what is held or fails would wait. Tell your developer."
        )
    elif counts["due"] and lacks_first_sweep(swept_at, counts["oldest"], now):
        detail = "No sweep so far: neither Celery beat nor cron is running. Tell your developer."
    elif counts["is_careful"]:
        detail = "One at a time, until the first succeeds."
    headline = f"Sending. {waiting} waiting, oldest {age(counts['oldest'], now)}." if counts["due"] else ""
    return Sending(
        tone="warning" if detail else "good",
        headline=headline or "Sending. Nothing is waiting.",
        detail=detail,
    )


def _read_undecided() -> list[Commitment]:
    """Return the oldest that wait for a person, one more than is shown; each status by its own index."""
    rows = Commitment.objects.using(router.db_for_write(Commitment)).select_related("user", "campaign")
    found: list[Commitment] = []
    for status in (_S.IN_DOUBT, _S.REFUSED):
        found += rows.filter(status=status).order_by("id")[: SHOWN + 1]
    late = Decision.objects.using(rows.db).filter(what=LATE_ANSWER).order_by("-id").values("commitment")
    overruled = [row["commitment"] for row in late[:100]]
    if overruled:
        found += rows.filter(pk__in=overruled, status__in=[_S.WRITTEN_OFF, _S.CANCELLED])
    return sorted(found, key=lambda row: row.pk)[: SHOWN + 1]


def _number(count: int) -> str:
    return f"{count:,}" if count <= MOST else f"more than {MOST:,}"


def _orders(count: int) -> str:
    return f"{_number(count)} order{'' if count == 1 else 's'}"


def _tile(label: str, count: int, query: str) -> Tile:
    return Tile(
        label=label, number=f"{count:,}" if count <= MOST else f"{MOST:,}+", query=query, is_empty=not count
    )


def _over_issued_tile(counts: Mapping[str, Any]) -> Tile:
    """Count by the partial index; MariaDB has none and would read all that was sent: there the link alone."""
    query, count = "status=over_issued", counts.get("over_issued")
    if count is None:
        return Tile(label="Sent too much", number="…", query=query, is_empty=False)
    return _tile("Sent too much", count, query)
