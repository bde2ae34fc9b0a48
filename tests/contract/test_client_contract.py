"""Every request that PartnerClient puts on the wire, and every answer it takes, is one of the document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from django_koomalooma import exceptions
from django_koomalooma.client import PartnerClient, Verdict
from django_koomalooma.sandbox import Sandbox

from .document import check_answer, check_request


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[PartnerClient]:
    with PartnerClient(sandbox.url, "sandbox-token", "sandbox-partner") as made:
        yield made


def check_wire(sandbox: Sandbox, *, calls: int) -> list[dict[str, Any]]:
    """Hold every exchange that the sandbox read from its sockets against the document."""
    exchanges: list[dict[str, Any]] = sandbox.requests()["last"]
    assert len(exchanges) == calls
    for wire in exchanges:
        check_request(wire["method"], wire["path"], wire["headers"], wire["body"].encode())
        check_answer(
            wire["method"], wire["path"], wire["status"], "application/json", wire["answer"].encode()
        )
    return exchanges


def test_create_user_sends_the_three_fields_and_nothing_else(sandbox: Sandbox, client: PartnerClient) -> None:
    answer = client.create_user("u1", "s1")

    wire = check_wire(sandbox, calls=1)[0]
    assert (wire["method"], wire["path"]) == ("POST", "/api/users")
    assert json.loads(wire["body"]) == {
        "partner_id": "sandbox-partner",
        "partner_user_id": "u1",
        "user_session_id": "s1",
    }
    assert (answer.verdict, answer.http_status) == (Verdict.ANSWERED, 201)
    assert answer.body.decode() == wire["answer"]


def test_create_commitment_sends_the_four_fields_and_nothing_else(
    sandbox: Sandbox, client: PartnerClient
) -> None:
    client.create_user("u1", "s1")

    answer = client.create_commitment("u1", "summer", "100.00", "Order 7 KL-ABC", "books")

    wire = check_wire(sandbox, calls=2)[1]
    assert (wire["method"], wire["path"]) == ("POST", "/api/users/u1/commitments")
    assert json.loads(wire["body"]) == {
        "campaign_id": "summer",
        "transaction_value": "100.00",
        "promotion_goal_description": "Order 7 KL-ABC",
        "promotion_goal_category": "books",
    }
    assert (answer.verdict, answer.http_status) == (Verdict.ANSWERED, 201)
    assert json.loads(answer.body)["loyalty_units"] == 500


@pytest.mark.parametrize(
    "text",
    ["", "Bestellung Ω 😀", '"quoted" \\ and\nbroken', "x" * 10_000, "a/b?c#d%2F e"],
    ids=["empty", "emoji", "quotes", "long", "path"],
)
def test_any_text_travels_as_the_document_wants_it(
    sandbox: Sandbox, client: PartnerClient, text: str
) -> None:
    user = text[:100] or "u1"
    client.create_user(user, text)

    client.create_commitment(user, text, "0.00", text, text)

    check_wire(sandbox, calls=2)
    booking = sandbox.bookings()[0]
    assert booking["user_id"] == user
    assert booking["campaign_id"] == booking["promotion_goal_description"] == text


def test_a_refusal_is_one_of_the_document(sandbox: Sandbox, client: PartnerClient) -> None:
    with pytest.raises(exceptions.Refused):
        client.create_commitment("nobody", "summer", "100.00", "", "")

    assert check_wire(sandbox, calls=1)[0]["status"] == 400


def test_a_wrong_token_is_answered_as_the_document_says(sandbox: Sandbox) -> None:
    with (
        PartnerClient(sandbox.url, "other", "sandbox-partner") as client,
        pytest.raises(exceptions.AccountTrouble),
    ):
        client.create_user("u1", "s1")

    assert check_wire(sandbox, calls=1)[0]["status"] == 403
