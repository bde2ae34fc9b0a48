"""django-oscar 4.2: paid by the shop's own statuses, or in full by payment events, transactions and sources.

Oscar has no signal that says paid, and names its statuses nowhere. Models are looked up by label, since shops
fork Oscar's apps.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from django.apps import apps
from django.db.models import Q, Sum
from django.db.models.signals import post_save
from django.utils.module_loading import import_string

from ..events import PURCHASE, Amendment, Cancellation, EarningEvent, quantize
from ..exceptions import ConfigurationError, InvalidEvent
from .base import Change, Shop, log_failure, record, shelter
from .values import check_path, check_user_path, follow, read_money
from .watch import Watch

#: Payment event types have free names; these are the ones in use for money that came, and that went back.
PAID_EVENTS = ("paid", "payment", "settled", "settle", "debit", "debited", "captured", "capture", "sale")
REFUND_EVENTS = ("refunded", "refund", "refunds", "credited", "credit")

_PATHS = {"user": "user", "reference": "number", "value": "total_incl_tax", "currency": "currency"}
_CANCELLED = ("Cancelled", "Canceled")
_NOTHING = Decimal(0)


def _named(names: tuple[str, ...], path: str) -> Q:
    return Q(*[Q(**{f"{path}__iexact": name}) for name in names], _connector=Q.OR)


class OscarShop(Shop):
    """The adapter of django-oscar."""

    name = "oscar"
    _paid_watch: Watch | None = None
    _cancelled_watch: Watch | None = None

    def detect(self) -> bool:
        """Return whether Oscar is installed, forked or not."""
        return apps.is_installed("oscar")

    def check(self) -> None:
        """Look at the options.

        Raises:
            ConfigurationError: An option is unknown, or leads nowhere.
        """
        super().check()
        order = self._model("order", "Order")
        for name in ("paid_statuses", "cancelled_statuses"):
            value = self.option(name, ())
            if not isinstance(value, list | tuple | set | frozenset) or not all(
                isinstance(status, str) for status in value
            ):
                raise ConfigurationError(
                    f"KOOMALOOMA_SHOP_OPTIONS[{name!r}] is {value!r}: give a list of the shop's status names."
                )
        for name in _PATHS:
            path = self._path(name)
            try:
                (check_user_path if name == "user" else check_path)(order, path)
            except InvalidEvent as error:
                raise ConfigurationError(f"KOOMALOOMA_SHOP_OPTIONS[{name!r}] is {path!r}: {error}.") from None

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each status that the shop's pipeline does not have."""
        pipeline = self._model("order", "Order").pipeline
        known = list(dict.fromkeys([*pipeline, *(status for row in pipeline.values() for status in row)]))
        for name in ("paid_statuses", "cancelled_statuses"):
            for status in self.option(name, ()):
                if status not in known:
                    names = ", ".join(map(repr, known)) or "none"
                    yield (
                        f"KOOMALOOMA_SHOP_OPTIONS[{name!r}] has {status!r}, but the statuses in "
                        f"OSCAR_ORDER_STATUS_PIPELINE are {names}."
                    )

    def connect(self) -> None:
        """Connect Oscar's signals and watch its models."""
        order = self._model("order", "Order")
        self._paid_watch = Watch("oscar paid", order, {"status": self._paid_statuses()}, self._watched_paid)
        self._cancelled_watch = Watch(
            "oscar cancelled", order, {"status": self._cancelled_statuses()}, self._watched_cancelled
        )
        self._paid_watch.connect()
        self._cancelled_watch.connect()
        changed = import_string("oscar.apps.order.signals.order_status_changed")
        self.listen(changed, self.paid)
        self.listen(changed, self.cancelled)
        # An order may be born paid; only now does it have its lines.
        self.listen(import_string("oscar.apps.order.signals.order_placed"), self.paid)
        for label in (("order", "PaymentEvent"), ("payment", "Transaction"), ("payment", "Source")):
            self.listen(post_save, self._money, sender=self._model(*label))

    def describe(self) -> str:
        """Return what earns points."""
        statuses = self._paid_statuses()
        by_status = f"with the status {' or '.join(statuses)}, and orders " if statuses else ""
        return f"django-oscar: orders {by_status}paid in full by payment events or transactions."

    def paid(self, sender: Any, **kwargs: Any) -> EarningEvent | None:
        """Return the purchase, from ``order_status_changed``, ``order_placed`` or what the watches saw."""
        given = kwargs.get("order")
        status = kwargs.get("new_status", getattr(given, "status", None))
        if given is None or status not in self._paid_statuses():
            return None
        if self._paid_watch is not None and self._paid_watch.has_recorded(given):
            return None
        # What the signal brings may be stale.
        order = self._fetch(given.pk)
        return self._event(order) if order is not None and order.status in self._paid_statuses() else None

    def amended(self, sender: Any, **kwargs: Any) -> Amendment | None:
        """Return what an order is worth after the refunds so far; ``None`` without refunds."""
        order = self._fetch(kwargs["order"].pk)
        if order is None:
            return None
        event, (_, refunded) = self._event(order), self._received(order)
        if not refunded:
            return None
        return Amendment(PURCHASE, event.reference, self._net(order, event, refunded), event.site)

    def cancelled(self, sender: Any, **kwargs: Any) -> Cancellation | None:
        """Return the order that was cancelled, from ``order_status_changed`` or what the watches saw."""
        given = kwargs.get("order")
        status = kwargs.get("new_status", getattr(given, "status", None))
        if given is None or status not in self._cancelled_statuses():
            return None
        if self._cancelled_watch is not None and self._cancelled_watch.has_recorded(given):
            return None
        reason = f"Its status in the shop is {status}."
        return Cancellation(PURCHASE, self._reference(given), reason, self.site(given))

    def site(self, order: Any) -> str:
        """Return the domain, where one project has several shops. Override it; it may never change."""
        return ""

    def events(self, since: dt.datetime, until: dt.datetime) -> Iterator[EarningEvent]:
        """Yield the orders paid in the period, oldest first, each with what it is worth now."""
        order_model = self._model("order", "Order")
        statuses = self._paid_statuses()
        within = {"date_created__gte": since, "date_created__lt": until}
        # By primary key, so that no join gives an order twice.
        touched = Q(date_placed__gte=since, date_placed__lt=until)
        for model, path, condition in (
            (self._model("order", "OrderStatusChange"), "order_id", Q(new_status__in=statuses)),
            (self._model("order", "PaymentEvent"), "order_id", _named(PAID_EVENTS, "event_type__name")),
            (self._model("payment", "Transaction"), "source__order_id", _named(("Debit",), "txn_type")),
        ):
            touched |= Q(pk__in=model._default_manager.filter(condition, **within).values(path))
        orders = order_model._default_manager.filter(touched).exclude(status__in=self._cancelled_statuses())
        for order in orders.select_related("user").order_by("date_placed", "pk").iterator(chunk_size=200):
            try:
                event = self._event_now(order)
            except InvalidEvent as error:
                log_failure(f"The order {order.number}", error)
                continue
            if event is not None and event.occurred_at and since <= event.occurred_at < until:
                yield event

    def _watched_paid(self, sender: Any, instance: Any, created: bool = False, **kwargs: Any) -> bool:
        # A new order has no lines yet; order_placed comes when it has.
        if created:
            return False
        with shelter():
            found = self.paid(sender, order=instance)
        return record(found)

    def _watched_cancelled(self, sender: Any, instance: Any, **kwargs: Any) -> bool:
        return record(self.cancelled(sender, order=instance))

    def _money(self, sender: Any, instance: Any, raw: bool = False, **kwargs: Any) -> list[Change]:
        """Read a payment event, a transaction or a source: is the order paid, or refunded?"""
        came, went = (False, False) if raw else self._says(instance)
        if not (came or went):
            return []
        order = self._fetch(instance.source.order_id if hasattr(instance, "txn_type") else instance.order_id)
        if order is None:
            return []
        found: list[Change] = []
        valid = order.status not in self._cancelled_statuses()
        if came and valid and self._is_covered(order, self._received(order)[0]):
            found.append(self._event(order))
        if went and (amendment := self.amended(sender, order=order)):
            found.append(amendment)
        return found

    @staticmethod
    def _says(row: Any) -> tuple[bool, bool]:
        """Return whether the row tells of money that came, and of money that went back."""
        if hasattr(row, "amount_debited"):
            return row.amount_debited > 0, row.amount_refunded > 0
        name = (row.txn_type if hasattr(row, "txn_type") else row.event_type.name).strip().lower()
        return name in PAID_EVENTS, name in REFUND_EVENTS

    def _received(self, order: Any) -> tuple[Decimal, Decimal]:
        """Return the money that came, and of it what went back.

        Events, transactions and sources are three records of the same money, each of them optional: so the
        largest, never their sum.
        """
        events, sources = order.payment_events, order.sources
        came = [
            self._total(events.filter(_named(PAID_EVENTS, "event_type__name")), "amount"),
            self._total(sources.filter(transactions__txn_type__iexact="Debit"), "transactions__amount"),
            self._total(sources, "amount_debited"),
        ]
        went = [
            self._total(events.filter(_named(REFUND_EVENTS, "event_type__name")), "amount"),
            self._total(sources.filter(transactions__txn_type__iexact="Refund"), "transactions__amount"),
            self._total(sources, "amount_refunded"),
        ]
        return max(came), max(map(abs, went))

    @staticmethod
    def _total(rows: Any, field: str) -> Decimal:
        return Decimal(rows.aggregate(total=Sum(field))["total"] or 0)

    @staticmethod
    def _is_covered(order: Any, received: Decimal) -> bool:
        # Oscar's own payment events for lines leave the shipping out.
        return bool(_NOTHING < order.total_incl_tax - order.shipping_incl_tax <= received)

    def _paid_at(self, order: Any) -> dt.datetime:
        """Return when an order was paid: by status, or by its last payment; else when it was placed."""
        statuses = self._paid_statuses()
        by_status = order.status_changes.filter(new_status__in=statuses).order_by("date_created")
        by_event = order.payment_events.filter(_named(PAID_EVENTS, "event_type__name")).order_by(
            "-date_created"
        )
        moments = [rows.first().date_created for rows in (by_status, by_event) if rows]
        return min(moments, default=order.date_placed)  # type: ignore[no-any-return]  # Oscar has no types

    def _event_now(self, order: Any) -> EarningEvent | None:
        """Return the event with what the order is worth now; ``None`` if it was not paid, or paid back."""
        received, refunded = self._received(order)
        statuses = self._paid_statuses()
        by_status = order.status in statuses or order.status_changes.filter(new_status__in=statuses).exists()
        if not by_status and not self._is_covered(order, received):
            return None
        event = self._event(order)
        net = self._net(order, event, refunded)
        return replace(event, value=net, occurred_at=self._paid_at(order)) if net else None

    def _net(self, order: Any, event: EarningEvent, refunded: Decimal) -> Decimal:
        """Return the value without what was refunded: in proportion, since the value may be without tax."""
        total = order.total_incl_tax
        if refunded <= 0 or total <= 0:
            return event.value
        left = max(total - refunded, _NOTHING)
        return quantize(event.value * left / total, event.currency)

    def _event(self, order: Any) -> EarningEvent:
        user = follow(order, self._path("user"))
        amount, currency = read_money(
            follow(order, self._path("value")), str(follow(order, self._path("currency")) or "")
        )
        return EarningEvent(
            goal=PURCHASE,
            reference=self._reference(order),
            value=amount,
            currency=currency,
            user=user,
            email="" if user is not None else order.guest_email,
            lines=order.lines.all(),
            site=self.site(order),
            source=order,
        )

    def _reference(self, order: Any) -> str:
        # A number in order_placed, text ever after.
        return str(follow(order, self._path("reference")))

    def _fetch(self, pk: Any) -> Any:
        return self._model("order", "Order")._base_manager.select_related("user").filter(pk=pk).first()

    def _path(self, name: str) -> str:
        path = self.option(name, _PATHS[name])
        if not isinstance(path, str) or not path:
            raise ConfigurationError(
                f"KOOMALOOMA_SHOP_OPTIONS[{name!r}] is {path!r}: give an attribute path."
            )
        return path

    def _paid_statuses(self) -> tuple[str, ...]:
        return tuple(self.option("paid_statuses", ()))

    def _cancelled_statuses(self) -> tuple[str, ...]:
        return tuple(self.option("cancelled_statuses", _CANCELLED))

    @staticmethod
    def _model(app: str, name: str) -> Any:
        return apps.get_model(app, name)
