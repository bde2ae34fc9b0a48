"""The verbs of earning: a shop's event becomes points owed, or no points with the reason. Sends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.db import DatabaseError, IntegrityError, models, router, transaction
from django.utils import timezone

from . import wakeup
from .conf import conf
from .deciding import Undecided, campaigns, decide
from .events import Amendment, Cancellation, EarningEvent, quantize, read_amount
from .models import Commitment, is_data_error, make_key, shorten_reference, storable
from .policy import Policy, get_policy
from .signals import commitment_queued
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

BEFORE_EVENT = "Changed by the shop before it was paid."
OFF = "KOOMALOOMA_MODE is off: nothing is recorded."
WITHDRAWN = "Withdrawn by the shop."
_STORED = Decimal("0.001")


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

    def insert(failure: str, plain: bool) -> Commitment:
        row = decide(event, policy, using, failure)
        if plain:
            _make_plain(row)
        row.save(force_insert=True, using=using)
        return row

    try:
        row = _write(insert, using)
    except IntegrityError:
        with transaction.atomic(using=using):
            first = _find(event, using) or _find(event, using, lock=True)
        if first is not None:
            return _repeat(first, event, policy, using)
        # Another row has our trace key, or the campaign is gone from under the cache: once more, afresh.
        campaigns.drop()
        row = _write(insert, using)
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
        if row.terms.get("before_event"):
            return {"net_value": amendment.value.quantize(_STORED)}
        return {"net_value": _convert(row, amendment.value, policy, using)}

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
        changed: dict[str, Any] = {"net_value": Decimal(0), "withdrawn_at": timezone.now()}
        if row.status == CommitmentStatus.QUEUED:
            changed |= {
                "status": CommitmentStatus.CANCELLED,
                "due_at": None,
                "reason": storable(reason) or WITHDRAWN,
            }
        return changed

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


def _write(write: Callable[[str, bool], Commitment], using: str) -> Commitment:
    """Call ``write`` in a savepoint, so that a failure of ours is not the shop's order's.

    Once more where a query of the shop's policy failed, with that failure for a reason, and where the
    database cannot keep some letter, an emoji for instance: better plain than lost.
    """
    failure, plain = "", False
    while True:
        try:
            with transaction.atomic(using=using):
                return write(failure, plain)
        except Undecided as error:
            if failure or is_order_lost():
                raise (error.__cause__ or error) from None
            failure = str(error)
        except DatabaseError as error:
            if plain or not is_data_error(error):
                raise
            plain = True


def _change(
    change: Amendment | Cancellation, decide_values: Callable[[Commitment], dict[str, Any]], using: str
) -> Commitment:
    """Write what was decided into the event's row, or leave a row that the event will find."""
    if conf.mode == "off":
        return Commitment(status=CommitmentStatus.SKIPPED, reason=OFF, goal=change.goal)

    def write(failure: str, plain: bool) -> Commitment:
        if _find(change, using) is None:
            try:
                with transaction.atomic(using=using):
                    return _leave(change, using, plain)
            except IntegrityError:
                if _find(change, using, lock=True) is None:
                    raise
        # Locked, and as it is now: a transaction's snapshot may be older than what another has written.
        row = _lock(using).get(key=_key(change))
        values = decide_values(row) | {"updated_at": timezone.now()}
        if row.net_value and not values["net_value"]:
            values["terms"] = row.terms | {"last_net_value": str(row.net_value)}
        if plain and "reason" in values:
            values["reason"] = _plain(values["reason"])
        Commitment.objects.using(using).filter(pk=row.pk).update(**values)
        for name, value in values.items():
            setattr(row, name, value)
        return row

    return _write(write, using)


def _leave(change: Amendment | Cancellation, using: str, plain: bool) -> Commitment:
    now = timezone.now()
    row = Commitment(
        key=_key(change),
        goal=change.goal,
        reference=shorten_reference(change.reference),
        site=change.site,
        occurred_at=now,
        created_at=now,
        updated_at=now,
        currency=conf.currency,
        net_value=change.value.quantize(_STORED) if isinstance(change, Amendment) else Decimal(0),
        withdrawn_at=None if isinstance(change, Amendment) else now,
        status=CommitmentStatus.SKIPPED,
        reason=BEFORE_EVENT,
        terms={"before_event": True},
    )
    if plain:
        _make_plain(row)
    row.save(force_insert=True, using=using)
    return row


