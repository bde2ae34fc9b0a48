"""kill -9 at each point of an order's way, in a real process; then the sweep alone; then the oracle."""

from __future__ import annotations

import datetime as dt

import pytest

from django_koomalooma.delivery import deliver_due
from django_koomalooma.models import Commitment, Decision, DeliveryAttempt
from django_koomalooma.querysets import database_now
from tests.proof import shop
from tests.proof.stage import Stage, until

pytestmark = pytest.mark.proof

EARN = [
    pytest.param("django_koomalooma.models:Commitment.save:before", 0, id="before the insert"),
    pytest.param("django_koomalooma.models:Commitment.save:after", 0, id="after the insert"),
    pytest.param("django_koomalooma.wakeup:notify:before", 1, id="after the commit, before the wake-up"),
    pytest.param("celery:Celery.send_task:before", 1, id="in the wake-up"),
]
CORE = "django_koomalooma"
# At most one booking, and what is known of it: (point, status after the sweep, bookings)
DELIVER = [
    pytest.param(f"{CORE}.leasing:Leasing.lease:before", "issued", 1, id="before the lease"),
    pytest.param(f"{CORE}.querysets:CommitmentQuerySet.lease:after", "issued", 1, id="in the lease"),
    pytest.param(f"{CORE}.leasing:Leasing.lease:after", "in_doubt", 0, id="after the lease"),
    pytest.param(f"{CORE}.wire:WireHTTPConnection._new_conn:before", "in_doubt", 0, id="while connecting"),
    pytest.param(f"{CORE}.wire:WireCall.raise_flag:before:2", "in_doubt", 0, id="before the first byte"),
    pytest.param("half-body", "in_doubt", 0, id="after half of the body"),
    pytest.param(
        "urllib3.connection:HTTPConnection.getresponse:before:2", "in_doubt", 1, id="after the last byte"
    ),
    pytest.param(f"{CORE}.client:read_body:before:2", "in_doubt", 1, id="after the status line"),
    pytest.param(f"{CORE}.recording:Recording.record:before", "in_doubt", 1, id="before the record"),
    pytest.param(f"{CORE}.recording:guarded_update:after", "in_doubt", 1, id="inside the record"),
    pytest.param(f"{CORE}.recording:Recording.record:after", "issued", 1, id="after the record"),
]


@pytest.mark.parametrize(("point", "orders"), EARN)
def test_a_shop_process_killed_while_earning_leaves_order_and_points_or_neither(
    stage: Stage, point: str, orders: int
) -> None:
    stage.settings["KOOMALOOMA_WAKE_UP"] = True

    stage.killed("pay", "KILLED", points=point, PROOF_BROKER="memory://")

    stage.drain()
    finding = stage.check()
    assert finding.broken == {}
    assert (finding.orders, finding.commitments, finding.bookings) == (orders, orders, orders)


@pytest.mark.parametrize(("point", "status", "bookings"), DELIVER)
def test_a_worker_killed_while_delivering_neither_loses_nor_doubles(
    stage: Stage, point: str, status: str, bookings: int
) -> None:
    shop.pay("KILLED")

    stage.killed("deliver", points=point)
    if status == "in_doubt" and bookings:
        until(stage.sandbox.bookings, what="the booking of what was sent")
    stage.drain()

    finding = stage.check()
    assert finding.broken == {}
    assert (Commitment.objects.get().status, finding.bookings) == (status, bookings)


def test_a_killed_worker_leaves_its_attempt_as_a_witness(stage: Stage) -> None:
    shop.pay("KILLED")

    stage.killed("deliver", points=f"{CORE}.recording:Recording.record:before")

    row = Commitment.objects.get()
    attempt = DeliveryAttempt.objects.get()
    assert (row.status, row.lease, row.tries) == ("sending", attempt.lease, 1)
    assert (attempt.ended_at, attempt.outcome) == (None, "")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sweep_killed_while_parking_is_finished_by_the_next(stage: Stage, when: str) -> None:
    shop.pay("KILLED")
    stage.killed("deliver", points=f"{CORE}.recording:Recording.record:before")
    until(lambda: Commitment.objects.abandoned(database_now("default")).exists(), what="the end of the lease")

    stage.killed("deliver", points=f"{CORE}.querysets:CommitmentQuerySet.update:{when}")
    stage.drain()

    assert stage.check().broken == {}
    assert Commitment.objects.get().status == "in_doubt"


@pytest.mark.parametrize(
    ("point", "decided"),
    [
        pytest.param(f"{CORE}.review.rows:keep_decision:before", False, id="after the update"),
        pytest.param(f"{CORE}.review.rows:keep_decision:after", False, id="after its line of history"),
        pytest.param(f"{CORE}.review.rows:_write:after", True, id="after the commit"),
    ],
)
def test_a_process_killed_in_a_person_s_decision_has_decided_or_not(
    stage: Stage, point: str, decided: bool
) -> None:
    shop.pay("UNCLEAR")
    stage.sandbox.misbehave("close_after_booking")
    deliver_due()
    DeliveryAttempt.objects.update(started_at=database_now("default") - dt.timedelta(hours=1))

    stage.killed("settle", "send_again", '{"why": "support says it is not there"}', points=point)
    stage.drain()

    finding = stage.check()
    assert finding.broken == {}
    assert finding.bookings == (2 if decided else 1)
    assert finding.statuses == ({"issued": 1} if decided else {"in_doubt": 1})
    assert Decision.objects.count() == int(decided)


def test_a_killed_worker_puts_at_most_its_window_in_doubt(stage: Stage) -> None:
    for number in range(20):
        shop.pay(f"ORDER-{number}", customer=f"customer-{number}")

    stage.killed("deliver", points=f"{CORE}.recording:Recording.record:before")
    stage.drain()

    finding = stage.check()
    assert finding.broken == {}
    assert finding.statuses["in_doubt"] <= 8
    assert finding.statuses["issued"] == 20 - finding.statuses["in_doubt"]
