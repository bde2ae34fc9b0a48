"""HTTP/1.1 on one socket: reads a request, sends an answer, and lets faults do both badly.

Owns bytes and nothing else; what an answer says is decided in rules.py, how it is spoilt in faults.py.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus

LONGEST_LINE = 4096
MAX_HEAD = 64 * 1024
MAX_BODY = 1024 * 1024
JSON_TYPE = "application/json"


class HungUp(Exception):
    """The client is gone, or the sandbox is being stopped: nothing more to say on this connection."""


class Unreadable(Exception):
    """The bytes are not a request that can be answered on a connection that stays open."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Request:
    """One request as it was read; header names are in lower case."""

    method: str
    path: str
    version: str = "HTTP/1.1"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def keep_alive(self) -> bool:
        return self.version == "HTTP/1.1" and self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: status, body and the headers that are not about the connection."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, status: int, value: object, **headers: str) -> Reply:
        """Make a JSON answer."""
        return cls(status, json.dumps(value).encode(), headers=tuple(headers.items()))

    def head(self, *, length: int | None = None, keep_alive: bool = True) -> bytes:
        """Return status line and headers, blank line included.

        Args:
            length: the Content-Length to claim, when it is not to be the true one.
        """
        lines = [status_line(self.status), "Server: koomalooma-sandbox"]
        if self.body or length:
            lines.append(f"Content-Type: {self.content_type}")
        lines.append(f"Content-Length: {len(self.body) if length is None else length}")
        lines.extend(f"{name.replace('_', '-')}: {value}" for name, value in self.headers)
        if not keep_alive:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status_line(status: int) -> str:
    """Return the status line, also for codes that HTTP does not name."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unnamed"
    return f"HTTP/1.1 {status} {phrase}"


class Wire:
    """One connection from a client."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self._sock = sock
        self._stopping = stopping
        self._buffer = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def await_request(self) -> Request:
        """Wait for a request and return its first line, leaving every byte of it unread.

        A fault may be due before anything is read, so the line is looked at where the kernel keeps it.

        Raises:
            HungUp: the client closed the connection.
        """
        seen = self._buffer or self._peek()
        tries = 0
        while b"\r\n" not in seen and len(seen) < LONGEST_LINE and tries < 200:
            self.wait(0.005)  # the line comes in pieces: rare, and a peek cannot wait for more
            seen = self._buffer + self._peek()
            tries += 1
        words = seen.partition(b"\r\n")[0].decode("latin-1").split(" ")
        return Request(method=words[0], path=words[1] if len(words) > 1 else "")

    def read_head(self) -> Request:
        """Read the request line and the headers.

        Raises:
            HungUp: the client closed the connection.
            Unreadable: this is not HTTP.
        """
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise Unreadable(431, "the headers are larger than 64 KiB")
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Unreadable(400, "the first line is not METHOD PATH HTTP/1.1")
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise Unreadable(400, f"not a header: {line!r}")
            headers[name.strip().lower()] = value.strip()
        return Request(words[0], words[1], words[2], headers)

    def read_body(self, request: Request, *, share: float = 1.0) -> bytes:
        """Read the body, or only a share of it.

        Raises:
            HungUp: the client closed the connection.
            Unreadable: the length is missing, wrong or too large.
        """
        if "transfer-encoding" in request.headers:
            raise Unreadable(411, "the sandbox reads bodies with a Content-Length only")
        text = request.headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit()):
            raise Unreadable(400, "Content-Length is not a number")
        length = int(int(text) * share)
        if length > MAX_BODY:
            raise Unreadable(413, "the body is larger than 1 MiB")
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body

    def send(self, data: bytes) -> None:
        """Hand the bytes to the client."""
        self._sock.sendall(data)

    def drip(self, data: bytes, every: float) -> None:
        """Send one byte at a time.

        Raises:
            HungUp: the sandbox is being stopped.
        """
        for position in range(len(data)):
            self._sock.sendall(data[position : position + 1])
            self.wait(every)

    def wait(self, seconds: float) -> None:
        """Wait, whether the client stays or goes.

        Raises:
            HungUp: the sandbox is being stopped.
        """
        if seconds > 0 and self._stopping.wait(seconds):
            raise HungUp

    def hold(self, seconds: float) -> None:
        """Keep the connection open and say nothing, for as long as the client stays.

        Raises:
            HungUp: the client closed the connection, or the sandbox is being stopped.
        """
        end = time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0:
                self._sock.settimeout(left)
                if not self._sock.recv(1, socket.MSG_PEEK):
                    raise HungUp
                self.wait(min(left, 0.05))
        except TimeoutError:
            return
        finally:
            self._sock.settimeout(None)

    def finish(self) -> None:
        """Close in good order, so that the client sees an end and not a reset even if bytes lie unread.

        Closing with unread bytes sends a reset, so the client is given a second to close first.
        """
        self._sock.shutdown(socket.SHUT_WR)
        if sys.platform == "linux":
            poll = select.poll()
            poll.register(self._sock, select.POLLRDHUP)
            poll.poll(1000)
        else:
            self.wait(0.1)

    def reset(self) -> None:
        """Close with a TCP reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _peek(self) -> bytes:
        seen = self._sock.recv(LONGEST_LINE, socket.MSG_PEEK)
        if not seen:
            raise HungUp
        return seen

    def _receive(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            raise HungUp
        self._buffer += data
