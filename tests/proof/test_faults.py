"""Each fault of the sandbox's catalogue through a whole delivery: the commitment's status, and the ledger."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from django_koomalooma import gate
from django_koomalooma.delivery import deliver_due
from django_koomalooma.models import Commitment
from django_koomalooma.querysets import database_now
from django_koomalooma.sandbox import FAULTS
from tests.proof import shop
from tests.proof.faults import LONG, TABLE
from tests.proof.stage import Stage, until

pytestmark = pytest.mark.proof


@pytest.mark.parametrize(
    ("fault", "options", "status", "is_known", "bookings"),
    TABLE,
    ids=["-".join(map(str, (name, *options.values()))) for name, options, *_ in TABLE],
)
def test_each_fault_ends_in_the_status_that_it_proves(
    stage: Stage, fault: str, options: dict[str, Any], status: str, is_known: bool, bookings: int
) -> None:
    shop.pay("FAULTY")
    stage.sandbox.misbehave(fault, **options)

    deliver_due()

    row = Commitment.objects.get()
    if bookings:
        until(stage.sandbox.bookings, what="the booking")
    finding = stage.check()
    assert (row.status, row.loyalty_units is not None) == (status, is_known)
    assert finding.bookings == bookings
    assert finding.broken == {}


def test_the_table_names_each_fault_of_the_catalogue() -> None:
    assert {name for name, *_ in TABLE} == set(FAULTS) - {"own_user_id"}


@pytest.mark.parametrize("fault", ["close_after_booking", "html_body", "silence_after_booking"])
def test_an_unclear_customer_is_made_again_and_his_points_are_sent_once(stage: Stage, fault: str) -> None:
    shop.pay("FAULTY")
    options = {"seconds": LONG} if fault.startswith("silence") else {}
    stage.sandbox.misbehave(fault, call="users", **options)

    first = deliver_due()
    stage.drain()

    assert first.requeued == 1 or first.issued == 1
    finding = stage.check()
    assert finding.broken == {}
    assert finding.statuses == {"issued": 1}


def test_a_row_that_meets_403_again_while_another_passed_is_refused_and_holds_up_nobody(stage: Stage) -> None:
    bad = shop.pay("BAD", customer="ann")
    stage.sandbox.misbehave("status", status=403)
    deliver_due()
    gate.resume()
    Commitment.objects.filter(pk=bad.pk).update(due_at=database_now("default") + dt.timedelta(hours=1))
    shop.pay("GOOD", customer="bob")
    deliver_due()

    Commitment.objects.filter(pk=bad.pk).update(due_at=database_now("default"))
    stage.sandbox.misbehave("status", status=403)
    deliver_due()

    assert dict(Commitment.objects.values_list("reference", "status")) == {"BAD": "refused", "GOOD": "issued"}
    assert stage.check().broken == {}


def test_all_faults_mixed_leave_no_promise_broken(stage: Stage) -> None:
    for number in range(60):
        shop.pay(f"ORDER-{number}", customer=f"customer-{number % 7}", signals=1 + number % 2)
    for fault, options, *_ in TABLE:
        if "seconds" not in options and "every" not in options:
            stage.sandbox.misbehave(fault, **options)

    stage.drain(30)

    finding = stage.check()
    assert finding.broken == {}
    assert (finding.orders, finding.commitments) == (60, 60)
    assert finding.statuses["issued"] >= 20
