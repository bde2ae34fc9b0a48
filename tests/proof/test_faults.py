"""Each fault of the sandbox's catalogue through a whole delivery: the commitment's status, and the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from django_koomalooma import gate
from django_koomalooma.delivery import deliver_due
from django_koomalooma.models import Commitment
from django_koomalooma.sandbox import FAULTS
from tests.proof import shop
from tests.proof.stage import Stage, until

pytestmark = pytest.mark.proof

LONG = 1.5  # seconds: longer than a call may take
# (fault, options, status, whether the points are known, bookings)
TABLE: list[tuple[str, dict[str, Any], str, bool, int]] = [
    ("close_before_reading", {}, "in_doubt", False, 0),
    ("reset_before_reading", {}, "in_doubt", False, 0),
    ("part_read", {}, "in_doubt", False, 0),
    ("close_before_booking", {}, "in_doubt", False, 0),
    ("reset_before_booking", {}, "in_doubt", False, 0),
    ("silence_before_booking", {"seconds": LONG}, "in_doubt", False, 0),
    ("close_after_booking", {}, "in_doubt", False, 1),
    ("reset_after_booking", {}, "in_doubt", False, 1),
    ("silence_after_booking", {"seconds": LONG}, "in_doubt", False, 1),
    ("late_201", {"seconds": LONG}, "in_doubt", False, 1),
    ("late_booking", {"seconds": LONG}, "in_doubt", False, 1),
    ("garbage_status_line", {}, "in_doubt", False, 1),
    ("short_body", {}, "issued", False, 1),
    ("stalled_body", {"seconds": LONG}, "issued", False, 1),
    ("reset_body", {}, "issued", False, 1),
    ("bad_gzip", {}, "issued", False, 1),
    ("truncated_json", {}, "issued", False, 1),
    ("empty_body", {}, "issued", False, 1),
    ("html_body", {}, "issued", False, 1),
    ("huge_body", {"bytes": 200_000}, "issued", False, 1),
    ("deep_json", {"depth": 5_000}, "issued", False, 1),
    ("nul_in_body", {}, "issued", True, 1),
    ("odd_types", {}, "issued", True, 1),
    ("drip_status", {"every": 0.2}, "in_doubt", False, 1),
    ("drip_headers", {"every": 0.2}, "issued", False, 1),
    ("drip_body", {"every": 0.2}, "issued", False, 1),
    ("ok_200_commitment", {}, "issued", True, 1),
    ("ok_200_html", {}, "in_doubt", False, 0),
    ("redirect", {"status": 307}, "in_doubt", False, 0),
    ("redirect", {"status": 302}, "in_doubt", False, 0),
    *[("status", {"status": code}, "refused", False, 0) for code in (400, 404, 405, 410, 413, 415, 422)],
    *[("status", {"status": code}, "queued", False, 0) for code in (401, 402, 403, 429)],
    *[("status", {"status": code}, "in_doubt", False, 0) for code in (202, 204, 409, 418, 500, 502, 503)],
    ("status", {"status": 500, "book": True}, "in_doubt", False, 1),
    ("status", {"status": 409, "book": True}, "in_doubt", False, 1),
]


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


def test_the_same_row_refused_twice_with_403_while_others_pass_is_refused(stage: Stage) -> None:
    for number in range(3):
        shop.pay(f"ORDER-{number}", customer=f"customer-{number}")
    stage.sandbox.misbehave("status", status=403, times=1)

    deliver_due()
    gate.resume()
    deliver_due()
    status = sorted(Commitment.objects.values_list("status", flat=True))

    assert status == ["issued", "issued", "issued"]
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
