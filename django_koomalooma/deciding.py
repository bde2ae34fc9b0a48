"""Decides what an event earns: a row not saved yet, with points owed or with the reason why none."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import logging
import os
import time
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, models, router, transaction
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from .conf import conf
from .events import EarningEvent, quantize, read_amount
from .exceptions import InvalidEvent
from .models import Campaign, Commitment, Gate, make_key, make_trace_key, shorten_reference, storable
from .policy import Policy, get_policy
from .statuses import CommitmentStatus

logger = logging.getLogger("django_koomalooma")

NO_CAMPAIGN = "No campaign rewards this yet."
DRY_RUN = "Dry run: nothing was sent."
_CAMPAIGNS_FOR = 10.0
# The runs go by the database's clock. A web server whose clock is ahead of it would make points wait that
# long, and the wake-up find nothing to do.
_CLOCKS_APART = dt.timedelta(minutes=1)


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


class Undecided(DatabaseError):
    """A query failed while the event was decided, and has spoilt its savepoint: why, in a sentence."""


def decide(event: EarningEvent, policy: Policy, using: str, failure: str = "") -> Commitment:
    """Return the event's row, not saved. What the shop's policy cannot decide is kept, without points.

    Args:
        failure: Why the event could not be decided at a first try; it then gets no points for that reason.

    Raises:
        Undecided: A query of the policy failed. Decide again in a new savepoint, with the failure.
    """
    now = timezone.now()
    at = _read_time(event.occurred_at or now, now)
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
    row.reason = _no_customer(row) or failure or _reward(row, event, policy, using)
    if not row.reason and conf.mode == "dry_run":
        row.reason = DRY_RUN
    if not row.reason and row.campaign is not None:
        hold = dt.timedelta(days=row.campaign.hold_days)
        earliest = now - _CLOCKS_APART
        row.status = CommitmentStatus.QUEUED
        row.due_at = max(earliest, at + hold) if hold else earliest
        if not conf.names_token():
            row.terms["before_token"] = True
    return row


def _read_time(at: dt.datetime, now: dt.datetime) -> dt.datetime:
    """Return ``at`` as Django keeps times, aware as ``now`` is or not; the project's time zone tells."""
    if timezone.is_aware(at) == timezone.is_aware(now):
        return at
    zone = timezone.get_default_timezone()
    return timezone.make_naive(at, zone) if timezone.is_aware(at) else timezone.make_aware(at, zone)


def _reward(row: Commitment, event: EarningEvent, policy: Policy, using: str) -> str:
    """Choose the campaign and freeze the event's worth; return why it earns nothing, or ``""``."""
    try:
        row.campaign, reason = choose_campaign(event, row.occurred_at, using, policy)
        if row.campaign:
            reason = _price(row, event, policy, row.campaign)
        else:
            row.description = storable(event.description)[:230]
            row.terms["worth"] = str(_net_value(event, policy))
        return policy.exclusion(event) or reason
    except DatabaseError as error:
        logger.exception("A query failed while %s %s was decided.", event.goal, event.reference)
        raise Undecided(f"It could not be decided ({type(error).__name__}); see the log.") from error
    except Exception as error:  # the shop's code: the event must leave its row all the same
        logger.exception("KOOMALOOMA_POLICY failed for %s %s.", event.goal, event.reference)
        return f"The shop's policy failed ({type(error).__name__}); see the log."


def _net_value(event: EarningEvent, policy: Policy) -> Decimal:
    return read_amount(policy.net_value(event), "the policy's net_value()")


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
        value = _net_value(event, policy)
    converted = policy.convert(value, event.currency, campaign.currency)
    if converted is None:
        return f"Paid in {event.currency}; the campaign is in {campaign.currency}."
    converted = read_amount(converted, "the policy's convert()")
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
        minimum = quantize(campaign.minimum_value, campaign.currency)
        return f"Below the campaign's minimum of {minimum} {campaign.currency}."
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
    key = _guest_keys.get(using) or _read_guest_key(using)
    return hmac.new(key.encode(), email.strip().lower().encode(), hashlib.sha256).hexdigest()


_guest_keys: dict[str, str] = {}


def _read_guest_key(using: str) -> str:
    gate, _ = Gate.objects.using(using).get_or_create(pk=1)
    key: str = gate.guest_key

    def after_commit() -> None:
        # Not before: a row that was made just now goes with a rollback, and its key with it.
        _guest_keys[using] = key

    transaction.on_commit(after_commit, using=using)
    return key


def _set_source(row: Commitment, event: EarningEvent, using: str) -> None:
    source = event.source
    if isinstance(source, models.Model) and source.pk is not None and len(str(source.pk)) <= 64:
        row.source_type = ContentType.objects.db_manager(using).get_for_model(source)
        row.source_id = str(source.pk)
