"""A pretend koomalooma that is fast and forgets: one process, one thread, latency on request.

It answers each ``POST`` as the API document says; it keeps no ledger. Its own limit is measured by
``python -m benchmarks.api --limit`` and stands in the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LATENCY = re.compile(rb"POST /latency/([\d.]+) ")
_numbers = itertools.count(1)


class _Server:
    latency = 0.0


class _Answering(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self._server = server
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            found = _LENGTH.search(head)
            length = end + 4 + (int(found[1]) if found else 0)
            if len(self._data) < length:
                return
            body, self._data = self._data[end + 4 : length], self._data[length:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        latency = self._server.latency
        if found := _LATENCY.match(head):
            self._server.latency, latency = float(found[1]), 0.0
        reply = make_reply(head, body)
        answer = (
            b"HTTP/1.1 201 Created\r\nDate: Mon, 01 Jun 2026 12:00:00 GMT\r\nServer: bench\r\n"
            b"Content-Type: application/json\r\nVary: Accept\r\nAllow: POST, OPTIONS\r\n"
            b"X-Frame-Options: DENY\r\nX-Content-Type-Options: nosniff\r\nConnection: keep-alive\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(reply), reply)
        )
        if latency:
            asyncio.get_running_loop().call_later(latency, self._transport.write, answer)
        else:
            self._transport.write(answer)


def make_reply(head: bytes, body: bytes) -> bytes:
    """Return the fifteen fields of a Commitment, or the four of a customer."""
    sent = json.loads(body) if body else {}
    number = next(_numbers)
    if b"/commitments " not in head:
        return json.dumps({"id": f"u{number}", "user_id": sent.get("partner_user_id", "")}).encode()
    return json.dumps(
        {
            "id": f"{number:08x}-6b1c-4b0e-9f60-7c9f1f0a2b3c",
            "user_id": head.split(b"/", 4)[3].decode(),
            "partner_id": "sandbox-partner",
            "loyalty_units": 100,
            "free_loyalty_units": 100,
            "redeemable_loyalty_units": 0,
            "redeemed_loyalty_units": 0,
            "redeemed": False,
            "loyalty_accumulation_value": sent["transaction_value"],
            "goal": "purchase",
            "confirmation_status": "pending",
            "promotion_goal_description": sent["promotion_goal_description"],
            "promotion_goal_category": sent["promotion_goal_category"],
            "created_at": "2026-06-01T12:00:00Z",
            "updated_at": "2026-06-01T12:00:00Z",
        }
    ).encode()


async def serve() -> None:
    """Answer on a free port of this machine, whose number is printed, until the process is ended."""
    server = _Server()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Answering(server), "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    # Ends with the process that started it, also where that was killed.
    loop.add_reader(0, ended.set)
    await ended.wait()


class Api:
    """The API in a process of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/api"

    def set_latency(self, seconds: float) -> None:
        """Let each answer wait from now on."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"POST /latency/%.4f HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % seconds)
            connection.recv(4096)

    def measure_limit(self, seconds: float = 2.0, clients: int = 4) -> float:
        """Return the answers a second that it gives to sockets which do nothing but send and receive."""
        body = json.dumps(
            {
                "campaign_id": "campaign-1",
                "transaction_value": "19.99",
                "promotion_goal_description": "Order 1",
                "promotion_goal_category": "purchase",
            }
        ).encode()
        request = b"POST /api/users/u1/commitments HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (
            len(body), body
        )  # fmt: skip
        counts = [0] * clients
        until = time.monotonic() + seconds

        def ask(number: int) -> None:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                while time.monotonic() < until:
                    connection.sendall(request * 8)
                    got = 0
                    while got < 8:
                        got += connection.recv(65536).count(b"HTTP/1.1 201")
                    counts[number] += got

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / seconds


@contextlib.contextmanager
def running() -> Iterator[Api]:
    """Start the API, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.api"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Api(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


if __name__ == "__main__":
    if "--limit" in sys.argv:
        with running() as api:
            print(f"{api.measure_limit():,.0f} answers a second")
    else:
        asyncio.run(serve())
