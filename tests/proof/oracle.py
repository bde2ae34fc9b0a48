"""The oracle: compares the sandbox's ledger, event by event, with what the shop's database says.

It shares no code with delivery. A booking is found by the code at the end of its description.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django_koomalooma.models import Commitment, DeliveryAttempt
from django_koomalooma.querysets import database_now
from tests.proof.shop import Order

_CODE = re.compile(r"KL-([A-Z2-7]{12})$")
_NEVER_BOOKED = ("queued", "refused", "cancelled", "skipped")
_CLOCKS = dt.timedelta(milliseconds=250)  # the run's clock is the database's, read over a connection


@dataclass(slots=True)
class Finding:
    """What the oracle saw. Each list names the rows (or bookings) that break a promise."""

    orders: int = 0
    commitments: int = 0
    bookings: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    doubled: list[str] = field(default_factory=list)
    """Booked more often than once, and once more for each time a person sent it again."""
    lost: list[str] = field(default_factory=list)
    """A paid order without points owed, or points owed for an order that was rolled back."""
    false_issued: list[str] = field(default_factory=list)
    """Said to be sent, and not in the ledger exactly as often as it should."""
    false_unsent: list[str] = field(default_factory=list)
    """In the ledger, and said to be waiting, refused, cancelled or without points."""
    stuck: list[str] = field(default_factory=list)
    """Being sent for longer than the lease."""
    unannounced: list[str] = field(default_factory=list)
    """A booking without an attempt that was written before it."""

    @property
    def broken(self) -> dict[str, list[str]]:
        """Return the promises that do not hold, with the rows that show it."""
        names = ("doubled", "lost", "false_issued", "false_unsent", "stuck", "unannounced")
        return {name: rows for name in names if (rows := getattr(self, name))}


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Return the bookings: the durable lines of the sandbox's file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def check(ledger: Iterable[Mapping[str, Any]], *, orders: Iterable[str] | None = None) -> Finding:
    """Compare the ledger with the database.

    Args:
        orders: The references that were paid; by default those in the shop's table of orders.
    """
    finding = Finding()
    booked: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for booking in ledger:
        match = _CODE.search(booking["promotion_goal_description"])
        booked[match[1] if match else f"no code in booking {booking['n']}"].append(booking)
    started: dict[int, list[dt.datetime]] = defaultdict(list)
    for pk, at in DeliveryAttempt.objects.values_list("commitment_id", "started_at"):
        started[pk].append(at)
    now = database_now("default")
    references = set(Order.objects.values_list("reference", flat=True) if orders is None else orders)
    finding.orders, finding.bookings = len(references), sum(map(len, booked.values()))
    for row in Commitment.objects.order_by("pk").iterator():
        finding.commitments += 1
        finding.statuses[row.status] += 1
        bookings = booked.pop(row.trace_key, [])
        _check_row(row, bookings, sorted(started[row.pk]), now, finding)
        if not row.terms.get("before_event"):
            if row.reference not in references:
                finding.lost.append(f"{row.reference}: owed, and never ordered")
            references.discard(row.reference)
    finding.lost += [f"{reference}: paid, and nothing owed" for reference in sorted(references)]
    finding.doubled += [f"{code}: booked, and not in the database" for code in booked]
    return finding


def resends(row: Commitment) -> int:
    """Return how often a person had it sent again though it might have arrived."""
    return row.decisions.filter(what="send_again").count()


def _check_row(
    row: Commitment,
    bookings: list[Mapping[str, Any]],
    started: list[dt.datetime],
    now: dt.datetime,
    finding: Finding,
) -> None:
    name, count = f"{row.reference} ({row.status})", len(bookings)
    again = resends(row)
    if count > 1 + again:
        finding.doubled.append(f"{name}: booked {count} times")
    if row.status == "issued" and not 1 <= count <= 1 + again:
        finding.false_issued.append(f"{name}: booked {count} times")
    if row.status in _NEVER_BOOKED and count and not (row.status == "queued" and again):
        finding.false_unsent.append(f"{name}: booked {count} times")
    if count and row.status == "sending" and row.due_at is not None and row.due_at > now:
        finding.false_unsent.append(f"{name}: booked, and its lease has not ended: look again later")
    if row.status == "sending" and row.due_at is not None and row.due_at <= now:
        finding.stuck.append(f"{name}: its lease ended at {row.due_at}")
    for booking, at in zip(bookings, started, strict=False):
        if at > dt.datetime.fromisoformat(booking["at"]) + _CLOCKS:
            finding.unannounced.append(f"{name}: booked before its attempt was written")
    if count > len(started):
        finding.unannounced.append(f"{name}: {count} bookings, {len(started)} attempts")
