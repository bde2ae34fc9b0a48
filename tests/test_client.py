"""Each row of "what happened -> verdict", through a real socket, and what the client never does or shows."""

from __future__ import annotations

import gzip
import json
import logging
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from django_koomalooma import exceptions
from django_koomalooma.client import Answer, PartnerClient, Verdict, looks_like_commitment
from django_koomalooma.wire import WireCall

from .raw_server import CERTIFICATE, COMMITMENT, Peer, RawServer, answer, answering, sending

TOKEN = "eyJ0eXAi.SECRET-of-the-shop.c2ln"


def connect(server: RawServer, **options: Any) -> PartnerClient:
    options = {"connect_timeout": 5, "read_timeout": 5, **options}
    if server.url.startswith("https"):
        options.setdefault("ca_bundle", CERTIFICATE)
    return PartnerClient(f"{server.url}/api", TOKEN, "partner-1", **options)


def issue(client: PartnerClient, **options: Any) -> Answer:
    return client.create_commitment("user-1", "campaign-1", "12.50", "Order 7", "shop", **options)


def judged(call: Callable[[], Answer]) -> Answer:
    """Return the call's answer, whatever the verdict."""
    try:
        return call()
    except exceptions.CallFailed as failure:
        return failure.answer


def outcome(behave: Callable[[Peer], None], *, tls: bool = False, **options: Any) -> tuple[Answer, RawServer]:
    """Issue one commitment against a server that behaves so."""
    with RawServer(behave, tls=tls) as server, connect(server, **options) as client:
        return judged(lambda: issue(client)), server


# What is sent


def test_create_commitment_sends_the_four_documented_strings_and_the_raw_token() -> None:
    _, server = outcome(answering(201))

    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/api/users/user-1/commitments")
    assert request.headers["x-koomalooma-jwt"] == TOKEN
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "campaign_id": "campaign-1",
        "transaction_value": "12.50",
        "promotion_goal_description": "Order 7",
        "promotion_goal_category": "shop",
    }


def test_create_user_sends_the_three_ids() -> None:
    with RawServer(answering(201, b"{}")) as server, connect(server) as client:
        client.create_user("pu-1", "session-1")

    [request] = server.requests
    assert request.target == "/api/users"
    assert json.loads(request.body) == {
        "partner_id": "partner-1",
        "partner_user_id": "pu-1",
        "user_session_id": "session-1",
    }


def test_the_answer_tells_what_was_sent_and_what_came_back() -> None:
    seen, _ = outcome(answering(201))

    assert seen.verdict is Verdict.ANSWERED
    assert (seen.method, seen.path) == ("POST", "/api/users/user-1/commitments")
    assert json.loads(seen.request_body)["campaign_id"] == "campaign-1"
    assert (seen.http_status, seen.body, seen.complete, seen.error) == (201, COMMITMENT, True, "")
    assert seen.sent
    assert 0 < seen.duration < 5


def test_the_user_id_is_one_percent_encoded_segment() -> None:
    with RawServer(answering()) as server, connect(server) as client:
        client.create_commitment("a/b?c#d %é..", "c", "1.00", "d", "e")

    assert server.requests[0].target == "/api/users/a%2Fb%3Fc%23d%20%25%C3%A9../commitments"


@pytest.mark.parametrize("user_id", ["", ".", "..", "\ud800"])
def test_a_user_id_that_names_another_address_is_never_sent(user_id: str) -> None:
    with RawServer(answering()) as server, connect(server) as client:
        seen = judged(lambda: client.create_commitment(user_id, "c", "1.00", "d", "e"))

    assert (seen.verdict, seen.sent) == (Verdict.MISCONFIGURED, False)
    assert server.connections == 0


# Answers with a status

REFUSED = {400, 404, 405, 410, 413, 415, 422}
ACCOUNT = {401, 402, 403}


