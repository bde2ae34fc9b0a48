"""Databases that fail at the worst moment: connection killed, deadlock, serialization failure, lock, down."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from django_koomalooma import leasing, recording
from django_koomalooma.delivery import deliver_due
from django_koomalooma.models import Commitment, DeliveryAttempt, KoomaloomaUser
from django_koomalooma.querysets import CommitmentQuerySet
from django_koomalooma.sender import Sender
from tests.proof import shop
from tests.proof.conftest import VENDORS
from tests.proof.stage import Stage
from tests.proof.threads import Thread, elsewhere

pytestmark = pytest.mark.proof

with_connections = pytest.mark.parametrize("vendor", VENDORS[1:])


def kill_connection() -> None:
    """Kill this thread's connection from another one, as a restart or a failover would."""
    raw: Any = connection.connection
    if connection.vendor == "postgresql":
        sql = f"SELECT pg_terminate_backend({raw.info.backend_pid})"
    else:
        sql = f"KILL {raw.thread_id()}"

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    elsewhere(run)
    time.sleep(0.1)


def do_at(
    monkeypatch: pytest.MonkeyPatch,
    holder: Any,
    name: str,
    act: Callable[[], Any],
    *,
    after: bool = False,
    at: int = 1,
) -> None:
    """Let ``act`` happen before, or after, one call of a function."""
    function, calls = getattr(holder, name), iter(range(1, 1000))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        is_now = next(calls) == at
        if is_now and not after:
            act()
        result = function(*args, **kwargs)
        if is_now and after:
            act()
        return result

    monkeypatch.setattr(holder, name, wrapped)


