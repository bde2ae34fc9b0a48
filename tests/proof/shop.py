"""The smallest shop that can prove anything: an order and its points in one transaction."""

from __future__ import annotations

from decimal import Decimal

from django.contrib.auth import get_user_model
from django.db import connection, models, transaction

from django_koomalooma.earning import earn
from django_koomalooma.events import EarningEvent
from django_koomalooma.models import Campaign, Commitment


class Order(models.Model):
    """A paid order. Its table is made by :func:`make_tables`, since no installed app owns it."""

    reference = models.CharField(max_length=64, unique=True)
    value = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        app_label = "proof"

    def __str__(self) -> str:
        return self.reference


def make_tables() -> None:
    """Make the table of orders."""
    with connection.schema_editor() as editor:
        editor.create_model(Order)


def pay(reference: str, value: str = "100.00", *, customer: str = "ann", signals: int = 1) -> Commitment:
    """Write a paid order, and what it earns, in one transaction.

    Args:
        signals: How often the shop says that it was paid.
    """
    with transaction.atomic():
        Order.objects.create(reference=reference, value=Decimal(value))
        return paid(reference, value, customer=customer, signals=signals)


def paid(reference: str, value: str = "100.00", *, customer: str = "ann", signals: int = 1) -> Commitment:
    """Say that an order was paid; the customer is made at his first order."""
    user, _ = get_user_model().objects.get_or_create(username=customer)
    for _ in range(signals):
        row = earn(
            EarningEvent(
                goal="purchase", reference=reference, value=Decimal(value), currency="EUR", user=user
            )
        )
    return row


def open_shop() -> None:
    """Make the campaign that rewards each order."""
    Campaign.objects.create(name="Orders", remote_id="orders", starts_at="2020-01-01T00:00Z")