def test_every_status_has_its_verdict_and_what_is_not_named_is_in_doubt() -> None:
    expected = dict.fromkeys(range(200, 600), Verdict.IN_DOUBT)
    expected |= dict.fromkeys(REFUSED, Verdict.REFUSED) | dict.fromkeys(ACCOUNT, Verdict.ACCOUNT)
    expected |= {201: Verdict.ANSWERED, 429: Verdict.LATER}
    statuses = iter(range(200, 600))

    def count_up(peer: Peer) -> None:
        while peer.read_request():
            peer.send(answer(next(statuses), b'{"message": "?"}'))

    with RawServer(count_up) as server, connect(server) as client:
        seen = [judged(lambda: issue(client)) for _ in range(400)]

    assert {one.http_status: one.verdict for one in seen} == expected
    assert {one.sent for one in seen} == {True}
    assert len(server.requests) == 400


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, exceptions.Refused),
        (403, exceptions.AccountTrouble),
        (429, exceptions.SendLater),
        (409, exceptions.MayHaveArrived),
        (503, exceptions.MayHaveArrived),
    ],
)
def test_each_verdict_has_its_exception(status: int, error: type[exceptions.CallFailed]) -> None:
    with (
        RawServer(answering(status, b"no")) as server,
        connect(server) as client,
        pytest.raises(error) as caught,
    ):
        issue(client)

    assert type(caught.value) is error
    assert caught.value.answer.body == b"no"
    assert f"HTTP {status}" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, COMMITMENT, Verdict.ANSWERED),
        (202, b'{"id": "", "loyalty_units": 0}', Verdict.ANSWERED),
        (200, b"<html>Log in</html>", Verdict.IN_DOUBT),
        (200, b'{"id": "c-1"}', Verdict.IN_DOUBT),
        (200, b'[{"id": "c-1", "loyalty_units": 1}]', Verdict.IN_DOUBT),
        (204, b"", Verdict.IN_DOUBT),
        (201, b"", Verdict.ANSWERED),
        (201, b"<html>", Verdict.ANSWERED),
        (201, b'{"id": "c-1", "loy', Verdict.ANSWERED),
    ],
)
def test_a_2xx_is_judged_by_its_body_and_a_201_is_not(status: int, body: bytes, verdict: Verdict) -> None:
    seen, _ = outcome(answering(status, body))

    assert (seen.http_status, seen.verdict) == (status, verdict)


def test_an_early_hint_is_not_an_answer() -> None:
    seen, _ = outcome(sending(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(201)))

    assert seen.verdict is Verdict.IN_DOUBT


