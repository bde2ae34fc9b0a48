"""Decisions that meet at one instant: two clicks, two people, a person and a delivery run."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable

import pytest
from django.db import connection
from django.utils import timezone

from django_koomalooma import review
from django_koomalooma.client import Verdict
from django_koomalooma.delivery import deliver_due
from django_koomalooma.exceptions import NotAllowed
from django_koomalooma.history import keep_late_answer
from django_koomalooma.models import Commitment, Decision
from django_koomalooma.replies import read_commitment
from django_koomalooma.sandbox import Sandbox
from tests.factories import CommitmentFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _server() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite in memory has one connection: run it with DATABASE_URL of a database server")


def at_once(*calls: Callable[[], object]) -> int:
    """Run the calls at one instant, each over a connection of its own; return how many were refused."""
    barrier, refused = threading.Barrier(len(calls)), []

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except NotAllowed as reason:
            refused.append(reason)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(refused)


def test_many_clicks_send_once_more_only(sandbox: Sandbox) -> None:
    row = CommitmentFactory(in_doubt=True)

    refused = at_once(*[lambda: review.send_again(Commitment.objects.get(pk=row.pk), "ada", why="Lost")] * 8)
    deliver_due()

    assert refused == 7
    assert Decision.objects.filter(what="send_again").count() == 1
    assert len(sandbox.bookings()) == 1


@pytest.mark.parametrize("turn", range(5))
def test_two_people_who_disagree_leave_one_decision(turn: int) -> None:
    row = CommitmentFactory(in_doubt=True)

    at_once(
        lambda: review.settle(Commitment.objects.get(pk=row.pk), "ada"),
        lambda: review.send_again(Commitment.objects.get(pk=row.pk), "bob", why="Lost"),
    )

    decision = Decision.objects.get()
    assert Commitment.objects.get().status == decision.after


@pytest.mark.parametrize("turn", range(5))
def test_cancel_against_a_delivery_run_sends_or_cancels_never_both(sandbox: Sandbox, turn: int) -> None:
    row = CommitmentFactory()

    at_once(lambda: review.cancel(Commitment.objects.get(pk=row.pk), "ada"), deliver_due)

    status = Commitment.objects.get().status
    assert (status, len(sandbox.bookings())) in {("cancelled", 0), ("issued", 1)}


@pytest.mark.parametrize("turn", range(5))
def test_late_proof_against_a_person_leaves_what_was_proved(turn: int) -> None:
    row = CommitmentFactory(in_doubt=True)
    reply = read_commitment(b'{"id": "late-1", "loyalty_units": 500}')
    review.send_again(row, "ada", why="Lost")

    at_once(
        lambda: review.hold(
            Commitment.objects.get(pk=row.pk), "ada", until=timezone.now() + dt.timedelta(days=1)
        ),
        lambda: keep_late_answer(row.pk, Verdict.ANSWERED, reply, "", timezone.now()),
    )

    assert Commitment.objects.get().status == "issued"
