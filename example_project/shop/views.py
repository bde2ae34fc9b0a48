"""The storefront's pages: catalogue, basket, checkout, payment, sign-up and the customer's own orders."""

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from django_koomalooma.signals import order_paid
from django_koomalooma.widget import session_id_for
from shop import checkout as verbs
from shop.basket import Basket
from shop.forms import CheckoutForm, QuantityForm, SignUpForm
from shop.models import Order, Product
from shop.points import points_of, sign_up_event

GUEST_ORDERS = "guest_orders"


def customer(request: HttpRequest) -> User | None:
    """Return who is logged in, or None for a guest."""
    return request.user if isinstance(request.user, User) else None


def orders_of(request: HttpRequest) -> QuerySet[Order]:
    """Return the orders that this visitor may see: the own ones, and those placed as a guest."""
    from_this_session = Q(user=None, number__in=request.session.get(GUEST_ORDERS, []))
    user = customer(request)
    return Order.objects.filter(from_this_session if user is None else from_this_session | Q(user=user))


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """Show what the shop sells."""
    return render(request, "shop/catalogue.html", {"products": Product.objects.all()})


@require_POST
def add_to_basket(request: HttpRequest, slug: str) -> HttpResponse:
    """Put one product into the basket."""
    product = get_object_or_404(Product, slug=slug)
    Basket(request.session).add(product)
    messages.success(request, f"{product.name} is in your basket.")
    return redirect("shop:catalogue")


@require_safe
def basket(request: HttpRequest) -> HttpResponse:
    """Show the basket."""
    return render(request, "shop/basket.html")


@require_POST
def change_quantity(request: HttpRequest, slug: str) -> HttpResponse:
    """Change how many of a product are in the basket."""
    form = QuantityForm(request.POST)
    if form.is_valid():
        Basket(request.session).set(get_object_or_404(Product, slug=slug), form.cleaned_data["quantity"])
    else:
        messages.error(request, "Please give a quantity from 0 to 20.")
    return redirect("shop:basket")


@require_http_methods(["GET", "HEAD", "POST"])
def checkout(request: HttpRequest) -> HttpResponse:
    """Place the order."""
    own_basket = Basket(request.session)
    if not own_basket:
        return redirect("shop:basket")
    user = customer(request)
    form = CheckoutForm(request.POST or None, initial={"email": user.email if user else ""})
    if form.is_valid():
        order = verbs.place(own_basket, user=user, email=form.cleaned_data["email"])
        if user is None:
            request.session[GUEST_ORDERS] = [*request.session.get(GUEST_ORDERS, []), order.number]
        return redirect(order)
    return render(request, "shop/checkout.html", {"form": form})


@login_required
@require_safe
def orders(request: HttpRequest) -> HttpResponse:
    """Show the customer's orders and the points of each."""
    own = list(orders_of(request)[:50])
    return render(request, "shop/orders.html", {"rows": [(order, points_of(order)) for order in own]})


@require_safe
def order(request: HttpRequest, number: str) -> HttpResponse:
    """Show one order, with the button that pays it."""
    own = get_object_or_404(orders_of(request), number=number)
    lines = own.lines.select_related("product")
    return render(request, "shop/order.html", {"order": own, "lines": lines, "points": points_of(own)})


@require_POST
def pay(request: HttpRequest, number: str) -> HttpResponse:
    """Pretend that the customer has paid."""
    order = get_object_or_404(orders_of(request), number=number)
    own = verbs.pay(order.number, session_id=session_id_for(request))
    if own.paid_at:
        messages.success(request, "Thank you. Your payment has arrived.")
    return redirect(own)


@require_POST
def cancel(request: HttpRequest, number: str) -> HttpResponse:
    """Cancel an order on the customer's wish."""
    own = verbs.cancel(get_object_or_404(orders_of(request), number=number).number)
    messages.info(request, "Your order is cancelled.")
    return redirect(own)


@require_http_methods(["GET", "HEAD", "POST"])
def sign_up(request: HttpRequest) -> HttpResponse:
    """Open an account, earn the points for it and log in."""
    form = SignUpForm(request.POST or None)
    if form.is_valid():
        with transaction.atomic():
            user = form.save()
            order_paid.send(sender=User, event=sign_up_event(user, session_id=session_id_for(request)))
        login(request, user)
        messages.success(request, f"Welcome, {user.get_username()}.")
        return redirect("shop:catalogue")
    return render(request, "shop/sign_up.html", {"form": form})
