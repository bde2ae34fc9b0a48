"""The Celery task. It carries nothing: the table is the queue."""

from __future__ import annotations

from celery import shared_task

from . import delivery


@shared_task(
    name="django_koomalooma.tasks.deliver_due",
    ignore_result=True,
    acks_late=False,
    max_retries=0,
    serializer="json",
    soft_time_limit=95,
    time_limit=110,
)
def deliver_due(sweep: bool = True) -> None:
    """Run one delivery. Lost, doubled, late and reordered messages change nothing.

    The limits stand here since a shop's global defaults may be shorter, or none. Own deadline (30 s, then
    what is in flight) < soft limit < hard limit < lease.
    """
    delivery.deliver_due(sweep=sweep)
