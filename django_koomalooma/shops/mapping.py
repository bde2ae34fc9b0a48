"""A mapping of event fields to attribute paths, checked early, that makes events of the shop's objects."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from django.db import models

from ..conf import conf
from ..events import PURCHASE, Amendment, EarningEvent, quantize, read_goal
from ..exceptions import ConfigurationError, InvalidEvent
from .values import check_path, check_user_path, follow, read_money, read_time

_FIELDS = (
    "reference",
    "value",
    "currency",
    "user",
    "email",
    "occurred_at",
    "refunded",
    "goal",
    "description",
    "lines",
    "session_id",
    "site",
    "source",
)
_CURRENCY = re.compile(r"[A-Z]{3}")
_TEXTS = ("email", "description", "session_id", "site")


class Mapped:
    """The fields of an event as paths from a root object.

    ``goal`` is a word and no path; ``currency`` may be one too: three upper-case letters.

    Args:
        where: How the setting is named in errors, ``KOOMALOOMA_TRIGGERS[0]['event']`` for instance.

    Raises:
        ConfigurationError: A field is missing or unknown, or is not given as a path.
    """

    def __init__(self, where: str, fields: Mapping[str, Any]) -> None:
        self.where = where
        for name, path in fields.items():
            if name not in _FIELDS:
                raise ConfigurationError(f"{where} has {name!r}: the fields are {', '.join(_FIELDS)}.")
            if not isinstance(path, str) or not path.strip():
                raise ConfigurationError(f"{where}[{name!r}] is {path!r}: give an attribute path as text.")
        try:
            self.goal = read_goal(fields.get("goal", PURCHASE))
        except InvalidEvent as error:
            raise ConfigurationError(f"{where}: {error}") from None
        self.paths = {name: path.strip() for name, path in fields.items() if name != "goal"}
        for name in ("reference", "value") if self.goal == PURCHASE else ("reference",):
            self.require(name)
        if "refunded" in self.paths:
            self.require("value")

    def require(self, name: str) -> None:
        """Raise a :class:`ConfigurationError` unless the field is given."""
        if name not in self.paths:
            raise ConfigurationError(
                f"{self.where} has no {name!r}: give the attribute path that leads to it."
            )

    def check(self, model: type[models.Model]) -> None:
        """Follow every path over the model.

        Raises:
            ConfigurationError: A path leads nowhere; the message names the field, the path and the part.
        """
        for name, path in self.paths.items():
            if name == "currency" and self._is_word(path):
                continue
            try:
                (check_user_path if name == "user" else check_path)(model, path)
            except InvalidEvent as error:
                raise ConfigurationError(f"{self.where}[{name!r}] is {path!r}: {error}.") from None

    def event(self, root: Any, source: Any = None) -> EarningEvent:
        """Return the event that the object tells of.

        Raises:
            InvalidEvent: A path leads nowhere, or to something that the field cannot be.
        """
        value, currency = self._value(root)
        given = [name for name in _TEXTS if name in self.paths]
        others: dict[str, Any] = {name: str(self._follow(root, name) or "") for name in given}
        if "lines" in self.paths:
            lines = self._follow(root, "lines")
            others["lines"] = lines.all() if hasattr(lines, "all") else lines
        fields = {
            "user": self._follow(root, "user"),
            "occurred_at": self._time(root),
            "source": self._follow(root, "source") if "source" in self.paths else source,
        }
        try:
            return EarningEvent(
                self.goal, self._follow(root, "reference"), value, currency, **fields, **others
            )
        except InvalidEvent as error:
            raise self._named(error) from None

    def event_now(self, row: models.Model) -> EarningEvent:
        """Return the event of a row with what it is worth now, without what was refunded.

        Raises:
            InvalidEvent: As :meth:`event`.
        """
        event = self.event(row, source=row)
        return replace(event, value=self.amendment(row).value) if "refunded" in self.paths else event

    def amendment(self, root: Any) -> Amendment:
        """Return what the event is worth now: its value without what was refunded, never below 0.

        Raises:
            InvalidEvent: As :meth:`event`.
        """
        value, currency = self._value(root)
        net = value - self.refunded(self._follow(root, "refunded"))
        site = str(self._follow(root, "site") or "")
        net = quantize(max(net, Decimal(0)), currency)
        return Amendment(self.goal, self._follow(root, "reference"), net, site)

    def refunded(self, value: Any) -> Decimal:
        """Return what was refunded, as an amount: some shops keep it as a negative one.

        Raises:
            InvalidEvent: It is not an amount.
        """
        if value is None:
            return Decimal(0)
        try:
            return abs(read_money(value, conf.currency)[0])
        except InvalidEvent as error:
            raise self._wrong("refunded", error) from None

    def _value(self, root: Any) -> tuple[Decimal, str]:
        path = self.paths.get("currency", "")
        currency = path if self._is_word(path) else str(self._follow(root, "currency") or "")
        if "value" not in self.paths:
            return Decimal(0), currency.upper() or conf.currency
        value = self._follow(root, "value")
        try:
            own = str(getattr(value, "currency", "")) if not currency else ""
            return read_money(value, currency or own or conf.currency)
        except InvalidEvent as error:
            raise self._wrong("value", error) from None

    def _time(self, root: Any) -> dt.datetime | None:
        try:
            return read_time(self._follow(root, "occurred_at"))
        except InvalidEvent as error:
            raise self._wrong("occurred_at", error) from None

    def _follow(self, root: Any, name: str) -> Any:
        if name not in self.paths:
            return None
        try:
            return follow(root, self.paths[name])
        except InvalidEvent as error:
            raise self._wrong(name, error) from None

    def _wrong(self, name: str, error: InvalidEvent) -> InvalidEvent:
        return InvalidEvent(f"{self.where}[{name!r}] is {self.paths[name]!r}: {error}.")

    def _named(self, error: InvalidEvent) -> InvalidEvent:
        return error if str(error).startswith(self.where) else InvalidEvent(f"{self.where}: {error}")

    @staticmethod
    def _is_word(path: str) -> bool:
        return _CURRENCY.fullmatch(path) is not None
