"""What the shop keeps: products, orders and their lines. Nothing here knows about points."""

import secrets
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.urls import reverse

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def new_order_number() -> str:
    """Return a short random order number without letters that are easily misread."""
    return "K-" + "".join(secrets.choice(ALPHABET) for _ in range(7))


class Product(models.Model):
    """A thing that the shop sells."""

    name = models.CharField(max_length=80)
    slug = models.SlugField(unique=True, help_text="Also the name of its picture.")
    description = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.name


class OrderStatus(models.TextChoices):
    """Where an order stands, in words for the customer."""

    PLACED = "placed", "Waiting for payment"
    PAID = "paid", "Paid"
    CANCELLED = "cancelled", "Cancelled"


class Order(models.Model):
    """One purchase, by a customer with an account or by a guest."""

    number = models.CharField(max_length=20, unique=True, default=new_order_number, editable=False)
    status = models.CharField(max_length=10, choices=OrderStatus, default=OrderStatus.PLACED)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="orders"
    )
    email = models.EmailField()
    total = models.DecimalField(max_digits=10, decimal_places=2)
    refunded_total = models.DecimalField(
        max_digits=10, decimal_places=2, default=Decimal("0.00"), help_text="Paid back so far."
    )
    currency = models.CharField(max_length=3, default="EUR")
    placed_at = models.DateTimeField(auto_now_add=True)
    paid_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.number

    def get_absolute_url(self) -> str:
        """Return the address of the customer's page of this order."""
        return reverse("shop:order", args=[self.number])

    @property
    def kept_total(self) -> Decimal:
        """What the customer has paid and not got back."""
        return self.total - self.refunded_total

    @property
    def can_be_paid(self) -> bool:
        """True while the shop waits for the payment."""
        return self.status == OrderStatus.PLACED

    @property
    def can_be_cancelled(self) -> bool:
        """True until the order is cancelled."""
        return self.status != OrderStatus.CANCELLED


class OrderLine(models.Model):
    """One product of an order, with the price it had then."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product}"

    @property
    def total(self) -> Decimal:
        """The price of the line."""
        return self.price * self.quantity
