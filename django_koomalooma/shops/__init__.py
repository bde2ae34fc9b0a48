"""Connects the shop and the triggers that the settings name, and says what is connected and what is not."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable, Iterable, Iterator

from django.utils.module_loading import import_string

from ..conf import conf
from ..events import PURCHASE, EarningEvent
from ..exceptions import ConfigurationError
from . import base
from .base import Shop
from .oscar import OscarShop
from .triggers import ModelTrigger, Trigger, read_triggers

__all__ = [
    "Shop",
    "connect",
    "connected",
    "connected_shop",
    "connection_errors",
    "connection_warnings",
    "disconnect",
    "find_orders",
]

Orders = Callable[[dt.datetime, dt.datetime], Iterable[EarningEvent]]

_BUILT_IN: dict[str, type[Shop]] = {OscarShop.name: OscarShop}


class _State:
    """What :func:`connect` did."""

    def __init__(self) -> None:
        self.shop: Shop | None = None
        self.triggers: list[Trigger] = []
        self.sentences: list[str] = []
        self.errors: list[ConfigurationError] = []
        self.warnings: list[str] = []


_state = _State()


def connect() -> None:
    """Connect what the settings name. Never raises for a wrong one: :func:`connection_errors` has it.

    So a mistake of ours or in a setting of ours stops neither ``migrate`` nor ``runserver``.
    """
    global _state
    disconnect()
    state = _State()
    try:
        found = list(read_triggers())
        state.errors += [one for one in found if isinstance(one, ConfigurationError)]
        triggers = [one for one in found if isinstance(one, Trigger)]
        _connect_shop(state, triggers)
        for trigger in triggers:
            if not (state.shop and trigger.goal == PURCHASE):
                trigger.connect()
                state.triggers.append(trigger)
                state.sentences.append(trigger.describe())
                state.warnings += trigger.warnings()
    except ConfigurationError as error:
        state.errors.append(error)
    except Exception as error:  # noqa: BLE001 - shown by the checks; the project must start
        state.errors.append(ConfigurationError(f"The shop is not connected: {type(error).__name__}: {error}"))
    _state = state


def disconnect() -> None:
    """Disconnect everything, for tests."""
    global _state
    base.unplug_all()
    _state = _State()


def connected() -> list[str]:
    """Return a sentence for all that is connected, and for what stands down."""
    return list(_state.sentences)


def connected_shop() -> Shop | None:
    """Return the adapter that is connected, if one is."""
    return _state.shop


def connection_errors() -> list[ConfigurationError]:
    """Return what could not be connected, for the system checks."""
    return list(_state.errors)


def connection_warnings() -> list[str]:
    """Return what is connected and looks wrong, for the system checks."""
    return list(_state.warnings)


def find_orders() -> Orders | None:
    """Return the function that gives the paid orders of a period, or ``None`` where the shop has none.

    ``KOOMALOOMA_ORDERS``, or the adapter's, together with those of the models that are watched by a mapping.
    Its arguments are ``since`` and ``until`` (not included), aware datetimes.

    Raises:
        ConfigurationError: ``KOOMALOOMA_ORDERS`` cannot be imported.
    """
    setting = conf.orders
    if setting is not None:
        try:
            function = import_string(setting) if isinstance(setting, str) else setting
        except ImportError as error:
            raise ConfigurationError(f"KOOMALOOMA_ORDERS is {setting!r}: {error}") from error
        if not callable(function):
            raise ConfigurationError(f"KOOMALOOMA_ORDERS is {setting!r}: give a function (since, until).")
        return function
    sources: list[Orders] = [
        one.events for one in _state.triggers if isinstance(one, ModelTrigger) and one.mapped is not None
    ]
    if _state.shop is not None:
        sources.insert(0, _state.shop.events)
    if not sources:
        return None

    def orders(since: dt.datetime, until: dt.datetime) -> Iterator[EarningEvent]:
        for source in sources:
            yield from source(since, until)

    return orders


def _connect_shop(state: _State, triggers: list[Trigger]) -> None:
    try:
        shop = _find_shop(state, triggers)
        if shop is not None:
            shop.check()
            _plug_in(shop)
            state.shop = shop
            state.sentences.append(shop.describe())
            state.warnings += shop.warnings()
    except ConfigurationError as error:
        state.errors.append(error)


def _plug_in(shop: Shop) -> None:
    try:
        shop.connect()
    except Exception as error:
        base.unplug_all()  # the shop is the first to connect
        raise ConfigurationError(
            f"KOOMALOOMA_SHOP is {conf.shop!r}, which does not connect: {type(error).__name__}: {error}"
        ) from error


def _find_shop(state: _State, triggers: list[Trigger]) -> Shop | None:
    name = conf.shop
    purchase = next((trigger for trigger in triggers if trigger.goal == PURCHASE), None)
    if name is None:
        return None
    if name == "auto":
        found = [shop for shop in (kind() for kind in _BUILT_IN.values()) if shop.detect()]
        if len(found) > 1:
            names = " and ".join(shop.name for shop in found)
            raise ConfigurationError(
                f"Found {names}: name one in KOOMALOOMA_SHOP, since both see a purchase."
            )
        if found and (purchase or state.errors):
            # What cannot be read may be a purchase: a purchase missed can be found again, one sent twice not.
            why = f"{purchase.where} has purchases" if purchase else "KOOMALOOMA_TRIGGERS cannot be read"
            state.sentences.append(f"{found[0].name} is installed; its adapter stands down, since {why}.")
            return None
        return found[0] if found else None
    shop = _load_shop(name)
    if purchase is not None:
        state.errors.append(
            ConfigurationError(
                f"KOOMALOOMA_SHOP is {name!r} and {purchase.where} has purchases too, which might be "
                "rewarded twice: only the shop is connected. Take one away; if the trigger tells of "
                'something else, say so there, as "goal": "signup".'
            )
        )
    if not shop.detect():
        raise ConfigurationError(f"KOOMALOOMA_SHOP is {name!r}, which is not in INSTALLED_APPS.")
    return shop


def _load_shop(name: str) -> Shop:
    kind = _BUILT_IN.get(name)
    if kind is None:
        if "." not in name:
            raise ConfigurationError(
                f"KOOMALOOMA_SHOP is {name!r}: give 'auto', {', '.join(map(repr, _BUILT_IN))}, "
                "a dotted path to an adapter of your own, or None."
            )
        try:
            kind = import_string(name)
        except Exception as error:
            raise ConfigurationError(f"KOOMALOOMA_SHOP is {name!r}: {error}") from error
        if not (inspect.isclass(kind) and issubclass(kind, Shop)):
            raise ConfigurationError(f"KOOMALOOMA_SHOP is {name!r}: give a subclass of {__name__}.Shop.")
    return kind()
