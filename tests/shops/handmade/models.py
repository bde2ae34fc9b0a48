"""Its tables: customers and orders, without any thought of points."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.db import models


class Customer(models.Model):
    """A customer, who may have an account."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    def __str__(self) -> str:
        return f"Customer {self.pk}"


class Order(models.Model):
    """An order with a field that becomes "paid"."""

    class Status(models.TextChoices):
        """Where an order stands."""

        OPEN = "open", "Open"
        PAID = "paid", "Paid"
        SHIPPED = "shipped", "Shipped"
        CANCELLED = "cancelled", "Cancelled"

    number = models.CharField(max_length=20, unique=True)
    customer = models.ForeignKey(Customer, null=True, on_delete=models.SET_NULL)
    status = models.CharField(max_length=20, choices=Status, default=Status.OPEN)
    is_test = models.BooleanField(default=False)
    note = models.CharField(max_length=20, blank=True)
    total = models.DecimalField(max_digits=10, decimal_places=2, default=Decimal("50.00"))
    refunded_total = models.DecimalField(max_digits=10, decimal_places=2, default=Decimal(0))
    paid_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.number

    def gross(self) -> Decimal:
        """Return the total with a tax of 20 %."""
        return self.total * Decimal("1.2")

    @property
    def is_settled(self) -> bool:
        """Whether it is paid."""
        return self.status == self.Status.PAID


class RushOrder(Order):
    """An order seen through a proxy."""

    class Meta:
        proxy = True