def ends_in_reset(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{")
    peer.pause(0.1)
    peer.reset()


def stalls_in_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{")
    peer.pause()


def drips_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n")
    peer.drip(b"x" * 100)


def drips_body_without_length(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.0 201 Created\r\n\r\n")
    peer.drip(b"x" * 100)


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(
            sending(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"), id="body shorter than announced"
        ),
        pytest.param(
            sending(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), id="chunk cut short"
        ),
        pytest.param(
            sending(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="bad chunk size"
        ),
        pytest.param(sending(answer(201, b"no gzip", "Content-Encoding: gzip")), id="bad gzip"),
        pytest.param(
            sending(answer(201, gzip.compress(COMMITMENT)[:20], "Content-Encoding: gzip")),
            id="gzip cut short",
        ),
        pytest.param(ends_in_reset, id="reset"),
        pytest.param(stalls_in_body, id="stalled"),
        pytest.param(drips_body, id="drip"),
        pytest.param(drips_body_without_length, id="drip without a length"),
    ],
)
def test_a_201_is_issued_however_its_body_ends(behave: Callable[[Peer], None]) -> None:
    seen, server = outcome(behave, connect_timeout=0.3, read_timeout=0.4)

    assert (seen.verdict, seen.http_status) == (Verdict.ANSWERED, 201)
    assert not seen.complete
    assert seen.duration < 2
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(answer(201, gzip.compress(COMMITMENT), "Content-Encoding: gzip"), id="gzip"),
        pytest.param(
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n22\r\n"
            + COMMITMENT
            + b"\r\n0\r\n\r\n",
            id="chunked",
        ),
        pytest.param(b"HTTP/1.0 201 Created\r\n\r\n" + COMMITMENT, id="until the connection closes"),
    ],
)
def test_a_whole_body_is_read_in_each_form(data: bytes) -> None:
    seen, _ = outcome(sending(data))

    assert (seen.body, seen.complete, seen.error) == (COMMITMENT, True, "")


@pytest.mark.parametrize("status", [200, 201])
def test_a_huge_body_is_cut_at_64_kib_and_its_connection_is_dropped(status: int) -> None:
    seen, _ = outcome(answering(status, b"x" * 10_000_000))

    assert (len(seen.body), seen.complete) == (65536, False)
    assert seen.verdict is (Verdict.ANSWERED if status == 201 else Verdict.IN_DOUBT)
    assert seen.duration < 1


def test_a_gzip_bomb_is_cut_at_64_kib() -> None:
    seen, _ = outcome(answering(201, gzip.compress(b"x" * 50_000_000), "Content-Encoding: gzip"))

    assert (len(seen.body), seen.complete) == (65536, False)


IN_AN_HOUR = format_datetime(datetime.now(UTC) + timedelta(hours=5), usegmt=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Retry-After: 7", 7.0),
        ("Retry-After: 999999", 3600.0),
        ("Retry-After: " + "9" * 5000, 3600.0),
        ("Retry-After: 0", 1.0),
        ("Retry-After: soon", 60.0),
        ("Retry-After: -5", 60.0),
        (f"Retry-After: {IN_AN_HOUR}", 3600.0),
        ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", 1.0),
        ("X-Nothing: 1", 60.0),
    ],
    ids=["seconds", "capped", "absurd", "zero", "word", "negative", "date", "past date", "absent"],
)
def test_a_429_names_the_time_to_wait(header: str, seconds: float) -> None:
    seen, _ = outcome(answering(429, b"", header))

    assert (seen.verdict, seen.retry_after) == (Verdict.LATER, seconds)


def test_a_429_date_is_turned_into_seconds_from_now() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    seen, _ = outcome(answering(429, b"", f"Retry-After: {at}"))

    assert seen.retry_after == pytest.approx(100, abs=3)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (201, b"{}", Verdict.ANSWERED),
        (200, b'{"user_id": "u-1"}', Verdict.ANSWERED),
        (409, b"", Verdict.ANSWERED),
        (201, b"<html>", Verdict.IN_DOUBT),
        (201, b"", Verdict.IN_DOUBT),
        (200, b"[]", Verdict.IN_DOUBT),
        (500, b"{}", Verdict.IN_DOUBT),
        (400, b"{}", Verdict.REFUSED),
        (403, b"{}", Verdict.ACCOUNT),
        (429, b"{}", Verdict.LATER),
    ],
)
def test_create_user_needs_a_readable_answer_or_a_409(status: int, body: bytes, verdict: Verdict) -> None:
    with RawServer(answering(status, body)) as server, connect(server) as client:
        seen = judged(lambda: client.create_user("pu-1", "s-1"))

    assert (seen.http_status, seen.verdict) == (status, verdict)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (COMMITMENT, True),
        (b'{"id": null, "loyalty_units": null}', True),
        (b'{"loyalty_units": 1}', False),
        (b"null", False),
        (b"\xff", False),
        (b"[" * 60_000, False),
        (b'{"id": 1, "loyalty_units": ' + b"9" * 10_000 + b"}", False),
    ],
    ids=["both", "nulls", "no id", "null", "no text", "too deep", "absurd number"],
)
def test_a_commitment_is_known_by_id_and_loyalty_units(body: bytes, expected: bool) -> None:
    assert looks_like_commitment(body) is expected


# What the client never does


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with RawServer(answering()) as elsewhere:
        seen, server = outcome(
            answering(status, b"", f"Location: {elsewhere.url}/api/users/user-1/commitments")
        )

    assert (seen.verdict, seen.http_status) == (Verdict.IN_DOUBT, status)
    assert elsewhere.connections == 0
    assert len(server.requests) == 1


def closes_after_reading(peer: Peer) -> None:
    peer.read_request()


def closes_unread(peer: Peer) -> None:
    peer.pause(0.05)


def resets_after_reading(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


@pytest.mark.parametrize(
    "behave",
    [
        closes_unread,
        closes_after_reading,
        resets_after_reading,
        answering(500),
        answering(503, b"", "Retry-After: 0"),
        answering(429, b"", "Retry-After: 0"),
        answering(201, b"<html>unreadable"),
        answering(400),
    ],
    ids=["closed unread", "closed", "reset", "500", "503", "429", "unreadable 201", "400"],
)
@pytest.mark.parametrize("call", ["user", "commitment"])
def test_a_call_is_made_exactly_once(behave: Callable[[Peer], None], call: str) -> None:
    with RawServer(behave) as server, connect(server) as client:
        seen = judged(lambda: issue(client) if call == "commitment" else client.create_user("pu-1", "s-1"))
        time.sleep(0.1)

    assert seen.sent
    assert server.connections == 1
    assert len(server.requests) <= 1


def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with RawServer(answering()) as trap:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, trap.url)

        seen, server = outcome(answering())
        sealed, _ = outcome(answering(), tls=True)

    assert seen.verdict is sealed.verdict is Verdict.ANSWERED
    assert trap.connections == 0
    assert "authorization" not in server.requests[0].headers


