"""Reads a shop's own objects: attribute paths, and money and times in every form that shops keep them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db import models
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from ..events import quantize
from ..exceptions import InvalidEvent


def follow(root: object, path: str) -> Any:
    """Return what ``path`` leads to: attributes, keys of dicts and methods without arguments, parted by dots.

    A ``None`` on the way, or a related object that is not there, ends it with ``None``.

    Raises:
        InvalidEvent: A part of the path does not exist; the message names it.
    """
    value: Any = root
    for name in path.split("."):
        if value is None:
            return None
        value = _step(value, name)
    return value


def _step(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        if name not in value:
            raise InvalidEvent(f"there is no {name!r}, only {', '.join(map(repr, sorted(map(str, value))))}")
        return value[name]
    try:
        value = getattr(value, name)
    except ObjectDoesNotExist:
        return None
    except AttributeError:
        raise InvalidEvent(f"{type(value).__name__} has no attribute {name!r}") from None
    # Classes and managers can be called too, and say that nobody should.
    if callable(value) and not isinstance(value, type) and not hasattr(value, "do_not_call_in_templates"):
        if getattr(value, "alters_data", False):
            raise InvalidEvent(f"{name}() changes data and is not called")
        value = value()
    return value


def find_field(model: type[models.Model], path: str) -> models.Field[Any, Any] | None:
    """Return the column of the model's own table that ``path`` names, or ``None``: it leads elsewhere."""
    try:
        field = model._meta.get_field(path)
    except FieldDoesNotExist:
        return None
    if not isinstance(field, models.Field) or not field.concrete or field.many_to_many:
        return None
    # The name of a foreign key leads to the other row; only "customer_id" is the column.
    return None if field.is_relation and path != field.attname else field


def check_path(model: type[models.Model], path: str) -> type[models.Model] | None:
    """Follow ``path`` over classes, as far as they are known; return the model at its end, if it is one.

    Raises:
        InvalidEvent: A part of the path does not exist; the message names it.
    """
    for name in path.split("."):
        try:
            related = model._meta.get_field(name).related_model
        except FieldDoesNotExist:
            if not hasattr(model, name):
                known = sorted(field.name for field in model._meta.get_fields())
                raise InvalidEvent(
                    f"{model._meta.label} has no {name!r}, only {', '.join(known)}, or its own attributes"
                ) from None
            return None
        if not isinstance(related, type):
            return None
        model = related
    return model


def check_user_path(model: type[models.Model], path: str) -> None:
    """Check a path that must lead to the user who logs in.

    Raises:
        InvalidEvent: A part does not exist, or it leads to another model.
    """
    end = check_path(model, path)
    if end is not None and not issubclass(end, get_user_model()):
        raise InvalidEvent(f"it leads to {end._meta.label}, not to {get_user_model()._meta.label}")


def read_money(value: Any, currency: str = "") -> tuple[Decimal, str]:
    """Return an amount, quantized, and its currency.

    Args:
        value: A ``Decimal``, ``int``, ``float``, text, or an object with ``amount`` and ``currency``.
        currency: ISO 4217 in any case; empty: that of the object.

    Raises:
        InvalidEvent: It is not an amount.
    """
    if hasattr(value, "amount") and hasattr(value, "currency"):
        value, currency = value.amount, currency or str(value.currency)
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        raise InvalidEvent(f"it is {value!r}, not an amount")
    try:
        # By way of its text: Decimal(0.1) is 0.1000000000000000055….
        amount = Decimal(str(value).strip())
        return quantize(amount, currency.upper()), currency.upper()
    except InvalidOperation:
        raise InvalidEvent(f"it is {str(value)[:50]!r}, not an amount") from None


def read_time(value: object) -> dt.datetime | None:
    """Return a moment from a datetime, a date, ISO text or a Unix time; ``None`` stays ``None``.

    A date without a time stands for its last moment, so that no campaign begun on that day is missed, but
    never for one that is still to come.

    Raises:
        InvalidEvent: It is nothing of these.
    """
    if isinstance(value, str):
        try:
            value = parse_datetime(text := value) or parse_date(text) or text
        except ValueError:
            raise InvalidEvent(f"it is {str(value)[:50]!r}, not a time") from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = dt.datetime.fromtimestamp(value, dt.UTC)
    now = timezone.now()
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time.max)
        value = timezone.make_aware(value) if timezone.is_aware(now) else value
        value = min(value, now)
    if value is None or isinstance(value, dt.datetime):
        return value
    raise InvalidEvent(f"it is {value!r}, not a time")
