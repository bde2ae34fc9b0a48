"""Our task in a Celery worker beside the usual way, one task per commitment: plays in its own process."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import requests
from django.conf import settings
from django.db import connection
from django.utils import timezone

from benchmarks import rows
from benchmarks.celery_app import app
from django_koomalooma.models import Commitment, DeliveryAttempt


@app.task(name="benchmarks.send_one")  # type: ignore[untyped-decorator]  # Celery has no types
def send_one(pk: int) -> None:
    """Send one commitment as one would who has no outbox: read, write an attempt, call, save both."""
    row = Commitment.objects.select_related("campaign", "user__koomalooma_user").get(pk=pk)
    customer = row.user.koomalooma_user if row.user else None
    if customer is None or row.campaign is None:
        raise LookupError(pk)
    attempt = DeliveryAttempt.objects.create(
        commitment=row, number=1, lease=row.lease or "0" * 32, started_at=timezone.now()
    )
    answer = requests.post(
        f"{settings.KOOMALOOMA_API_URL}/users/{customer.remote_id}/commitments",
        json={
            "campaign_id": row.campaign.remote_id,
            "transaction_value": str(row.net_value),
            "promotion_goal_description": row.description,
            "promotion_goal_category": row.category,
        },
        headers={"X-KoomaLooma-JWT": settings.KOOMALOOMA_API_TOKEN},
        timeout=20,
    )
    answer.raise_for_status()
    reply = answer.json()
    row.status, row.due_at, row.issued_at, row.reply = "issued", None, timezone.now(), reply
    row.remote_id, row.loyalty_units = reply["id"], reply["loyalty_units"]
    row.save()
    attempt.ended_at, attempt.outcome, attempt.http_status = timezone.now(), "answered", answer.status_code
    attempt.save()


def cpu_of(session: int) -> float:
    """Return the CPU seconds of all processes of a session."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_ready() -> None:
    """Wait until the worker answers."""
    until = time.monotonic() + 60
    while not app.control.ping(timeout=0.5):
        if time.monotonic() > until:
            raise TimeoutError("the worker did not start")


def drain(count: int, customers: int, session: int) -> dict[str, float]:
    """Let one wake-up deliver a backlog."""
    rows.empty()
    rows.queue(count, customers=customers)
    cpu, started = cpu_of(session), time.perf_counter()
    app.send_task("django_koomalooma.tasks.deliver_due", kwargs={"sweep": False}, queue="drain")
    return _wait(count, session, cpu, started)


def one_by_one(count: int, customers: int, session: int) -> dict[str, float]:
    """Let one task for each commitment deliver a backlog; they wait in the broker before the clock starts."""
    rows.empty()
    rows.queue(count, customers=customers)
    app.control.cancel_consumer("single", reply=True)
    for pk in Commitment.objects.values_list("pk", flat=True):
        send_one.apply_async((pk,), queue="single")
    cpu, started = cpu_of(session), time.perf_counter()
    app.control.add_consumer("single")
    return _wait(count, session, cpu, started)


def _wait(count: int, session: int, cpu: float, started: float) -> dict[str, float]:
    until = time.monotonic() + 300
    while Commitment.objects.filter(due_at__isnull=False).exists():
        if time.monotonic() > until:
            raise TimeoutError(f"not delivered: {Commitment.objects.filter(due_at__isnull=False).count()}")
        connection.close_if_unusable_or_obsolete()
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    time.sleep(0.3)
    return {"rate": count / seconds, "cpu": (cpu_of(session) - cpu) / count}
