"""django-oscar: its own checkout and dashboard are driven, and each way to be paid earns once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

pytest.importorskip("oscar", reason="django-oscar is not installed; tox run -e oscar has it")
if not apps.is_installed("oscar"):
    pytest.skip("these settings are not an Oscar shop's; tox run -e oscar has them", allow_module_level=True)

from oscar.apps.checkout.views import PaymentDetailsView
from oscar.apps.order.signals import order_status_changed
from oscar.core.loading import get_model
from oscar.test.factories import CountryFactory, create_product

from django_koomalooma import shops
from django_koomalooma.events import EarningEvent
from django_koomalooma.models import Campaign, Commitment
from django_koomalooma.policy import Policy

pytestmark = [
    pytest.mark.django_db,
    # Oscar's guide begins with Haystack's search that indexes nothing, and says so at each saved product.
    pytest.mark.filterwarnings("ignore:.* is not implemented in this backend:UserWarning"),
]

Order = get_model("order", "Order")
PaymentEventType = get_model("order", "PaymentEventType")
Source = get_model("payment", "Source")
SourceType = get_model("payment", "SourceType")

ADDRESS = {
    "first_name": "Ada",
    "last_name": "Shopper",
    "line1": "1 Main Street",
    "line4": "Berlin",
    "postcode": "10115",
    "country": "DE",
}
PRICE = Decimal("40.00")
SENTENCE = (
    "django-oscar: orders with the status Bezahlt, and orders paid in full by payment events or transactions."
)


@pytest.fixture(autouse=True)
def _shop() -> Iterator[None]:
    Campaign.objects.create(name="Autumn", remote_id="c-1", starts_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    CountryFactory(iso_3166_1_a2="DE", is_shipping_country=True)
    shops.connect()
    yield
    shops.disconnect()


@pytest.fixture
def customer() -> User:
    return get_user_model().objects.create_user("ada", "ada@example.com", "pass")


@pytest.fixture
def clerk_client() -> Client:
    clerk = get_user_model().objects.create_superuser("clerk", "clerk@example.com", "pass")
    client = Client()
    client.force_login(clerk, backend="oscar.apps.customer.auth_backends.EmailBackend")
    return client


@pytest.fixture
def pay(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the checkout record a payment, in the method that Oscar has for it."""

    def pay_by(record: Callable[[Any, Decimal], None]) -> None:
        def handle_payment(view: Any, order_number: object, total: Any, **kwargs: object) -> None:
            record(view, total.incl_tax)

        monkeypatch.setattr(PaymentDetailsView, "handle_payment", handle_payment)

    return pay_by


def check_out(user: User | None = None, quantity: int = 1) -> Any:
    """Buy the product through Oscar's pages, as a customer or as a guest."""
    client = Client()
    product = create_product(price=PRICE, num_in_stock=10)
    if user is not None:
        client.force_login(user, backend="oscar.apps.customer.auth_backends.EmailBackend")
    client.post(reverse("basket:add", kwargs={"pk": product.pk}), {"quantity": quantity})
    if user is None:
        client.post(reverse("checkout:index"), {"username": "guest@example.com", "options": "anonymous"})
    client.post(reverse("checkout:shipping-address"), ADDRESS)
    client.get(reverse("checkout:shipping-method"))
    client.get(reverse("checkout:payment-method"))
    client.get(reverse("checkout:preview"))
    page = client.post(reverse("checkout:preview"), {"action": "place_order"}, follow=True)
    assert page.redirect_chain[-1][0] == reverse("checkout:thank-you")
    return Order.objects.latest("pk")


def set_status(client: Client, order: Any, status: str) -> None:
    """Choose a status on the order's page of the dashboard."""
    url = reverse("dashboard:order-detail", kwargs={"number": order.number})
    page = client.post(url, {"order_action": "change_order_status", "new_status": status})
    assert page.status_code == 302


def add_payment(client: Client, order: Any, name: str, amount: str) -> None:
    """Enter a payment event on the order's page of the dashboard."""
    kind, _ = PaymentEventType.objects.get_or_create(name=name)
    url = reverse("dashboard:order-detail", kwargs={"number": order.number})
    data = {"order_action": "create_order_payment_event", "amount": amount, "payment_event_type": kind.code}
    assert client.post(url, data).status_code == 302


def add_source(order: Any, **amounts: Decimal) -> Any:
    kind, _ = SourceType.objects.get_or_create(name="Card")
    return Source.objects.create(order=order, source_type=kind, currency="EUR", **amounts)


def rows() -> list[tuple[str, Decimal, str]]:
    found = Commitment.objects.order_by("id")
    return [(row.reference, row.net_value, str(row.status)) for row in found]


