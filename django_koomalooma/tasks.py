"""The Celery task. It carries nothing: the table is the queue."""

from __future__ import annotations

from celery import shared_task

from . import delivery
from .conf import HARD_LIMIT, SOFT_LIMIT


@shared_task(  # type: ignore[untyped-decorator]  # Celery ships no types
    name="django_koomalooma.tasks.deliver_due",
    ignore_result=True,
    acks_late=False,
    max_retries=0,
    serializer="json",
    soft_time_limit=SOFT_LIMIT,
    time_limit=HARD_LIMIT,
)
def deliver_due(sweep: bool = True) -> None:
    """Run one delivery. Lost, doubled, late and reordered messages change nothing.

    The limits are given since a shop's global defaults may be shorter, or none.
    """
    delivery.deliver_due(sweep=sweep)
