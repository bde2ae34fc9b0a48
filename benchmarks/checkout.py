"""What an order costs with us and without: plays in a process of its own."""

from __future__ import annotations

import itertools
import random
import time

from celery import Celery
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from kombu.entity import Queue

from benchmarks import rows
from benchmarks.shop.models import check_out
from django_koomalooma import wakeup

_numbers = itertools.count(1)
_prefix = f"{random.getrandbits(40):x}"


def prepare(customers: int) -> None:
    """Make the tables."""
    rows.prepare(customers)


def connect(broker: str) -> None:
    """Let wake-ups go to this broker, and far more often than in life: after each pause of 50 ms."""
    app = Celery("shop", broker=broker)
    # A queue of our own, which goes away by itself.
    app.conf.task_default_queue = "koomalooma-bench"
    app.conf.task_queues = [Queue("koomalooma-bench", queue_arguments={"x-expires": 30_000})]  # type: ignore[no-untyped-call]  # kombu has no types
    app.set_default()
    settings.KOOMALOOMA_WAKE_UP = True
    wakeup.QUIET = wakeup.BACK_OFF = 0.05


def orders(count: int) -> list[float]:
    """Return the seconds that each of so many orders took, with us."""
    return [_order(earns=True) for _ in range(count)]


def duel(count: int) -> dict[str, list[float]]:
    """Return the seconds of so many orders with us and as many without, in an order left to chance."""
    seen: dict[str, list[float]] = {"with": [], "without": []}
    chance = random.Random(count)
    for _ in range(count):
        for earns in chance.sample([True, False], 2):
            seen["with" if earns else "without"].append(_order(earns=earns))
    return seen


def added_statements() -> list[str]:
    """Return what the database gets more with us than without, by the first word."""
    words = {}
    for earns in (True, False):
        with CaptureQueriesContext(connection) as queries:
            _order(earns=earns)
        words[earns] = [query["sql"].split()[0] for query in queries.captured_queries]
    for word in words[False]:
        words[True].remove(word)
    return words[True]


def _order(*, earns: bool) -> float:
    number = next(_numbers)
    users = get_user_model()
    customer = users(pk=1 + number % 200, username=f"shopper{1 + number % 200}")
    started = time.perf_counter()
    check_out(f"{_prefix}-{number}", customer, earns=earns)
    return time.perf_counter() - started
