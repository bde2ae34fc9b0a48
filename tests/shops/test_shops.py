"""Which shop is connected, by which setting, and what a wrong one costs: nothing but a sentence."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from pytest_django import Settings

from django_koomalooma import shops
from django_koomalooma.events import Amendment, Cancellation, EarningEvent
from django_koomalooma.exceptions import ConfigurationError
from django_koomalooma.models import Commitment
from tests.factories import CampaignFactory, UserFactory

from .handmade.signals import HOOKS, paid

pytestmark = pytest.mark.django_db
NAME = "tests.shops.test_shops.StallShop"
TRIGGER = {"signal": "tests.shops.handmade.signals.paid", "event": "tests.shops.handmade.points.paid"}


class StallShop(shops.Shop):
    """An adapter as a project would write it."""

    name = "stall"
    options = ("price",)

    def connect(self) -> None:
        """Connect all three."""
        self.listen(paid, self.paid)
        self.listen(HOOKS["invoice.paid"], self.amended)
        self.listen(HOOKS["invoice.failed"], self.cancelled)

    def paid(self, sender: Any, **kwargs: Any) -> EarningEvent | None:
        """Return the sale of an apple."""
        price = self.option("price", Decimal("3.00"))
        return EarningEvent("purchase", "APPLE", price, "EUR", user=kwargs.get("user"))

    def amended(self, sender: Any, **kwargs: Any) -> Amendment | None:
        """Return half of it."""
        return Amendment("purchase", "APPLE", Decimal("1.50"))

    def cancelled(self, sender: Any, **kwargs: Any) -> Cancellation | None:
        """Return its return."""
        return Cancellation("purchase", "APPLE", "It was sour.")

    def events(self, since: dt.datetime, until: dt.datetime) -> list[EarningEvent]:
        """Return what was sold."""
        return [EarningEvent("purchase", "APPLE", Decimal("3.00"), "EUR", occurred_at=since)]


class BrokenShop(shops.Shop):
    """An adapter with a mistake."""

    def connect(self) -> None:
        """Connect something, then fail."""
        self.listen(paid, self.paid)
        raise RuntimeError("the adapter's mistake")

    def paid(self, sender: Any, **kwargs: Any) -> EarningEvent | None:
        """Return what must not be recorded."""
        return EarningEvent("purchase", "HALF", Decimal("1.00"), "EUR", user=kwargs.get("user"))


@pytest.fixture(autouse=True)
def _shops() -> Iterator[None]:
    CampaignFactory()
    yield
    shops.disconnect()


def rows() -> list[tuple[str, Decimal, str]]:
    return [(row.reference, row.net_value, str(row.status)) for row in Commitment.objects.order_by("id")]


def test_an_adapter_of_ones_own_earns_amends_and_cancels(settings: Settings) -> None:
    settings.KOOMALOOMA_SHOP = NAME
    shops.connect()
    seen = []

    paid.send(sender=None, user=UserFactory())
    seen += rows()
    HOOKS["invoice.paid"].send(sender=None)
    seen += rows()
    HOOKS["invoice.failed"].send(sender=None)
    seen += rows()

    assert seen == [
        ("APPLE", Decimal("3.000"), "queued"),
        ("APPLE", Decimal("1.500"), "queued"),
        ("APPLE", Decimal("0.000"), "cancelled"),
    ]
    assert shops.connected() == ["Orders of stall."]


def test_an_option_is_read_live(settings: Settings) -> None:
    settings.KOOMALOOMA_SHOP = NAME
    shops.connect()
    settings.KOOMALOOMA_SHOP_OPTIONS = {"price": Decimal("9.00")}

    paid.send(sender=None, user=UserFactory())

    assert rows() == [("APPLE", Decimal("9.000"), "queued")]


def test_the_paid_orders_of_a_period_come_from_the_adapter(settings: Settings) -> None:
    settings.KOOMALOOMA_SHOP = NAME
    shops.connect()
    day = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)

    orders = shops.find_orders()

    assert orders
    assert [event.reference for event in orders(day, day)] == ["APPLE"]


def test_connecting_twice_connects_once(settings: Settings) -> None:
    settings.KOOMALOOMA_SHOP = NAME

    shops.connect()
    shops.connect()

    assert len([one for one in paid.receivers if "koomalooma" in str(one[0])]) == 1


@pytest.mark.skipif(apps.is_installed("oscar"), reason="here a shop is installed")
def test_by_default_nothing_is_connected_where_no_shop_is_installed() -> None:
    shops.connect()

    assert (shops.connected(), shops.connection_errors(), shops.connected_shop()) == ([], [], None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "oscars",
            "KOOMALOOMA_SHOP is 'oscars': give 'auto', 'oscar', a dotted path to an adapter of your own, "
            "or None.",
        ),
        ("no.such.Shop", "KOOMALOOMA_SHOP is 'no.such.Shop': No module named 'no'"),
        (
            "tests.factories.UserFactory",
            "KOOMALOOMA_SHOP is 'tests.factories.UserFactory': give a subclass of "
            "django_koomalooma.shops.Shop.",
        ),
        (
            "tests.shops.test_shops.BrokenShop",
            "KOOMALOOMA_SHOP is 'tests.shops.test_shops.BrokenShop', which does not connect: "
            "RuntimeError: the adapter's mistake",
        ),
        (
            7,
            "KOOMALOOMA_SHOP is 7: give 'auto', the name of an adapter, a dotted path, or None.",
        ),
    ],
)
def test_a_wrong_shop_is_told_and_the_triggers_of_other_goals_work(
    settings: Settings, name: object, message: str
) -> None:
    settings.KOOMALOOMA_SHOP = name
    settings.KOOMALOOMA_TRIGGERS = [{**TRIGGER, "goal": "review"}]

    shops.connect()
    paid.send(sender=None, order=None, user=UserFactory())

    assert [str(error) for error in shops.connection_errors()] == [message]
    assert shops.connected() == ["Signal tests.shops.handmade.signals.paid (review, KOOMALOOMA_TRIGGERS[0])."]
    assert rows() == []


@pytest.mark.skipif(apps.is_installed("oscar"), reason="here it is installed")
def test_a_shop_that_is_not_installed_is_told(settings: Settings) -> None:
    settings.KOOMALOOMA_SHOP = "oscar"

    shops.connect()

    assert [str(error) for error in shops.connection_errors()] == [
        "KOOMALOOMA_SHOP is 'oscar', which is not in INSTALLED_APPS."
    ]


def test_settings_of_a_wrong_type_are_told_and_stop_no_command(settings: Settings) -> None:
    settings.KOOMALOOMA_TRIGGERS = {"model": "handmade.Order"}

    shops.connect()
    call_command("migrate", verbosity=0)

    assert [str(error) for error in shops.connection_errors()] == [
        "KOOMALOOMA_TRIGGERS is {'model': 'handmade.Order'}: give a list of dicts."
    ]


def test_the_orders_setting_must_be_a_function(settings: Settings) -> None:
    settings.KOOMALOOMA_ORDERS = "tests.shops.no_such.orders"

    with pytest.raises(ConfigurationError, match=r"^KOOMALOOMA_ORDERS is 'tests\.shops\.no_such\.orders': "):
        shops.find_orders()
