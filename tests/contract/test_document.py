"""The document is the published one, the amendment is the only change, and the check can fail."""

from __future__ import annotations

import copy
import json

import pytest
from openapi_core.exceptions import OpenAPIError

from .document import DOCUMENT, amend, check_answer, check_request

TOKEN = {"X-KoomaLooma-JWT": "t", "Content-Type": "application/json"}
COMMITMENT = {
    "id": "c1",
    "user_id": "u1",
    "partner_id": "p1",
    "loyalty_units": 500,
    "free_loyalty_units": 500,
    "redeemable_loyalty_units": 500,
    "redeemed_loyalty_units": 0,
    "redeemed": False,
    "loyalty_accumulation_value": "5",
    "goal": {"type": "percentage", "value": "5"},
    "confirmation_status": "pending",
    "promotion_goal_description": "",
    "promotion_goal_category": "",
    "created_at": "2026-01-31T12:34:56+00:00",
    "updated_at": "2026-01-31T12:34:56.474Z",
}


def test_the_amendment_adds_one_body_and_changes_nothing_else() -> None:
    amended = amend(DOCUMENT)

    del amended["paths"]["/users"]["post"]["requestBody"]

    assert amended == DOCUMENT


def test_the_document_knows_two_calls_and_no_others() -> None:
    assert {path: sorted(item) for path, item in DOCUMENT["paths"].items()} == {
        "/users": ["post"],
        "/users/{user_id}/commitments": ["post"],
    }


def test_a_whole_commitment_is_allowed() -> None:
    check_answer(
        "POST", "/api/users/u1/commitments", 201, "application/json", json.dumps(COMMITMENT).encode()
    )


@pytest.mark.parametrize("field", COMMITMENT)
def test_a_commitment_without_one_of_its_fifteen_fields_is_not(field: str) -> None:
    rest = copy.deepcopy(COMMITMENT)
    del rest[field]

    with pytest.raises(OpenAPIError):
        check_answer("POST", "/api/users/u1/commitments", 201, "application/json", json.dumps(rest).encode())


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        pytest.param("/api/users", {"Content-Type": "application/json"}, b"{}", id="no token"),
        pytest.param("/api/users", TOKEN, b'{"partner_id": "p"}', id="fields missing"),
        pytest.param("/api/users/u1/commitments", TOKEN, b'{"campaign_id": "c"}', id="commitment too short"),
        pytest.param("/api/users/u1", TOKEN, b"{}", id="unknown path"),
    ],
)
def test_a_request_that_breaks_the_document_is_found(path: str, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(OpenAPIError):
        check_request("POST", path, headers, body)
