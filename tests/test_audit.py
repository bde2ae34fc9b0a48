"""The audit: paid orders without a commitment are found, and recorded when asked to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma.earning import amend, cancel, earn
from django_koomalooma.events import EarningEvent
from django_koomalooma.models import Commitment
from tests.factories import CampaignFactory, UserFactory, make_event

pytestmark = pytest.mark.django_db

ORDERS: list[EarningEvent] = []


def paid_orders(since: dt.datetime, until: dt.datetime) -> Iterator[EarningEvent]:
    """Give the test's orders of the period."""
    return (event for event in ORDERS if since <= (event.occurred_at or timezone.now()) < until)


@pytest.fixture
def orders(settings: Settings) -> Iterator[list[EarningEvent]]:
    settings.KOOMALOOMA_ORDERS = f"{__name__}.paid_orders"
    yield ORDERS
    ORDERS.clear()


def test_a_missing_order_is_named_and_ends_with_one(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    CampaignFactory()
    user = UserFactory()
    orders += [make_event(user=user, reference="KEPT"), make_event(user=user, reference="LOST")]
    earn(orders[0])

    with pytest.raises(SystemExit) as ended:
        call_command("koomalooma_audit")

    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "purchase LOST: 100.00 EUR, missing",
        "2 paid orders, 1 missing, 0 worth something else.",
    ]
    assert Commitment.objects.count() == 1


def test_backfill_records_what_is_missing_under_the_campaign_of_its_day(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    CampaignFactory(starts_at=timezone.now() - dt.timedelta(days=2))
    user = UserFactory()
    orders += [
        make_event(user=user, reference="NEW", occurred_at=timezone.now() - dt.timedelta(days=1)),
        make_event(user=user, reference="OLD", occurred_at=timezone.now() - dt.timedelta(days=5)),
    ]

    call_command("koomalooma_backfill")
    call_command("koomalooma_audit")

    assert dict(Commitment.objects.values_list("reference", "reason")) == {
        "NEW": "",
        "OLD": "Paid before the campaign began.",
    }
    assert capsys.readouterr().out.splitlines() == [
        "purchase NEW: 100.00 EUR, recorded: Waiting",
        "purchase OLD: 100.00 EUR, recorded: No points Paid before the campaign began.",
        "2 paid orders, 2 missing, 0 worth something else.",
        "2 paid orders, 0 missing, 0 worth something else.",
    ]


def test_an_order_that_is_worth_something_else_is_named_unless_the_shop_has_told(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    CampaignFactory()
    user = UserFactory()
    for reference in ("same", "refunded unseen", "refunded", "cancelled"):
        earn(make_event(user=user, reference=reference))
    amend("purchase", "refunded", Decimal("60.00"))
    cancel("purchase", "cancelled")
    orders += [
        make_event(user=user, reference="same"),
        make_event(user=user, reference="refunded unseen", value=Decimal("60.00")),
        make_event(user=user, reference="refunded", value=Decimal("60.00")),
        make_event(user=user, reference="cancelled", value=Decimal("60.00")),
    ]

    call_command("koomalooma_audit")

    assert capsys.readouterr().out.splitlines() == [
        "purchase refunded unseen: 60.00 EUR, but its commitment says 100.00 EUR",
        "4 paid orders, 0 missing, 1 worth something else.",
    ]


def test_the_period_is_the_one_asked_for(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    orders.append(make_event(occurred_at=timezone.make_aware(dt.datetime(2026, 3, 5, 12))))

    call_command("koomalooma_audit", "--since", "2026-03-06", "--until", "2026-03-07")
    with pytest.raises(SystemExit):
        call_command("koomalooma_audit", "--since", "2026-03-05", "--until", "2026-03-06")

    assert capsys.readouterr().out.splitlines()[0] == "0 paid orders, 0 missing, 0 worth something else."


def test_a_shop_that_cannot_name_its_orders_is_told_what_to_do(settings: Settings) -> None:
    settings.KOOMALOOMA_ORDERS = None

    with pytest.raises(CommandError, match="KOOMALOOMA_ORDERS"):
        call_command("koomalooma_audit")


def test_a_day_that_cannot_be_read_is_named() -> None:
    with pytest.raises(CommandError, match="'yesterday' is not a day: write it as 2026-11-30"):
        call_command("koomalooma_audit", "--since", "yesterday")
