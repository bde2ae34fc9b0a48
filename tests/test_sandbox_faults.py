"""The pretend koomalooma fails exactly as ordered, and books exactly what the catalogue says."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_koomalooma.sandbox import FAULTS, Sandbox, describe

from .sandbox_client import COMMITMENT, COMMITMENTS, HEADERS, USER, call

FAST: dict[str, dict[str, Any]] = {
    "silence_before_booking": {"seconds": 0.2},
    "silence_after_booking": {"seconds": 0.2},
    "late_201": {"seconds": 0.2},
    "late_booking": {"seconds": 0.2},
    "stalled_body": {"seconds": 0.2},
    "huge_body": {"bytes": 1_000_000},
    "drip_status": {"every": 0.005},
    "drip_headers": {"every": 0.002},
    "drip_body": {"every": 0.001},
}
RESET = "reset"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        call(running, "/api/users", USER)
        yield running


def raw(sandbox: Sandbox, path: str = COMMITMENTS, body: object = COMMITMENT) -> tuple[bytes, str, float]:
    """Return every byte of the answer, how the connection ended, and how long it took."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    began = time.monotonic()
    received = b""
    with socket.create_connection((sandbox.host, sandbox.port), timeout=10) as client:
        client.sendall(head.encode() + b"\r\n" + data)
        try:
            while more := client.recv(65536):
                received += more
        except ConnectionResetError:
            return received, RESET, time.monotonic() - began
    return received, "close", time.monotonic() - began


def split(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_books_what_the_catalogue_says_and_the_next_call_is_served(
    sandbox: Sandbox, name: str
) -> None:
    sandbox.misbehave(name, **FAST.get(name, {}))

    raw(sandbox)

    assert len(sandbox.bookings()) == (1 if FAULTS[name].books else 0)
    assert call(sandbox, COMMITMENTS, COMMITMENT)[0] == 201


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("close_before_reading", "close"),
        ("reset_before_reading", RESET),
        ("part_read", RESET),
        ("close_before_booking", "close"),
        ("reset_before_booking", RESET),
        ("silence_before_booking", "close"),
        ("close_after_booking", "close"),
        ("reset_after_booking", RESET),
        ("silence_after_booking", "close"),
    ],
)
def test_a_fault_without_an_answer_sends_not_one_byte(sandbox: Sandbox, name: str, end: str) -> None:
    sandbox.misbehave(name, **FAST.get(name, {}))

    answer, ended, duration = raw(sandbox)

    assert (answer, ended) == (b"", end)
    assert duration >= FAST.get(name, {}).get("seconds", 0)


@pytest.mark.parametrize("name", ["late_201", "late_booking"])
def test_a_late_answer_is_whole_and_late(sandbox: Sandbox, name: str) -> None:
    sandbox.misbehave(name, seconds=0.2)

    answer, _, duration = raw(sandbox)

    first, _, body = split(answer)
    assert first == "HTTP/1.1 201 Created"
    assert json.loads(body)["id"] == sandbox.bookings()[0]["id"]
    assert duration >= 0.2


def test_late_201_books_at_once_and_late_booking_only_after_the_client_has_gone(sandbox: Sandbox) -> None:
    def booked_when_the_client_leaves(name: str) -> int:
        sandbox.misbehave(name, seconds=0.4)
        before = len(sandbox.bookings())
        with socket.create_connection((sandbox.host, sandbox.port)) as client:
            data = json.dumps(COMMITMENT).encode()
            lines = [f"POST {COMMITMENTS} HTTP/1.1", f"Content-Length: {len(data)}"]
            lines += [f"{key}: {value}" for key, value in HEADERS.items()]
            client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
            time.sleep(0.15)
            return len(sandbox.bookings()) - before

    at_once = booked_when_the_client_leaves("late_201")
    not_yet = booked_when_the_client_leaves("late_booking")
    time.sleep(0.5)

    assert (at_once, not_yet) == (1, 0)
    assert len(sandbox.bookings()) == 2


@pytest.mark.parametrize(
    ("name", "end"), [("short_body", "close"), ("stalled_body", "close"), ("reset_body", RESET)]
)
def test_half_a_body_breaks_off_below_the_promised_length(sandbox: Sandbox, name: str, end: str) -> None:
    sandbox.misbehave(name, **FAST.get(name, {}))

    answer, ended, _ = raw(sandbox)

    first, headers, body = split(answer)
    assert (first, ended) == ("HTTP/1.1 201 Created", end)
    assert 0 < len(body) < int(headers["Content-Length"])


@pytest.mark.parametrize("name", ["drip_status", "drip_headers", "drip_body"])
def test_a_drip_takes_its_time_and_is_whole_at_last(sandbox: Sandbox, name: str) -> None:
    sandbox.misbehave(name, **FAST[name])

    answer, _, duration = raw(sandbox)

    first, _, body = split(answer)
    assert first == "HTTP/1.1 201 Created"
    assert json.loads(body)["loyalty_units"] == 500
    assert duration >= 0.1


