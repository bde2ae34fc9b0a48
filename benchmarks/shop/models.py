"""An order with its lines, and its checkout: saved, then paid."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser
from django.db import models, transaction

from django_koomalooma.events import EarningEvent
from django_koomalooma.signals import order_paid


class Order(models.Model):
    """What a customer bought."""

    number = models.CharField(max_length=40, unique=True)
    customer = models.ForeignKey("auth.User", on_delete=models.CASCADE)
    total = models.DecimalField(max_digits=12, decimal_places=2)
    status = models.CharField(max_length=20, default="new")
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Order]] = models.Manager()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return str(self.number)


class Line(models.Model):
    """One article of an order."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    article = models.CharField(max_length=40)
    quantity = models.PositiveIntegerField(default=1)
    price = models.DecimalField(max_digits=12, decimal_places=2)

    objects: ClassVar[models.Manager[Line]] = models.Manager()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return self.article


def check_out(number: str, customer: AbstractBaseUser, *, earns: bool) -> Order:
    """Save an order of three lines; then, as when the payment's word comes, read it and mark it as paid.

    With ``earns`` the shop tells us so in the second transaction.
    """
    with transaction.atomic():
        order = Order.objects.create(number=number, customer=customer, total=Decimal("59.97"))
        Line.objects.bulk_create(
            Line(order=order, article=f"article-{n}", price=Decimal("19.99")) for n in range(3)
        )
    with transaction.atomic():
        order = Order.objects.select_for_update().get(number=number)
        order.status = "paid"
        order.save(update_fields=["status"])
        if earns:
            event = EarningEvent(
                goal="purchase", reference=number, value=order.total, currency="EUR", user=customer
            )
            order_paid.send(sender=Order, event=event)
    return order
