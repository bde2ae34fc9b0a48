"""``KOOMALOOMA_TRIGGERS``: any signal or model of a project earns points, without an adapter."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from django.core.exceptions import FieldError
from django.db import models

from ..conf import conf
from ..events import PURCHASE, EarningEvent, read_goal
from ..exceptions import ConfigurationError, InvalidEvent
from .base import Change, Reader, guard, log_failure, plug, record, shelter
from .loading import find_model, import_function, import_signal
from .mapping import Mapped
from .values import check_path, find_field, follow
from .watch import Watch

_KEYS = ("signal", "model", "when", "event", "goal")


def read_triggers() -> Iterator[Trigger | ConfigurationError]:
    """Yield each entry of ``KOOMALOOMA_TRIGGERS`` as a trigger, or what is wrong with it."""
    for index, entry in enumerate(conf.triggers):
        try:
            yield (ModelTrigger if "model" in entry else SignalTrigger)(index, entry)
        except ConfigurationError as error:
            yield error


class Trigger:
    """One entry of the setting.

    Raises:
        ConfigurationError: It cannot be used; the message names the entry and the part.
    """

    def __init__(self, index: int, entry: Mapping[str, Any]) -> None:
        self.where = f"KOOMALOOMA_TRIGGERS[{index}]"
        for key in entry:
            if key not in _KEYS:
                raise ConfigurationError(f"{self.where} has {key!r}: an entry knows {', '.join(_KEYS)}.")
        if ("signal" in entry) == ("model" in entry):
            raise ConfigurationError(f"{self.where}: give either a 'signal' or a 'model'.")
        if "event" not in entry:
            raise ConfigurationError(
                f"{self.where} has no 'event': give a dotted path to a function, or a mapping."
            )
        self.mapped: Mapped | None = None
        self.function: Reader | None = None
        if isinstance(entry["event"], Mapping):
            self.mapped = Mapped(f"{self.where}['event']", entry["event"])
        else:
            self.function = import_function(f"{self.where}['event']", entry["event"])
        #: What it rewards. A function is taken to tell of purchases unless the entry says otherwise.
        self.goal = self.mapped.goal if self.mapped else _read_goal(self.where, entry.get("goal", PURCHASE))
        if self.mapped and entry.get("goal", self.goal) != self.goal:
            raise ConfigurationError(f"{self.where} has two goals: give 'goal' in the mapping only.")
        self.when = self._read_when(entry.get("when", {}))

    def connect(self) -> None:
        """Connect it, for good."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return what is connected, in a sentence."""
        raise NotImplementedError

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for what looks wrong."""
        yield from ()

    def _read_when(self, when: object) -> dict[str, Collection[Any]]:
        if not isinstance(when, Mapping) or not all(isinstance(path, str) and path for path in when):
            raise ConfigurationError(
                f"{self.where}['when'] is {when!r}: give attribute paths and the value that each must have, "
                "as {'status': 'paid'}, or a list of values."
            )
        return {
            path: tuple(accepted) if isinstance(accepted, list | tuple | set | frozenset) else (accepted,)
            for path, accepted in when.items()
        }

    def _say_when(self) -> str:
        parts = [f"{path} is {' or '.join(map(str, accepted))}" for path, accepted in self.when.items()]
        return f" when {' and '.join(parts)}" if parts else ""


class SignalTrigger(Trigger):
    """Reads a signal of the project or of a package."""

    def __init__(self, index: int, entry: Mapping[str, Any]) -> None:
        super().__init__(index, entry)
        self.path = entry["signal"]
        self.signal = import_signal(f"{self.where}['signal']", self.path)

    def connect(self) -> None:
        """Connect the signal."""
        plug(self.signal, guard(self.where, self._read), uid=self.where)

    def describe(self) -> str:
        """Return what is connected."""
        return f"Signal {self.path}{self._say_when()} ({self.goal}, {self.where})."

    def _read(self, sender: Any, **kwargs: Any) -> Any:
        names = {"sender": sender, **kwargs}
        root = _Arguments(names)
        for path, accepted in self.when.items():
            try:
                if follow(root, path) not in accepted:
                    return None
            except InvalidEvent as error:
                raise InvalidEvent(f"{self.where}['when'] has {path!r}: {error}.") from None
        if self.mapped is None:
            return self.function(sender, **kwargs) if self.function else None
        source = next((one for one in _find_objects(names) if isinstance(one, models.Model)), None)
        event = self.mapped.event(root, source=source)
        found: list[Change] = [event]
        if "refunded" in self.mapped.paths:
            amendment = self.mapped.amendment(root)
            if amendment.value != event.value:
                found.append(amendment)
        return found


class ModelTrigger(Trigger):
    """Watches a model for rows that come to fulfil a condition."""

    def __init__(self, index: int, entry: Mapping[str, Any]) -> None:
        super().__init__(index, entry)
        self.model = find_model(f"{self.where}['model']", entry["model"])
        for path in self.when:
            try:
                check_path(self.model, path)
            except InvalidEvent as error:
                raise ConfigurationError(f"{self.where}['when'] has {path!r}: {error}.") from None
        if self.mapped:
            self.mapped.require("occurred_at")
            self.mapped.check(self.model)

    def connect(self) -> None:
        """Watch the model."""
        mapped = self.mapped
        if mapped is None:
            Watch(self.where, self.model, self.when, self._call).connect()
            return

        def paid(sender: Any, instance: models.Model, **kwargs: Any) -> bool:
            return record(mapped.event(instance, source=instance))

        def refunded(sender: Any, instance: models.Model, **kwargs: Any) -> bool:
            return record(mapped.amendment(instance))

        path = mapped.paths.get("refunded", "")
        Watch(
            self.where,
            self.model,
            self.when,
            paid,
            reads=mapped.paths.values(),
            refund_path=path,
            read_refund=mapped.refunded,
            refund=refunded if path else None,
        ).connect()

    def describe(self) -> str:
        """Return what is connected."""
        return f"{self.model._meta.label}{self._say_when()} ({self.goal}, {self.where})."

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each value that the field's choices do not have."""
        for path, accepted in self.when.items():
            field = find_field(self.model, path)
            known = [value for value, _ in field.flatchoices] if field is not None and field.choices else None
            for value in accepted if known else ():
                if value not in (known or ()):
                    yield (
                        f"{self.where}['when'] waits for {path} to be {value!r}, but "
                        f"{self.model._meta.label} knows {', '.join(map(repr, known or ()))}."
                    )

    def events(self, since: dt.datetime, until: dt.datetime) -> Iterator[EarningEvent]:
        """Yield what happened from ``since`` until before ``until``, each with what it is worth now.

        Raises:
            ConfigurationError: The condition or the time is no column, but a property for instance.
        """
        if self.mapped is None:
            return
        at = self.mapped.paths["occurred_at"].replace(".", "__")
        asked = {f"{path.replace('.', '__')}__in": list(accepted) for path, accepted in self.when.items()}
        try:
            rows = self.model._default_manager.filter(**asked, **{f"{at}__gte": since, f"{at}__lt": until})
        except FieldError as error:
            raise ConfigurationError(
                f"{self.where} has what no query can ask ({error}): name a function in KOOMALOOMA_ORDERS."
            ) from None
        for row in rows.order_by(at, "pk").iterator(chunk_size=500):
            try:
                event = self.mapped.event_now(row)
            except InvalidEvent as error:
                log_failure(f"{self.where}, {row}", error)
            else:
                yield event

    def _call(self, sender: Any, **kwargs: Any) -> bool:
        if self.function is None:
            return False
        with shelter():
            found = self.function(sender, **kwargs)
        return record(found)


class _Arguments:
    """What a signal brings, as the root of attribute paths; it has no attributes of its own.

    The first name of a path is one of the signal's arguments, or ``sender``; else an attribute of
    ``instance``, of ``order`` or of a sender that is an object.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        for owner in _find_objects(self.__dict__):
            found = getattr(owner, name, self)
            if found is not self:
                return found
        known = ", ".join(sorted(set(self.__dict__) - {"signal"}))
        raise InvalidEvent(f"the signal brings no {name!r}, only {known}, and no object in it has that")


def _find_objects(names: Mapping[str, Any]) -> list[Any]:
    found = [names.get(name) for name in ("instance", "order", "sender")]
    return [one for one in found if one is not None and not isinstance(one, type)]


def _read_goal(where: str, goal: object) -> str:
    try:
        return read_goal(goal)
    except InvalidEvent as error:
        raise ConfigurationError(f"{where}: {error}") from None