def fields(sandbox: Sandbox, name: str, **options: Any) -> tuple[str, dict[str, str], bytes]:
    sandbox.misbehave(name, **options)
    return split(raw(sandbox)[0])


def test_garbage_is_not_http(sandbox: Sandbox) -> None:
    first, _, _ = fields(sandbox, "garbage_status_line")

    assert first == "\x16\x03\x00 no status line"


@pytest.mark.parametrize("name", ["bad_gzip", "truncated_json", "html_body", "empty_body"])
def test_an_unreadable_201_has_the_length_it_promises_and_is_not_json(sandbox: Sandbox, name: str) -> None:
    first, headers, body = fields(sandbox, name)

    assert first == "HTTP/1.1 201 Created"
    assert len(body) == int(headers["Content-Length"])
    assert headers.get("Content-Encoding") == ("gzip" if name == "bad_gzip" else None)
    with pytest.raises(ValueError):
        json.loads(body)


def test_a_huge_body_is_a_readable_commitment(sandbox: Sandbox) -> None:
    _, _, body = fields(sandbox, "huge_body", bytes=1_000_000)

    assert len(body) > 1_000_000
    assert json.loads(body)["id"] == sandbox.bookings()[0]["id"]


def test_deep_json_is_deeper_than_python_reads(sandbox: Sandbox) -> None:
    _, _, body = fields(sandbox, "deep_json")

    with pytest.raises(RecursionError):
        json.loads(body)


def test_nul_stands_in_the_strings(sandbox: Sandbox) -> None:
    _, _, body = fields(sandbox, "nul_in_body")

    assert json.loads(body)["id"] == sandbox.bookings()[0]["id"] + "\0"


def test_odd_types_are_none_of_those_promised(sandbox: Sandbox) -> None:
    _, _, body = fields(sandbox, "odd_types")

    odd = json.loads(body)
    assert (odd["loyalty_units"], odd["redeemed"], odd["goal"]) == ("500", "no", None)
    assert odd["id"] == [sandbox.bookings()[0]["id"]]


@pytest.mark.parametrize(
    ("name", "options", "status", "headers", "text"),
    [
        pytest.param("status", {}, "503 Service Unavailable", {}, "", id="503"),
        pytest.param(
            "status",
            {"status": 429, "retry_after": 30},
            "429 Too Many Requests",
            {"Retry-After": "30"},
            "",
            id="429",
        ),
        pytest.param(
            "status",
            {"status": 500, "body": "<h1>oh</h1>", "headers": {"Content-Type": "text/html"}},
            "500 Internal Server Error",
            {"Content-Type": "text/html"},
            "<h1>oh</h1>",
            id="500 HTML",
        ),
        pytest.param(
            "status", {"status": 799, "body": {"a": 1}}, "799 Unnamed", {}, '{"a": 1}', id="799 JSON"
        ),
        pytest.param("redirect", {}, "307 Temporary Redirect", {"Location": COMMITMENTS}, "", id="redirect"),
        pytest.param(
            "redirect",
            {"status": 302, "location": "http://127.0.0.1:9/x"},
            "302 Found",
            {"Location": "http://127.0.0.1:9/x"},
            "",
            id="redirect away",
        ),
    ],
)
def test_any_status_can_be_ordered(
    sandbox: Sandbox, name: str, options: dict[str, Any], status: str, headers: dict[str, str], text: str
) -> None:
    first, answered, body = fields(sandbox, name, **options)

    assert first == f"HTTP/1.1 {status}"
    assert answered.items() >= headers.items()
    assert body.decode() == text
    assert sandbox.bookings() == []


def test_a_status_can_book_all_the_same(sandbox: Sandbox) -> None:
    first, _, _ = fields(sandbox, "status", status=409, book=True)

    assert first == "HTTP/1.1 409 Conflict"
    assert len(sandbox.bookings()) == 1


def test_200_holds_the_commitment_or_a_login_page(sandbox: Sandbox) -> None:
    good, _, commitment = fields(sandbox, "ok_200_commitment")
    page, _, html = fields(sandbox, "ok_200_html")

    assert (good, page) == ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK")
    assert json.loads(commitment)["loyalty_units"] == 500
    assert b"<form>" in html


def test_a_201_that_was_not_booked_can_be_ordered(sandbox: Sandbox) -> None:
    first, _, _ = fields(sandbox, "html_body", book=False)

    assert first == "HTTP/1.1 201 Created"
    assert sandbox.bookings() == []


def test_own_user_id_is_answered_and_then_the_one_in_the_path(sandbox: Sandbox) -> None:
    sandbox.misbehave("own_user_id", call="users", user_id="k/7", field="id")

    _, answer = call(sandbox, "/api/users", USER | {"partner_user_id": "u2"})
    by_ours = call(sandbox, "/api/users/u2/commitments", COMMITMENT)
    by_theirs = call(sandbox, "/api/users/k%2F7/commitments", COMMITMENT)

    assert answer == {**USER, "partner_user_id": "u2", "id": "k/7"}
    assert (by_ours[0], by_theirs[0]) == (400, 201)


