"""What happened in the shop, as frozen values that are checked when made. Knows no rows and no rules."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from .exceptions import InvalidEvent

PURCHASE, SIGNUP, REFERRAL, REVIEW = "purchase", "signup", "referral", "review"

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,49}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_LARGEST = Decimal(10) ** 12

# ISO 4217 minor units that are not two.
_NO_DECIMALS = (
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
    "XOF", "XPF",
)  # fmt: skip
_THREE_DECIMALS = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
_DECIMALS = dict.fromkeys(_NO_DECIMALS, 0) | dict.fromkeys(_THREE_DECIMALS, 3)


def quantize(value: Decimal, currency: str) -> Decimal:
    """Round ``value`` half-even to the decimals of ``currency`` (ISO 4217: EUR 2, JPY 0, KWD 3)."""
    return value.quantize(Decimal(1).scaleb(-_DECIMALS.get(currency, 2)))


def format_amount(value: Decimal, currency: str) -> str:
    """Return the amount as it goes over the wire: a dot, the currency's decimals, nothing else (O4)."""
    return format(quantize(value, currency), "f")


def read_amount(value: object, name: str = "value") -> Decimal:
    """Return ``value`` as a finite amount that is not negative.

    Args:
        value: A ``Decimal``, an ``int`` or a string of digits such as ``"12.50"``. A ``float`` is refused,
            since 0.1 + 0.2 is not 0.3; write ``Decimal(str(value))`` where a shop really has one.

    Raises:
        InvalidEvent: It is a float, NaN, infinite, negative, not a number, or 10**12 and more.
    """
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise InvalidEvent(
            f"{name} is {value!r}, a {type(value).__name__}: give a Decimal, for example Decimal('12.50')."
        )
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise InvalidEvent(f"{name} is {str(value)[:50]!r}: not a number.") from None
    if not amount.is_finite():
        raise InvalidEvent(f"{name} is {amount}: give a finite amount.")
    if amount < 0:
        raise InvalidEvent(f"{name} is {amount}: an amount cannot be negative; a refund is an amend().")
    if amount >= _LARGEST:
        raise InvalidEvent(f"{name} is {amount:.3E}: amounts must be below {_LARGEST:.0E}.")
    return amount


def read_reference(reference: object, name: str = "reference") -> str:
    """Return the shop's own name of the event, an order number for instance, as text.

    Raises:
        InvalidEvent: It is missing or blank.
    """
    text = "" if reference is None else str(reference)
    if not text.strip():
        raise InvalidEvent(
            f"{name} is {reference!r}: give what names this event for ever, as an order number."
        )
    return text


def read_goal(goal: object) -> str:
    """Return the goal.

    Raises:
        InvalidEvent: It is not a slug of at most 50 lower-case letters, digits, ``-`` and ``_``.
    """
    if not isinstance(goal, str) or not _SLUG.fullmatch(goal):
        raise InvalidEvent(
            f"goal is {goal!r}: use 'purchase', 'signup', 'referral', 'review' or a slug of your own "
            "(lower-case letters, digits, '-' and '_', at most 50)."
        )
    return goal


def _read_site(site: object) -> str:
    if not isinstance(site, str) or len(site) > 253:
        raise InvalidEvent(f"site is {str(site)[:50]!r}: give a domain as text, at most 253 characters.")
    return site


@dataclass(frozen=True, slots=True)
class EarningEvent:
    """Something that a customer did and that may earn points.

    Args:
        goal: ``"purchase"``, ``"signup"``, ``"referral"``, ``"review"`` or the shop's own slug.
        reference: What names the event for ever, an order number for instance; kept as ``str(reference)``.
        value: What the customer paid, in ``currency``; ``Decimal``. For goals without a purchase: 0.
        currency: ISO 4217, three upper-case letters.
        user: The auth user, or ``None`` for a guest.
        email: The guest's e-mail address; never stored, only a keyed hash of it.
        description: What koomalooma shows for it; empty: the campaign's template decides.
        lines: The order's lines in any form that the shop's policy understands.
        occurred_at: When it happened, aware; ``None`` means now. It chooses the campaign.
        source: The shop's own object, a saved model instance, for links in the admin.
        session_id: The session id that the page gave to koomalooma's widget.
        site: The domain of the shop, where one project serves several.

    Raises:
        InvalidEvent: A field cannot be used; the message names it.
    """

    goal: str
    reference: str
    value: Decimal
    currency: str
    user: Any = None
    email: str = field(default="", repr=False)
    description: str = ""
    lines: Sequence[Any] = field(default=(), repr=False)
    occurred_at: dt.datetime | None = None
    source: Any = None
    session_id: str = field(default="", repr=False)
    site: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "goal", read_goal(self.goal))
        put(self, "reference", read_reference(self.reference))
        put(self, "value", read_amount(self.value))
        put(self, "site", _read_site(self.site))
        if not isinstance(self.currency, str) or not _CURRENCY.fullmatch(self.currency):
            raise InvalidEvent(f"currency is {self.currency!r}: give three upper-case letters, as 'EUR'.")
        for name in ("email", "description", "session_id"):
            if not isinstance(getattr(self, name), str):
                # Without the value: a guest's address must not get into a log.
                raise InvalidEvent(f"{name} is a {type(getattr(self, name)).__name__}: give text.")
        if self.occurred_at is not None and not isinstance(self.occurred_at, dt.datetime):
            raise InvalidEvent(f"occurred_at is {self.occurred_at!r}: give a datetime.")


@dataclass(frozen=True, slots=True)
class Amendment:
    """An event is now worth ``value``, after a refund in part for instance."""

    goal: str
    reference: str
    value: Decimal
    site: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "goal", read_goal(self.goal))
        put(self, "reference", read_reference(self.reference))
        put(self, "value", read_amount(self.value))
        put(self, "site", _read_site(self.site))


@dataclass(frozen=True, slots=True)
class Cancellation:
    """An event was withdrawn: it is worth nothing any more."""

    goal: str
    reference: str
    reason: str = ""
    site: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "goal", read_goal(self.goal))
        put(self, "reference", read_reference(self.reference))
        put(self, "site", _read_site(self.site))
