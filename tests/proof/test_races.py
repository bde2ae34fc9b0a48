"""Races on real databases: delivery runs, the sweep, doubled signals, and people, all at the same moment."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
import uuid
from typing import Any

import pytest
from django.db import OperationalError, transaction

from django_koomalooma import delivery, review
from django_koomalooma.delivery import Run, deliver_due
from django_koomalooma.exceptions import NotAllowed
from django_koomalooma.models import Commitment, Decision, DeliveryAttempt
from django_koomalooma.querysets import CommitmentQuerySet, database_now
from tests.proof import shop
from tests.proof.conftest import VENDORS
from tests.proof.stage import Stage, until
from tests.proof.threads import Thread, elsewhere, together

pytestmark = pytest.mark.proof

on_each_database = pytest.mark.parametrize("vendor", VENDORS)


@on_each_database
def test_many_runs_at_a_barrier_send_each_commitment_once(stage: Stage) -> None:
    for number in range(24):
        shop.pay(f"ORDER-{number}", customer=f"customer-{number % 5}")

    runs = together(*[deliver_due] * 4)
    stage.drain()

    # MariaDB may end a run with a deadlock, where several make the same customer: the next one goes on.
    assert {type(run) for run in runs} <= {Run, OperationalError}
    finding = stage.check()
    assert finding.broken == {}
    assert (finding.bookings, finding.statuses) == (24, {"issued": 24})


@on_each_database
def test_two_runs_that_read_the_same_rows_do_not_both_send_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        shop.pay(f"ORDER-{number}")
    both_have_read = threading.Barrier(2)
    lock_due = CommitmentQuerySet.lock_due

    def read_and_wait(self: CommitmentQuerySet, *args: Any) -> list[tuple[Any, ...]]:
        rows = lock_due(self, *args)
        with contextlib.suppress(threading.BrokenBarrierError):
            both_have_read.wait(0.5)  # a database that locks lets only one of them come so far
        return rows

    monkeypatch.setattr(CommitmentQuerySet, "lock_due", read_and_wait)
    together(deliver_due, deliver_due)

    assert stage.check().broken == {}
    assert len(stage.sandbox.bookings()) == 4


def test_a_row_that_another_run_took_after_it_was_read_is_not_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.pay("TAKEN")
    shop.pay("FREE")
    lock_due = CommitmentQuerySet.lock_due

    def read_too_late(self: CommitmentQuerySet, now: dt.datetime, *args: Any) -> list[tuple[Any, ...]]:
        rows = lock_due(self, now, *args)
        # Where the database has no row locks, another run may lease between our read and our write.
        until = now + dt.timedelta(seconds=60)
        taken = Commitment.objects.filter(reference="TAKEN", status="queued")
        taken.update(status="sending", lease=uuid.uuid4(), due_at=until)
        return rows

    monkeypatch.setattr(CommitmentQuerySet, "lock_due", read_too_late)
    deliver_due()

    booked = [booking["promotion_goal_description"][:10] for booking in stage.sandbox.bookings()]
    assert booked == ["Order FREE"]
    assert DeliveryAttempt.objects.filter(commitment__reference="TAKEN").count() == 0


@on_each_database
def test_an_answer_after_the_lease_s_end_overrides_the_sweep(stage: Stage, settings: Any) -> None:
    settings.KOOMALOOMA_READ_TIMEOUT = 5
    shop.pay("LATE")
    stage.sandbox.misbehave("late_201", seconds=1.6)

    slow = Thread(deliver_due)
    until(lambda: Commitment.objects.abandoned(database_now("default")).exists(), what="the lease's end")
    parked, again = together(deliver_due, deliver_due)
    doubt = Commitment.objects.get().status
    slow.outcome()

    assert parked.abandoned + again.abandoned == 1
    assert (doubt, Commitment.objects.get().status) == ("in_doubt", "issued")
    assert stage.check().broken == {}


@on_each_database
@pytest.mark.parametrize("first_commits", [True, False], ids=["commit", "rollback"])
def test_a_signal_doubled_in_two_transactions_leaves_one_row(stage: Stage, first_commits: bool) -> None:
    shop.Order.objects.create(reference="TWICE", value=100)
    shop.paid("OTHER")  # makes customer and campaign cache
    inserted = threading.Event()

    def first() -> None:
        with transaction.atomic():
            shop.paid("TWICE")
            inserted.set()
            time.sleep(0.3)
            if not first_commits:
                raise LookupError("the shop rolled back")

    def second() -> None:
        inserted.wait(5)
        with transaction.atomic():
            shop.paid("TWICE")

    outcomes = together(first, second)
    stage.drain()

    assert [type(outcome) for outcome in outcomes] == [
        type(None) if first_commits else LookupError, type(None)
    ]  # fmt: skip
    assert Commitment.objects.get(reference="TWICE").status == "issued"
    assert len(stage.sandbox.bookings()) == 2


# -- people


def make_unclear(stage: Stage) -> Commitment:
    """Return a commitment in doubt that was booked, its call long ago."""
    shop.pay("UNCLEAR")
    stage.sandbox.misbehave("close_after_booking")
    deliver_due()
    DeliveryAttempt.objects.update(started_at=database_now("default") - dt.timedelta(hours=1))
    return Commitment.objects.get()


@on_each_database
def test_a_double_click_sends_again_once(stage: Stage) -> None:
    row = make_unclear(stage)
    copies = [Commitment.objects.get(pk=row.pk) for _ in range(2)]

    outcomes = together(*[lambda c=copy: review.send_again(c, "clerk", why="not booked") for copy in copies])
    stage.drain()

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Decided", "NotAllowed"]
    assert Decision.objects.filter(what="send_again").count() == 1
    assert len(stage.sandbox.bookings()) == 2
    assert stage.check().broken == {}


@on_each_database
def test_a_person_s_word_stands_against_an_answer_that_comes_late(stage: Stage, settings: Any) -> None:
    settings.KOOMALOOMA_READ_TIMEOUT = 5
    shop.pay("LATE")
    stage.sandbox.misbehave("late_201", seconds=1.6)
    slow = Thread(deliver_due)
    until(lambda: Commitment.objects.abandoned(database_now("default")).exists(), what="the lease's end")
    deliver_due()

    review.give_up(Commitment.objects.get(), "clerk", why="the customer was paid in cash")
    slow.outcome()

    row = Commitment.objects.get()
    assert row.status == "written_off"
    assert "It did arrive" in row.reason
    assert [decision.what for decision in row.decisions.all()] == ["give_up", "late_answer"]
    assert stage.check().broken == {}


@on_each_database
def test_a_person_and_a_late_answer_at_the_same_moment_leave_one_of_the_two(
    stage: Stage, settings: Any
) -> None:
    settings.KOOMALOOMA_READ_TIMEOUT = 5
    for number in range(6):
        shop.pay(f"ORDER-{number}")
        stage.sandbox.misbehave("late_201", seconds=1.6)
    slow = Thread(deliver_due)
    until(lambda: Commitment.objects.abandoned(database_now("default")).count() == 6, what="the leases' end")
    deliver_due()
    rows = list(Commitment.objects.filter(status="in_doubt"))

    until(stage.sandbox.bookings, what="the bookings")
    for row in rows:
        with contextlib.suppress(NotAllowed):
            review.give_up(row, "clerk", why="enough")
        time.sleep(0.1)
    slow.outcome()

    finding = stage.check()
    assert finding.broken == {}
    assert finding.statuses["issued"] + finding.statuses["written_off"] == 6


@on_each_database
def test_an_order_cancelled_while_it_is_leased_is_sent_at_most_once_and_says_so(stage: Stage) -> None:
    from django_koomalooma.earning import cancel

    for number in range(10):
        shop.pay(f"ORDER-{number}")

    together(
        deliver_due,
        lambda: [cancel("purchase", f"ORDER-{number}") for number in range(10)],
    )
    stage.drain()

    finding = stage.check()
    assert finding.broken == {}
    assert finding.statuses["issued"] + finding.statuses["cancelled"] == 10
    over = Commitment.objects.over_issued().count()
    assert over == finding.statuses["issued"]
    assert elsewhere(lambda: Commitment.objects.filter(withdrawn_at__isnull=True).count()) == 0


def test_a_run_that_was_held_up_at_its_first_look_at_the_clock_still_tells_the_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.pay("ORDER")
    readings = iter([1.5, 0.0, 0.0])

    def read_slowly(using: str) -> dt.datetime:
        time.sleep(next(readings, 0.0))
        return database_now(using)

    monkeypatch.setattr(delivery, "database_now", read_slowly)
    deliver_due()

    started = DeliveryAttempt.objects.get().started_at
    assert started <= database_now("default")
    assert stage.check().broken == {}
