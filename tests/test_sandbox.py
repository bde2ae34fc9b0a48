"""The pretend koomalooma keeps the rules of koomalooma's API document."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from django_koomalooma.sandbox import Sandbox

from .sandbox_client import COMMITMENT, COMMITMENTS, HEADERS, USER, call


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def test_create_user_answers_the_three_fields_of_the_document(sandbox: Sandbox) -> None:
    answer = call(sandbox, "/api/users", USER)

    assert answer == (201, USER)


def test_a_commitment_of_100_euro_gives_500_points_in_a_whole_commitment(sandbox: Sandbox) -> None:
    call(sandbox, "/api/users", USER)

    status, answer = call(sandbox, COMMITMENTS, COMMITMENT)

    booking = sandbox.bookings()[0]
    assert status == 201
    assert answer == {
        "id": booking["id"],
        "user_id": "u1",
        "partner_id": "sandbox-partner",
        "loyalty_units": 500,
        "free_loyalty_units": 500,
        "redeemable_loyalty_units": 500,
        "redeemed_loyalty_units": 0,
        "redeemed": False,
        "loyalty_accumulation_value": "5",
        "goal": {"type": "percentage", "value": "5"},
        "confirmation_status": "confirmed",
        "promotion_goal_description": "Order 7 KL-ABC",
        "promotion_goal_category": "books",
        "created_at": booking["at"],
        "updated_at": booking["at"][:23] + "Z",
    }


@pytest.mark.parametrize(
    ("path", "body", "headers", "method", "status"),
    [
        pytest.param(
            "/api/users", USER, HEADERS | {"X-KoomaLooma-JWT": "other"}, "POST", 403, id="wrong token"
        ),
        pytest.param("/api/users", USER, {"Content-Type": "application/json"}, "POST", 403, id="no token"),
        pytest.param("/api/users", USER | {"partner_id": "other"}, HEADERS, "POST", 403, id="other partner"),
        pytest.param(
            "/api/users", USER, HEADERS | {"Content-Type": "text/plain"}, "POST", 400, id="no JSON type"
        ),
        pytest.param("/api/users", b"{", HEADERS, "POST", 400, id="cut JSON"),
        pytest.param("/api/users", b"\xff", HEADERS, "POST", 400, id="no UTF-8"),
        pytest.param("/api/users", b"[" * 100_000, HEADERS, "POST", 400, id="deep JSON"),
        pytest.param("/api/users", [USER], HEADERS, "POST", 400, id="a list"),
        pytest.param("/api/users", USER | {"partner_user_id": 7}, HEADERS, "POST", 400, id="id is a number"),
        pytest.param("/api/users", USER | {"partner_user_id": ""}, HEADERS, "POST", 400, id="id is empty"),
        pytest.param(
            "/api/users", {"partner_id": "sandbox-partner"}, HEADERS, "POST", 400, id="fields missing"
        ),
        pytest.param("/api/users", None, HEADERS, "GET", 405, id="GET users"),
        pytest.param(COMMITMENTS, COMMITMENT, HEADERS, "PUT", 405, id="PUT commitment"),
        pytest.param("/api/campaigns", {}, HEADERS, "POST", 404, id="unknown path"),
        pytest.param("/users", USER, HEADERS, "POST", 404, id="outside of /api"),
        pytest.param("/api/users/nobody/commitments", COMMITMENT, HEADERS, "POST", 400, id="unknown user"),
        pytest.param(
            COMMITMENTS, COMMITMENT | {"transaction_value": 100.0}, HEADERS, "POST", 400, id="a float"
        ),
        pytest.param(
            COMMITMENTS, COMMITMENT | {"transaction_value": "-1"}, HEADERS, "POST", 400, id="negative"
        ),
        pytest.param(COMMITMENTS, COMMITMENT | {"transaction_value": "NaN"}, HEADERS, "POST", 400, id="NaN"),
        pytest.param(
            COMMITMENTS, COMMITMENT | {"transaction_value": "1e3"}, HEADERS, "POST", 400, id="exponent"
        ),
        pytest.param(
            COMMITMENTS, COMMITMENT | {"transaction_value": "1,000"}, HEADERS, "POST", 400, id="grouping"
        ),
        pytest.param(
            COMMITMENTS,
            COMMITMENT | {"transaction_value": "999999999"},
            HEADERS,
            "POST",
            400,
            id="over int32",
        ),
        pytest.param(
            COMMITMENTS,
            COMMITMENT | {"promotion_goal_category": None},
            HEADERS,
            "POST",
            400,
            id="category null",
        ),
        pytest.param(
            COMMITMENTS, COMMITMENT, {"Content-Type": "application/json"}, "POST", 403, id="no token here"
        ),
    ],
)
def test_what_the_document_does_not_allow_is_refused_and_not_booked(
    sandbox: Sandbox, path: str, body: object, headers: dict[str, str], method: str, status: int
) -> None:
    call(sandbox, "/api/users", USER)

    answered, reason = call(sandbox, path, body, method=method, headers=headers)

    assert answered == status
    assert reason["error"]
    assert sandbox.bookings() == []
    assert [user["partner_user_id"] for user in sandbox.users()] == ["u1"]


def test_a_body_in_chunks_is_refused(sandbox: Sandbox) -> None:
    connection = http.client.HTTPConnection(sandbox.host, sandbox.port, timeout=10)

    connection.request("POST", "/api/users", iter([b"{}"]), HEADERS, encode_chunked=True)
    status = connection.getresponse().status
    connection.close()

    assert status == 411


def test_nonsense_is_answered_400(sandbox: Sandbox) -> None:
    with socket.create_connection((sandbox.host, sandbox.port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")

        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("value", "points"),
    [
        pytest.param("0.00", 0, id="a sign-up"),
        pytest.param("0.10", 1, id="half a point is rounded up"),
        pytest.param("0.09", 0, id="less is rounded down"),
        pytest.param("1234.50", 6173, id="any order"),
    ],
)
def test_any_campaign_gives_five_percent(sandbox: Sandbox, value: str, points: int) -> None:
    call(sandbox, "/api/users", USER)

    _, answer = call(sandbox, COMMITMENTS, COMMITMENT | {"transaction_value": value})

    assert answer["loyalty_units"] == points


@pytest.mark.parametrize(
    ("campaign", "status", "points"),
    [
        pytest.param("summer", 201, [250], id="a percentage"),
        pytest.param("hello", 201, [80], id="fixed points"),
        pytest.param("winter", 400, [], id="unknown"),
    ],
)
def test_strict_knows_only_its_campaigns(campaign: str, status: int, points: list[int]) -> None:
    with Sandbox(campaigns={"summer": {"percent": 2.5}, "hello": {"points": 80}}) as sandbox:
        call(sandbox, "/api/users", USER)

        answered, _ = call(sandbox, COMMITMENTS, COMMITMENT | {"campaign_id": campaign})

    assert answered == status
    assert [booking["loyalty_units"] for booking in sandbox.bookings()] == points


@pytest.mark.parametrize(
    "rule",
    [
        5,
        {"percent": "5"},
        {"percent": -1},
        {"points": 2.5},
        {"points": True},
        {"percent": 5, "points": 5},
        {},
    ],
    ids=str,
)
def test_a_campaign_that_cannot_be_read_is_named(rule: object) -> None:
    with pytest.raises(ValueError, match="campaign 'summer' must be"):
        Sandbox(campaigns={"summer": rule})


def test_a_user_id_is_decoded_from_the_path(sandbox: Sandbox) -> None:
    call(sandbox, "/api/users", USER | {"partner_user_id": "a/b é"})

    status, answer = call(sandbox, "/api/users/a%2Fb%20%C3%A9/commitments", COMMITMENT)

    assert (status, answer["user_id"]) == (201, "a/b é")


def test_a_connection_serves_many_requests(sandbox: Sandbox) -> None:
    connection = http.client.HTTPConnection(sandbox.host, sandbox.port, timeout=10)
    ports = set()

    for _ in range(3):
        connection.request("POST", "/api/users", json.dumps(USER), HEADERS)
        connection.getresponse().read()
        ports.add(connection.sock.getsockname()[1])
    connection.close()

    assert len(ports) == 1


def test_the_record_of_requests_never_shows_the_token(sandbox: Sandbox) -> None:
    call(sandbox, "/api/users", USER)

    record = sandbox.requests()

    assert record["calls"] == {"users": 1}
    assert json.loads(record["last"][0]["body"]) == USER
    assert record["last"][0]["status"] == 201
    assert "sandbox-token" not in json.dumps(record)


def test_a_stopped_sandbox_refuses_and_comes_back_on_its_port(sandbox: Sandbox) -> None:
    call(sandbox, "/api/users", USER)
    url = sandbox.url

    sandbox.stop()
    with pytest.raises(ConnectionRefusedError):
        call(sandbox, "/api/users", USER)
    sandbox.start()

    assert sandbox.url == url
    assert call(sandbox, COMMITMENTS, COMMITMENT)[0] == 201


def test_stop_ends_open_connections_and_threads(sandbox: Sandbox) -> None:
    connection = http.client.HTTPConnection(sandbox.host, sandbox.port, timeout=10)
    connection.request("POST", "/api/users", json.dumps(USER), HEADERS)
    connection.getresponse().read()
    before = threading.active_count()

    sandbox.stop()

    assert connection.sock.recv(1) == b""
    assert threading.active_count() < before
    connection.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.com", "::", ""])
def test_it_serves_on_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        Sandbox(host)


def test_settings_point_a_shop_at_it(sandbox: Sandbox) -> None:
    assert sandbox.settings() == {
        "KOOMALOOMA_PARTNER_ID": "sandbox-partner",
        "KOOMALOOMA_API_TOKEN": "sandbox-token",
        "KOOMALOOMA_API_URL": f"http://127.0.0.1:{sandbox.port}/api",
    }
