"""What a shop writes to connect by functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django.db import connection

from django_koomalooma.events import Amendment, Cancellation, EarningEvent

from .models import Order


def paid(sender: Any, order: Order, **kwargs: Any) -> EarningEvent | None:
    """Return a purchase, unless the order is a test."""
    if order.is_test:
        return None
    assert order.customer
    return EarningEvent("purchase", order.number, order.total, "EUR", user=order.customer.user, source=order)


def refunded(sender: Any, order: Order, **kwargs: Any) -> Amendment:
    """Return what is left."""
    return Amendment("purchase", order.number, order.total - order.refunded_total)


def cancelled(sender: Any, instance: Order, **kwargs: Any) -> Cancellation:
    """Return the withdrawal."""
    return Cancellation("purchase", instance.number, "The customer sent it back.")


def broken(sender: Any, **kwargs: Any) -> None:
    """Fail, as code does."""
    raise RuntimeError("a mistake in the shop's function")


def broken_query(sender: Any, **kwargs: Any) -> None:
    """Fail in the database, which spoils an open transaction on PostgreSQL."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM no_such_table")


def odd(sender: Any, **kwargs: Any) -> str:
    """Return something else."""
    return "purchase"


def narrow(order: Order) -> None:
    """Take what no receiver can be called with."""


def orders(since: dt.datetime, until: dt.datetime) -> Iterator[EarningEvent]:
    """Yield one order."""
    yield EarningEvent("purchase", "FROM-SETTING", Decimal("1.00"), "EUR", occurred_at=since)
