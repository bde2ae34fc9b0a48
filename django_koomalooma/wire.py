"""Connections that know whether a byte left: the wire flag, the watchdog, the honest pool.

What is sent over them is `transport.py`'s, what an outcome means is decided in `client.py`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: Seconds that an idle connection may wait for its next call; servers close idle ones at a time of their
#: own, and a request that meets such a close ends in doubt (measured).
KEEP_ALIVE = 1.0


def _boot_clock() -> Callable[[], float]:
    """Return the clock that goes on while the machine is suspended, where there is one."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boottime is None else lambda: time.clock_gettime(boottime)


#: Seconds of a clock that never goes back; `send_before` is a reading of it.
clock = _boot_clock()


class WireCall:
    """One call on the wire: whether a byte may have left, and which socket to shut at the deadline."""

    __slots__ = ("deadline", "overdue", "send_before", "sent", "sock")

    def __init__(self, send_before: float | None) -> None:
        self.send_before = send_before
        self.deadline = 0.0
        self.overdue = False
        self.sent = False
        self.sock: socket.socket | None = None

    def watch(self, sock: Any) -> None:
        """Name the socket that the watchdog shuts; raise TimeoutError if the deadline has passed."""
        self.sock = getattr(sock, "socket", sock)  # TLS inside TLS wraps the socket in an object of its own
        # The watchdog sets overdue and then looks for the socket, we do it the other way round: whatever the
        # order, one of the two sees the other.
        if self.overdue:
            raise TimeoutError("the call's deadline passed before the first byte")

    def raise_flag(self, sock: Any) -> None:
        """Say that the next byte may leave; raise TimeoutError if it must not leave any more."""
        self.watch(sock)
        if self.send_before is not None and clock() >= self.send_before:
            raise TimeoutError("the time to send this ran out before the first byte")
        self.sent = True

    def shut(self) -> None:
        """End the call from another thread: whoever reads or writes the socket wakes up."""
        self.overdue = True
        if self.sock is not None:
            # Not the TLS socket's own method: it would drop the TLS layer under a reader's feet.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _Thread(threading.local):
    """The call that this thread is making: a connection carries one call at a time, and so does a thread."""

    call: WireCall | None = None

    def current(self) -> WireCall:
        if self.call is None:
            raise RuntimeError("these connections only carry the calls of Transport.exchange()")
        return self.call


this_thread = _Thread()


class Watchdog:
    """Shut the socket of each call that is still armed `seconds` after it was.

    The read time-out of a socket starts anew with each byte (a drip lasted 12 s under one of 1 s), so the
    total is kept here: one thread, made when needed and gone when idle. All calls have the same time, so
    they end in the order in which they were armed, and a thread that sleeps that long misses none.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._armed: dict[WireCall, None] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def arm(self, call: WireCall) -> None:
        with self._lock:
            call.deadline = time.monotonic() + self._seconds
            self._armed[call] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="koomalooma-watchdog", daemon=True)
                self._thread.start()

    def disarm(self, call: WireCall) -> bool:
        """Stop watching the call; return False if its socket has been shut."""
        with self._lock:
            self._armed.pop(call, None)
            return not call.overdue

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        pause = self._seconds
        while True:
            idle = not self._closed.wait(pause)
            with self._lock:
                now = time.monotonic()
                # Shut under the lock: a call that is disarmed can be sure that its socket is left alone.
                while self._armed and (call := next(iter(self._armed))).deadline <= now:
                    del self._armed[call]
                    call.shut()
                if not self._armed:
                    self._thread = None
                    return
                pause = next(iter(self._armed)).deadline - now
            if not idle:
                time.sleep(pause)


class _Unseen(bytes):
    """What goes over the wire as it is, and shows in no traceback that prints local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'[secret]'"


class WireHTTPConnection(HTTPConnection):
    """Connect first, let the tunnel's own bytes pass, then raise the flag, then hand over the request."""

    idle_since = 0.0
    _held: bytes | None = None
    _connecting = False
    _handle: socket.socket | None = None

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False
            this_thread.current().sock = self.sock
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()
        # The watchdog gets a copy of the handle, because the TLS handshake takes the socket object away.
        self._handle = sock.dup()
        try:
            this_thread.current().watch(self._handle)
        except TimeoutError:
            sock.close()
            raise
        return sock

    def send(self, data: Any) -> None:
        if not self._connecting:
            if self.sock is None and self.auto_open:
                self.connect()
            call = this_thread.current()
            if not call.sent:
                if self._held is None and b"\r\nContent-Length: 0\r\n" not in data:
                    # urllib3 hands over the head alone, then the body: one packet is cheaper than two.
                    self._held = _Unseen(data)
                    return
                data, self._held = _Unseen((self._held or b"") + data), None
                call.raise_flag(self.sock)
        super().send(data)

    def close(self) -> None:
        self._held = None
        super().close()


class WireHTTPSConnection(WireHTTPConnection, HTTPSConnection):
    """The same over TLS: the handshake is part of connecting."""


class HonestPool(HTTPConnectionPool):
    """Hand out connections that were used a moment ago or are new, and take back none that was shut."""

    watchdog: Watchdog

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        if conn.sock is not None and time.monotonic() - conn.idle_since > KEEP_ALIVE:
            conn.close()
            conn = self._new_conn()
        return conn

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            if not self.watchdog.disarm(this_thread.current()):
                conn.close()
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)


class WireHTTPPool(HonestPool):
    ConnectionCls = WireHTTPConnection


class WireHTTPSPool(HonestPool, HTTPSConnectionPool):
    ConnectionCls = WireHTTPSConnection