def test_a_placed_order_earns_nothing_yet(customer: User) -> None:
    check_out(customer)

    assert rows() == []


def test_an_order_set_to_paid_in_the_dashboard_earns_once(customer: User, clerk_client: Client) -> None:
    order = check_out(customer, quantity=2)

    set_status(clerk_client, order, "Bezahlt")
    set_status(clerk_client, order, "Sent")

    row = Commitment.objects.get()
    assert rows() == [(order.number, Decimal("80.000"), "queued")]
    assert (row.user, row.currency, row.goal, row.source) == (customer, "EUR", "purchase", order)


@pytest.mark.parametrize("name", ["Paid", "settled", "Debit"])
def test_a_payment_in_full_entered_in_the_dashboard_earns(
    customer: User, clerk_client: Client, name: str
) -> None:
    order = check_out(customer)

    add_payment(clerk_client, order, name, "40.00")

    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def test_a_payment_in_part_earns_nothing_until_the_rest_has_come(
    customer: User, clerk_client: Client
) -> None:
    order = check_out(customer)

    add_payment(clerk_client, order, "Paid", "15.00")
    before = rows()
    add_payment(clerk_client, order, "Paid", "25.00")

    assert before == []
    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def test_a_reservation_of_money_earns_nothing(customer: User, clerk_client: Client) -> None:
    order = check_out(customer)

    add_payment(clerk_client, order, "Pre-auth", "40.00")
    add_source(order).allocate(Decimal("40.00"))

    assert rows() == []


def test_an_order_paid_in_the_checkout_by_a_payment_event_earns(
    customer: User, pay: Callable[..., None]
) -> None:
    pay(lambda view, total: view.add_payment_event("Settled", total))

    order = check_out(customer)

    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def test_an_order_paid_in_the_checkout_by_source_and_event_earns_once(
    customer: User, pay: Callable[..., None]
) -> None:
    def pay_by_card(view: Any, total: Decimal) -> None:
        kind, _ = SourceType.objects.get_or_create(name="Card")
        source = Source(source_type=kind, currency="EUR", amount_allocated=total, amount_debited=total)
        source.create_deferred_transaction("Debit", total)
        view.add_payment_source(source)
        view.add_payment_event("Settled", total)

    pay(pay_by_card)

    order = check_out(customer)

    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def test_an_order_born_paid_earns(customer: User, settings: Settings) -> None:
    settings.OSCAR_INITIAL_ORDER_STATUS = "Bezahlt"

    order = check_out(customer)

    assert rows() == [(order.number, Decimal("40.000"), "queued")]


class LinesPolicy(Policy):
    """No points for an order without lines."""

    def exclusion(self, event: EarningEvent) -> str:
        return "" if len(event.lines) else "There are no lines."


def test_an_order_born_paid_has_its_lines_when_the_policy_looks(customer: User, settings: Settings) -> None:
    settings.OSCAR_INITIAL_ORDER_STATUS = "Bezahlt"
    settings.KOOMALOOMA_POLICY = "tests.shops.test_oscar.LinesPolicy"

    order = check_out(customer)

    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def test_a_transaction_of_a_gateway_earns(customer: User) -> None:
    order = check_out(customer)

    add_source(order).debit(Decimal("40.00"), reference="tx-1")

    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def test_a_status_set_without_oscars_signal_earns(customer: User) -> None:
    order = check_out(customer)
    order.status = "Bezahlt"

    order.save()

    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def test_a_signal_with_a_stale_order_earns_what_the_database_holds(customer: User) -> None:
    stale = check_out(customer)
    Order.objects.filter(pk=stale.pk).update(status="Bezahlt", total_incl_tax=Decimal("35.00"))

    for _ in range(2):
        order_status_changed.send(sender=stale, order=stale, old_status="New", new_status="Bezahlt")

    assert rows() == [(stale.number, Decimal("35.000"), "queued")]


def test_a_signal_of_a_payment_that_the_database_does_not_hold_earns_nothing(customer: User) -> None:
    order = check_out(customer)

    order_status_changed.send(sender=order, order=order, old_status="New", new_status="Bezahlt")

    assert rows() == []


@pytest.mark.django_db(transaction=True)
def test_an_order_that_is_rolled_back_leaves_nothing_and_earns_when_bought_again(
    customer: User, clerk_client: Client
) -> None:
    order = check_out(customer)
    with pytest.raises(RuntimeError), transaction.atomic():
        pay_and_fail(order)
    rolled_back = rows()

    set_status(clerk_client, order, "Bezahlt")

    assert rolled_back == []
    assert rows() == [(order.number, Decimal("40.000"), "queued")]


def pay_and_fail(order: Any) -> None:
    order.set_status("Bezahlt")
    raise RuntimeError("the rest of the request fails")


