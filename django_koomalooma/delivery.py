"""One delivery run: lease what is due, send it, record what came of it. Alone joins database and network.

The order is what makes it safe: the lease and its attempts are committed before the first byte leaves, each
record is guarded by the lease, and what is neither recorded nor proved unsent is in doubt, never resent.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
import uuid
from dataclasses import dataclass

from django.db import router

from . import alarms, gate, wakeup
from .client import PartnerClient, Verdict, clock
from .conf import RUN_SECONDS, conf
from .exceptions import CallFailed, ConfigurationError
from .leasing import Leasing
from .models import Commitment, DeliveryAttempt, KoomaloomaUser
from .policy import get_policy
from .querysets import database_now
from .recording import Recording, describe
from .sender import Call, Sender, register
from .signals import commitment_in_doubt, commitment_issued, commitment_refused
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

FINISH_SECONDS = 60.0
PRUNE_SECONDS = 5.0
_OUT = {
    CommitmentStatus.ISSUED: commitment_issued,
    CommitmentStatus.REFUSED: commitment_refused,
    CommitmentStatus.IN_DOUBT: commitment_in_doubt,
}
_PROBE_CAUSES = {
    Verdict.ACCOUNT: gate.Cause.ACCOUNT,
    Verdict.MISCONFIGURED: gate.Cause.CONFIGURATION,
    Verdict.NOT_SENT: gate.Cause.UNREACHABLE,
    Verdict.LATER: gate.Cause.LATER,
}


@dataclass(slots=True)
class Run:
    """What one delivery run did, in commitments."""

    leased: int = 0
    issued: int = 0
    refused: int = 0
    in_doubt: int = 0
    requeued: int = 0
    cancelled: int = 0
    abandoned: int = 0
    more: bool = False
    stopped: str = ""
    """Why nothing (more) was sent, in a sentence."""


def deliver_due(*, sweep: bool = True, seconds: float = RUN_SECONDS) -> Run:
    """Send what is due, for at most ``seconds``, then finish what is in flight. Safe to call at any time.

    Args:
        sweep: Whether this is the regular sweep (Celery beat or cron), whose heartbeat is watched, or a
            run after a wake-up.
        seconds: How long it goes on leasing.

    Raises:
        DatabaseError: The database failed; what is leased and not recorded becomes in doubt.
        RuntimeError: It was called inside a transaction.
    """
    run = _DeliveryRun(seconds).work(sweep)
    if sweep:
        alarms.send_alarms()
    return run


class _DeliveryRun:
    def __init__(self, seconds: float) -> None:
        self.using = router.db_for_write(Commitment)
        self.rows = Commitment.objects.using(self.using)
        self.run = Run()
        self.id = uuid.uuid4()
        self.told: dict[CommitmentStatus, list[int]] = {status: [] for status in _OUT}
        self.units_left: int | None = None
        self.unrecorded: list[Call] = []
        self.until = time.monotonic() + seconds
        self.renewed = time.monotonic()
        self.has_slot = True
        self.started, self.started_at = read_clocks(self.using)
        self.recording = Recording(self.using, self.now)

    def now(self) -> dt.datetime:
        """Return the database's clock, read once and carried on by a clock that counts suspended time too."""
        return self.started_at + dt.timedelta(seconds=clock() - self.started)

    def work(self, sweep: bool) -> Run:
        if not gate.take_slot(self.id, sweep=sweep):
            self.run.stopped = "Another delivery run is under way."
            return self.run
        try:
            self.park_abandoned()
            self.deliver()
            if sweep:
                self.prune()
        finally:
            gate.free_slot(self.id)
            self.tell()
        if self.run.more:
            wakeup.notify()
        return self.run

    def deliver(self) -> None:
        if conf.mode != "live":
            self.run.stopped = f"KOOMALOOMA_MODE is {conf.mode}."
            return
        row = gate.look()
        if row.is_stopped and not gate.wants_probe(row, self.now()):
            self.run.stopped = row.reason
            return
        try:
            self.leasing = Leasing(self.using, get_policy(), self.now)
            client = open_client()
        except ConfigurationError as error:
            (gate.postpone if row.is_stopped else gate.stop)(str(error), gate.Cause.CONFIGURATION)
            self.run.stopped = str(error)
            return
        with Sender(client) as sender:
            if row.is_stopped and not self.probe(client):
                self.run.stopped = gate.read().reason
                return
            self.read_caps()
            self.counters = gate.Counters(gate.read())
            try:
                self.pump(sender)
            except BaseException:
                # A time limit, Ctrl-C, a dead database: lease nothing more, record what is in flight.
                self.finish(sender)
                raise
            finally:
                self.run.cancelled = self.leasing.cancelled
        row = gate.read()
        self.run.stopped = row.reason if row.is_stopped else ""
        self.run.more = not row.is_stopped and self.rows.due(self.now()).exists()

    def pump(self, sender: Sender) -> None:
        """Keep the window full until nothing is due or the time is over; then record what is in flight."""
        found_all = False
        while True:
            window = 1 if self.counters.is_careful else conf.concurrency
            room = window - sender.in_flight
            if room > 0 and not found_all and time.monotonic() < self.until and self.keep_slot():
                calls, found = self.leasing.lease(room)
                self.run.leased += len(calls)
                found_all = found < room
                sender.submit(calls)
            elif not sender.in_flight:
                return
            if sender.in_flight:
                sender.collect(self.unrecorded, *sender.round(window), timeout=1.0)
                self.record()
                # Once all has come back, look again: something may have become due meanwhile.
                found_all = found_all and sender.in_flight > 0

    def keep_slot(self) -> bool:
        """Renew the run's slot every few seconds; tell whether it is still ours: else nothing is leased."""
        if time.monotonic() - self.renewed > gate.RUN_SLOT.total_seconds() / 8:
            self.has_slot = gate.take_slot(self.id, sweep=False)
            self.renewed = time.monotonic()
        return self.has_slot

    def finish(self, sender: Sender) -> None:
        # First, since a dead database ends us here, and the threads go on.
        self.unrecorded.extend(sender.recall())
        end = time.monotonic() + FINISH_SECONDS
        self.record()
        while sender.in_flight and time.monotonic() < end:
            sender.collect(self.unrecorded, sender.in_flight, 0.1, timeout=1.0)
            self.record()
            self.keep_slot()

    def record(self) -> None:
        """Write what came of the calls, then count it; stop the queue where one concerns every commitment.

        What is interrupted here is recorded once more at the end: the guard makes a second time harmless.
        """
        calls = tuple(self.unrecorded)
        if not calls:
            return
        recorded = self.recording.record(calls)
        self.unrecorded.clear()
        for call, status, units in recorded:
            if status is CommitmentStatus.QUEUED:
                self.run.requeued += 1
            else:
                setattr(self.run, status.value, getattr(self.run, status.value) + 1)
                if _OUT[status].has_listeners(Commitment):
                    self.told[status].append(call.pk)
            if self.units_left is not None:
                self.units_left -= units
        for call in calls:
            if call.verdict is Verdict.ACCOUNT:
                gate.stop(f"Trouble with the account: {describe(call)}", gate.Cause.ACCOUNT)
            elif call.verdict is Verdict.MISCONFIGURED:
                gate.stop(f"Cannot send: {describe(call)}", gate.Cause.CONFIGURATION)
            elif call.verdict is Verdict.LATER and call.answer is not None:
                wait = dt.timedelta(seconds=call.answer.retry_after or 60)
                gate.stop("koomalooma asked to wait.", gate.Cause.LATER, until=self.now() + wait)
        self.counters.add(call.verdict for call in calls if not call.is_echo)
        self.counters.write()
        if self.units_left is not None and self.units_left <= 0:
            self.read_caps()

    def read_caps(self) -> None:
        """Read how many points may still be sent, and take this run's share of them before looking again."""
        left = gate.check_caps(self.now())
        self.units_left = left if left is None else max(left // conf.runs, 1)

    def park_abandoned(self) -> None:
        """Put in doubt what a run leased and never recorded.

        It may have arrived, so it is never sent again.
        """
        now = self.now()
        while pks := list(self.rows.abandoned(now).values_list("pk", flat=True)[:500]):
            self.run.abandoned += self.rows.filter(
                pk__in=pks, status=CommitmentStatus.SENDING, due_at__lte=now
            ).update(
                status=CommitmentStatus.IN_DOUBT,
                due_at=None,
                reason="The worker stopped while it was being sent.",
                updated_at=now,
            )
            if commitment_in_doubt.has_listeners(Commitment):
                self.told[CommitmentStatus.IN_DOUBT] += pks

    def prune(self) -> None:
        """Delete old attempts of what is finished and needs no decision any more."""
        days = conf.retention_days
        if days is None:
            return
        attempts = DeliveryAttempt.objects.using(self.using)
        finished = (CommitmentStatus.ISSUED, CommitmentStatus.CANCELLED, CommitmentStatus.WRITTEN_OFF)
        today = self.now().date().isoformat()
        if gate.read().warned.get("pruned") == today:
            return  # it reads all attempts: once a day is enough
        old = attempts.filter(
            ended_at__lt=self.now() - dt.timedelta(days=days), commitment__status__in=finished
        )
        end = time.monotonic() + PRUNE_SECONDS
        while pks := list(old.values_list("pk", flat=True)[:1000]):
            attempts.filter(pk__in=pks).delete()
            if time.monotonic() > end:
                return
        gate.remember("pruned", today)

    def probe(self, client: PartnerClient) -> bool:
        """Try a stopped queue with a call that issues nothing; open it again where that succeeds."""
        found = self.leasing.next_customer()
        if found is None:
            return False
        row, customer = found
        now = self.now()
        try:
            register(client, customer, row.session_id or customer.session_id or uuid.uuid4().hex, None)
        except CallFailed as failure:
            wait = failure.answer.retry_after
            gate.postpone(
                f"Tried again, and failed: {failure}",
                _PROBE_CAUSES.get(failure.answer.verdict, gate.read().code),
                until=None if wait is None else now + dt.timedelta(seconds=wait),
            )
            # Behind the others: the next probe asks with another customer, where there is one.
            self.rows.filter(pk=row.pk, status=CommitmentStatus.QUEUED).update(due_at=now, updated_at=now)
            return False
        KoomaloomaUser.objects.using(self.using).filter(pk=customer.pk).update(
            remote_id=customer.remote_id, registered_session_id=customer.session_id, registered_at=now
        )
        customer.is_changed = False
        gate.reopen()
        return True

    def tell(self) -> None:
        """Send the signals, after the last record; a listener that raises is logged and skipped."""
        for status, pks in self.told.items():
            for start in range(0, len(pks), 500):
                for row in self.rows.filter(pk__in=pks[start : start + 500], status=status):
                    _OUT[status].send_robust(sender=Commitment, commitment=row)


def read_clocks(using: str) -> tuple[float, dt.datetime]:
    """Return our clock and the database's at one moment: of three readings the one that took the least time.

    Opening the connection, or a machine under load, can put seconds between the two. Ours is read first, so
    that what is left of the gap makes a lease end late, never early.
    """
    readings = []
    for _ in range(3):
        before, at = clock(), database_now(using)
        readings.append((clock() - before, before, at))
    return min(readings)[1:]


def open_client() -> PartnerClient:
    """Return a client made from the settings.

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """
    return PartnerClient(
        conf.api_url,
        conf.api_token,
        conf.partner_id,
        connect_timeout=conf.connect_timeout,
        read_timeout=conf.read_timeout,
        pool_size=conf.concurrency,
        proxies=conf.proxies,
        ca_bundle=conf.ca_bundle,
    )