def test_what_cannot_be_booked_is_refused_and_uses_the_fault_up(sandbox: Sandbox) -> None:
    sandbox.misbehave("html_body")

    first = call(sandbox, "/api/users/nobody/commitments", COMMITMENT)[0]
    second = call(sandbox, COMMITMENTS, COMMITMENT)[0]

    assert (first, second) == (400, 201)


def test_a_fault_is_aimed_at_one_kind_of_call_and_lasts_as_long_as_ordered(sandbox: Sandbox) -> None:
    sandbox.misbehave("status", status=500, times=2, call="commitments")
    sandbox.misbehave("status", status=502, times=None, call="users")

    commitments = [call(sandbox, COMMITMENTS, COMMITMENT)[0] for _ in range(3)]
    users = [call(sandbox, "/api/users", USER)[0] for _ in range(3)]
    sandbox.behave()

    assert commitments == [500, 500, 201]
    assert users == [502, 502, 502]
    assert call(sandbox, "/api/users", USER)[0] == 201


def test_a_fault_is_found_also_when_the_first_line_comes_in_pieces(sandbox: Sandbox) -> None:
    sandbox.misbehave("close_before_reading")
    with socket.create_connection((sandbox.host, sandbox.port), timeout=10) as client:
        client.sendall(b"POST /api/users/u1/comm")
        time.sleep(0.05)
        client.sendall(b"itments HTTP/1.1\r\n")

        assert client.recv(1) == b""

    assert sandbox.requests()["last"][-1]["fault"] == "close_before_reading"


def test_a_fault_of_no_probability_never_happens(sandbox: Sandbox) -> None:
    sandbox.misbehave("status", probability=0.0, times=None)

    assert [call(sandbox, COMMITMENTS, COMMITMENT)[0] for _ in range(20)] == [201] * 20


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"fault": "explode"}, "no fault is called 'explode'"),
        ({"fault": "status", "times": 0}, "times must be"),
        ({"fault": "status", "call": "GET"}, "call must be one of"),
        ({"fault": "status", "probability": 2}, "probability must be"),
        ({"fault": "status", "colour": "red"}, "no option 'colour'"),
        ({"fault": "late_201", "seconds": "soon"}, "seconds of late_201 must be a number"),
        ({"fault": "part_read", "book": True}, "not possible for part_read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_order_that_cannot_be_read_is_refused_also_over_http(
    sandbox: Sandbox, order: dict[str, Any], words: str
) -> None:
    status, answer = call(sandbox, "/_sandbox/misbehave", order)

    assert status == 400
    assert words in answer["error"]
    with pytest.raises(ValueError, match=words):
        sandbox.misbehave(**order)


def test_another_process_gives_orders_and_reads_the_ledger(sandbox: Sandbox) -> None:
    call(sandbox, "/_sandbox/misbehave", {"fault": "status", "status": 503, "times": None})
    spoilt = call(sandbox, COMMITMENTS, COMMITMENT)[0]
    call(sandbox, "/_sandbox/behave")
    served = call(sandbox, COMMITMENTS, COMMITMENT)[0]

    _, ledger = call(sandbox, "/_sandbox/ledger", method="GET")
    _, users = call(sandbox, "/_sandbox/users", method="GET")
    _, requests = call(sandbox, "/_sandbox/requests", method="GET")

    assert (spoilt, served) == (503, 201)
    assert ledger == sandbox.bookings()
    assert [user["user_session_id"] for user in users] == ["s1"]
    assert requests["calls"] == {"users": 1, "commitments": 2}
    assert [entry["fault"] for entry in requests["last"]] == ["", "status", ""]


def test_a_web_page_cannot_give_orders(sandbox: Sandbox) -> None:
    plain = {"Content-Type": "text/plain"}

    status, _ = call(sandbox, "/_sandbox/misbehave", {"fault": "status"}, headers=plain)

    assert status == 400
    assert call(sandbox, COMMITMENTS, COMMITMENT)[0] == 201


def test_stop_ends_a_silence_at_once(sandbox: Sandbox) -> None:
    sandbox.misbehave("silence_after_booking", seconds=60)
    client = socket.create_connection((sandbox.host, sandbox.port), timeout=10)
    data = json.dumps(COMMITMENT).encode()
    lines = [f"POST {COMMITMENTS} HTTP/1.1", f"Content-Length: {len(data)}"]
    lines += [f"{key}: {value}" for key, value in HEADERS.items()]
    client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    while not sandbox.bookings():
        time.sleep(0.01)
    began = time.monotonic()

    sandbox.stop()

    assert client.recv(1) == b""
    assert time.monotonic() - began < 2
    client.close()


def test_help_and_manual_list_the_whole_catalogue() -> None:
    manual = (Path(__file__).parent.parent / "docs" / "sandbox.rst").read_text()

    for name, fault in FAULTS.items():
        assert f"``{name}``" in manual
        assert fault.sentence.replace("`", "``") in " ".join(manual.split())
        assert name in describe()
