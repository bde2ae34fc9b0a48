"""The wire flag, the deadline, the clock guard and the pool, through real sockets, TLS and proxies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest
import requests

from django_koomalooma.client import Answer, PartnerClient, Verdict, clock
from django_koomalooma.transport import Transport, read_body
from django_koomalooma.wire import WireCall

from .raw_server import CERTIFICATE, Peer, RawServer, answer, answering, sending
from .test_client import TOKEN, connect, issue, judged, outcome

SHORT = {"connect_timeout": 0.3, "read_timeout": 0.4}
LONG = {"connect_timeout": 5, "read_timeout": 5}


def point(url: str, **options: Any) -> PartnerClient:
    return PartnerClient(f"{url}/api", TOKEN, "partner-1", **{**SHORT, **options})


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


# Flag down: nothing was sent


def test_a_refused_connection_is_unsent(closed_port: int) -> None:
    with point(f"http://127.0.0.1:{closed_port}") as client:
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.NOT_SENT, False)
    assert "refused" in seen.error


def test_an_unknown_host_is_unsent() -> None:
    with point("https://koomalooma.invalid") as client:
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.NOT_SENT, False)


def test_a_connect_time_out_is_unsent() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with point(f"http://127.0.0.1:{full.getsockname()[1]}") as client:
            seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.NOT_SENT, False)
    assert "ConnectTimeout" in seen.error


@pytest.mark.parametrize(
    ("behave", "error"),
    [
        pytest.param(lambda peer: peer.pause(), "ReadTimeout", id="stalls"),
        pytest.param(lambda peer: None, "", id="closes"),
        pytest.param(lambda peer: peer.reset(), "", id="resets"),
        pytest.param(lambda peer: peer.send(b"HTTP/1.1 400 Bad\r\n\r\n"), "SSL", id="speaks plain http"),
        # A record header that announces 4 KiB, then one byte at a time: no single read times out.
        pytest.param(lambda peer: peer.drip(b"\x16\x03\x03\x10\x00" + b"x" * 4096), "timed out", id="drips"),
    ],
)
def test_a_tls_handshake_that_fails_is_unsent(behave: Callable[[Peer], None], error: str) -> None:
    with RawServer(behave) as server, point(server.url.replace("http:", "https:")) as client:
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.NOT_SENT, False)
    assert error in seen.error
    assert seen.duration < 1.5


def test_a_certificate_that_is_not_trusted_is_a_matter_of_settings() -> None:
    with RawServer(answering(), tls=True) as server, point(server.url, **LONG) as client:
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.MISCONFIGURED, False)
    assert server.requests == []


def tunnel_to(port: int) -> Callable[[Peer], None]:
    """Be a proxy that grants CONNECT, whatever the host asked for, and leads to this port."""

    def behave(peer: Peer) -> None:
        peer.read_request()
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(upstream, peer.sock), daemon=True)
            back.start()
            pump(peer.sock, upstream)
            back.join(5)

    return behave


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_certificate_for_another_host_is_a_matter_of_settings() -> None:
    with (
        RawServer(answering(), tls=True) as server,
        RawServer(tunnel_to(server.port)) as proxy,
        point("https://example.com", ca_bundle=CERTIFICATE, proxies={"https": proxy.url}, **LONG) as client,
    ):
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.MISCONFIGURED, False)
    assert server.requests == []


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(sending(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), id="forbids"),
        pytest.param(
            sending(b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n"), id="wants a password"
        ),
        pytest.param(sending(b"?\r\n\r\n"), id="garbage"),
        pytest.param(sending(b""), id="closes"),
        pytest.param(lambda peer: peer.reset(), id="resets"),
        pytest.param(lambda peer: peer.pause(), id="stalls"),
        pytest.param(lambda peer: peer.drip(b"HTTP/1.1 200 " + b"x" * 200), id="drips"),
    ],
)
def test_a_proxy_that_refuses_the_tunnel_leaves_the_call_unsent(behave: Callable[[Peer], None]) -> None:
    with (
        RawServer(behave) as proxy,
        point("https://127.0.0.1:9", proxies={"https": proxy.url}, ca_bundle=CERTIFICATE) as client,
    ):
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.NOT_SENT, False)
    assert seen.duration < 1.5


def test_a_proxy_that_is_down_leaves_the_call_unsent(closed_port: int) -> None:
    proxies = {"http": f"http://127.0.0.1:{closed_port}", "https": f"http://127.0.0.1:{closed_port}"}
    with RawServer(answering()) as server:
        with point(server.url, proxies=proxies) as client:
            plain = judged(lambda: issue(client))
        with point("https://127.0.0.1:9", proxies=proxies) as client:
            tunnelled = judged(lambda: issue(client))

    assert (plain.verdict, plain.sent) == (tunnelled.verdict, tunnelled.sent) == (Verdict.NOT_SENT, False)
    assert server.connections == 0


# Flag up: it may have arrived


def test_a_call_goes_through_a_tunnel_and_the_proxy_never_sees_the_token() -> None:
    with (
        RawServer(answering(), tls=True) as server,
        RawServer(tunnel_to(server.port)) as proxy,
        point(
            server.url,
            ca_bundle=CERTIFICATE,
            proxies={"https": f"http://me:PASSWORD@127.0.0.1:{proxy.port}"},
            **LONG,
        ) as client,
    ):
        seen = [judged(lambda: issue(client)) for _ in range(2)]

    assert [(one.verdict, one.sent) for one in seen] == [(Verdict.ANSWERED, True)] * 2
    assert (server.connections, len(server.requests)) == (1, 2)
    assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert "x-koomalooma-jwt" not in proxy.requests[0].headers
    assert "PASSWORD" not in repr(client)


def test_the_password_of_a_proxy_stays_out_of_the_record(closed_port: int) -> None:
    proxies = {"http": f"http://me:PASSWORD@127.0.0.1:{closed_port}"}
    with point("http://127.0.0.1:9", proxies=proxies) as client:
        seen = judged(lambda: issue(client))

    assert "PASSWORD" not in seen.error


def test_a_plain_proxy_gets_the_whole_address_and_its_answer_counts() -> None:
    with (
        RawServer(answering()) as proxy,
        point("http://127.0.0.1:9", proxies={"http": proxy.url}, **LONG) as client,
    ):
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.ANSWERED, True)
    assert proxy.requests[0].target == "http://127.0.0.1:9/api/users/user-1/commitments"


def test_a_plain_proxy_that_drops_after_forwarding_leaves_the_call_in_doubt() -> None:
    with (
        RawServer(sending(b"")) as proxy,
        point("http://127.0.0.1:9", proxies={"http": proxy.url}, **LONG) as client,
    ):
        seen = judged(lambda: issue(client))

    assert (seen.verdict, seen.sent) == (Verdict.IN_DOUBT, True)
    assert len(proxy.requests) == 1


def resets_after_half(peer: Peer) -> None:
    peer.read_some(40)
    peer.reset()


def resets_after_reading(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def breaks_tls(peer: Peer) -> None:
    peer.read_request()
    peer.send_beneath_tls(b"this is no TLS record at all")


def stalls(peer: Peer) -> None:
    peer.read_request()
    peer.pause()


def drips_status_line(peer: Peer) -> None:
    peer.read_request()
    peer.drip(b"HTTP/1.1 201 " + b"x" * 200)


def stalls_in_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 201 Created\r\nX: y\r\n")
    peer.pause()


def drips_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 201 Created\r\n")
    peer.drip(b"X: y\r\n" * 50)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda peer: peer.pause(0.1), id="closed unread"),
        pytest.param(sending(b""), id="closed after booking"),
        pytest.param(resets_after_reading, id="reset"),
        pytest.param(resets_after_half, id="part read"),
        pytest.param(sending(b"\xff\x00garbage\r\n\r\n"), id="garbage status line"),
        pytest.param(sending(b"HTTP/1.1 abc Created\r\n\r\n"), id="status is no number"),
        pytest.param(sending(answer(201, b"", *["X: y"] * 200)), id="too many headers"),
        pytest.param(stalls, id="silence"),
        pytest.param(drips_status_line, id="drip in the status line"),
        pytest.param(stalls_in_headers, id="silence in the headers"),
        pytest.param(breaks_tls, id="TLS record error"),
    ],
)
def test_no_status_after_the_first_byte_is_in_doubt(behave: Callable[[Peer], None], tls: bool) -> None:
    seen, server = outcome(behave, tls=tls, **SHORT)

    assert (seen.verdict, seen.sent, seen.http_status) == (Verdict.IN_DOUBT, True, None)
    assert seen.error
    assert seen.duration < 1.5
    assert server.connections == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_status_that_was_seen_counts_though_the_headers_drip(tls: bool) -> None:
    seen, _ = outcome(drips_headers, tls=tls, **SHORT)

    assert (seen.verdict, seen.http_status, seen.complete) == (Verdict.ANSWERED, 201, False)
    assert "total time" in seen.error
    assert seen.duration < 1.5


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_late_201_is_in_doubt_and_no_later_call_reads_it(tls: bool) -> None:
    def late_once(peer: Peer) -> None:
        while request := peer.read_request():
            if request.connection == 1:
                peer.pause(1.0)
            peer.send(answer(201, f'{{"id": "{request.connection}", "loyalty_units": 1}}'.encode()))

    with (
        RawServer(late_once, tls=tls) as server,
        connect(server, connect_timeout=0.5, read_timeout=0.7) as client,
    ):
        first = judged(lambda: issue(client))
        time.sleep(0.5)
        second = judged(lambda: issue(client))

    assert first.verdict is Verdict.IN_DOUBT
    assert second.body == b'{"id": "2", "loyalty_units": 1}'


class SoftTimeLimit(Exception):
    """As a worker raises it out of a signal handler."""


def raise_soft_time_limit(number: int, frame: FrameType | None) -> None:
    raise SoftTimeLimit


@pytest.mark.parametrize(
    ("handler", "error"),
    [(signal.default_int_handler, KeyboardInterrupt), (raise_soft_time_limit, SoftTimeLimit)],
    ids=["KeyboardInterrupt", "soft time limit"],
)
def test_an_interruption_passes_through_and_never_reads_as_unsent(
    handler: Callable[[int, FrameType | None], Any], error: type[BaseException]
) -> None:
    def interrupt_first(peer: Peer) -> None:
        while request := peer.read_request():
            if request.connection == 1:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                peer.pause(0.2)
            peer.send(answer(201, str(request.connection).encode()))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with RawServer(interrupt_first) as server, connect(server) as client:
            with pytest.raises(error) as caught:
                issue(client)
            after = judged(lambda: issue(client))
    finally:
        signal.signal(signal.SIGUSR1, before)

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert "SECRET" not in "".join(shown)
    assert (after.verdict, after.body) == (Verdict.ANSWERED, b"2")


# The clock guard


def test_nothing_is_sent_once_its_time_has_passed() -> None:
    with RawServer(answering()) as server, connect(server) as client:
        issue(client)
        late = judged(lambda: issue(client, send_before=clock() - 0.001))
        early = judged(lambda: issue(client, send_before=clock() + 5))

    assert (late.verdict, late.sent) == (Verdict.NOT_SENT, False)
    assert early.verdict is Verdict.ANSWERED
    assert len(server.requests) == 2


def test_the_guard_looks_at_the_clock_after_the_handshake() -> None:
    def slow_handshake(peer: Peer) -> None:
        peer.pause(0.25)
        peer.start_tls()
        peer.read_request()

    with (
        RawServer(slow_handshake) as server,
        point(f"https://127.0.0.1:{server.port}", ca_bundle=CERTIFICATE, connect_timeout=2) as client,
    ):
        seen = judged(lambda: issue(client, send_before=clock() + 0.1))

    assert (seen.verdict, seen.sent) == (Verdict.NOT_SENT, False)
    assert server.requests == []


# The pool


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_calls_back_to_back_share_a_connection_and_none_is_reused_after_a_second(tls: bool) -> None:
    with RawServer(answering(), tls=tls) as server, connect(server) as client:
        for pause in (0, 0.3, 1.1, 0):
            time.sleep(pause)
            issue(client)

    assert [request.connection for request in server.requests] == [1, 1, 2, 2]


def test_an_answered_call_is_no_longer_watched() -> None:
    with RawServer(answering()) as server, connect(server, connect_timeout=0.4, read_timeout=0.4) as client:
        for _ in range(11):
            assert judged(lambda: issue(client)).verdict is Verdict.ANSWERED
            time.sleep(0.1)

    assert server.connections == 1


def test_a_connection_that_is_back_in_the_pool_is_left_alone_by_the_call_it_carried() -> None:
    with RawServer(answering()) as server:
        transport = Transport(server.url, connect_timeout=0.2, read_timeout=0.2, pool_size=1)
        first, second = WireCall(None), WireCall(None)
        with transport.exchange(first, f"{server.url}/a", {}, b"") as raw:
            read_body(raw, first)
            time.sleep(0.6)  # longer than a call may last: a watched socket would be shut by now
        with transport.exchange(second, f"{server.url}/b", {}, b"") as raw:
            read_body(raw, second)
        transport.close()

    assert not first.overdue
    assert [(request.target, request.connection) for request in server.requests] == [("/a", 1), ("/b", 1)]


def test_a_call_that_failed_is_no_longer_watched(closed_port: int) -> None:
    transport = Transport(
        f"http://127.0.0.1:{closed_port}", connect_timeout=0.1, read_timeout=0.1, pool_size=1
    )
    call = WireCall(None)

    with (
        pytest.raises(requests.ConnectionError),
        transport.exchange(call, f"http://127.0.0.1:{closed_port}/a", {}, b""),
    ):
        pass
    time.sleep(0.4)

    assert not call.overdue


def test_a_connection_whose_body_was_cut_is_not_reused() -> None:
    with RawServer(answering(201, b"x" * 70_000)) as server, connect(server) as client:
        for _ in range(2):
            issue(client)

    assert server.connections == 2


def test_a_forked_child_opens_a_connection_of_its_own() -> None:
    def name_the_connection(peer: Peer) -> None:
        while request := peer.read_request():
            peer.send(answer(201, str(request.connection).encode()))

    with RawServer(name_the_connection) as server, connect(server) as client:
        issue(client)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads at each fork
            child = os.fork()
        if child == 0:  # pragma: no cover
            try:
                seen = issue(client)
                client.close()
                os._exit(0 if seen.body == b"2" else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        parent = issue(client)

    assert os.waitstatus_to_exitcode(status) == 0
    assert parent.body == b"1"


def test_the_flag_is_right_in_every_one_of_32_threads(closed_port: int) -> None:
    def call(client: PartnerClient, times: int) -> list[Answer]:
        return [judged(lambda: issue(client)) for _ in range(times)]

    with (
        RawServer(answering()) as good,
        RawServer(sending(b"")) as bad,
        point(good.url, connect_timeout=5, read_timeout=20) as answered,
        point(bad.url, connect_timeout=5, read_timeout=20) as dropped,
        point(f"http://127.0.0.1:{closed_port}", connect_timeout=5, read_timeout=20) as refused,
        ThreadPoolExecutor(32) as threads,
    ):

        def mix(_: int) -> list[tuple[bool, bool, bool]]:
            # 25 rounds of 4 calls, each outcome between two others.
            return [
                (call(answered, 1)[0].sent, call(refused, 2)[1].sent, call(dropped, 1)[0].sent)
                for _ in range(25)
            ]

        seen = [one for rounds in threads.map(mix, range(32)) for one in rounds]

    assert set(seen) == {(True, False, True)}
    assert len(good.requests) == len(bad.requests) == 800


def test_32_threads_each_read_their_own_answers() -> None:
    def echo(peer: Peer) -> None:
        while request := peer.read_request():
            peer.send(answer(201, request.target.encode()))

    with RawServer(echo) as server, connect(server) as client, ThreadPoolExecutor(32) as threads:

        def call(number: int) -> bool:
            seen = client.create_commitment(str(number), "c", "1.00", "d", "e")
            return seen.body == f"/api/users/{number}/commitments".encode()

        right = list(threads.map(call, range(1000)))

    assert right == [True] * 1000
    assert server.connections <= 32
