"""Connects the signals that shops send to the verbs of earning.

Never raises into a shop, but where the order's transaction is lost anyway: see :func:`is_order_lost`.
"""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any

from .earning import amend, cancel, earn, is_order_lost
from .events import EarningEvent
from .signals import order_amended, order_cancelled, order_paid

logger = logging.getLogger("django_koomalooma")


def connect() -> None:
    """Connect the three signals."""
    order_paid.connect(on_paid, dispatch_uid="koomalooma")
    order_amended.connect(on_amended, dispatch_uid="koomalooma")
    order_cancelled.connect(on_cancelled, dispatch_uid="koomalooma")


def on_paid(sender: object, event: EarningEvent, **kwargs: object) -> None:
    """Record what the event earns."""
    try:
        earn(event)
    except Exception:
        logger.exception("No points were recorded for %s.", _name(event))
        if is_order_lost():
            raise


def on_amended(
    sender: object, goal: str, reference: str, value: Decimal, site: str = "", **kwargs: object
) -> None:
    """Record what the event is worth now."""
    try:
        amend(goal, reference, value, site)
    except Exception:
        logger.exception("The new value of %s %s was not recorded.", goal, reference)
        if is_order_lost():
            raise


def on_cancelled(
    sender: object, goal: str, reference: str, reason: str = "", site: str = "", **kwargs: object
) -> None:
    """Record that the event was withdrawn."""
    try:
        cancel(goal, reference, reason, site)
    except Exception:
        logger.exception("The withdrawal of %s %s was not recorded.", goal, reference)
        if is_order_lost():
            raise


def _name(event: Any) -> str:
    return f"{getattr(event, 'goal', '?')} {getattr(event, 'reference', '?')}"
