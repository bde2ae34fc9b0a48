"""Makes the calls of a delivery run from a pool of threads. Touches no database: values in, outcomes out."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from .client import Answer, PartnerClient, Verdict
from .exceptions import CallFailed
from .replies import read_user_id

_FAST = 0.003  # seconds: below it, more than two threads only fight for the interpreter
_FEW = 2
_SLOW = 0.05
_LONGEST_LINGER = 0.1


@dataclass(slots=True, eq=False, weakref_slot=True)
class Customer:
    """One customer in one run, shared by his calls, so that he is created once."""

    pk: int
    partner_user_id: str
    remote_id: str
    session_id: str
    is_registered: bool
    is_changed: bool = False
    failure: CallFailed | None = None
    failed_lease: uuid.UUID | None = None
    """The lease in which he could not be created: its other calls need not each find out by themselves."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True, eq=False)
class Call:
    """One leased commitment on its way, and what came of it."""

    pk: int
    number: int
    lease: uuid.UUID
    customer: Customer
    session_id: str
    campaign_id: str
    value: str
    description: str
    category: str
    send_before: float
    answer: Answer | None = None
    verdict: Verdict = Verdict.IN_DOUBT
    at_user: bool = False
    """Whether the outcome is that of creating the customer: then the commitment was never sent."""
    is_echo: bool = False
    """Whether the outcome is another call's, of the same customer: no call was made, so it counts nowhere."""
    error: str = ""
    duration: float = 0.0


class Sender:
    """Threads that make calls: few while koomalooma answers at once, one for each call when it does not.

    Use it as a context manager; leaving it waits for no thread, so collect what is in flight before.
    """

    def __init__(self, client: PartnerClient) -> None:
        self._client = client
        self._waiting: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._enough = threading.Event()
        self._missing = 1
        self._threads = 0
        self._latency = 0.0
        self.in_flight = 0

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *exc: object) -> None:
        for _ in range(self._threads):
            self._waiting.put(None)
        self._client.close()

    def round(self, window: int) -> tuple[int, float]:
        """Return how many calls of a full window to record together, and how many seconds to wait for them.

        Many while koomalooma is quick, since each round has its price; few while it is slow, so that the
        slots of what is back are filled while the others are under way.
        """
        if self._latency < _SLOW:
            return max(window * 3 // 4, 1), max(self._latency / 8, 0.005)
        return max(window // 4, 1), min(self._latency / 16, _LONGEST_LINGER)

    def submit(self, calls: list[Call]) -> None:
        """Hand calls to the threads."""
        for call in calls:
            self.in_flight += 1
            self._waiting.put(call)
        self._grow(self.in_flight if self._latency > _FAST else min(_FEW, self.in_flight))

    def collect(self, into: list[Call], wanted: int, linger: float, timeout: float) -> None:
        """Add all that has finished: when ``wanted`` have, or ``linger`` seconds after the first.

        While calls still wait for a thread, none is idle, so it lingers longer: fewer and larger records.

        Args:
            into: Where finished calls go one by one, so that no interruption can lose one.
            timeout: Seconds to wait for the first.
        """
        wanted += len(into)
        until = time.monotonic() + timeout
        while self.in_flight and not self._take_done(into):
            if (wait := until - time.monotonic()) <= 0:
                return
            if not self._wait(1, min(wait, _FAST * 2)):
                self._grow(self.in_flight)
        until = time.monotonic() + linger
        latest = until - linger + _LONGEST_LINGER
        while self.in_flight and len(into) < wanted:
            wait = (until if self._waiting.empty() else latest) - time.monotonic()
            if wait <= 0:
                return
            self._wait(min(wanted - len(into), self.in_flight), min(wait, linger))
            self._take_done(into)

    def _wait(self, missing: int, timeout: float) -> bool:
        # Woken once, by the thread that finishes the last: each wake-up takes the interpreter from a sender.
        self._enough.clear()
        self._missing = missing
        return self._done.qsize() >= missing or self._enough.wait(timeout)

    def _take_done(self, into: list[Call]) -> int:
        done = self._done.qsize()
        for _ in range(done):
            call = self._done.get()
            into.append(call)
            self.in_flight -= 1
            self._latency += (call.duration - self._latency) * (0.2 if self._latency else 1.0)
        return done

    def recall(self) -> Iterator[Call]:
        """Take back what no thread has begun: nothing of it was sent."""
        while True:
            try:
                call = self._waiting.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                self.in_flight -= 1
                call.verdict, call.error = Verdict.NOT_SENT, "The delivery run ended before its turn."
                call.is_echo = True
                yield call

    def _grow(self, wanted: int) -> None:
        while self._threads < wanted:
            self._threads += 1
            threading.Thread(target=self._work, name="koomalooma-sender", daemon=True).start()

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            started = time.monotonic()
            try:
                send(self._client, call)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the outcome must be recorded
                call.error = f"{type(error).__name__}: {error}"
                call.verdict = Verdict.NOT_SENT if call.at_user else Verdict.IN_DOUBT
            call.duration = time.monotonic() - started
            self._done.put(call)
            if self._done.qsize() >= self._missing:
                self._enough.set()


def register(client: PartnerClient, customer: Customer, session_id: str, send_before: float | None) -> Answer:
    """Create the customer at koomalooma, or tell it his new session; issues nothing, may be repeated (O3).

    Raises:
        CallFailed: He was not created, or it is not known.
    """
    answer = client.create_user(customer.partner_user_id, session_id, send_before=send_before)
    named = read_user_id(answer.body) if answer.http_status != 409 else ""
    customer.remote_id = named or customer.remote_id or customer.partner_user_id
    customer.session_id, customer.is_registered, customer.is_changed = session_id, True, True
    return answer


def send(client: PartnerClient, call: Call) -> None:
    """Create the customer where needed, then the commitment; write the outcome into ``call``."""
    customer = call.customer
    try:
        with customer.lock:
            if not customer.is_registered or (call.session_id and call.session_id != customer.session_id):
                call.at_user = True
                if customer.failure is not None and customer.failed_lease == call.lease:
                    call.is_echo = True
                    raise customer.failure
                try:
                    session_id = call.session_id or customer.session_id or uuid.uuid4().hex
                    register(client, customer, session_id, call.send_before)
                except CallFailed as failure:
                    customer.failure, customer.failed_lease = failure, call.lease
                    raise
                call.at_user = False
        call.answer = client.create_commitment(
            customer.remote_id,
            call.campaign_id,
            call.value,
            call.description,
            call.category,
            send_before=call.send_before,
        )
    except CallFailed as failure:
        call.answer = failure.answer
    call.verdict, call.error = call.answer.verdict, call.answer.error
    if call.at_user and call.verdict is Verdict.IN_DOUBT:
        call.verdict = Verdict.NOT_SENT
