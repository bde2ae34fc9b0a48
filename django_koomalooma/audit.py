"""Holds the shop's paid orders against the commitments: what is missing, and what is worth something else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from django.db import router
from django.utils import timezone

from . import shops
from .earning import earn
from .events import EarningEvent
from .exceptions import ConfigurationError
from .models import Commitment, make_key

_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """One paid order, and its commitment where there is one."""

    event: EarningEvent
    row: Commitment | None

    @property
    def is_missing(self) -> bool:
        """Whether the order has left no commitment, not even one without points."""
        return self.row is None

    @property
    def is_paid_again(self) -> bool:
        """Whether the order was paid after the shop had withdrawn it: only a person can give the points."""
        if self.row is None or self.row.withdrawn_at is None or self.event.occurred_at is None:
            return False
        paid_at, withdrawn_at = self.event.occurred_at, self.row.withdrawn_at
        if timezone.is_aware(paid_at) != timezone.is_aware(withdrawn_at):
            zone = timezone.get_default_timezone()
            change = timezone.make_naive if timezone.is_aware(paid_at) else timezone.make_aware
            paid_at = change(paid_at, zone)
        return paid_at > withdrawn_at

    @property
    def is_different(self) -> bool:
        """Whether the order is worth something else than its commitment was told, then or since."""
        if self.row is None or self.row.withdrawn_at is not None:
            return False
        told = {Decimal(self.row.terms.get("value", self.row.net_value)), self.row.net_value}
        return self.event.currency == self.row.terms.get("currency") and self.event.value not in told


def find_orders(since: dt.datetime, until: dt.datetime) -> Iterator[Finding]:
    """Give each paid order of the period with its commitment.

    Args:
        since: Aware.
        until: Aware, not included.

    Raises:
        ConfigurationError: The shop cannot name its paid orders.
    """
    orders = shops.find_orders()
    if orders is None:
        raise ConfigurationError(
            "Nothing names the shop's paid orders: connect a shop or a model, or set KOOMALOOMA_ORDERS to a "
            "function (since, until) that gives them as events."
        )
    batch: list[EarningEvent] = []
    for event in orders(since, until):
        batch.append(event)
        if len(batch) == _AT_A_TIME:
            yield from _match(batch)
            batch = []
    yield from _match(batch)


def _match(events: list[EarningEvent]) -> Iterator[Finding]:
    rows = Commitment.objects.using(router.db_for_write(Commitment))
    keys = [make_key(event.site, event.goal, event.reference) for event in events]
    known = {row.key: row for row in rows.filter(key__in=keys)}
    for key, event in zip(keys, events, strict=True):
        yield Finding(event, known.get(key))


def backfill(finding: Finding) -> Commitment:
    """Record a missing order as if its signal had come, under the campaign of the day it was paid."""
    return earn(finding.event)
