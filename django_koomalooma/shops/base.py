"""The shape of every adapter, and the guard that keeps our failures out of the shop. Knows no framework."""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from django.db import router, transaction
from django.dispatch import Signal

from ..conf import conf
from ..earning import amend, cancel, earn, is_order_lost
from ..events import Amendment, Cancellation, EarningEvent
from ..exceptions import ConfigurationError, InvalidEvent
from ..models import Commitment

logger = logging.getLogger("django_koomalooma")

Change = EarningEvent | Amendment | Cancellation
Reader = Callable[..., Change | Iterable[Change] | None]

_connected: list[tuple[Signal, Any, str]] = []


def record(change: Change | Iterable[Change] | None) -> bool:
    """Hand on what a reader found, to earn, amend or cancel; return whether there was anything."""
    if change is None:
        return False
    if isinstance(change, EarningEvent):
        earn(change)
    elif isinstance(change, Amendment):
        amend(change.goal, change.reference, change.value, change.site)
    elif isinstance(change, Cancellation):
        cancel(change.goal, change.reference, change.reason, change.site)
    elif isinstance(change, Iterable) and not isinstance(change, str | bytes):
        return sum(record(one) for one in change) > 0
    else:
        raise InvalidEvent(
            f"it returned a {type(change).__name__}: return an EarningEvent, an Amendment, "
            "a Cancellation or None"
        )
    return True


def shelter() -> AbstractContextManager[Any]:
    """Return a savepoint where a transaction is open: a query that fails in it spoils nothing outside."""
    using = router.db_for_write(Commitment)
    if transaction.get_connection(using).in_atomic_block:
        return transaction.atomic(using=using)
    return nullcontext()


def log_failure(where: str, error: Exception) -> None:
    """Log why nothing was recorded.

    Without the signal's arguments, which may carry API keys; so as text too, since ``exc_info`` would hand
    the local variables of every frame to error trackers.
    """
    lines = traceback.format_tb(error.__traceback__)
    logger.error(
        "%s: nothing was recorded. %s: %s\n%s", where, type(error).__name__, error, "".join(lines).rstrip()
    )


def guard(where: str, read: Reader) -> Callable[..., None]:
    """Return a receiver that reads a signal, records what it says, and never raises into the shop.

    But where the order is lost anyway: the shop must learn it.
    """

    def receiver(sender: Any = None, **kwargs: Any) -> None:
        try:
            with shelter():
                found = read(sender, **kwargs)
            record(found)
        except Exception as error:  # logged; the shop's order matters more than our points
            log_failure(where, error)
            if is_order_lost():
                raise

    return receiver


def plug(signal: Signal, receiver: Callable[..., Any], sender: Any = None, uid: str = "") -> None:
    """Connect a receiver for good, so that :func:`unplug_all` finds it."""
    uid = f"koomalooma {uid} {len(_connected)}"
    signal.connect(receiver, sender=sender, weak=False, dispatch_uid=uid)
    _connected.append((signal, sender, uid))


def unplug_all() -> None:
    """Disconnect all that was connected, for tests."""
    while _connected:
        signal, sender, uid = _connected.pop()
        signal.disconnect(sender=sender, dispatch_uid=uid)


class Shop:
    """An adapter for one shop framework. Subclass it and name the subclass in ``KOOMALOOMA_SHOP``."""

    name: ClassVar[str] = ""
    #: The names that ``KOOMALOOMA_SHOP_OPTIONS`` may have.
    options: ClassVar[Collection[str]] = (
        "paid_statuses",
        "cancelled_statuses",
        "user",
        "reference",
        "value",
        "currency",
    )

    def detect(self) -> bool:
        """Return whether the framework is installed. Asks no database."""
        return True

    def check(self) -> None:
        """Look at the options, before anything is connected.

        Raises:
            ConfigurationError: An option cannot be used; the message names it.
        """
        for name in conf.shop_options:
            if name not in self.options:
                raise ConfigurationError(
                    f"KOOMALOOMA_SHOP_OPTIONS has {name!r}: the adapter {self.name!r} knows "
                    f"{', '.join(self.options) or 'no options'}."
                )

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each option that looks wrong."""
        yield from ()

    def connect(self) -> None:
        """Connect the framework's signals, each by :meth:`listen`."""
        raise NotImplementedError(f"{type(self).__name__} says nothing of which signals to connect.")

    def describe(self) -> str:
        """Return a sentence on what earns points, for ``koomalooma_status``."""
        return f"Orders of {self.name}."

    def paid(self, sender: Any, **kwargs: Any) -> EarningEvent | None:
        """Return the purchase that a signal tells of, or ``None``: not this time."""
        return None

    def amended(self, sender: Any, **kwargs: Any) -> Amendment | None:
        """Return what a purchase is worth now, after a refund in part, or ``None``."""
        return None

    def cancelled(self, sender: Any, **kwargs: Any) -> Cancellation | None:
        """Return the purchase that a signal withdraws, or ``None``."""
        return None

    def events(self, since: dt.datetime, until: dt.datetime) -> Iterable[EarningEvent]:
        """Return the purchases paid from ``since`` until before ``until``, each with what it is worth now."""
        return ()

    def option(self, name: str, default: Any = None) -> Any:
        """Return one of ``KOOMALOOMA_SHOP_OPTIONS``."""
        return conf.shop_options.get(name, default)

    def listen(self, signal: Signal, read: Reader, sender: Any = None) -> None:
        """Connect one of the readers to a signal of the framework, guarded."""
        plug(signal, guard(f"The adapter {self.name!r}", read), sender=sender, uid=self.name)