# What the client never shows


def echoes_the_token(peer: Peer) -> None:
    request = peer.read_request()
    assert request is not None
    peer.send(answer(500, json.dumps(request.headers).encode()))


def echoes_the_token_as_garbage(peer: Peer) -> None:
    request = peer.read_request()
    assert request is not None
    peer.send(request.headers["x-koomalooma-jwt"].encode() + b"\x00\r\n\r\n")


@pytest.mark.parametrize("behave", [echoes_the_token, echoes_the_token_as_garbage])
def test_the_token_is_nowhere_to_be_seen(
    behave: Callable[[Peer], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with RawServer(behave) as server, connect(server) as client:
        with pytest.raises(exceptions.MayHaveArrived) as caught:
            issue(client)

        shown = [
            repr(client),
            str(caught.value),
            repr(caught.value),
            str([getattr(caught.value.answer, name) for name in Answer.__slots__]),
            "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()),
            caplog.text,
        ]
    assert server.requests[0].headers["x-koomalooma-jwt"] == TOKEN
    assert [text for text in shown if "SECRET" in text] == []
    assert "\x00" not in caught.value.answer.error


def test_the_error_is_the_chain_of_exceptions_and_not_longer_than_2_kib() -> None:
    short, _ = outcome(closes_after_reading)
    long, _ = outcome(sending(b"x" * 60_000 + b"\r\n\r\n"))

    assert "RemoteDisconnected" in short.error
    assert long.verdict is Verdict.IN_DOUBT
    assert 1000 < len(long.error.encode()) <= 2048


def test_an_answer_with_the_flag_down_counts_as_sent_and_is_shouted_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(WireCall, "raise_flag", WireCall.watch)

    seen, _ = outcome(answering(500))

    assert (seen.sent, seen.verdict) == (True, Verdict.IN_DOUBT)
    assert [record.levelname for record in caplog.records if record.name == "django_koomalooma.client"] == [
        "CRITICAL"
    ]


# Settings


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"api_url": ""}, "KOOMALOOMA_API_URL"),
        ({"api_url": "api.koomalooma.com"}, "KOOMALOOMA_API_URL"),
        ({"api_url": "ftp://api.koomalooma.com"}, "KOOMALOOMA_API_URL"),
        ({"api_url": "http://api.koomalooma.com/api"}, "KOOMALOOMA_API_URL"),
        ({"api_url": "https://api.koomalooma.com:port/api"}, "KOOMALOOMA_API_URL"),
        ({"api_url": "https://me:pw@api.koomalooma.com/api"}, "KOOMALOOMA_API_URL"),
        ({"api_url": "https://api.koomalooma.com/api?x=1"}, "KOOMALOOMA_API_URL"),
        ({"token": ""}, "KOOMALOOMA_API_TOKEN"),
        ({"token": "SECRET\nline"}, "KOOMALOOMA_API_TOKEN"),
        ({"token": "SECRET "}, "KOOMALOOMA_API_TOKEN"),
        ({"token": "SECRET\u20ac"}, "KOOMALOOMA_API_TOKEN"),
        ({"partner_id": ""}, "KOOMALOOMA_PARTNER_ID"),
        ({"proxies": {"https": "socks5://proxy:1080"}}, "KOOMALOOMA_PROXIES"),
        ({"proxies": {"https": "http://"}}, "KOOMALOOMA_PROXIES"),
        ({"proxies": {"https": "http://proxy:port"}}, "KOOMALOOMA_PROXIES"),
        ({"ca_bundle": "/nowhere/at/all.pem"}, "KOOMALOOMA_CA_BUNDLE"),
        ({"ca_bundle": __file__}, "KOOMALOOMA_CA_BUNDLE"),
    ],
)
def test_a_setting_that_cannot_work_is_named_at_once(changes: dict[str, Any], setting: str) -> None:
    values = {"api_url": "https://api.koomalooma.com/api", "token": TOKEN, "partner_id": "p", **changes}

    with pytest.raises(exceptions.ConfigurationError, match=setting) as caught:
        PartnerClient(**values)

    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "api_url", ["http://localhost:8000/api", "http://[::1]/api/", "https://api.koomalooma.com"]
)
def test_https_and_this_machine_are_fine(api_url: str) -> None:
    with PartnerClient(api_url, TOKEN, "p") as client:
        assert api_url.rstrip("/") in repr(client)