def _convert(row: Commitment, value: Decimal, policy: Policy, using: str) -> Decimal:
    """Return ``value``, which is in the event's currency, in the row's.

    Where the shop's policy fails, at the rate at which the event itself was taken: a refund must not be lost.
    """
    currency = row.terms.get("currency", row.currency)
    try:
        with transaction.atomic(using=using):
            worth = read_amount(policy.convert(value, currency, row.currency), "the policy's convert()")
    except Exception:
        logger.exception(
            "KOOMALOOMA_POLICY failed to convert the new value of %s %s.", row.goal, row.reference
        )
        if is_order_lost():
            raise
        worth = value
        if currency != row.currency:
            told, priced = (Decimal(row.terms.get(name, "0")) for name in ("value", "net_value"))
            worth = value * priced / told if told else priced
    return quantize(worth, row.currency)


def _key(change: EarningEvent | Amendment | Cancellation) -> str:
    return make_key(change.site, change.goal, change.reference)


def _lock(using: str) -> models.QuerySet[Commitment]:
    return Commitment.objects.using(using).select_for_update()


def _find(
    change: EarningEvent | Amendment | Cancellation, using: str, *, lock: bool = False
) -> Commitment | None:
    """Return the event's row; with ``lock`` even one that a snapshot of MySQL's is too old to show.

    Not locked at first: a lock on what is not there would keep others from inserting next to it.
    """
    rows = _lock(using) if lock else Commitment.objects.using(using)
    return rows.filter(key=_key(change)).first()


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _make_plain(row: Commitment) -> None:
    """Replace what is not ASCII; the key still tells the references apart."""
    if not row.reference.isascii():
        full = row.terms.get("reference", row.reference)
        row.terms["reference"] = full.encode("ascii", "backslashreplace").decode()
    for name in ("reference", "description", "category", "session_id", "site", "reason"):
        setattr(row, name, _plain(getattr(row, name)))


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
            with transaction.atomic(using=using):
                first = _lock(using).get(pk=first.pk)
                first.terms["repeated_with"] = list(told)
                first.save(update_fields=["terms"], using=using)
    return first


def _fill(left: Commitment, event: EarningEvent, policy: Policy, using: str) -> Commitment:
    def update(failure: str, plain: bool) -> Commitment:
        row = _lock(using).get(pk=left.pk)
        if not row.terms.get("before_event"):
            return row
        decided = decide(event, policy, using, failure)
        decided.pk, decided.created_at = row.pk, row.created_at
        if not _is_paid_after(event, decided, row):
            decided.withdrawn_at = row.withdrawn_at
            # What was left is in the event's currency, which nobody knew then.
            decided.net_value = (
                _convert(decided, row.net_value, policy, using) if row.net_value else Decimal(0)
            )
            if last := Decimal(row.terms.get("last_net_value", "0")):
                decided.terms["last_net_value"] = str(_convert(decided, last, policy, using))
            withdrawn = decided.withdrawn_at is not None or not decided.net_value
            if withdrawn and decided.status == CommitmentStatus.QUEUED:
                decided.status, decided.due_at, decided.reason = CommitmentStatus.CANCELLED, None, WITHDRAWN
        if plain:
            _make_plain(decided)
        decided.save(force_update=True, using=using)
        _announce(decided, using)
        return decided

    return _write(update, using)


def _is_paid_after(event: EarningEvent, decided: Commitment, left: Commitment) -> bool:
    """Tell whether it was cancelled first, since its payment timed out for instance, and paid afterwards."""
    if event.occurred_at is None or left.withdrawn_at is None:
        return False
    return decided.occurred_at > left.withdrawn_at


def _announce(row: Commitment, using: str) -> None:
    """After the commit, tell listeners and a worker. A plain function: a partial raises after the commit."""
    if row.status != CommitmentStatus.QUEUED:
        return

    def after_commit() -> None:
        commitment_queued.send_robust(sender=Commitment, commitment=row)

    transaction.on_commit(after_commit, using=using, robust=True)
    if row.due_at is not None and row.due_at <= timezone.now():
        wakeup.after_commit(using)
