"""The verbs of an order: place, pay, cancel, refund. Each tells koomalooma's app by a signal, inside the
transaction that changes the order, so that order and points are kept together or not at all."""

from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from django_koomalooma.signals import order_amended, order_cancelled, order_paid
from shop.basket import Basket
from shop.models import Order, OrderLine, OrderStatus
from shop.points import PURCHASE, purchase_event


@transaction.atomic
def place(basket: Basket, *, user: User | None, email: str) -> Order:
    """Turn the basket into an order that waits for its payment."""
    order = Order.objects.create(user=user, email=email, total=basket.total)
    OrderLine.objects.bulk_create(
        OrderLine(order=order, product=line.product, quantity=line.quantity, price=line.product.price)
        for line in basket
    )
    basket.clear()
    return order


@transaction.atomic
def pay(number: str, *, session_id: str = "") -> Order:
    """Mark the order paid and earn its points. A second click changes nothing."""
    order = Order.objects.select_for_update().get(number=number)
    if not order.can_be_paid:
        return order
    order.status = OrderStatus.PAID
    order.paid_at = timezone.now()
    order.save(update_fields=["status", "paid_at"])
    order_paid.send(sender=Order, event=purchase_event(order, session_id=session_id))
    return order


@transaction.atomic
def cancel(number: str) -> Order:
    """Cancel the order, paid or not, and withdraw its points where they are not sent yet."""
    order = Order.objects.select_for_update().get(number=number)
    if not order.can_be_cancelled:
        return order
    was_paid = order.status == OrderStatus.PAID
    order.status = OrderStatus.CANCELLED
    order.refunded_total = order.total if was_paid else Decimal("0.00")
    order.save(update_fields=["status", "refunded_total"])
    if was_paid:
        order_cancelled.send(sender=Order, goal=PURCHASE, reference=order.number)
    return order


@transaction.atomic
def refund(number: str, refunded_total: Decimal) -> Order:
    """Record how much of a paid order has been paid back so far; the points follow what is left.

    Raises:
        ValueError: The order is not paid, or the sum is not between nothing and its total.
    """
    order = Order.objects.select_for_update().get(number=number)
    if order.status != OrderStatus.PAID:
        raise ValueError("Only a paid order can be refunded.")
    if not Decimal("0.00") <= refunded_total <= order.total:
        raise ValueError(f"The refund must be between 0.00 and {order.total}.")
    order.refunded_total = refunded_total
    order.save(update_fields=["refunded_total"])
    order_amended.send(sender=Order, goal=PURCHASE, reference=order.number, value=order.kept_total)
    return order
