"""Rows for tests, with traits for their states."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import factory
from django.contrib.auth import get_user_model
from django.utils import timezone

from django_koomalooma.events import EarningEvent
from django_koomalooma.models import Campaign, Commitment, DeliveryAttempt, KoomaloomaUser, make_key
from django_koomalooma.statuses import CommitmentStatus


class UserFactory(factory.django.DjangoModelFactory):
    """An auth user."""

    class Meta:
        model = get_user_model()

    username = factory.Sequence("shopper{}".format)
    email = factory.LazyAttribute(lambda user: f"{user.username}@example.com")


class CampaignFactory(factory.django.DjangoModelFactory):
    """An active campaign for purchases in euro, begun long ago."""

    class Meta:
        model = Campaign

    name = factory.Sequence("Campaign {}".format)
    remote_id = factory.Sequence("campaign-{}".format)
    starts_at = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class KoomaloomaUserFactory(factory.django.DjangoModelFactory):
    """A customer; with ``registered=True`` one that koomalooma knows."""

    class Meta:
        model = KoomaloomaUser

    class Params:
        registered = factory.Trait(
            remote_id=factory.SelfAttribute("partner_user_id"),
            registered_session_id="session",
            registered_at=factory.LazyFunction(timezone.now),
        )

    user = factory.SubFactory(UserFactory)
    partner_user_id = factory.LazyFunction(lambda: uuid.uuid4().hex)


class CommitmentFactory(factory.django.DjangoModelFactory):
    """A commitment, waiting; the traits are the other statuses."""

    class Meta:
        model = Commitment

    class Params:
        held = factory.Trait(due_at=factory.LazyFunction(lambda: timezone.now() + dt.timedelta(days=14)))
        sending = factory.Trait(
            status=CommitmentStatus.SENDING,
            lease=factory.LazyFunction(uuid.uuid4),
            tries=1,
            transaction_value=factory.SelfAttribute("net_value"),
            due_at=factory.LazyFunction(lambda: timezone.now() + dt.timedelta(seconds=120)),
        )
        issued = factory.Trait(
            status=CommitmentStatus.ISSUED,
            due_at=None,
            tries=1,
            transaction_value=factory.SelfAttribute("net_value"),
            remote_id=factory.Sequence("remote-{}".format),
            loyalty_units=500,
            confirmation_status="pending",
            issued_at=factory.LazyFunction(timezone.now),
            reply={"id": "remote-1", "loyalty_units": 500, "confirmation_status": "pending"},
        )
        refused = factory.Trait(
            status=CommitmentStatus.REFUSED, due_at=None, tries=1, reason="koomalooma refused it (HTTP 400)"
        )
        in_doubt = factory.Trait(
            status=CommitmentStatus.IN_DOUBT,
            due_at=None,
            tries=1,
            lease=factory.LazyFunction(uuid.uuid4),
            transaction_value=factory.SelfAttribute("net_value"),
            reason="It may have arrived",
        )
        cancelled = factory.Trait(
            status=CommitmentStatus.CANCELLED, due_at=None, reason="Withdrawn by the shop."
        )
        written_off = factory.Trait(status=CommitmentStatus.WRITTEN_OFF, due_at=None, tries=1)
        skipped = factory.Trait(
            status=CommitmentStatus.SKIPPED,
            due_at=None,
            campaign=None,
            reason="No campaign rewards this yet.",
        )

    goal = "purchase"
    site = ""
    reference = factory.Sequence("ORDER-{}".format)
    key = factory.LazyAttribute(lambda row: make_key(row.site, row.goal, row.reference))
    user = factory.SubFactory(UserFactory)
    campaign = factory.SubFactory(CampaignFactory)
    occurred_at = factory.LazyFunction(timezone.now)
    created_at = factory.LazyFunction(timezone.now)
    updated_at = factory.LazyFunction(timezone.now)
    net_value = Decimal("100.00")
    currency = "EUR"
    description = factory.LazyAttribute(lambda row: f"Order {row.reference}"[:255])
    category = "purchase"
    terms = factory.LazyFunction(dict)
    status = CommitmentStatus.QUEUED
    due_at = factory.LazyFunction(timezone.now)


class DeliveryAttemptFactory(factory.django.DjangoModelFactory):
    """An attempt, under way."""

    class Meta:
        model = DeliveryAttempt

    commitment = factory.SubFactory(CommitmentFactory, sending=True)
    number = 1
    lease = factory.SelfAttribute("commitment.lease")
    started_at = factory.LazyFunction(timezone.now)


def make_event(**values: Any) -> EarningEvent:
    """Return a purchase of EUR 100.00 by a customer; give fields to change it."""
    fields: dict[str, Any] = {
        "goal": "purchase",
        "reference": "ORDER-1",
        "value": Decimal("100.00"),
        "currency": "EUR",
    }
    if "user" not in values and "email" not in values:
        fields["user"] = UserFactory()
    return EarningEvent(**fields | values)
