"""Brokers that fail, on loopback, each thrown away after use: refused, black hole, silent, frozen, killed.

No shared service is touched: Redis is a process of its own, RabbitMQ stands behind a proxy of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Self


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port where every connection is refused: bound, so that nobody else takes it, and never listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port where the kernel accepts and nobody ever answers: what a hanging broker looks like."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield listener.getsockname()[1]


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full, so that packets are dropped, as by a firewall or a lost machine."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0.05)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        else:
            raise RuntimeError("the queue of the listening socket never filled up")
        yield address[1]


class ThrowawayRedis:
    """An own `redis-server` process that may be frozen, thawed and killed."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = tempfile.TemporaryDirectory(prefix="koomalooma-redis-")
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": self._folder.name, "save": ""}
        self._process = subprocess.Popen(
            [program, *(part for name, value in options.items() for part in (f"--{name}", value))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return self
            time.sleep(0.02)
        self.__exit__()
        raise TimeoutError("the throw-away redis-server did not start")

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._folder.cleanup()

    def freeze(self) -> None:
        """Stop the process: the kernel still accepts connections, nothing answers."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)


class Proxy:
    """A TCP proxy in front of a healthy broker that can stop forwarding, cut an answer short, or drop dead.

    Args:
        port: Of the broker, on loopback.
        answer_bytes: Forward only so many bytes of each connection's answers, then be silent.
    """

    def __init__(self, port: int, *, answer_bytes: int | None = None) -> None:
        self._target = ("127.0.0.1", port)
        self._answer_bytes = answer_bytes
        self.answered = 0  #: bytes that came back from the broker so far
        self._flowing = threading.Event()
        self._flowing.set()
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def freeze(self) -> None:
        """Keep every connection, accept new ones, forward nothing."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def kill(self) -> None:
        """Drop every connection and refuse new ones."""
        self._ended.set()
        for thread in self._threads:
            thread.join(5)
        for each in (self._listener, *self._open):
            each.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], 0.02)[0]:
                continue
            client, _ = self._listener.accept()
            broker = socket.create_connection(self._target)
            self._open += [client, broker]
            thread = threading.Thread(target=self._pump, args=(client, broker), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pump(self, client: socket.socket, broker: socket.socket) -> None:
        left = self._answer_bytes
        while not self._ended.is_set():
            if not self._flowing.wait(0.02):
                continue
            for source in select.select([client, broker], [], [], 0.02)[0]:
                try:
                    data = source.recv(65536)
                    if source is client:
                        broker.sendall(data)
                    elif left is None:
                        self.answered += len(data)
                        client.sendall(data)
                    else:
                        client.sendall(data[:left])
                        left -= len(data[:left])
                except OSError:
                    data = b""
                if not data:
                    for each in (client, broker):
                        with contextlib.suppress(OSError):
                            each.shutdown(socket.SHUT_RDWR)
                    return
