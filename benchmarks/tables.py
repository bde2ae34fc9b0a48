"""Leases from tables of many sizes, and the staff's list over them: plays in a process of its own."""

from __future__ import annotations

import datetime as dt
import statistics
import time
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from benchmarks import rows
from django_koomalooma.leasing import Leasing
from django_koomalooma.models import Commitment, DeliveryAttempt
from django_koomalooma.policy import get_policy

CUSTOMERS = 1000
DUE = 100
_clients: list[Client] = []


def prepare(size: int, due: int = 0) -> None:
    """Fill the table with so many finished commitments and some that are due."""
    rows.prepare(CUSTOMERS)
    with rows.without_indexes():
        for start in range(0, size, 500_000):
            rows.finish(min(500_000, size - start), customers=CUSTOMERS)
    if due:
        rows.queue(due, customers=CUSTOMERS)
    rows.analyze()


def lease_empty(times: int) -> float:
    """Return the median seconds of a lease that finds nothing."""
    hold = Commitment.objects.filter(status="queued")
    due = list(hold.values_list("pk", flat=True))
    hold.update(due_at=timezone.now() + dt.timedelta(days=1))
    try:
        return _lease(times, 0)
    finally:
        Commitment.objects.filter(pk__in=due).update(due_at=timezone.now() - dt.timedelta(hours=1))


def lease_due(times: int) -> float:
    """Return the median seconds of a lease that takes a hundred."""
    return _lease(times, DUE)


def _lease(times: int, expected: int) -> float:
    seen = []
    for _ in range(times):
        leasing = Leasing("default", get_policy(), timezone.now)
        started = time.perf_counter()
        calls, _found = leasing.lease(DUE)
        seen.append(time.perf_counter() - started)
        if len(calls) != expected:
            raise RuntimeError(f"{len(calls)} leased, {expected} expected")
        pks = [call.pk for call in calls]
        DeliveryAttempt.objects.filter(commitment__in=pks)._raw_delete(connection.alias)
        past = timezone.now() - dt.timedelta(hours=1)
        Commitment.objects.filter(pk__in=pks).update(status="queued", due_at=past, lease=None, tries=0)
    return statistics.median(seen)


def pages(deep: int) -> dict[str, str]:
    """Return the addresses of the staff's list: plain, each filter, searches, a deep page."""
    last = Commitment.objects.order_by("-pk")[0]
    queries = {
        "plain": "",
        "status: sent": "status=issued",
        "status: waiting": "status=queued",
        "status: on hold": "status=held",
        "status: unclear": "status=in_doubt",
        "status: needs a decision": "status=decide",
        "rewarded for": "goal=signup",
        "campaign": "campaign=1",
        "no campaign": "campaign=none",
        "recorded: past 30 days": "recorded=30",
        "recorded: longer ago": "recorded=older",
        "search: order number": f"q={last.reference}",
        "search: code": f"q=KL-{last.trace_key}",
        "search: e-mail address": "q=shopper7@example.com",
        "search: nothing found": "q=nothing-like-it",
        "deep page": f"p={deep}",
    }
    address = reverse("admin:koomalooma_commitment_changelist")
    return {name: f"{address}?{query}" for name, query in queries.items()}


def look(address: str, times: int) -> float:
    """Return the median seconds of a page."""
    client, seen = _client(), []
    for _ in range(times):
        started = time.perf_counter()
        answer = client.get(address)
        seen.append(time.perf_counter() - started)
        if answer.status_code != 200:
            raise RuntimeError(f"{address}: HTTP {answer.status_code}")
    return statistics.median(seen)


def shown(address: str) -> int:
    """Return how many rows a page shows."""
    return len(_client().get(address).context_data["cl"].result_list)


def statements(address: str) -> int:
    """Return how many statements of a page are the list's: session and user are Django's own."""
    with CaptureQueriesContext(connection) as queries:
        _client().get(address)
    own = [query["sql"] for query in queries.captured_queries]
    return sum(not any(table in sql for table in ("django_session", 'FROM "auth_user" WHERE')) for sql in own)


def _client() -> Any:
    if not _clients:
        user = get_user_model().objects.create_superuser("staff", password="x")
        client = Client(SERVER_NAME="localhost")
        client.force_login(user)
        _clients.append(client)
    return _clients[0]
