"""Shop events: what is accepted, and what the error says."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from django_koomalooma.events import Amendment, Cancellation, EarningEvent, format_amount, quantize
from django_koomalooma.exceptions import InvalidEvent


def make(**values: Any) -> EarningEvent:
    return EarningEvent(
        **{"goal": "purchase", "reference": "1", "value": Decimal(1), "currency": "EUR"} | values
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("value", Decimal("NaN"), "finite"),
        ("value", Decimal("Infinity"), "finite"),
        ("value", Decimal("-0.01"), "negative"),
        ("value", 12.5, "a float"),
        ("value", True, "a bool"),
        ("value", "twelve", "not a number"),
        ("value", Decimal(10) ** 12, "below"),
        ("value", None, "NoneType"),
        ("currency", "eur", "three upper-case letters"),
        ("currency", None, "three upper-case letters"),
        ("reference", "", "order number"),
        ("reference", "  ", "order number"),
        ("reference", None, "order number"),
        ("goal", "Big Sale", "slug"),
        ("goal", "", "slug"),
        ("site", 5, "domain"),
        ("email", None, "text"),
        ("occurred_at", "yesterday", "datetime"),
    ],
)
def test_an_event_that_cannot_be_read_names_the_field(field: str, value: object, says: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        make(**{field: value})

    assert str(caught.value).startswith(f"{field} is ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12.50", "12.50"), (7, "7"), (Decimal("0.1"), "0.1")],
    ids=["text", "int", "decimal"],
)
def test_an_event_takes_text_int_and_decimal_as_value(value: Any, expected: str) -> None:
    event = make(value=value)

    assert event.value == Decimal(expected)


def test_an_event_keeps_its_reference_as_text() -> None:
    event = make(reference=100042)

    assert event.reference == "100042"


def test_an_address_that_cannot_be_used_is_not_quoted() -> None:
    with pytest.raises(InvalidEvent, match="email is a bytes: give text") as caught:
        make(email=b"guest@example.com")

    assert "guest" not in str(caught.value)


def test_an_event_does_not_show_session_lines_and_address_in_its_repr() -> None:
    event = make(session_id="secret-session", lines=("secret-line",), email="secret@example.com")

    assert "secret" not in repr(event)


def test_amendments_and_cancellations_are_checked_too() -> None:
    with pytest.raises(InvalidEvent, match="value is -1"):
        Amendment("purchase", "1", Decimal(-1))
    with pytest.raises(InvalidEvent, match="reference is ''"):
        Cancellation("purchase", "")


@pytest.mark.parametrize(
    ("value", "currency", "expected"),
    [
        ("1234.5", "EUR", "1234.50"),
        ("1234.5", "JPY", "1234"),
        ("1.2345", "KWD", "1.234"),
        ("1E+3", "EUR", "1000.00"),
        ("0", "EUR", "0.00"),
    ],
)
def test_amounts_go_over_the_wire_with_the_decimals_of_their_currency(
    value: str, currency: str, expected: str
) -> None:
    assert format_amount(Decimal(value), currency) == expected


def test_amounts_are_rounded_half_even() -> None:
    assert [quantize(Decimal(text), "EUR") for text in ("0.125", "0.135")] == [
        Decimal("0.12"),
        Decimal("0.14"),
    ]
