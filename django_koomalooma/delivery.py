"""One delivery run: lease what is due, send it, record what came of it. Alone joins database and network.

The order is what makes it safe: the lease and its attempts are committed before the first byte leaves, each
record is guarded by the lease, and what is neither recorded nor proved unsent is in doubt, never resent.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DatabaseError, DataError, connections, router, transaction
from django.db.models import Q

from . import gate, wakeup
from .client import PartnerClient, Verdict, clock
from .conf import conf
from .events import format_amount
from .exceptions import CallFailed, ConfigurationError
from .models import Campaign, Commitment, DeliveryAttempt, KoomaloomaUser
from .policy import Policy, get_policy
from .querysets import database_now, guarded_update
from .replies import read_commitment, read_json
from .sender import Call, Customer, Sender, register
from .signals import commitment_in_doubt, commitment_issued, commitment_refused
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

RUN_SECONDS = 30.0
FINISH_SECONDS = 60.0
_S = CommitmentStatus
_OPEN = (_S.SENDING, _S.IN_DOUBT)
_OUTCOMES = {_S.ISSUED: commitment_issued, _S.REFUSED: commitment_refused, _S.IN_DOUBT: commitment_in_doubt}
_RECORD_PAUSES = (0.1, 0.5, 1.0, 2.0, 4.0)
_REPLY_KEPT = 2048


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
    return _DeliveryRun(seconds).work(sweep)


class _DeliveryRun:
    def __init__(self, seconds: float) -> None:
        self.using = router.db_for_write(Commitment)
        self.run = Run()
        self.id = uuid.uuid4()
        self.seconds = seconds
        self.rows = Commitment.objects.using(self.using)
        self.campaign_ids: dict[int, str] = {}
        self.customers: dict[int, Customer] = {}
        self.calls: dict[int, uuid.UUID] = {}
        self.told: dict[CommitmentStatus, list[int]] = {status: [] for status in _OUTCOMES}
        self.units_left: int | None = None

    def now(self) -> dt.datetime:
        """Return the database's clock, read once and carried on by a clock that counts suspended time too."""
        return self.started_at + dt.timedelta(seconds=clock() - self.started)

    def work(self, sweep: bool) -> Run:
        self.started, self.started_at = clock(), database_now(self.using)
        if not gate.take_slot(self.id, sweep=sweep):
            self.run.stopped = "Another delivery run is under way."
            return self.run
        try:
            self.park_abandoned()
            self.deliver()
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
            self.policy = get_policy()
            client = PartnerClient(
                conf.api_url,
                conf.api_token,
                conf.partner_id,
                connect_timeout=conf.connect_timeout,
                read_timeout=conf.read_timeout,
                pool_size=conf.concurrency,
                proxies=conf.proxies,
                ca_bundle=conf.ca_bundle,
            )
        except ConfigurationError as error:
            (gate.postpone if row.is_stopped else gate.stop)(str(error), gate.Cause.CONFIGURATION)
            self.run.stopped = str(error)
            return
        with Sender(client) as sender:
            if row.is_stopped and not self.probe(client):
                self.run.stopped = gate.read().reason
                return
            self.units_left = gate.check_caps(self.now())
            self.counters = gate.Counters(gate.read())
            self.pump(sender)
        stopped = gate.read()
        self.run.stopped = stopped.reason if stopped.is_stopped else ""
        self.run.more = not stopped.is_stopped and self.rows.due(self.now()).exists()

    def pump(self, sender: Sender) -> None:
        """Keep the window full until nothing is due or the time is over; then finish what is in flight."""
        until = time.monotonic() + self.seconds
        renew_at = time.monotonic() + gate.RUN_SLOT.total_seconds() / 4
        is_dry = False
        try:
            while True:
                window = 1 if self.counters.is_careful else conf.concurrency
                room = window - sender.in_flight
                if room > 0 and not is_dry and time.monotonic() < until:
                    calls = self.lease(room)
                    sender.submit(calls)
                    is_dry = len(calls) < room
                if not sender.in_flight:
                    if is_dry or time.monotonic() >= until:
                        break
                    continue
                linger = min(max(sender.latency / 8, 0.005), 0.1)
                self.record(sender.collect(max(window * 3 // 4, 1), linger, timeout=1.0))
                if not sender.in_flight and is_dry:
                    is_dry = False
                if time.monotonic() >= renew_at:
                    gate.take_slot(self.id, sweep=False)
                    renew_at = time.monotonic() + gate.RUN_SLOT.total_seconds() / 4
        except BaseException:
            # A time limit, Ctrl-C, a dead database: nothing more is leased, what is in flight is recorded.
            self.record(list(sender.recall()), count=False)
            end = time.monotonic() + FINISH_SECONDS
            while sender.in_flight and time.monotonic() < end:
                self.record(sender.collect(sender.in_flight, 0.1, timeout=1.0))
            raise

    # -- lease

    def lease(self, room: int) -> list[Call]:
        """Take due rows and write their attempts, in one durable transaction; only then may a byte leave."""
        lease, now, seconds = uuid.uuid4(), self.now(), conf.lease
        send_before = clock() + seconds - min(1.0, seconds / 10)
        closed: list[int] = []
        with transaction.atomic(using=self.using, durable=True):
            rows = self.rows.lock_due(now, room, gate.opened())
            found = len(rows)
            if not rows:
                return []
            rows = self.leave_out(rows, now, closed)
            customers = self.find_customers(rows)
            rows = [row for row in rows if row.pk in customers]
            self.name_campaigns(rows)
            if self.rows.lease(rows, lease, now + dt.timedelta(seconds=seconds), now) != len(rows):
                taken = set(self.rows.filter(lease=lease).values_list("pk", flat=True))
                rows = [row for row in rows if row.pk in taken]
            DeliveryAttempt.objects.using(self.using).bulk_create(
                DeliveryAttempt(commitment=row, number=row.tries + 1, lease=lease, started_at=now)
                for row in rows
            )
        self.run.leased += len(rows)
        self.run.cancelled += len(closed)
        calls = [
            Call(
                pk=row.pk,
                number=row.tries + 1,
                customer=customers[row.pk],
                session_id=row.session_id,
                campaign_id=self.campaign_ids[row.campaign_id or 0],
                value=format_amount(row.net_value, row.currency),
                description=row.description,
                category=row.category,
                send_before=send_before,
            )
            for row in rows
        ]
        for call in calls:
            self.calls[call.pk] = lease
        if found and not calls:
            return self.lease(room)
        return calls

    def leave_out(self, rows: list[Commitment], now: dt.datetime, closed: list[int]) -> list[Commitment]:
        """Cancel what must not be sent after all, and return the rest."""
        kept = []
        asks = type(self.policy).refusal is not Policy.refusal
        for row in rows:
            reason = ""
            if row.withdrawn_at is not None or (not row.net_value and not row.is_fixed):
                reason = "Worth nothing any more: withdrawn or refunded before it was sent."
            elif row.user_id is None and not row.email_hash:
                reason = "The customer was deleted before it was sent."
            elif asks:
                try:
                    with transaction.atomic(using=self.using):
                        reason = self.policy.refusal(row)
                except Exception:  # the shop's code: one row must not stop all others
                    logger.exception(
                        "KOOMALOOMA_POLICY: refusal() failed for %s; tried again in an hour.", row.pk
                    )
                    self.rows.filter(pk=row.pk, status=_S.QUEUED).update(
                        due_at=now + dt.timedelta(hours=1), reason="The shop's policy failed.", updated_at=now
                    )
                    continue
            if reason:
                closed.append(self.close(row, reason, now))
            else:
                kept.append(row)
        return kept

    def close(self, row: Commitment, reason: str, now: dt.datetime) -> int:
        self.rows.filter(pk=row.pk, status=_S.QUEUED).update(
            status=_S.CANCELLED, due_at=None, reason=reason, updated_at=now
        )
        return row.pk

    def find_customers(self, rows: Sequence[Commitment]) -> dict[int, Customer]:
        """Return the customer of each row, made where it is his first; rows whose customer is gone are cancelled."""
        users = {row.user_id for row in rows if row.user_id is not None}
        hashes = {row.email_hash for row in rows if row.user_id is None}
        known = self.read_customers(users, hashes)
        new_users = {user for user in users if ("user", user) not in known}
        new_hashes = {text for text in hashes if ("guest", text) not in known}
        if new_users or new_hashes:
            alive = get_user_model()._default_manager.using(self.using).filter(pk__in=new_users)
            fresh = [KoomaloomaUser(user_id=pk) for pk in alive.values_list("pk", flat=True)]
            fresh += [KoomaloomaUser(email_hash=text) for text in new_hashes]
            KoomaloomaUser.objects.using(self.using).bulk_create(fresh, ignore_conflicts=True)
            known |= self.read_customers(new_users, new_hashes)
        found = {}
        for row in rows:
            customer = known.get(
                ("user", row.user_id) if row.user_id is not None else ("guest", row.email_hash)
            )
            if customer is None:
                self.close(row, "The customer was deleted before it was sent.", self.now())
                self.run.cancelled += 1
            else:
                found[row.pk] = self.customers.setdefault(customer.pk, customer)
        return found

    def read_customers(self, users: Iterable[Any], hashes: Iterable[str]) -> dict[tuple[str, Any], Customer]:
        rows = KoomaloomaUser.objects.using(self.using).filter(
            Q(user_id__in=users) | Q(email_hash__in=hashes)
        )
        return {
            ("guest", row.email_hash) if row.user_id is None else ("user", row.user_id): Customer(
                pk=row.pk,
                partner_user_id=row.partner_user_id,
                remote_id=row.remote_id,
                session_id=row.registered_session_id,
                is_registered=row.registered_at is not None and row.remote_id != "",
            )
            for row in rows
        }

    def name_campaigns(self, rows: Sequence[Commitment]) -> None:
        wanted = {row.campaign_id for row in rows} - self.campaign_ids.keys()
        if wanted:
            campaigns = Campaign.objects.using(self.using).filter(pk__in=wanted)
            self.campaign_ids.update(campaigns.values_list("pk", "remote_id"))

    # -- record

    def record(self, calls: Sequence[Call], *, count: bool = True) -> None:
        """Write what came of the calls, guarded by their lease. What fails is the write, so the write is repeated."""
        if not calls:
            return
        for pause in (*_RECORD_PAUSES, None):
            try:
                self.write(calls)
                break
            except DataError:
                if len(calls) == 1:
                    self.write(calls, bare=True)
                    break
                for call in calls:
                    self.record([call], count=count)
                return
            except DatabaseError:
                if pause is None:
                    raise
                logger.warning(
                    "The record of %s calls failed; once more in %s s.", len(calls), pause, exc_info=True
                )
                time.sleep(pause)
                connections[self.using].close_if_unusable_or_obsolete()
        if count:
            self.counters.add(call.verdict for call in calls)
            self.counters.write()
        self.stop_where_needed(calls)

    def write(self, calls: Sequence[Call], *, bare: bool = False) -> None:
        now = self.now()
        customers = {call.customer.pk: call.customer for call in calls if call.customer.is_changed}
        outcomes = [self.outcome(call, now, bare) for call in calls]
        with transaction.atomic(using=self.using, durable=True):
            written = guarded_update(
                self.using,
                Commitment,
                (
                    "status", "due_at", "reason", "koomalooma_user", "remote_id", "loyalty_units",
                    "confirmation_status", "issued_at", "reply", "updated_at",
                ),
                [(*values, call.pk, self.calls[call.pk]) for call, values in zip(calls, outcomes, strict=True)],
                keys=("id", "lease"),
                statuses=_OPEN,
            )  # fmt: skip
            guarded_update(
                self.using,
                DeliveryAttempt,
                ("ended_at", "outcome", "http_status", "duration", "request", "error", "reply"),
                [(*self.closed_attempt(call, now, bare), call.pk, call.number) for call in calls],
                keys=("commitment", "number"),
            )
            guarded_update(
                self.using,
                KoomaloomaUser,
                ("remote_id", "registered_session_id", "registered_at"),
                [(c.remote_id, c.session_id, now, c.pk) for c in customers.values()],
            )
            late = self.find_unwritten(calls) if written != len(calls) else set()
        for customer in customers.values():
            customer.is_changed = False
        for call, values in zip(calls, outcomes, strict=True):
            self.count(call, CommitmentStatus(values[0]), is_late=call.pk in late)
            del self.calls[call.pk]
        if self.units_left is not None:
            self.units_left -= sum(values[5] or 0 for values in outcomes)

    def outcome(self, call: Call, now: dt.datetime, bare: bool) -> tuple[Any, ...]:
        """Return the row's new values for a call, in the order in which :meth:`write` names them."""
        answer, customer = call.answer, call.customer.pk
        body = answer.body if answer else b""
        if call.verdict is Verdict.ANSWERED:
            reply = read_commitment(b"" if bare else body)
            return (
                _S.ISSUED, None, "", customer, reply.remote_id, reply.loyalty_units,
                reply.confirmation_status, now, reply.reply, now,
            )  # fmt: skip
        status, due_at, reason = _S.QUEUED, now, _sentence(call)
        if call.verdict is Verdict.IN_DOUBT:
            status, due_at = _S.IN_DOUBT, None
        elif call.verdict is Verdict.REFUSED or (
            call.verdict is Verdict.ACCOUNT and self.others_succeeded_since(call)
        ):
            status, due_at = _S.REFUSED, None
        return (status, due_at, reason, customer, "", None, "", None, None, now)

    def others_succeeded_since(self, call: Call) -> bool:
        """Tell whether the account's trouble was this row's own: another was issued after its last such answer."""
        attempts = DeliveryAttempt.objects.using(self.using).filter(
            commitment=call.pk, number__lt=call.number
        )
        last = attempts.filter(outcome=Verdict.ACCOUNT).order_by("-number").first()
        return (
            last is not None
            and last.ended_at is not None
            and self.rows.filter(issued_at__gt=last.ended_at).exists()
        )

    def closed_attempt(self, call: Call, now: dt.datetime, bare: bool) -> tuple[Any, ...]:
        answer = call.answer
        request = f"{answer.method} {answer.path}\n{answer.request_body}" if answer and not bare else ""
        reply = read_text(answer.body) if answer and not bare else ""
        status = answer.http_status if answer else None
        return (now, call.verdict.value, status, call.duration, request, call.error[:_REPLY_KEPT], reply)

    def find_unwritten(self, calls: Sequence[Call]) -> set[int]:
        """Return the rows that were not ours any more when their answer came: a person had decided."""
        leases = dict(self.rows.filter(pk__in=[call.pk for call in calls]).values_list("pk", "lease"))
        late = {call.pk for call in calls if leases.get(call.pk) != self.calls[call.pk]}
        for call in calls:
            if call.pk in late:
                logger.critical(
                    "Commitment %s: an answer (%s) came after a person had decided. Look at its attempts.",
                    call.pk, call.verdict.value,
                )  # fmt: skip
        return late

    def count(self, call: Call, status: CommitmentStatus, *, is_late: bool) -> None:
        if is_late:
            return
        if status is _S.QUEUED:
            self.run.requeued += 1
            return
        setattr(self.run, status.value, getattr(self.run, status.value) + 1)
        if _OUTCOMES[status].has_listeners(Commitment):
            self.told[status].append(call.pk)

    def stop_where_needed(self, calls: Sequence[Call]) -> None:
        """Stop the queue at once for what concerns every commitment, not only this one."""
        for call in calls:
            if call.verdict is Verdict.ACCOUNT:
                gate.stop(f"Trouble with the account: {_sentence(call)}", gate.Cause.ACCOUNT)
            elif call.verdict is Verdict.MISCONFIGURED:
                gate.stop(f"Cannot send: {_sentence(call)}", gate.Cause.CONFIGURATION)
            elif call.verdict is Verdict.LATER:
                gate.stop("koomalooma asked to wait.", gate.Cause.LATER, until=self.later(call))
        if self.units_left is not None and self.units_left <= 0:
            self.units_left = gate.check_caps(self.now())

    def later(self, call: Call) -> dt.datetime:
        seconds = call.answer.retry_after if call.answer else None
        return self.now() + dt.timedelta(seconds=60.0 if seconds is None else seconds)

    # -- sweep, probe, signals

    def park_abandoned(self) -> None:
        """Put in doubt what a run leased and never recorded: it may have arrived, so it is never sent again."""
        now = self.now()
        while True:
            with transaction.atomic(using=self.using):
                pks = list(self.rows.abandoned(now).values_list("pk", flat=True)[:500])
                if not pks:
                    return
                parked = self.rows.filter(pk__in=pks, status=_S.SENDING, due_at__lte=now).update(
                    status=_S.IN_DOUBT,
                    due_at=None,
                    reason="The worker stopped while it was being sent.",
                    updated_at=now,
                )
            self.run.abandoned += parked
            if commitment_in_doubt.has_listeners(Commitment):
                self.told[_S.IN_DOUBT] += pks

    def probe(self, client: PartnerClient) -> bool:
        """Try a stopped queue with a call that issues nothing; open it again where that succeeds."""
        row = self.rows.due(self.now()).first()
        if row is None:
            return False
        with transaction.atomic(using=self.using):
            customers = self.find_customers([row])
        if row.pk not in customers:
            return False
        customer = customers[row.pk]
        now = self.now()
        try:
            register(client, customer, row.session_id or customer.session_id or uuid.uuid4().hex, None)
        except CallFailed as failure:
            answer = failure.answer
            until = None
            if answer.retry_after is not None:
                until = now + dt.timedelta(seconds=answer.retry_after)
            cause = _PROBE_CAUSES.get(answer.verdict, gate.read().code)
            gate.postpone(f"Tried again, and failed: {failure}", cause, until=until)
            # The next probe asks with the next customer, so that one customer cannot keep the queue shut.
            self.rows.filter(pk=row.pk, status=_S.QUEUED).update(due_at=now, updated_at=now)
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
                    _OUTCOMES[status].send_robust(sender=Commitment, commitment=row)


_PROBE_CAUSES = {
    Verdict.ACCOUNT: gate.Cause.ACCOUNT,
    Verdict.MISCONFIGURED: gate.Cause.CONFIGURATION,
    Verdict.NOT_SENT: gate.Cause.UNREACHABLE,
    Verdict.LATER: gate.Cause.LATER,
}


def read_text(body: bytes) -> str:
    """Return the first 2 KiB of an answer as text that every database keeps."""
    return body[:_REPLY_KEPT].decode("utf-8", "replace").replace("\0", "\ufffd")


def _sentence(call: Call) -> str:
    """Say what happened to a call, for the staff."""
    answer = call.answer
    who = "the customer" if call.at_user else "it"
    said = f" (HTTP {answer.http_status})" if answer and answer.http_status else ""
    text = read_text(answer.body)[:300].strip() if answer else ""
    text = f": {text}" if text else (f": {call.error[:300]}" if call.error else "")
    match call.verdict:
        case Verdict.REFUSED:
            return f"koomalooma refused {who}{said}{text}"
        case Verdict.ACCOUNT:
            return f"koomalooma refused our account{said}{text}"
        case Verdict.LATER:
            return "koomalooma asked to wait."
        case Verdict.NOT_SENT | Verdict.MISCONFIGURED:
            return f"Not sent{said}{text}"
    return f"It may have arrived{said}{text}"
