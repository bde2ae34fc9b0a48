"""The sandbox as a server on loopback: a thread per connection, keep-alive, and its own pages for control.

Owns sockets, threads and the record of requests; what is answered comes from rules.py and faults.py.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import threading
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .control import CONTROL, Exchange, answer_control
from .faults import Aim, Orders
from .ledger import Ledger, Row
from .rules import CampaignRule, Rules, call_of
from .wire import HungUp, Reply, Request, Unreadable, Wire

DEFAULT_TOKEN = "sandbox-token"
DEFAULT_PARTNER_ID = "sandbox-partner"


class Sandbox:
    """A pretend koomalooma for one partner, served from a daemon thread.

    Args:
        port: 0 takes any; a port in use is replaced by another one, see `port` and `wanted_port`.
        ledger: file of the bookings, taken up again where it ends; None keeps them in memory.
        campaigns: `{"<campaign id>": {"percent": 5} or {"points": 250}}`; others are then unknown.
        percent: what any campaign gives without `campaigns`; 100 points are EUR 1, so EUR 100.00 give 500.
        daily_cap: points per UTC day; what would exceed it is answered 403.
        latency: seconds between booking and answer.
        durable: fsync each booking before it is answered.

    Raises:
        ValueError: the host is not a loopback address, or a campaign cannot be read.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str = DEFAULT_TOKEN,
        partner_id: str = DEFAULT_PARTNER_ID,
        ledger: Path | str | None = None,
        campaigns: Mapping[str, object] | None = None,
        percent: float = 5,
        daily_cap: int | None = None,
        monthly_cap: int | None = None,
        latency: float = 0.0,
        durable: bool = True,
    ) -> None:
        self.host = "127.0.0.1" if host == "localhost" else host
        if not _is_loopback(self.host):
            raise ValueError(f"the sandbox serves on loopback only (127.0.0.1, ::1), not on {host!r}")
        self.wanted_port = self.port = port
        self.latency = latency
        self.ledger = Ledger(None if ledger is None else Path(ledger), durable=durable)
        self.rules = Rules(
            self.ledger,
            token=token,
            partner_id=partner_id,
            any_campaign=CampaignRule.read("any", {"percent": percent}),
            campaigns=campaigns,
            daily_cap=daily_cap,
            monthly_cap=monthly_cap,
        )
        self._orders = Orders()
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: dict[threading.Thread, socket.socket] = {}
        self._counts: Counter[str] = Counter()
        self._last: deque[Exchange] = deque(maxlen=200)

    @property
    def url(self) -> str:
        """The value for KOOMALOOMA_API_URL."""
        return f"{self._origin}/api"

    @property
    def control_url(self) -> str:
        """Where another process gives orders and reads the ledger."""
        return f"{self._origin}{CONTROL}"

    def settings(self) -> dict[str, str]:
        """Return the settings that point a shop at this sandbox."""
        return {
            "KOOMALOOMA_PARTNER_ID": self.rules.partner_id,
            "KOOMALOOMA_API_TOKEN": self.rules.token,
            "KOOMALOOMA_API_URL": self.url,
        }

    def start(self) -> Sandbox:
        """Open the ledger and serve. After a `stop` it comes back on the same port.

        Raises:
            LedgerError: the ledger is in use or cannot be read.
            OSError: no port can be had, or after a stop another program has taken it.
        """
        self.ledger.open()
        try:
            listener = self._listen()
        except OSError:
            self.ledger.close()
            raise
        self._listener = listener
        self._stopping = threading.Event()
        threading.Thread(target=self._accept, args=(listener, self._stopping), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop serving, end every connection and close the ledger. What was booked can still be read."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the accept; closing alone would not
        listener.close()
        with self._lock:
            threads = dict(self._threads)
        for connection in threads.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        self.ledger.close()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def misbehave(
        self,
        fault: str,
        *,
        times: int | None = 1,
        call: Aim = "commitments",
        probability: float = 1.0,
        **options: Any,
    ) -> None:
        """Order a fault of the catalogue for the next calls.

        Args:
            times: how many calls it spoils; None for every one until `behave`.
            options: those of the fault, and `book` to overrule whether it books.

        Raises:
            ValueError: there is no such fault, call or option.
        """
        self._orders.add(fault, times=times, call=call, probability=probability, **options)

    def behave(self) -> None:
        """Withdraw every fault that is still to come."""
        self._orders.clear()

    def bookings(self) -> list[Row]:
        """Return the ledger, oldest booking first."""
        return self.ledger.bookings()

    def users(self) -> list[Row]:
        """Return the users made so far, with their latest session."""
        return self.ledger.users()

    def requests(self) -> dict[str, Any]:
        """Return how many calls came, and the last 200 with what was sent and answered; never the token."""
        with self._lock:
            counts, last = dict(self._counts), list(self._last)
        return {
            "count": sum(counts.values()),
            "calls": counts,
            "last": [exchange.tell() for exchange in last],
        }

    @property
    def _origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            try:
                listener.bind((self.host, self.port))
            except OSError as error:
                served_here_before = self.port != self.wanted_port
                if error.errno != errno.EADDRINUSE or served_here_before:
                    raise
                listener.bind((self.host, 0))
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        return listener

    def _accept(self, listener: socket.socket, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection, stopping), daemon=True)
            with self._lock:
                self._threads[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket, stopping: threading.Event) -> None:
        wire = Wire(connection, stopping)
        try:
            while not stopping.is_set() and self._exchange(wire):
                pass
        except Unreadable as error:
            with contextlib.suppress(HungUp, OSError):
                reply = Reply.of(error.status, {"error": str(error)})
                wire.send(reply.head(keep_alive=False) + reply.body)
                wire.finish()
        except (HungUp, OSError):
            pass
        finally:
            connection.close()
            with self._lock:
                self._threads.pop(threading.current_thread(), None)

    def _exchange(self, wire: Wire) -> bool:
        request = wire.await_request()
        call = call_of(request.method, request.path)
        order = self._orders.take(call)
        if order and order.fault.share is None:
            self._record(call, request, order.name, None)
            order.fault.act(wire, request, Reply(0), order.options)
        request = wire.read_head()
        request.body = wire.read_body(request, share=order.fault.share or 1 if order else 1)
        if request.path.startswith(CONTROL):
            reply = answer_control(self, request)
            wire.send(reply.head(keep_alive=request.keep_alive) + reply.body)
            return request.keep_alive
        if order and order.fault.delays_booking:
            wire.wait(order.options["seconds"])
        reply = self.rules.answer(
            request,
            book=order.book if order else True,
            user_id=order.options.get("user_id") if order else None,
        )
        spoil = order is not None and order.fault.applies(reply, book=order.book)
        self._record(call, request, order.name if order else "", None if spoil else reply)
        wire.wait(self.latency)
        if order is not None and spoil:
            order.fault.act(wire, request, reply, order.options)
        else:
            wire.send(reply.head(keep_alive=request.keep_alive) + reply.body)
        return request.keep_alive

    def _record(self, call: str, request: Request, fault: str, reply: Reply | None) -> None:
        with self._lock:
            self._counts[call] += 1
            self._last.append(Exchange(request, fault, reply))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
