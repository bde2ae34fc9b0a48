"""The shop's back office: products, orders, and what staff do with an order (cancel, refund in part)."""

from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from shop import checkout
from shop.models import Order, OrderLine, OrderStatus, Product

if TYPE_CHECKING:
    # Generic for the type checker only; at run time Django's classes take no brackets.
    ProductBase = admin.ModelAdmin[Product]
    OrderBase = admin.ModelAdmin[Order]
    LineBase = admin.TabularInline[OrderLine, Order]
else:
    ProductBase = OrderBase = admin.ModelAdmin
    LineBase = admin.TabularInline


@admin.register(Product)
class ProductAdmin(ProductBase):
    """Edit what the shop sells."""

    list_display = ("name", "price")
    prepopulated_fields = {"slug": ("name",)}


class OrderLineInline(LineBase):
    """Show the lines of an order."""

    model = OrderLine
    extra = 0
    can_delete = False
    readonly_fields = ("product", "quantity", "price")

    def has_add_permission(self, request: HttpRequest, obj: Order | None = None) -> bool:
        """Lines come from the checkout only."""
        return False


@admin.register(Order)
class OrderAdmin(OrderBase):
    """Look at orders, cancel them and pay back a part."""

    list_display = ("number", "status", "email", "total", "refunded_total", "currency", "paid_at")
    list_filter = ("status",)
    search_fields = ("number",)
    actions = ("cancel_orders",)
    inlines = (OrderLineInline,)
    fields = ("number", "status", "user", "email", "total", "currency", "paid_at", "refunded_total")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Orders come from the checkout only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Order | None = None) -> bool:
        """Orders are kept."""
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Order | None = None) -> tuple[str, ...]:
        """Everything but the refund of a paid order is history."""
        may_refund = obj is not None and obj.status == OrderStatus.PAID
        return self.fields[:-1] if may_refund else self.fields

    def save_model(self, request: HttpRequest, obj: Order, form: "ModelForm[Order]", change: bool) -> None:
        """Refund through the same verb as everybody else, so that the points follow."""
        if "refunded_total" not in form.changed_data:
            return
        try:
            checkout.refund(obj.number, obj.refunded_total)
        except ValueError as error:
            self.message_user(request, str(error), messages.ERROR)

    @admin.action(description="Cancel the selected orders")
    def cancel_orders(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        """Cancel each order, paid or not."""
        for order in queryset:
            checkout.cancel(order.number)
        self.message_user(request, "The orders are cancelled.")
