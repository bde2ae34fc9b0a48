"""A server of raw sockets for tests: it does to a connection what a test tells it, and remembers requests."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

#: Certificate and key of localhost, for both sides.
CERTIFICATE = str(Path(__file__).with_name("localhost.pem"))

COMMITMENT = b'{"id": "c-1", "loyalty_units": 12}'


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: RawServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        self._read = b""

    def start_tls(self) -> None:
        """Do the server's part of a TLS handshake."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self.sock = context.wrap_socket(self.sock, server_side=True)

    def read_request(self) -> Request | None:
        """Read one request and remember it; None when the connection ended first."""
        while b"\r\n\r\n" not in self._read:
            if not self._receive():
                return None
        head, self._read = self._read.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._read) < length:
            if not self._receive():
                return None
        body, self._read = self._read[:length], self._read[length:]
        request = Request(method, target, headers, body, self.number)
        self.server.requests.append(request)
        return request

    def read_some(self, size: int) -> bytes:
        """Read bytes that are no request of ours."""
        return self.sock.recv(size)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_beneath_tls(self, data: bytes) -> None:
        """Send bytes that are no TLS record."""
        with socket.socket(fileno=os.dup(self.sock.fileno())) as raw:
            raw.sendall(data)

    def drip(self, data: bytes, pause: float = 0.1) -> None:
        """Send one byte at a time until the other side goes away."""
        for index in range(len(data)):
            self.sock.sendall(data[index : index + 1])
            self.pause(pause)

    def pause(self, seconds: float = 30.0) -> None:
        """Do nothing for some time, or until the server stops."""
        self.server.stopped.wait(seconds)

    def reset(self) -> None:
        """Let the connection end in a reset instead of an orderly close."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        self._read += data
        return data


class RawServer:
    """Serve each connection with `behave` in a thread of its own, as a context manager.

    Args:
        behave: gets the `Peer`; when it returns, the connection is closed.
        tls: do a TLS handshake before that.
    """

    def __init__(self, behave: Callable[[Peer], None], *, tls: bool = False) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.stopped = threading.Event()
        self._behave = behave
        self._tls = tls
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(5)
        self._listener.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(5)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(self, sock, self.connections)
            self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        try:
            with contextlib.suppress(OSError):
                if self._tls:
                    peer.start_tls()
                self._behave(peer)
        finally:
            peer.sock.close()


def answer(status: int = 201, body: bytes = COMMITMENT, *headers: str) -> bytes:
    """Write a whole answer with its length."""
    length = [] if status in {204, 304} else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"HTTP/1.1 {status} Answer", "Content-Type: application/json", *length, *headers])
    return head.encode() + b"\r\n\r\n" + (body if length else b"")


def answering(status: int = 201, body: bytes = COMMITMENT, *headers: str) -> Callable[[Peer], None]:
    """Give every request on a connection the same answer."""
    return sending(answer(status, body, *headers), keep_alive=True)


def sending(data: bytes, *, keep_alive: bool = False) -> Callable[[Peer], None]:
    """Read a request, send these bytes, and close the connection unless it is kept for the next one."""

    def behave(peer: Peer) -> None:
        while peer.read_request():
            peer.send(data)
            if not keep_alive:
                return

    return behave
