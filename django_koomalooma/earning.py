"""The verbs of earning: a shop's event becomes points owed, or no points with the reason. Sends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.db import DataError, IntegrityError, models, router, transaction
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from . import wakeup
from .conf import conf
from .deciding import campaigns, decide
from .events import Amendment, Cancellation, EarningEvent, quantize
from .models import Commitment, make_key, shorten_reference, storable
from .policy import Policy, get_policy
from .signals import commitment_queued
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

BEFORE_EVENT = "Changed by the shop before it was paid."
OFF = "KOOMALOOMA_MODE is off: nothing is recorded."
WITHDRAWN = "Withdrawn by the shop."


def earn(event: EarningEvent) -> Commitment:
    """Record what an event earns, inside the caller's transaction: a savepoint, one INSERT, its release.

    Idempotent per (site, goal, reference): a repeated event returns the row of the first. Sends nothing;
    after the commit a worker is told.

    Returns:
        The commitment: ``queued``, or ``skipped`` with the reason. With ``KOOMALOOMA_MODE = "off"`` it is
        not saved.

    Raises:
        ConfigurationError: A setting of ours is wrong.
        DatabaseError: The row could not be written. The caller's transaction is as it was before.
    """
    using = router.db_for_write(Commitment)
    if conf.mode == "off":
        return Commitment(status=CommitmentStatus.SKIPPED, reason=OFF, goal=event.goal)
    policy = get_policy()
    try:
        row = _record(event, policy, using)
    except IntegrityError:
        with transaction.atomic(using=using):
            first = _find(event.site, event.goal, event.reference, using)
        if first is not None:
            return _repeat(first, event, policy, using)
        # Another row has our trace key, or the campaign is gone from under the cache: once more, afresh.
        campaigns.drop()
        row = _record(event, policy, using)
    except DataError:
        # The database cannot keep some letter of it, an emoji for instance. Better plain than lost.
        row = _record(event, policy, using, plain=True)
    _announce(row, using)
    return row


def amend(goal: str, reference: str, value: Decimal, site: str = "") -> Commitment:
    """Write what an event is worth now, after a refund in part for instance. Safe to repeat, in any status.

    What is not sent yet is sent with the new value. Of what was sent, the difference is kept as issued too
    much: koomalooma has no call to take points back. Before its event it leaves a row that the event finds.

    Args:
        value: The new net value, in the event's currency.

    Raises:
        InvalidEvent: An argument cannot be used; the message names it.
    """
    amendment = Amendment(goal, reference, value, site)
    using = router.db_for_write(Commitment)
    policy = get_policy()

    def change(row: Commitment) -> dict[str, Any]:
        currency = row.terms.get("currency", row.currency)
        worth = policy.convert(amendment.value, currency, row.currency)
        return {"net_value": quantize(amendment.value if worth is None else worth, row.currency)}

    return _change(amendment, change, using)


def cancel(goal: str, reference: str, reason: str = "", site: str = "") -> Commitment:
    """Withdraw an event: it is worth nothing any more. Safe to repeat, in any status.

    What still waits is cancelled at once; what is being sent is not sent again; what was sent is kept as
    issued too much. Before its event it leaves a row that the event finds.

    Raises:
        InvalidEvent: An argument cannot be used; the message names it.
    """
    cancellation = Cancellation(goal, reference, reason, site)
    using = router.db_for_write(Commitment)

    def change(row: Commitment) -> dict[str, Any]:
        waits = Q(status=CommitmentStatus.QUEUED)
        return {
            "net_value": Decimal(0),
            "withdrawn_at": timezone.now(),
            "reason": Case(
                When(waits, then=Value(storable(reason) or WITHDRAWN)),
                default=F("reason"),
                output_field=models.TextField(),
            ),
            "due_at": Case(When(waits, then=None), default=F("due_at")),
            "status": Case(
                When(waits, then=Value(CommitmentStatus.CANCELLED)),
                default=F("status"),
                output_field=models.CharField(),
            ),
        }

    return _change(cancellation, change, using)


def is_order_lost() -> bool:
    """Return whether the transaction that is open can only be rolled back any more, whoever is to blame.

    After a deadlock or a lost connection there is no savepoint left to go back to. Django then rolls the
    whole transaction back at its end, without a word unless an exception reaches it; PostgreSQL answers a
    COMMIT likewise once a query has failed outside any savepoint. So whoever swallows our errors must let
    them through then: the order is lost already, and a shop that is not told thanks its customer for it.
    """
    connection = transaction.get_connection(router.db_for_write(Commitment))
    return connection.in_atomic_block and (connection.needs_rollback or not connection.is_usable())


def _change(
    change: Amendment | Cancellation, values: Callable[[Commitment], dict[str, Any]], using: str
) -> Commitment:
    """Write ``values`` into the event's row in one UPDATE, or leave a row that the event will find.

    In a savepoint, so that a failure of ours is not the shop's order's.
    """
    if conf.mode == "off":
        return Commitment(status=CommitmentStatus.SKIPPED, reason=OFF, goal=change.goal)
    with transaction.atomic(using=using):
        row = _find(change.site, change.goal, change.reference, using)
        if row is None:
            try:
                with transaction.atomic(using=using):
                    return _leave(change, using)
            except IntegrityError:
                row = _find(change.site, change.goal, change.reference, using)
                if row is None:
                    raise
        Commitment.objects.using(using).filter(pk=row.pk).update(**values(row), updated_at=timezone.now())
        row.refresh_from_db(using=using)
    return row


def _leave(change: Amendment | Cancellation, using: str) -> Commitment:
    now = timezone.now()
    row = Commitment(
        key=make_key(change.site, change.goal, change.reference),
        goal=change.goal,
        reference=shorten_reference(change.reference),
        site=change.site,
        occurred_at=now,
        created_at=now,
        updated_at=now,
        currency=conf.currency,
        net_value=change.value if isinstance(change, Amendment) else Decimal(0),
        withdrawn_at=None if isinstance(change, Amendment) else now,
        status=CommitmentStatus.SKIPPED,
        reason=BEFORE_EVENT,
        terms={"before_event": True},
    )
    row.save(force_insert=True, using=using)
    return row


def _find(site: str, goal: str, reference: str, using: str) -> Commitment | None:
    return Commitment.objects.using(using).filter(key=make_key(site, goal, reference)).first()


def _record(event: EarningEvent, policy: Policy, using: str, *, plain: bool = False) -> Commitment:
    with transaction.atomic(using=using):
        row = decide(event, policy, using)
        if plain:
            for name in ("reference", "description", "category", "session_id", "site"):
                setattr(row, name, getattr(row, name).encode("ascii", "replace").decode())
            row.terms["reference"] = event.reference.encode("ascii", "backslashreplace").decode()
        row.save(force_insert=True, using=using)
    return row


def _repeat(first: Commitment, event: EarningEvent, policy: Policy, using: str) -> Commitment:
    """Return the row of a repeated event.

    Filled in if it was left by a change, flagged if the event differs.
    """
    if first.terms.get("before_event"):
        return _fill(first, event, policy, using)
    told = (str(event.value), event.currency)
    if told != (first.terms.get("value"), first.terms.get("currency")):
        if (
            Decimal(first.terms.get("value", "0")) == event.value
            and first.terms.get("currency") == event.currency
        ):
            return first
        logger.warning(
            "%s %s came again with another value (%s %s); the first one stands. A refund is an amend().",
            first.goal, first.reference, *told,
        )  # fmt: skip
        if first.terms.get("repeated_with") != list(told):
            first.terms["repeated_with"] = list(told)
            with transaction.atomic(using=using):
                first.save(update_fields=["terms"], using=using)
    return first


def _fill(left: Commitment, event: EarningEvent, policy: Policy, using: str) -> Commitment:
    with transaction.atomic(using=using):
        row = Commitment.objects.using(using).select_for_update().get(pk=left.pk)
        if not row.terms.pop("before_event", None):
            return row
        decided = decide(event, policy, using)
        decided.pk, decided.created_at = row.pk, row.created_at
        decided.net_value, decided.withdrawn_at = row.net_value, row.withdrawn_at
        if decided.status == CommitmentStatus.QUEUED and not decided.net_value:
            decided.status, decided.due_at, decided.reason = CommitmentStatus.CANCELLED, None, WITHDRAWN
        decided.save(force_update=True, using=using)
    _announce(decided, using)
    return decided


def _announce(row: Commitment, using: str) -> None:
    """After the commit, tell listeners and a worker. A plain function: a partial raises after the commit."""
    if row.status != CommitmentStatus.QUEUED:
        return

    def after_commit() -> None:
        commitment_queued.send_robust(sender=Commitment, commitment=row)

    transaction.on_commit(after_commit, using=using, robust=True)
    if row.due_at is not None and row.due_at <= timezone.now():
        wakeup.after_commit(using)
