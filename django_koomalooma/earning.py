"""The verbs of earning: a shop's event becomes points owed, or no points with the reason. Sends nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import DataError, IntegrityError, models, router, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.signals import post_delete, post_save
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from . import wakeup
from .conf import conf
from .events import Amendment, Cancellation, EarningEvent, quantize
from .exceptions import InvalidEvent
from .models import Campaign, Commitment, Gate, make_key, make_trace_key, shorten_reference, storable
from .policy import Policy, get_policy
from .signals import commitment_queued
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

NO_CAMPAIGN = "No campaign rewards this yet."
DRY_RUN = "Dry run: nothing was sent."
BEFORE_EVENT = "Changed by the shop before it was paid."
OFF = "KOOMALOOMA_MODE is off: nothing is recorded."
WITHDRAWN = "Withdrawn by the shop."
_CAMPAIGNS_FOR = 10.0


class _Campaigns:
    """The active campaigns, kept for ten seconds in this process and dropped when one is saved here.

    What finds none is looked up again at once, so that a new campaign never costs a customer his points.
    """

    def __init__(self) -> None:
        self._state: tuple[float, int, str, list[Campaign]] = (0.0, 0, "", [])

    def drop(self, **kwargs: Any) -> None:
        self._state = (0.0, 0, "", [])

    def read(self, using: str, *, fresh: bool = False) -> tuple[list[Campaign], bool]:
        """Return the campaigns, and whether they were read just now."""
        until, pid, alias, campaigns = self._state
        if not fresh and time.monotonic() < until and (pid, alias) == (os.getpid(), using):
            return campaigns, False
        campaigns = list(Campaign.objects.using(using).active())
        self._state = (time.monotonic() + _CAMPAIGNS_FOR, os.getpid(), using, campaigns)
        return campaigns, True


campaigns = _Campaigns()
post_save.connect(campaigns.drop, sender=Campaign, dispatch_uid="koomalooma_campaigns")
post_delete.connect(campaigns.drop, sender=Campaign, dispatch_uid="koomalooma_campaigns")


def choose_campaign(
    event: EarningEvent, at: dt.datetime, using: str, policy: Policy
) -> tuple[Campaign | None, str]:
    """Return the campaign that rewards the event, or ``None`` and the reason in a sentence.

    A campaign of the event's own site is preferred to one without a site, one in its currency to one that
    the policy converts to.
    """
    found, fresh = campaigns.read(using)
    campaign, reason = _match(event, at, found, policy)
    if campaign is None and not fresh:
        campaign, reason = _match(event, at, campaigns.read(using, fresh=True)[0], policy)
    return campaign, reason


def _match(
    event: EarningEvent, at: dt.datetime, found: list[Campaign], policy: Policy
) -> tuple[Campaign | None, str]:
    fits = [c for c in found if c.goal == event.goal and c.site in ("", event.site)]
    if not fits:
        return None, NO_CAMPAIGN
    started = [c for c in fits if c.starts_at <= at]
    if not started:
        return None, "Paid before the campaign began."
    running = [c for c in started if c.ends_at is None or at < c.ends_at]
    if not running:
        return None, "Paid after the campaign had ended."
    running.sort(key=lambda c: (c.site != event.site, c.currency != event.currency, -c.starts_at.timestamp()))
    for campaign in running:
        if policy.convert(event.value, event.currency, campaign.currency) is not None:
            return campaign, ""
    return None, f"Paid in {event.currency}; the campaign is in {running[0].currency}."


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
        row = _decide(event, policy, using)
        if plain:
            for name in ("reference", "description", "category", "session_id", "site"):
                length = Commitment._meta.get_field(name).max_length
                setattr(row, name, getattr(row, name).encode("ascii", "replace").decode()[:length])
            row.terms["reference"] = event.reference.encode("ascii", "backslashreplace").decode()
        row.save(force_insert=True, using=using)
    return row


def _repeat(first: Commitment, event: EarningEvent, policy: Policy, using: str) -> Commitment:
    """Return the row of a repeated event: filled in if it was left by a change, flagged if the event differs."""
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
            first.save(update_fields=["terms"], using=using)
    return first


def _fill(left: Commitment, event: EarningEvent, policy: Policy, using: str) -> Commitment:
    with transaction.atomic(using=using):
        row = Commitment.objects.using(using).select_for_update().get(pk=left.pk)
        if not row.terms.pop("before_event", None):
            return row
        decided = _decide(event, policy, using)
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


def _decide(event: EarningEvent, policy: Policy, using: str) -> Commitment:
    now = timezone.now()
    at = event.occurred_at or now
    if timezone.is_aware(now) and timezone.is_naive(at):
        at = timezone.make_aware(at)
    row = Commitment(
        key=make_key(event.site, event.goal, event.reference),
        goal=event.goal,
        reference=shorten_reference(event.reference),
        site=event.site,
        session_id=storable(event.session_id)[:255],
        occurred_at=at,
        currency=event.currency,
        net_value=quantize(event.value, event.currency),
        created_at=now,
        updated_at=now,
        status=CommitmentStatus.SKIPPED,
        terms={"value": str(event.value), "currency": event.currency, "policy": conf.policy},
    )
    if row.reference != event.reference:
        row.terms["reference"] = storable(event.reference)
    _set_customer(row, event, using)
    _set_source(row, event, using)
    campaign, reason = choose_campaign(event, at, using, policy)
    row.campaign = campaign
    if campaign:
        row.reason = _price(row, event, policy, campaign)
    else:
        row.reason = reason
        row.description = storable(event.description)[:230]
        row.terms["worth"] = str(policy.net_value(event))
    row.reason = _no_customer(row) or policy.exclusion(event) or row.reason
    if not row.reason and conf.mode == "dry_run":
        row.reason = DRY_RUN
    if not row.reason and campaign:
        row.status = CommitmentStatus.QUEUED
        row.due_at = max(now, at + dt.timedelta(days=campaign.hold_days)) if campaign.hold_days else now
        if not conf.can_send:
            row.terms["before_token"] = True
    return row


def reprice(row: Commitment) -> str:
    """Choose a campaign for an event that had none, and price it, in memory only: for a person's decision.

    A campaign that began only after the event counts too. The value is what the policy made of the event
    when it came, or what the shop amended it to since.

    Returns:
        Why it earns nothing after all, or ``""``.

    Raises:
        ConfigurationError: A setting of ours is wrong.
    """
    using = router.db_for_write(Commitment)
    policy = get_policy()
    currency = row.terms.get("currency", row.currency)
    value = row.net_value
    if "value" in row.terms and value == quantize(Decimal(row.terms["value"]), currency):
        value = Decimal(row.terms.get("worth", row.terms["value"]))
    event = EarningEvent(
        goal=row.goal,
        reference=row.terms.get("reference", row.reference),
        value=value,
        currency=currency,
        user=row.user,
        description=row.description,
        occurred_at=row.occurred_at,
        source=row.source,
        session_id=row.session_id,
        site=row.site,
    )
    campaign, reason = choose_campaign(event, row.occurred_at, using, policy)
    if campaign is None:
        campaign, _ = choose_campaign(event, max(timezone.now(), row.occurred_at), using, policy)
    if campaign is None:
        return reason
    row.campaign = campaign
    return _price(row, event, policy, campaign, value)


def _price(
    row: Commitment, event: EarningEvent, policy: Policy, campaign: Campaign, value: Decimal | None = None
) -> str:
    """Freeze what the event is worth under the campaign; return why it earns nothing, or ``""``."""
    if value is None:
        value = policy.net_value(event)
    converted = policy.convert(value, event.currency, campaign.currency)
    if converted is None:
        return f"Paid in {event.currency}; the campaign is in {campaign.currency}."
    fixed = event.goal != "purchase" and (campaign.fixed_value is not None or not converted)
    if fixed:
        converted = campaign.fixed_value or Decimal(0)
    row.net_value = quantize(converted, campaign.currency)
    row.currency = campaign.currency
    row.trace_key = make_trace_key()
    text = storable(policy.description(event, campaign))
    row.description = f"{text[:230]} KL-{row.trace_key}".strip()
    row.category = storable(policy.category(event, campaign))[:100]
    row.terms |= {
        "net_value": str(row.net_value),
        "fixed": fixed,
        "campaign": campaign.remote_id,
        "hold_days": campaign.hold_days,
        "minimum_value": str(campaign.minimum_value),
    }
    if fixed:
        return ""
    if not row.net_value:
        return "Nothing was paid."
    if row.net_value < campaign.minimum_value:
        return f"Below the campaign's minimum of {quantize(campaign.minimum_value, campaign.currency)} {campaign.currency}."
    return ""


def _set_customer(row: Commitment, event: EarningEvent, using: str) -> None:
    user = event.user
    if user is not None and getattr(user, "is_authenticated", False) and user.pk is not None:
        if not isinstance(user, get_user_model()):
            raise InvalidEvent(f"user is a {type(user).__name__}: give the user that logs in, or None.")
        row.user_id = user.pk
    elif event.email.strip() and conf.guests:
        row.email_hash = hash_email(event.email, using)


def _no_customer(row: Commitment) -> str:
    if row.user_id is not None or row.email_hash:
        return ""
    if conf.guests:
        return "A guest without an e-mail address."
    return "Bought as a guest: points need an account."


def hash_email(email: str, using: str) -> str:
    """Return the keyed hash that stands for a guest; the key is random and kept in the database."""
    gate, _ = Gate.objects.using(using).get_or_create(pk=1)
    return hmac.new(gate.guest_key.encode(), email.strip().lower().encode(), hashlib.sha256).hexdigest()


def _set_source(row: Commitment, event: EarningEvent, using: str) -> None:
    source = event.source
    if (
        isinstance(source, models.Model | SimpleLazyObject)
        and source.pk is not None
        and len(str(source.pk)) <= 64
    ):
        row.source_type = ContentType.objects.db_manager(using).get_for_model(source)
        row.source_id = str(source.pk)
