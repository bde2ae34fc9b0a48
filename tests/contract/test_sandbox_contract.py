"""The sandbox takes what koomalooma's document allows, refuses what it does not, and answers in its words."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from openapi_core.exceptions import OpenAPIError

from django_koomalooma.sandbox import Sandbox

from ..sandbox_client import COMMITMENT, COMMITMENTS, HEADERS, USER
from .document import check_answer, check_request

NO_TOKEN = {"Content-Type": "application/json"}
USER_CASES = [
    pytest.param("/api/users", HEADERS, USER, 201, id="user"),
    pytest.param("/api/users", HEADERS, USER | {"user_session_id": ""}, 201, id="user, empty session"),
    pytest.param("/api/users", HEADERS, USER | {"more": 1}, 201, id="user, one field more"),
    pytest.param("/api/users", NO_TOKEN, USER, 403, id="user, no token"),
    pytest.param("/api/users", HEADERS, [], 400, id="user, a list"),
    *(
        pytest.param(
            "/api/users", HEADERS, {k: v for k, v in USER.items() if k != field}, 400, id=f"no {field}"
        )
        for field in USER
    ),
    *(pytest.param("/api/users", HEADERS, USER | {field: 7}, 400, id=f"{field} a number") for field in USER),
]
COMMITMENT_CASES = [
    pytest.param(COMMITMENTS, HEADERS, COMMITMENT, 201, id="commitment"),
    pytest.param(COMMITMENTS, HEADERS, COMMITMENT | {"more": None}, 201, id="commitment, one field more"),
    pytest.param(
        COMMITMENTS, HEADERS, COMMITMENT | {"promotion_goal_description": "Ω 😀 \0"}, 201, id="any character"
    ),
    pytest.param(COMMITMENTS, NO_TOKEN, COMMITMENT, 403, id="commitment, no token"),
    pytest.param(COMMITMENTS, HEADERS, None, 400, id="commitment, null"),
    *(
        pytest.param(
            COMMITMENTS, HEADERS, {k: v for k, v in COMMITMENT.items() if k != field}, 400, id=f"no {field}"
        )
        for field in COMMITMENT
    ),
    *(
        pytest.param(COMMITMENTS, HEADERS, COMMITMENT | {field: 7}, 400, id=f"{field} a number")
        for field in COMMITMENT
    ),
]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        exchange(running, "/api/users", HEADERS, json.dumps(USER).encode())
        yield running


def exchange(sandbox: Sandbox, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(sandbox.host, sandbox.port, timeout=10)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("path", "headers", "body", "expected"), [*USER_CASES, *COMMITMENT_CASES])
def test_the_sandbox_and_the_document_agree(
    sandbox: Sandbox, path: str, headers: dict[str, str], body: object, expected: int
) -> None:
    data = json.dumps(body).encode()
    allowed = False
    with suppress(OpenAPIError):
        check_request("POST", path, headers, data)
        allowed = True

    status, content_type, answer = exchange(sandbox, path, headers, data)

    assert status == expected
    assert (status == 201) == allowed
    check_answer("POST", path, status, content_type, answer)


@pytest.mark.parametrize("campaign", ["summer", "hello"])
def test_strict_campaigns_and_caps_answer_in_the_document_s_words(campaign: str) -> None:
    rules = {"summer": {"percent": 2.5}, "hello": {"points": 80}}
    answers = []
    with Sandbox(campaigns=rules, daily_cap=300) as sandbox:
        exchange(sandbox, "/api/users", HEADERS, json.dumps(USER).encode())
        data = json.dumps(COMMITMENT | {"campaign_id": campaign}).encode()

        for _ in range(5):
            answers.append(exchange(sandbox, COMMITMENTS, HEADERS, data))

    for status, content_type, answer in answers:
        check_answer("POST", COMMITMENTS, status, content_type, answer)
    assert {status for status, _, _ in answers} == {201, 403}


def test_the_fault_odd_types_is_what_the_document_forbids(sandbox: Sandbox) -> None:
    sandbox.misbehave("odd_types")

    status, content_type, answer = exchange(sandbox, COMMITMENTS, HEADERS, json.dumps(COMMITMENT).encode())

    with pytest.raises(OpenAPIError):
        check_answer("POST", COMMITMENTS, status, content_type, answer)
