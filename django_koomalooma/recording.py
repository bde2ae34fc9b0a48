"""Writes what came of calls: verdict to status, guarded by the lease. Database only; nothing is sent here."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db import DatabaseError, connections, transaction

from .client import Verdict
from .history import keep_late_answer
from .models import Commitment, DeliveryAttempt, KoomaloomaUser, is_data_error
from .querysets import guarded_update
from .replies import cut_text, read_commitment
from .sender import Call
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

_S = CommitmentStatus
OPEN = (_S.SENDING, _S.IN_DOUBT)
"""What a record may overwrite; in doubt only by the sweep, since a person's decision takes the lease away."""
PAUSES = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Seconds before the write is repeated after a database error. The call never is."""


class Recording:
    """Records for one delivery run.

    Args:
        using: The database alias of the commitments.
        now: The run's clock: the database's time.
    """

    def __init__(self, using: str, now: Callable[[], dt.datetime]) -> None:
        self._using = using
        self._now = now
        self._rows = Commitment.objects.using(using)

    def record(self, calls: Sequence[Call]) -> list[tuple[Call, CommitmentStatus, int]]:
        """Write what came of the calls, many rows at a time; a failing write is repeated, never the call.

        Returns:
            For each call that was still ours: the call, the row's new status, and the points issued.

        Raises:
            DatabaseError: The database could not be written for some seconds. The rows stay leased, and
                the sweep will put them in doubt.
        """
        for pause in (*PAUSES, None):
            try:
                return self._write(calls)
            except DatabaseError as error:
                if is_data_error(error):
                    # Something in an answer that this database cannot keep: one by one, then without it.
                    if len(calls) == 1:
                        return self._write(calls, bare=True)
                    return [done for call in calls for done in self.record([call])]
                if pause is None:
                    raise
                logger.warning(
                    "The record of %s calls failed; again in %s s.", len(calls), pause, exc_info=True
                )
                time.sleep(pause)
                connections[self._using].close_if_unusable_or_obsolete()
        raise AssertionError("unreachable")

    def _write(
        self, calls: Sequence[Call], *, bare: bool = False
    ) -> list[tuple[Call, CommitmentStatus, int]]:
        now = self._now()
        outcomes = [self._outcome(call, now, bare) for call in calls]
        customers = {call.customer.pk: call.customer for call in calls if call.customer.is_changed}
        with transaction.atomic(using=self._using, durable=True):
            written = guarded_update(
                self._using,
                Commitment,
                (
                    "status", "due_at", "reason", "koomalooma_user", "remote_id", "loyalty_units",
                    "confirmation_status", "issued_at", "reply", "updated_at",
                ),
                [(*values, call.pk, call.lease) for call, values in zip(calls, outcomes, strict=True)],
                keys=("id", "lease"),
                statuses=OPEN,
            )  # fmt: skip
            guarded_update(
                self._using,
                DeliveryAttempt,
                ("ended_at", "outcome", "http_status", "duration", "request", "error", "reply"),
                [(*_closed(call, now, bare), call.pk, call.number) for call in calls],
                keys=("commitment", "number"),
            )
            guarded_update(
                self._using,
                KoomaloomaUser,
                ("remote_id", "registered_session_id", "registered_at"),
                [(c.remote_id, c.session_id, now, c.pk) for c in customers.values()],
            )
            late = self._find_late(calls, now, bare) if written != len(calls) else set()
        for customer in customers.values():
            customer.is_changed = False
        return [
            (call, values[0], values[5] or 0)
            for call, values in zip(calls, outcomes, strict=True)
            if call.pk not in late
        ]

    def _outcome(self, call: Call, now: dt.datetime, bare: bool) -> tuple[Any, ...]:
        """Return the row's new values for a call, in the order in which :meth:`_write` names them."""
        customer = call.customer.pk
        if call.verdict is Verdict.ANSWERED:
            reply = read_commitment(call.answer.body if call.answer and not bare else b"")
            return (
                _S.ISSUED, None, "", customer, reply.remote_id, reply.loyalty_units,
                reply.confirmation_status, now, reply.reply, now,
            )  # fmt: skip
        status: CommitmentStatus = _S.QUEUED
        due_at: dt.datetime | None = now  # behind the others
        if call.verdict is Verdict.IN_DOUBT:
            status, due_at = _S.IN_DOUBT, None
        elif call.verdict is Verdict.REFUSED or (_may_be_its_own(call) and self._is_alone(call)):
            status, due_at = _S.REFUSED, None
        reason = "It may have arrived." if bare else describe(call)
        return (status, due_at, reason, customer, "", None, "", None, None, now)

    def _is_alone(self, call: Call) -> bool:
        """Tell whether the trouble is this row's own: it had the same before, and another went well since.

        So one bad row does not stop the shop for ever. Another counts only if its call began afterwards.
        """
        attempts = DeliveryAttempt.objects.using(self._using).filter(
            commitment=call.pk, number__lt=call.number, outcome=call.verdict, http_status__isnull=False
        )
        last = attempts.order_by("-number").first()
        return (
            last is not None
            and self._rows.filter(
                issued_at__gt=last.ended_at,
                attempts__outcome=Verdict.ANSWERED,
                attempts__started_at__gt=last.ended_at,
            ).exists()
        )

    def _find_late(self, calls: Sequence[Call], now: dt.datetime, bare: bool) -> set[int]:
        """Return the rows that were not ours any more when their answer came: a person had decided."""
        leases = dict(self._rows.filter(pk__in=[call.pk for call in calls]).values_list("pk", "lease"))
        late = [call for call in calls if leases.get(call.pk) != call.lease]
        for call in late:
            booked = call.verdict is Verdict.ANSWERED
            reply = read_commitment(call.answer.body if call.answer and not bare else b"") if booked else None
            keep_late_answer(call.pk, call.verdict, reply, "" if bare else describe(call), now)
        return {call.pk for call in late}


def _may_be_its_own(call: Call) -> bool:
    """Tell whether it may be this row's own fault: our account is refused, or its customer not created."""
    return call.verdict is Verdict.ACCOUNT or (
        call.verdict is Verdict.NOT_SENT
        and call.at_user
        and call.answer is not None
        and call.answer.http_status is not None
    )


def describe(call: Call) -> str:
    """Say what happened to a call, in a sentence for the staff."""
    answer = call.answer
    said = f" (HTTP {answer.http_status})" if answer and answer.http_status else ""
    text = cut_text(answer.body, 300).strip() if answer else ""
    text = text or cut_text(call.error.encode("utf-8", "replace"), 300)
    text = f": {text}" if text else "."
    match call.verdict:
        case Verdict.REFUSED:
            return f"koomalooma refused {'the customer' if call.at_user else 'it'}{said}{text}"
        case Verdict.ACCOUNT:
            return f"koomalooma refused our account{said}{text}"
        case Verdict.LATER:
            return "koomalooma asked to wait."
        case Verdict.NOT_SENT | Verdict.MISCONFIGURED:
            return f"Not sent{said}{text}"
    return f"It may have arrived{said}{text}"


def _closed(call: Call, now: dt.datetime, bare: bool) -> tuple[Any, ...]:
    answer = call.answer
    if answer is None or bare:
        return (now, call.verdict.value, answer and answer.http_status, call.duration, "", "", "")
    request = f"{answer.method} {answer.path}\n{answer.request_body}"
    error = cut_text(call.error.encode("utf-8", "replace"))
    return (now, call.verdict.value, answer.http_status, call.duration, request, error, cut_text(answer.body))