def test_a_guest_earns_nothing_by_default_and_says_why(clerk_client: Client) -> None:
    order = check_out()

    set_status(clerk_client, order, "Bezahlt")

    row = Commitment.objects.get()
    assert (row.user, row.status) == (None, "skipped")
    assert row.reason == "Bought as a guest: points need an account."


def test_a_guest_earns_by_his_address_where_the_shop_wants_it(
    clerk_client: Client, settings: Settings
) -> None:
    settings.KOOMALOOMA_GUESTS = True
    order = check_out()

    set_status(clerk_client, order, "Bezahlt")

    row = Commitment.objects.get()
    assert (row.user, row.status, len(row.email_hash)) == (None, "queued", 64)


def test_a_refund_in_part_in_the_dashboard_leaves_the_rest(customer: User, clerk_client: Client) -> None:
    order = check_out(customer)
    add_payment(clerk_client, order, "Paid", "40.00")

    add_payment(clerk_client, order, "Refunded", "10.00")
    add_payment(clerk_client, order, "Refunded", "5.00")

    assert rows() == [(order.number, Decimal("25.000"), "queued")]


def test_a_refund_told_by_source_transaction_and_event_counts_once(
    customer: User, clerk_client: Client
) -> None:
    order = check_out(customer)
    source = add_source(order)
    source.debit(Decimal("40.00"))

    source.refund(Decimal("10.00"))
    add_payment(clerk_client, order, "Refunded", "10.00")

    assert rows() == [(order.number, Decimal("30.000"), "queued")]


def test_a_refund_counts_in_proportion_where_the_value_is_not_the_total(
    customer: User, clerk_client: Client, settings: Settings
) -> None:
    settings.KOOMALOOMA_SHOP_OPTIONS = {"value": "total_excl_tax"}
    order = check_out(customer)
    Order.objects.filter(pk=order.pk).update(total_excl_tax=Decimal("30.00"))
    add_payment(clerk_client, order, "Paid", "40.00")

    add_payment(clerk_client, order, "Refunded", "20.00")

    assert rows() == [(order.number, Decimal("15.000"), "queued")]


def test_an_order_cancelled_in_the_dashboard_is_withdrawn(customer: User, clerk_client: Client) -> None:
    order = check_out(customer)
    set_status(clerk_client, order, "Bezahlt")

    set_status(clerk_client, order, "Cancelled")

    row = Commitment.objects.get()
    assert (row.status, row.net_value) == ("cancelled", Decimal("0.000"))
    assert row.reason == "Its status in the shop is Cancelled."


def test_money_that_comes_for_a_cancelled_order_earns_nothing(customer: User, clerk_client: Client) -> None:
    order = check_out(customer)
    set_status(clerk_client, order, "Cancelled")

    add_payment(clerk_client, order, "Paid", "40.00")

    assert [row.status for row in Commitment.objects.all()] == ["skipped"]
    assert [row.net_value for row in Commitment.objects.all()] == [Decimal("0.000")]


def test_the_paid_orders_of_a_period_are_told_with_what_they_are_worth_now(
    customer: User, clerk_client: Client
) -> None:
    by_status, by_event, refunded, cancelled, _ = [check_out(customer) for _ in range(5)]
    set_status(clerk_client, by_status, "Bezahlt")
    add_payment(clerk_client, by_event, "Paid", "40.00")
    add_payment(clerk_client, refunded, "Paid", "40.00")
    add_payment(clerk_client, refunded, "Refunded", "10.00")
    set_status(clerk_client, cancelled, "Bezahlt")
    set_status(clerk_client, cancelled, "Cancelled")
    orders = shops.find_orders()
    hour = dt.timedelta(hours=1)

    assert orders
    found = list(orders(timezone.now() - hour, timezone.now() + hour))
    later = list(orders(timezone.now() + hour, timezone.now() + 2 * hour))

    assert [(event.reference, event.value, event.user) for event in found] == [
        (by_status.number, Decimal("40.00"), customer),
        (by_event.number, Decimal("40.00"), customer),
        (refunded.number, Decimal("30.00"), customer),
    ]
    assert later == []


def test_an_order_paid_long_after_it_was_placed_belongs_to_the_day_of_its_payment(
    customer: User, clerk_client: Client
) -> None:
    order = check_out(customer)
    placed = timezone.now() - dt.timedelta(days=30)
    Order.objects.filter(pk=order.pk).update(date_placed=placed)
    set_status(clerk_client, order, "Bezahlt")
    orders = shops.find_orders()
    day = dt.timedelta(days=1)

    assert orders
    assert list(orders(placed - day, placed + day)) == []
    assert [event.reference for event in orders(timezone.now() - day, timezone.now() + day)] == [order.number]


