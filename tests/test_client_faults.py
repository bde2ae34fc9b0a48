"""PartnerClient judges every fault of the sandbox, and never makes one call twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_koomalooma import exceptions
from django_koomalooma.client import PartnerClient, Verdict
from django_koomalooma.sandbox import FAULTS, Sandbox

#: A 201 counts whatever becomes of its body, and another 2xx when it holds a Commitment; a booking behind
#: anything else is not known to the client.
ISSUED = {
    "short_body",
    "stalled_body",
    "reset_body",
    "bad_gzip",
    "truncated_json",
    "empty_body",
    "html_body",
    "huge_body",
    "deep_json",
    "nul_in_body",
    "odd_types",
    "drip_headers",
    "drip_body",
    "ok_200_commitment",
    "own_user_id",
}
UNCLEAR = {
    "close_before_reading",
    "reset_before_reading",
    "part_read",
    "close_before_booking",
    "reset_before_booking",
    "silence_before_booking",
    "close_after_booking",
    "reset_after_booking",
    "silence_after_booking",
    "late_201",
    "late_booking",
    "garbage_status_line",
    "drip_status",
    "status",
    "ok_200_html",
    "redirect",
}
#: Quick enough for the read time-out, too slow for the total one.
OPTIONS: dict[str, dict[str, Any]] = {
    "drip_status": {"every": 0.2},
    "drip_headers": {"every": 0.05},
    "drip_body": {"every": 0.05},
    "huge_body": {"bytes": 500_000},
}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[PartnerClient]:
    settings = sandbox.settings()
    with PartnerClient(
        settings["KOOMALOOMA_API_URL"],
        settings["KOOMALOOMA_API_TOKEN"],
        settings["KOOMALOOMA_PARTNER_ID"],
        connect_timeout=0.3,
        read_timeout=0.3,
    ) as made:
        made.create_user("u1", "s1")
        yield made


def test_every_fault_has_its_verdict_here() -> None:
    assert sorted([*ISSUED, *UNCLEAR]) == sorted(FAULTS)


@pytest.mark.parametrize("name", sorted(ISSUED))
def test_a_booking_that_was_answered_is_known_whatever_the_body(
    sandbox: Sandbox, client: PartnerClient, name: str
) -> None:
    sandbox.misbehave(name, **OPTIONS.get(name, {}))

    answer = client.create_commitment("u1", "summer", "10.00", "Order 7", "books")

    assert answer.verdict is Verdict.ANSWERED
    assert len(sandbox.bookings()) == 1
    assert sandbox.requests()["calls"] == {"users": 1, "commitments": 1}


@pytest.mark.parametrize("name", sorted(UNCLEAR))
def test_whatever_else_happens_may_have_arrived_and_is_not_sent_twice(
    sandbox: Sandbox, client: PartnerClient, name: str
) -> None:
    sandbox.misbehave(name, **OPTIONS.get(name, {}))

    with pytest.raises(exceptions.MayHaveArrived) as raised:
        client.create_commitment("u1", "summer", "10.00", "Order 7", "books")

    assert raised.value.answer.sent
    assert len(sandbox.bookings()) == (FAULTS[name].books and name != "late_booking")
    assert sandbox.requests()["calls"].get("commitments", 0) == (name != "late_booking")


def test_a_stopped_service_is_unsent_and_a_returned_one_is_used_again(
    sandbox: Sandbox, client: PartnerClient
) -> None:
    sandbox.stop()
    with pytest.raises(exceptions.NotSent):
        client.create_commitment("u1", "summer", "10.00", "Order 7", "books")
    sandbox.start()

    answer = client.create_commitment("u1", "summer", "10.00", "Order 7", "books")

    assert answer.verdict is Verdict.ANSWERED
    assert len(sandbox.bookings()) == 1
