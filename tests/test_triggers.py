"""Triggers: a project's own signals and models earn points, and no mistake in them reaches the shop."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import logging
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma import shops
from django_koomalooma.models import Commitment
from tests.factories import CampaignFactory, UserFactory
from tests.shops.handmade.models import Customer, Order, RushOrder
from tests.shops.handmade.signals import HOOKS, paid

pytestmark = pytest.mark.django_db

ORDER: dict[str, Any] = {
    "model": "handmade.Order",
    "when": {"status": "paid"},
    "event": {
        "reference": "number",
        "user": "customer.user",
        "value": "total",
        "occurred_at": "paid_at",
        "refunded": "refunded_total",
    },
}
ENTRY = "KOOMALOOMA_TRIGGERS[0]"
POINTS = "tests.shops.handmade.points"
SIGNAL = "tests.shops.handmade.signals.paid"
Connect = Callable[..., list[str]]


@pytest.fixture
def connect(settings: Settings) -> Iterator[Connect]:
    """Connects the given triggers, and returns what was wrong with them."""

    def connect_triggers(*triggers: dict[str, Any]) -> list[str]:
        settings.KOOMALOOMA_TRIGGERS = list(triggers)
        shops.connect()
        return [str(error) for error in shops.connection_errors()]

    CampaignFactory()
    yield connect_triggers
    shops.disconnect()


def make_order(number: str = "A-1", **fields: Any) -> Order:
    customer = Customer.objects.create(user=UserFactory())
    return Order.objects.create(number=number, customer=customer, **fields)


def rows() -> list[tuple[str, str, Decimal, str]]:
    found = Commitment.objects.order_by("id")
    return [(row.goal, row.reference, row.net_value, str(row.status)) for row in found]


def change(**parts: Any) -> dict[str, Any]:
    """Return the usual trigger with parts of it changed; a part of None is left out."""
    return {key: value for key, value in {**ORDER, **parts}.items() if value is not None}


def map_fields(**fields: Any) -> dict[str, Any]:
    """Return the usual mapping with fields changed; a field of None is left out."""
    return {key: value for key, value in {**ORDER["event"], **fields}.items() if value is not None}


# -- a model is watched


def test_an_order_that_becomes_paid_earns_by_the_paths_of_the_mapping(connect: Connect) -> None:
    connect(ORDER)
    order = make_order()
    order.status, order.paid_at = "paid", dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)

    order.save()

    row = Commitment.objects.get()
    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]
    assert order.customer
    assert (row.user, row.currency, row.occurred_at) == (order.customer.user, "EUR", order.paid_at)
    assert row.source == order


def test_an_order_born_paid_earns(connect: Connect) -> None:
    connect(ORDER)

    make_order(status="paid")

    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]


def test_an_order_saved_through_a_proxy_earns(connect: Connect) -> None:
    connect(ORDER)
    make_order()
    order = RushOrder.objects.get()
    order.status = "paid"

    order.save()

    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]


def test_a_row_made_by_hand_over_an_unpaid_one_earns(connect: Connect) -> None:
    connect(ORDER)
    known = make_order()
    order = Order(pk=known.pk, number="A-1", customer=known.customer, status="paid")

    order.save()

    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]


@pytest.mark.parametrize(("status", "earned"), [("paid", 1), ("shipped", 1), ("open", 0), ("cancelled", 0)])
def test_each_status_of_a_list_counts(connect: Connect, status: str, earned: int) -> None:
    connect(change(when={"status": ["paid", "shipped"], "is_test": False}))
    order = make_order()
    order.status = status

    order.save()

    assert len(rows()) == earned


def test_all_conditions_must_hold(connect: Connect) -> None:
    connect(change(when={"status": "paid", "is_test": False}))

    make_order(status="paid", is_test=True)

    assert rows() == []


def test_a_condition_may_be_a_property_or_lead_to_another_row(connect: Connect) -> None:
    connect(change(when={"is_settled": True, "customer.user.is_active": True}))
    order = make_order()
    order.status = "paid"

    order.save()

    assert len(rows()) == 1


def test_a_model_without_condition_earns_for_new_rows_only(connect: Connect) -> None:
    connect(
        {
            "model": "handmade.Customer",
            "event": {"goal": "signup", "reference": "pk", "user": "user", "occurred_at": "user.date_joined"},
        }
    )
    customer = Customer.objects.create(user=UserFactory())

    customer.save()
    Customer.objects.get().save()

    assert rows() == [("signup", str(customer.pk), Decimal("0.000"), "skipped")]


def statements(act: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        act()
    return [query["sql"].split()[0] for query in queries]


def test_a_save_that_is_no_payment_costs_no_statement(connect: Connect) -> None:
    connect(ORDER)
    order = make_order()
    order.note = "ring twice"

    assert statements(order.save) == ["UPDATE"]


def test_a_payment_costs_a_savepoint_and_one_insert(connect: Connect) -> None:
    connect(ORDER)
    make_order("A-0", status="paid")  # the campaigns are known from here on
    order = make_order()
    order.status = "paid"

    assert statements(order.save) == ["UPDATE", "SAVEPOINT", "INSERT", "RELEASE"]


def test_saving_a_paid_order_again_costs_no_statement(connect: Connect) -> None:
    connect(ORDER)
    order = make_order(status="paid")
    read = Order.objects.get()

    assert statements(order.save) == ["UPDATE"]
    assert statements(read.save) == ["UPDATE"]


def test_a_fixture_that_is_loaded_earns_nothing(connect: Connect) -> None:
    connect(ORDER)
    order = make_order()
    order.status = "paid"

    order.save_base(raw=True)

    assert rows() == []


def test_a_status_that_was_not_saved_earns_nothing_until_it_is(connect: Connect) -> None:
    connect(ORDER)
    order = make_order()
    order.status = "paid"

    order.save(update_fields=["note"])
    before = rows()
    order.save(update_fields=["status"])

    assert before == []
    assert len(rows()) == 1


def test_of_two_conditions_one_that_was_not_saved_does_not_count(connect: Connect) -> None:
    connect(change(when={"status": "paid", "is_test": False}))
    order = make_order(is_test=True)
    order.status, order.is_test = "paid", False

    order.save(update_fields=["status"])

    assert rows() == []


def test_a_deferred_status_is_not_fetched(connect: Connect) -> None:
    connect(ORDER)
    make_order(status="paid")
    order = Order.objects.only("note").get()

    assert statements(order.save) == ["UPDATE"]


def save_and_fail(order: Order) -> None:
    with contextlib.suppress(RuntimeError), transaction.atomic():
        order.save()
        raise RuntimeError("the rest of the checkout fails")


@pytest.mark.django_db(transaction=True)
def test_an_order_paid_again_after_a_rollback_earns(connect: Connect) -> None:
    connect(ORDER)
    order = make_order()
    order.status = "paid"
    save_and_fail(order)
    rolled_back = rows()

    order.save()

    assert rolled_back == []
    assert len(rows()) == 1


def test_an_order_paid_again_after_the_rollback_of_a_savepoint_earns(connect: Connect) -> None:
    connect(ORDER)
    order = make_order()
    order.status, order.refunded_total = "paid", Decimal("5.00")
    save_and_fail(order)
    rolled_back = rows()

    order.save()

    assert rolled_back == []
    assert rows() == [("purchase", "A-1", Decimal("45.000"), "queued")]


def test_an_order_can_be_pickled_and_copied(connect: Connect) -> None:
    connect(ORDER)
    order = make_order(status="paid")

    unpickled = pickle.loads(pickle.dumps(order))
    copied = copy.deepcopy(order)
    unpickled.save()
    copied.save()

    assert len(rows()) == 1


# -- refunds


def test_a_refund_in_part_leaves_the_rest(connect: Connect) -> None:
    connect(ORDER)
    order = make_order(status="paid")
    order.refunded_total = Decimal("20.00")

    order.save()

    assert rows() == [("purchase", "A-1", Decimal("30.000"), "queued")]


def test_a_refund_is_seen_on_an_order_read_later_in_another_status(connect: Connect) -> None:
    connect(ORDER)
    make_order(status="paid")
    order = Order.objects.get()
    order.refunded_total, order.status = Decimal("50.00"), "cancelled"

    order.save(update_fields=["refunded_total", "status"])

    assert rows() == [("purchase", "A-1", Decimal("0.000"), "queued")]


def test_a_refund_that_stays_as_it_was_costs_no_statement(connect: Connect) -> None:
    connect(ORDER)
    order = make_order(status="paid")
    order.refunded_total = Decimal("20.00")
    order.save()
    read = Order.objects.get()

    assert statements(order.save) == ["UPDATE"]
    assert statements(read.save) == ["UPDATE"]


def test_a_refund_that_the_database_adds_up_is_read_back(connect: Connect) -> None:
    connect(ORDER)
    make_order(status="paid", refunded_total=Decimal("5.00"))
    order = Order.objects.get()
    order.refunded_total = F("refunded_total") + Decimal("10.00")

    order.save()

    assert rows() == [("purchase", "A-1", Decimal("35.000"), "queued")]


def test_a_refund_taken_back_raises_the_value_again(connect: Connect) -> None:
    connect(ORDER)
    order = make_order(status="paid", refunded_total=Decimal("5.00"))
    order.refunded_total = Decimal(0)

    order.save()

    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]


def test_an_order_that_was_never_paid_leaves_no_row_for_want_of_refunds(connect: Connect) -> None:
    connect(ORDER)
    order = make_order()
    order.status = "cancelled"

    order.save()

    assert rows() == []


# -- functions


def test_a_function_may_withdraw_an_order_by_its_status(connect: Connect) -> None:
    cancel = {"model": "handmade.Order", "when": {"status": "cancelled"}, "event": f"{POINTS}.cancelled"}
    connect(ORDER, cancel)
    order = make_order(status="paid")
    order.status = "cancelled"

    order.save()

    row = Commitment.objects.get()
    assert (row.status, row.reason) == ("cancelled", "The customer sent it back.")


def test_a_signal_and_a_function_earn(connect: Connect) -> None:
    connect({"signal": SIGNAL, "event": f"{POINTS}.paid"})
    order = make_order()

    paid.send(sender=Order, order=order)
    paid.send(sender=Order, order=order)

    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]


def test_a_function_that_returns_none_earns_nothing(connect: Connect) -> None:
    connect({"signal": SIGNAL, "event": f"{POINTS}.paid"})

    paid.send(sender=Order, order=make_order(is_test=True))

    assert rows() == []


def test_a_function_may_amend(connect: Connect) -> None:
    refund = {"signal": f"{SIGNAL.rpartition('.')[0]}:HOOKS[invoice.failed]", "event": f"{POINTS}.refunded"}
    connect({"signal": SIGNAL, "event": f"{POINTS}.paid"}, refund)
    order = make_order(refunded_total=Decimal("8.00"))
    paid.send(sender=Order, order=order)

    HOOKS["invoice.failed"].send(sender=None, order=order)

    assert rows() == [("purchase", "A-1", Decimal("42.000"), "queued")]


@pytest.mark.parametrize("name", ["broken", "broken_query", "odd"])
def test_a_function_that_fails_is_logged_without_arguments_and_harms_nothing(
    connect: Connect, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    connect({"signal": SIGNAL, "event": f"{POINTS}.{name}"})

    with transaction.atomic():
        paid.send(sender=Order, order=None, api_key="sk_live_secret")
        order = make_order()

    assert Order.objects.get() == order
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("ERROR", None)]
    assert caplog.text.count(f"{ENTRY}: nothing was recorded.") == 1
    assert "sk_live_secret" not in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "trigger", [ORDER, {"signal": SIGNAL, "event": f"{POINTS}.paid"}], ids=["model", "signal"]
)
def test_an_order_that_is_lost_with_its_transaction_is_not_lost_without_a_word(
    connect: Connect, trigger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadlock(*args: Any, **kwargs: Any) -> None:
        raise OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")

    def no_savepoint(*args: Any) -> None:
        raise OperationalError(1305, "SAVEPOINT s1_x1 does not exist")

    connect(trigger)
    monkeypatch.setattr(Commitment, "save", deadlock)
    monkeypatch.setattr(connection, "savepoint_rollback", no_savepoint)

    with pytest.raises(OperationalError, match="1213"), transaction.atomic():
        paid.send(sender=Order, order=make_order(status="paid"))

    assert not Order.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_order_that_postgresql_will_not_commit_after_a_failed_look_up_is_told_to_the_shop(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(self: Order) -> Decimal:
        with connection.cursor() as cursor:
            cursor.execute("SELECT total FROM a_table_that_is_not_there")
        return self.total

    monkeypatch.setattr(Order, "gross", look_up)
    connect(change(event=map_fields(value="gross")))
    told = False

    try:
        with transaction.atomic():
            make_order(status="paid")
    except DatabaseError:
        told = True

    assert told == (not Order.objects.exists())
    assert told == (connection.vendor == "postgresql")


# -- signals and mappings


def test_a_mapping_reads_the_arguments_of_a_signal(connect: Connect) -> None:
    mapped = {"reference": "order.number", "user": "order.customer.user", "value": "order.total"}
    connect({"signal": SIGNAL, "event": mapped})
    order = make_order()

    paid.send(sender=Order, order=order)

    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]
    assert Commitment.objects.get().source == order


@pytest.mark.parametrize("prefix", ["", "sender."], ids=["plain", "named"])
def test_a_mapping_reads_a_sender_that_is_the_object(connect: Connect, prefix: str) -> None:
    mapped = {"reference": f"{prefix}number", "user": f"{prefix}customer.user", "value": f"{prefix}gross"}
    connect({"signal": SIGNAL, "event": mapped})

    paid.send(sender=make_order())

    assert rows() == [("purchase", "A-1", Decimal("60.000"), "queued")]


@pytest.mark.parametrize(
    "path",
    [
        "tests.shops.handmade.signals:HOOKS[invoice.paid]",
        "tests.shops.handmade.signals.HOOKS[invoice.paid]",
        "tests.shops.handmade.signals:HOOKS['invoice.paid']",
    ],
)
def test_a_signal_inside_a_dict_earns_from_data_in_dicts(connect: Connect, path: str) -> None:
    user = UserFactory()
    data = {"object": {"id": "in_1", "amount": "12.5", "currency": "eur", "created": 1777636800}}
    mapped = {
        "reference": "event.data.object.id",
        "value": "event.data.object.amount",
        "currency": "event.data.object.currency",
        "occurred_at": "event.data.object.created",
        "user": "event.user",
    }
    errors = connect({"signal": path, "event": mapped})

    HOOKS["invoice.paid"].send(sender=None, event=SimpleNamespace(data=data, user=user))

    row = Commitment.objects.get()
    assert errors == []
    assert (row.reference, row.net_value, row.currency) == ("in_1", Decimal("12.500"), "EUR")
    assert row.occurred_at == dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(("status", "earned"), [("confirmed", 1), ("waiting", 0)])
def test_a_signal_may_have_a_condition(connect: Connect, status: str, earned: int) -> None:
    mapped = {"reference": "instance.number", "value": "instance.total"}
    connect({"signal": SIGNAL, "when": {"instance.state": ["confirmed"]}, "event": mapped})

    paid.send(sender=None, instance=SimpleNamespace(number="P-1", total=5, state=status))

    assert len(rows()) == earned


@pytest.mark.parametrize(
    ("total", "value", "currency"),
    [
        (Decimal("12.345"), "12.340", "EUR"),
        (2.675, "2.680", "EUR"),
        (7, "7.000", "EUR"),
        (" 12.50 ", "12.500", "EUR"),
        (SimpleNamespace(amount=Decimal("8"), currency="EUR"), "8.000", "EUR"),
        (SimpleNamespace(amount=Decimal("800.4"), currency="JPY"), "800.000", "JPY"),
    ],
    ids=["unquantised", "float", "int", "text", "money object", "money object in yen"],
)
def test_money_comes_in_every_form(connect: Connect, total: object, value: str, currency: str) -> None:
    connect({"signal": SIGNAL, "event": {"reference": "order.number", "value": "order.total"}})

    paid.send(sender=None, order=SimpleNamespace(number="M-1", total=total))

    row = Commitment.objects.get()
    assert (row.net_value, row.currency) == (Decimal(value), currency)


def test_the_currency_may_be_a_word_and_a_date_may_lack_its_time(connect: Connect) -> None:
    mapped = {
        "reference": "order.number",
        "value": "order.total",
        "currency": "CHF",
        "occurred_at": "order.day",
    }
    connect({"signal": SIGNAL, "event": mapped})

    paid.send(sender=None, order=SimpleNamespace(number="C-1", total=1, day=dt.date(2026, 5, 1)))

    row = Commitment.objects.get()
    assert row.currency == "CHF"
    assert timezone.localtime(row.occurred_at).date() == dt.date(2026, 5, 1)


def test_an_order_without_a_customer_is_a_guest(connect: Connect) -> None:
    connect(ORDER)

    Order.objects.create(number="G-1", status="paid")

    assert Commitment.objects.get().reason == "Bought as a guest: points need an account."


@pytest.mark.parametrize(
    ("fields", "order", "message"),
    [
        (
            {"value": "order.sum"},
            {},
            f"{ENTRY}['event']['value'] is 'order.sum': SimpleNamespace has no attribute 'sum'.",
        ),
        (
            {"value": "bill.total"},
            {},
            f"{ENTRY}['event']['value'] is 'bill.total': the signal brings no 'bill', only order, "
            "sender, and no object in it has that.",
        ),
        (
            {},
            {"total": "free"},
            f"{ENTRY}['event']['value'] is 'order.total': it is 'free', not an amount.",
        ),
        (
            {},
            {"total": None},
            f"{ENTRY}['event']['value'] is 'order.total': it is None, not an amount.",
        ),
        (
            {},
            {"number": ""},
            f"{ENTRY}['event']: reference is '': give what names this event for ever",
        ),
    ],
    ids=["attribute", "argument", "no amount", "missing amount", "no reference"],
)
def test_what_cannot_be_read_is_logged_with_entry_and_path(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, str],
    order: dict[str, Any],
    message: str,
) -> None:
    connect({"signal": SIGNAL, "event": {"reference": "order.number", "value": "order.total", **fields}})

    paid.send(sender=None, order=SimpleNamespace(**{"number": "X-1", "total": 5, **order}))

    assert message in caplog.text
    assert rows() == []


# -- what is wrong is said at start-up


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ({"event": {}}, f"{ENTRY}: give either a 'signal' or a 'model'."),
        ({**ORDER, "signal": SIGNAL}, f"{ENTRY}: give either a 'signal' or a 'model'."),
        (
            change(event=None),
            f"{ENTRY} has no 'event': give a dotted path to a function, or a mapping.",
        ),
        (change(If={}), f"{ENTRY} has 'If': an entry knows signal, model, when, event, goal."),
        (
            change(model="shop.Order"),
            f"{ENTRY}['model'] is 'shop.Order': No installed app with label 'shop'. "
            "Do you mean handmade.Order?",
        ),
        (
            change(when={"state": "paid"}),
            f"{ENTRY}['when'] has 'state': handmade.Order has no 'state', only customer, id, "
            "is_test, note, number, paid_at, refunded_total, status, total, or its own attributes.",
        ),
        (
            change(when="paid"),
            f"{ENTRY}['when'] is 'paid': give attribute paths and the value that each must have, as "
            "{'status': 'paid'}, or a list of values.",
        ),
        (
            change(event=map_fields(user="customer.login")),
            f"{ENTRY}['event']['user'] is 'customer.login': handmade.Customer has no 'login', only "
            "id, order, user, or its own attributes.",
        ),
        (
            change(event=map_fields(user="customer")),
            f"{ENTRY}['event']['user'] is 'customer': it leads to handmade.Customer, not to auth.User.",
        ),
        (
            change(event=map_fields(occurred_at=None)),
            f"{ENTRY}['event'] has no 'occurred_at': give the attribute path that leads to it.",
        ),
        (
            change(event=map_fields(value=None, refunded=None)),
            f"{ENTRY}['event'] has no 'value': give the attribute path that leads to it.",
        ),
        (
            change(event=map_fields(amount="total")),
            f"{ENTRY}['event'] has 'amount': the fields are reference, value, currency, user, email, "
            "occurred_at, refunded, goal, description, lines, session_id, site, source.",
        ),
        (
            change(event=map_fields(goal="Big Sale")),
            f"{ENTRY}['event']: goal is 'Big Sale': use 'purchase', 'signup', 'referral', 'review' "
            "or a slug of your own (lower-case letters, digits, '-' and '_', at most 50).",
        ),
        (
            {"signal": SIGNAL, "event": f"{POINTS}.pay"},
            f"{ENTRY}['event'] is '{POINTS}.pay': Module \"{POINTS}\" does not define a \"pay\" "
            "attribute/class",
        ),
        (
            {"signal": SIGNAL, "event": f"{POINTS}.narrow"},
            f"{ENTRY}['event'] is '{POINTS}.narrow': let the function take (sender, **kwargs), as "
            "receivers do.",
        ),
        (
            {"signal": "no.such.signal", "event": f"{POINTS}.paid"},
            f"{ENTRY}['signal'] is 'no.such.signal': No module named 'no'",
        ),
        (
            {"signal": f"{POINTS}.paid", "event": f"{POINTS}.paid"},
            f"{ENTRY}['signal'] is '{POINTS}.paid': it is a function, not a signal.",
        ),
        (
            {"signal": "tests.shops.handmade.signals:HOOKS[paid]", "event": f"{POINTS}.paid"},
            f"{ENTRY}['signal'] is 'tests.shops.handmade.signals:HOOKS[paid]': "
            "tests.shops.handmade.signals:HOOKS has no 'paid', but invoice.failed, invoice.paid.",
        ),
        (
            {"signal": "tests.shops.handmade.signals:HOOKS", "event": f"{POINTS}.paid"},
            f"{ENTRY}['signal'] is 'tests.shops.handmade.signals:HOOKS', a dict: name one of "
            "invoice.failed, invoice.paid, as tests.shops.handmade.signals:HOOKS[invoice.paid].",
        ),
        (
            {"signal": "django.db.models.signals.post_save", "event": f"{POINTS}.paid"},
            f"{ENTRY}['signal'] is 'django.db.models.signals.post_save': give a 'model' instead.",
        ),
    ],
)
def test_a_wrong_entry_is_named_and_the_others_work(
    connect: Connect, trigger: dict[str, Any], message: str
) -> None:
    errors = connect(trigger, {"signal": SIGNAL, "event": f"{POINTS}.paid"})

    paid.send(sender=Order, order=make_order())

    assert errors == [message]
    assert rows() == [("purchase", "A-1", Decimal("50.000"), "queued")]


def test_a_value_that_the_choices_do_not_have_is_a_warning(connect: Connect) -> None:
    connect(change(when={"status": ["paid", "Piad"]}))

    warnings = shops.connection_warnings()

    assert warnings == [
        f"{ENTRY}['when'] waits for status to be 'Piad', but handmade.Order knows 'open', 'paid', "
        "'shipped', 'cancelled'."
    ]


def test_what_is_connected_is_said_in_sentences(connect: Connect) -> None:
    connect(
        change(when={"status": ["paid", "shipped"], "is_test": False}),
        {"signal": SIGNAL, "event": f"{POINTS}.paid", "goal": "review"},
    )

    assert shops.connected() == [
        f"handmade.Order when status is paid or shipped and is_test is False (purchase, {ENTRY}).",
        f"Signal {SIGNAL} (review, KOOMALOOMA_TRIGGERS[1]).",
    ]


# -- paid orders of a period


def test_the_paid_orders_of_a_period_come_from_the_model_with_what_they_are_worth_now(
    connect: Connect,
) -> None:
    connect(ORDER)
    day = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
    make_order("EARLY", status="paid", paid_at=day - dt.timedelta(seconds=1))
    make_order("FIRST", status="paid", paid_at=day)
    make_order("REFUNDED", status="paid", paid_at=day, refunded_total=Decimal("20.00"))
    make_order("OPEN", paid_at=day)
    make_order("LATE", status="paid", paid_at=day + dt.timedelta(days=1))

    orders = shops.find_orders()

    assert orders
    found = [(event.reference, event.value) for event in orders(day, day + dt.timedelta(days=1))]
    assert found == [("FIRST", Decimal("50.00")), ("REFUNDED", Decimal("30.00"))]


def test_the_setting_names_the_paid_orders_before_any_model(connect: Connect, settings: Settings) -> None:
    settings.KOOMALOOMA_ORDERS = f"{POINTS}.orders"
    connect(ORDER)

    orders = shops.find_orders()

    assert orders
    assert [event.reference for event in orders(timezone.now(), timezone.now())] == ["FROM-SETTING"]


def test_without_orders_to_ask_for_there_is_no_function(connect: Connect) -> None:
    connect()

    assert shops.find_orders() is None


def test_the_log_level_of_a_failure_is_error(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    connect(change(event=map_fields(value="note")))

    with caplog.at_level(logging.ERROR, logger="django_koomalooma"):
        make_order(status="paid", note="a lot")

    assert f"{ENTRY}['event']['value'] is 'note': it is 'a lot', not an amount." in caplog.text
