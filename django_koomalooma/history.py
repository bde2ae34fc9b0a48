"""Writes a commitment's history: what people decided, and answers that came after a person had decided.

An answer never overrides a person's decision. It is kept, it completes what was unknown, and where it proves
that a decision was wrong, that points are or may be booked twice, it says so loudly.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any, Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import router, transaction

from .client import Verdict
from .models import Commitment, Decision, storable
from .replies import CommitmentReply
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

LATE_ANSWER: Final = "late_answer"
By = AbstractBaseUser | str
"""The person who decided, or the name of a command."""

_S = CommitmentStatus
_UNSENT = (Verdict.REFUSED, Verdict.NOT_SENT, Verdict.MISCONFIGURED, Verdict.LATER, Verdict.ACCOUNT)


def name_of(by: By) -> str:
    """Return the name that is kept with a decision."""
    return by if isinstance(by, str) else by.get_username()


def keep_decision(
    pk: int, what: str, by: By, at: dt.datetime, *, why: str, before: str, after: str, details: dict[str, Any]
) -> None:
    """Write a line of a commitment's history."""
    Decision.objects.using(router.db_for_write(Decision)).create(
        commitment_id=pk,
        what=what,
        user_id=by.pk if isinstance(by, AbstractBaseUser) else None,
        by=name_of(by)[:150],
        at=at,
        why=storable(why.strip()),
        before=before,
        after=after,
        details=details,
    )


def keep_late_answer(
    pk: int, verdict: Verdict, reply: CommitmentReply | None, said: str, now: dt.datetime
) -> None:
    """Keep an answer whose call was not waited for any more: a person had decided in the meantime.

    Runs in the transaction that records the answer. A row that waits to be sent again, or was refused then,
    is taken as issued: the call that the person asked for is proved needless, and would double the points.

    Args:
        reply: What koomalooma booked, where ``verdict`` says that it did.
        said: What happened to the call, in a sentence.
    """
    using = router.db_for_write(Commitment)
    with transaction.atomic(using=using):
        row = Commitment.objects.using(using).select_for_update().filter(pk=pk).first()
        if row is None:
            logger.critical("Commitment %s was deleted while it was being sent. %s", pk, said)
        else:
            _keep(row, verdict, reply, said, now)


def _keep(
    row: Commitment, verdict: Verdict, reply: CommitmentReply | None, said: str, now: dt.datetime
) -> None:
    before = row.status
    details: dict[str, Any] = {"verdict": verdict.value}
    values: dict[str, Any] = {}
    alarm = ""
    if verdict is Verdict.ANSWERED and reply is not None:
        booked: dict[str, Any] = {
            "remote_id": reply.remote_id,
            "loyalty_units": reply.loyalty_units,
            "confirmation_status": reply.confirmation_status,
            "reply": reply.reply,
        }
        details |= {
            "commitment_id": reply.remote_id,
            "units": reply.loyalty_units,
            "confirmation_status": reply.confirmation_status,
            "reply": reply.reply,
        }
        points = "" if reply.loyalty_units is None else f": {reply.loyalty_units:,} points"
        said = f"koomalooma booked it{points}."
        values, alarm = _meet_proof(row, booked, now)
    elif verdict in _UNSENT and row.status == _S.ISSUED and row.lease is None:
        alarm = "A person said that it arrived, but the answer that came late says that it did not"
    if alarm:
        values["reason"] = storable(f"{alarm}. {said}")
        logger.critical(
            "Commitment %s: an answer came after a person had decided. %s. %s", row.pk, alarm, said
        )
    else:
        logger.warning("Commitment %s: an answer came after a person had decided. %s", row.pk, said)
    if values:
        rows = Commitment.objects.using(row._state.db)
        rows.filter(pk=row.pk, status=before, lease=row.lease).update(**values, updated_at=now)
    why = f"{alarm}. {said}" if alarm else said
    after = values.get("status", before)
    keep_decision(
        row.pk, LATE_ANSWER, "koomalooma", now, why=why, before=before, after=after, details=details
    )


def _meet_proof(row: Commitment, booked: dict[str, Any], now: dt.datetime) -> tuple[dict[str, Any], str]:
    """Return what a late proof of booking writes into the row, and what it must cry out."""
    match row.status:
        case _S.QUEUED | _S.REFUSED:
            return booked | {"status": _S.ISSUED, "due_at": None, "issued_at": now, "reason": ""}, ""
        case _S.ISSUED if row.lease is None:
            unknown = not row.remote_id and row.loyalty_units is None
            return (booked if unknown else {}), ""
        case _S.ISSUED:
            return {}, "Booked twice: it was sent again, and now the first call has been answered too"
        case _S.SENDING | _S.IN_DOUBT:
            return {}, "It may be booked twice: it was sent again, and now the first call has been answered"
    return {}, "It did arrive, though a person had decided otherwise. Settle it as arrived"