def test_a_failure_of_ours_harms_no_order(
    customer: User,
    clerk_client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("django_koomalooma.shops.base.earn", fail)
    order = check_out(customer)

    set_status(clerk_client, order, "Bezahlt")

    order.refresh_from_db()
    assert order.status == "Bezahlt"
    assert "nothing was recorded. RuntimeError: a mistake of ours" in caplog.text


# -- settings


@pytest.mark.parametrize(
    ("shop", "sentences"),
    [
        ("auto", 1),
        ("oscar", 1),
        ("django_koomalooma.shops.oscar.OscarShop", 1),
        (None, 0),
    ],
)
def test_the_shop_is_found_or_named(settings: Settings, shop: str | None, sentences: int) -> None:
    settings.KOOMALOOMA_SHOP = shop

    shops.connect()

    assert shops.connection_errors() == []
    assert shops.connected() == [SENTENCE] * sentences


def test_by_default_the_adapter_stands_down_for_a_trigger_with_purchases(
    settings: Settings, customer: User, clerk_client: Client
) -> None:
    mapped = {"reference": "number", "user": "user", "value": "total_excl_tax", "occurred_at": "date_placed"}
    settings.KOOMALOOMA_TRIGGERS = [{"model": "order.Order", "when": {"status": "Sent"}, "event": mapped}]
    shops.connect()
    order = check_out(customer)

    set_status(clerk_client, order, "Bezahlt")

    assert rows() == []
    assert shops.connected() == [
        "oscar is installed; its adapter stands down, since KOOMALOOMA_TRIGGERS[0] has purchases.",
        "order.Order when status is Sent (purchase, KOOMALOOMA_TRIGGERS[0]).",
    ]


def test_a_named_shop_and_a_trigger_with_purchases_are_an_error(settings: Settings) -> None:
    mapped = {"reference": "number", "value": "total_excl_tax", "occurred_at": "date_placed"}
    settings.KOOMALOOMA_SHOP = "oscar"
    settings.KOOMALOOMA_TRIGGERS = [{"model": "order.Order", "when": {"status": "Sent"}, "event": mapped}]

    shops.connect()

    assert [str(error) for error in shops.connection_errors()] == [
        "KOOMALOOMA_SHOP is 'oscar' and KOOMALOOMA_TRIGGERS[0] has purchases too, which might be rewarded "
        "twice: only the shop is connected. Take one away; if the trigger tells of something else, "
        'say so there, as "goal": "signup".'
    ]
    assert len(shops.connected()) == 1


def test_a_trigger_for_something_else_works_beside_the_shop(settings: Settings) -> None:
    mapped = {"goal": "signup", "reference": "pk", "occurred_at": "date_joined"}
    settings.KOOMALOOMA_SHOP = "oscar"
    settings.KOOMALOOMA_TRIGGERS = [{"model": "auth.User", "event": mapped}]

    shops.connect()

    assert shops.connection_errors() == []
    assert len(shops.connected()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"statuses": ["Bezahlt"]},
            "KOOMALOOMA_SHOP_OPTIONS has 'statuses': the adapter 'oscar' knows paid_statuses, "
            "cancelled_statuses, user, reference, value, currency.",
        ),
        (
            {"paid_statuses": "Bezahlt"},
            "KOOMALOOMA_SHOP_OPTIONS['paid_statuses'] is 'Bezahlt': give a list of the shop's status names.",
        ),
        (
            {"value": "total"},
            "KOOMALOOMA_SHOP_OPTIONS['value'] is 'total': order.Order has no 'total', only",
        ),
        (
            {"user": "basket"},
            "KOOMALOOMA_SHOP_OPTIONS['user'] is 'basket': it leads to basket.Basket, not to auth.User.",
        ),
    ],
    ids=["unknown", "text for a list", "no such path", "not the user"],
)
def test_a_wrong_option_is_named_and_nothing_is_connected(
    settings: Settings, options: dict[str, Any], message: str
) -> None:
    settings.KOOMALOOMA_SHOP_OPTIONS = options

    shops.connect()

    assert str(shops.connection_errors()[0]).startswith(message)
    assert shops.connected() == []


def test_a_status_that_the_pipeline_does_not_have_is_a_warning(settings: Settings) -> None:
    settings.KOOMALOOMA_SHOP_OPTIONS = {"paid_statuses": ["Paid"]}

    shops.connect()

    assert shops.connection_warnings() == [
        "KOOMALOOMA_SHOP_OPTIONS['paid_statuses'] has 'Paid', but the statuses in "
        "OSCAR_ORDER_STATUS_PIPELINE are 'New', 'Bezahlt', 'Sent', 'Cancelled'."
    ]