@with_connections
def test_a_connection_killed_before_the_lease_costs_a_run_and_no_points(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.pay("ORDER")
    do_at(monkeypatch, leasing.Leasing, "lease", kill_connection)

    with pytest.raises(OperationalError):
        deliver_due()
    sent = stage.sandbox.requests()["count"]
    stage.drain()

    assert sent == 0
    assert stage.check().statuses == {"issued": 1}
    assert stage.check().broken == {}


@with_connections
@pytest.mark.parametrize("after", [False, True], ids=["before the update", "after it"])
def test_a_connection_killed_in_the_lease_sends_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    shop.pay("ORDER")
    do_at(monkeypatch, CommitmentQuerySet, "lease", kill_connection, after=after)

    with pytest.raises(OperationalError):
        deliver_due()
    sent = stage.sandbox.requests()["count"]
    status, attempts = Commitment.objects.get().status, DeliveryAttempt.objects.count()
    stage.drain()

    assert (sent, status, attempts) == (0, "queued", 0)
    assert stage.check().statuses == {"issued": 1}


@with_connections
@pytest.mark.parametrize("at", [1, 2, 3], ids=["first statement", "second", "third"])
def test_a_connection_killed_in_the_record_repeats_the_record_and_not_the_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    shop.pay("ORDER")
    do_at(monkeypatch, recording, "guarded_update", kill_connection, at=at)

    run = deliver_due()

    assert run.issued == 1
    assert stage.check().broken == {}
    assert stage.sandbox.requests()["calls"]["commitments"] == 1


def test_a_database_that_stays_down_at_the_record_leaves_it_in_doubt_and_unsent_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.pay("ORDER")

    write, failures = (
        recording.Recording._write,
        iter(range(6)),
    )  # three for the record, three more when the run ends

    def fail(*args: Any, **kwargs: Any) -> Any:
        if next(failures, None) is not None:
            raise OperationalError("the database is down")
        return write(*args, **kwargs)

    monkeypatch.setattr(recording, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(recording.Recording, "_write", fail)
    with contextlib.suppress(OperationalError):
        deliver_due()
    stage.drain()

    assert stage.check().broken == {}
    assert stage.check().statuses == {"in_doubt": 1}
    assert stage.sandbox.requests()["calls"]["commitments"] == 1


@with_connections
def test_a_deadlock_at_the_record_repeats_the_record_and_not_the_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shop.pay("ONE"), shop.pay("TWO")
    locked = threading.Event()

    def lock_backwards() -> None:
        with transaction.atomic():
            Commitment.objects.filter(pk=second.pk).update(site="")
            locked.set()
            time.sleep(0.5)
            Commitment.objects.filter(pk=first.pk).update(site="")

    rivals: list[Thread] = []

    def start_rival() -> None:
        rivals.append(Thread(lock_backwards))
        locked.wait(5)

    stage.sandbox.latency = 0.1
    do_at(monkeypatch, recording, "guarded_update", start_rival)
    run = deliver_due()
    rivals[0].outcome()

    assert run.issued == 2
    assert stage.check().broken == {}


@pytest.mark.postgres
@pytest.mark.parametrize("vendor", ["postgres"])
def test_a_serialization_failure_at_the_record_repeats_the_record_and_not_the_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from psycopg import IsolationLevel

    shop.pay("ORDER")
    connection.close()
    options = {"isolation_level": IsolationLevel.SERIALIZABLE}
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
    failures: list[BaseException] = []
    write = recording.Recording._write

    def note(self: recording.Recording, *args: Any, **kwargs: Any) -> Any:
        try:
            return write(self, *args, **kwargs)
        except OperationalError as error:
            failures.append(error)
            raise

    monkeypatch.setattr(recording.Recording, "_write", note)
    do_at(
        monkeypatch,
        recording,
        "guarded_update",
        lambda: elsewhere(lambda: KoomaloomaUser.objects.update(remote_id="edited by staff")),
        at=2,
    )
    run = deliver_due()

    assert "could not serialize" in str(failures[0])
    assert run.issued == 1
    assert stage.check().broken == {}


def test_a_locked_sqlite_repeats_the_record_and_not_the_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.pay("ORDER")
    rival = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)

    def lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 50")
        rival.execute("BEGIN IMMEDIATE")
        threading.Timer(0.4, rival.rollback).start()

    do_at(monkeypatch, recording.Recording, "record", lock)
    run = deliver_due()
    rival.close()

    assert run.issued == 1
    assert stage.check().broken == {}


# -- ATOMIC_REQUESTS


def pay_view(request: HttpRequest) -> HttpResponse:
    shop.pay(request.GET["reference"])
    if "fail" in request.GET:
        raise LookupError("a bug in the shop, after the order was paid")
    return HttpResponse("paid")


def deliver_view(request: HttpRequest) -> HttpResponse:
    deliver_due()
    return HttpResponse("delivered")


urlpatterns = [path("pay", pay_view), path("deliver", deliver_view)]


@pytest.fixture
def browser(stage: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    settings.ROOT_URLCONF = __name__
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    return Client(raise_request_exception=False)


def test_an_atomic_request_that_fails_leaves_neither_order_nor_points(stage: Stage, browser: Client) -> None:
    answers = [
        browser.get("/pay?reference=GOOD").status_code,
        browser.get("/pay?reference=BAD&fail=1").status_code,
    ]
    stage.drain()

    assert answers == [200, 500]
    finding = stage.check()
    assert finding.broken == {}
    assert (finding.orders, finding.commitments, finding.bookings) == (1, 1, 1)


def test_a_delivery_inside_an_atomic_request_is_refused_and_sends_nothing(
    stage: Stage, browser: Client
) -> None:
    shop.pay("ORDER")

    answer = browser.get("/deliver")

    assert answer.status_code == 500
    assert (Commitment.objects.get().status, stage.sandbox.requests()["count"]) == ("queued", 0)


def test_a_database_that_dies_with_calls_still_waiting_lets_no_more_of_them_go(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.KOOMALOOMA_LEASE = 4
    for number in range(8):
        shop.pay(f"ORDER-{number}", customer=f"customer-{number}")

    begun: list[int] = []

    def count() -> int:
        return int(stage.sandbox.requests()["calls"].get("commitments", 0))

    def fail(*args: Any, **kwargs: Any) -> Any:
        begun.append(count())
        raise OperationalError("the database is down")

    stage.sandbox.latency = 0.1
    monkeypatch.setattr(recording, "PAUSES", (0.7,))
    monkeypatch.setattr(Sender, "_grow", one_thread(Sender._grow))
    with monkeypatch.context() as patch:
        patch.setattr(recording.Recording, "_write", fail)
        with pytest.raises(OperationalError):
            deliver_due()
    stage.drain()

    # Twice for the record, and then the run ends: from there on only what is under way may still arrive.
    assert count() <= begun[2] + 1 < 8
    assert stage.check().broken == {}
    assert stage.check().statuses == {"in_doubt": 8}


def one_thread(grow: Callable[[Sender, int], None]) -> Callable[[Sender, int], None]:
    return lambda sender, wanted: grow(sender, 1)
