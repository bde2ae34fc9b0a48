"""What a delivery run takes for a backlog, against a bare loop of the same calls: in its own process."""

from __future__ import annotations

import os
import resource
import threading
import time
from typing import Any

import requests
from django.conf import settings
from django.db import connection

from benchmarks import rows
from django_koomalooma.delivery import deliver_due
from django_koomalooma.models import Commitment


def prepare(customers: int) -> None:
    """Make the tables."""
    rows.prepare(customers)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Statements:
    """Counts what is asked of the database driver; BEGIN and COMMIT are not."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        self.count += 1
        return execute(sql, params, many, context)


def _machine() -> tuple[float, float]:
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def loop(count: int) -> dict[str, float]:
    """Make the calls and nothing else: one ``requests.Session``, one after the other, keep-alive."""
    payload = {
        "campaign_id": "campaign-1",
        "transaction_value": "59.97",
        "promotion_goal_description": "Order ORDER-1 KL-ABCDEFGHIJKL",
        "promotion_goal_category": "purchase",
    }
    with requests.Session() as session:
        session.headers["X-KoomaLooma-JWT"] = settings.KOOMALOOMA_API_TOKEN
        cpu, started = _cpu(), time.perf_counter()
        for number in range(count):
            answer = session.post(
                f"{settings.KOOMALOOMA_API_URL}/users/remote-{number}/commitments", json=payload, timeout=20
            )
            if answer.status_code != 201:
                raise RuntimeError(f"HTTP {answer.status_code}")
            answer.json()
        seconds = time.perf_counter() - started
    return {"rate": count / seconds, "cpu": (_cpu() - cpu) / count}


def deliver(
    count: int, *, customers: int, concurrency: int = 32, prepared: bool = False, runs: int = 1
) -> dict[str, float]:
    """Deliver a backlog, all database work included; only the filling of the queue is not."""
    if not prepared:
        fill(count, customers)
    settings.KOOMALOOMA_CONCURRENCY = concurrency
    settings.KOOMALOOMA_RUNS = runs
    statements = _Statements()
    cpu, machine, started = _cpu(), _machine(), time.perf_counter()
    with connection.execute_wrapper(statements):
        run = deliver_due(seconds=600)
    seconds = time.perf_counter() - started
    idle, ticks = (after - before for after, before in zip(_machine(), machine, strict=True))
    if run.stopped or (not prepared and run.issued != count):
        raise RuntimeError(f"{run}")
    return {
        "issued": run.issued,
        "seconds": seconds,
        "rate": run.issued / seconds,
        "cpu": (_cpu() - cpu) / max(run.issued, 1),
        "busy": (_cpu() - cpu) / seconds,
        "idle": idle / max(ticks, 1),
        "statements": statements.count / max(run.issued, 1),
    }


def fill(count: int, customers: int) -> None:
    """Queue a backlog, the only one there is; the database knows its tables, as after its housekeeping."""
    rows.empty()
    rows.queue(count, customers=customers)
    rows.analyze()


def lock_waits(seconds: float) -> int:
    """Return how often a look at PostgreSQL found a statement that waited for a lock."""
    seen, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                " AND query LIKE '%koomalooma_commitment%'"
            )
            seen += cursor.fetchone()[0]
        time.sleep(0.01)
    return seen


def remember(count: int, customers: int) -> list[tuple[int, float]]:
    """Return how much memory was taken while a backlog was delivered, as (rows done, MiB)."""
    rows.queue(count, customers=customers)
    start = Commitment.objects.order_by("pk").values_list("pk", flat=True)[0]
    seen: list[tuple[int, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            done = Commitment.objects.filter(pk__gte=start, status="issued").count()
            seen.append((done, _rss()))
        connection.close()

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        deliver_due(seconds=3600)
    finally:
        ended.set()
        watcher.join()
    seen.append((Commitment.objects.filter(status="issued").count(), _rss()))
    return seen


def _rss() -> float:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
