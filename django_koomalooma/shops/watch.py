"""Watches a model for rows that come to fulfil a condition; any other save costs no statement.

What the database held when a row was read is remembered on the instance, in memory; what was recorded counts
only while its transaction stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

from django.apps import apps
from django.db import connections, models, router, transaction
from django.db.models.signals import post_init, post_save, pre_save

from ..earning import is_order_lost
from ..models import Commitment
from .base import log_failure, plug
from .values import find_field, follow

#: Records the row; returns whether there was anything to record.
React = Callable[..., bool]


class _Mark:
    """Something that was written, for as long as no rollback has undone it."""

    __slots__ = ("_committed", "_hook", "_using")

    def __init__(self) -> None:
        self._using = router.db_for_write(Commitment)
        self._committed = False

        def hook() -> None:
            self._committed = True

        self._hook = hook
        transaction.on_commit(hook, using=self._using)

    @property
    def stands(self) -> bool:
        # Django drops the hook together with the savepoint or transaction in which it was registered.
        return self._committed or any(
            entry[1] is self._hook for entry in connections[self._using].run_on_commit
        )


class _Memory:
    """What is known of one instance: what the database held of it, and what was recorded since."""

    __slots__ = ("mark", "refunded", "refunds", "seen", "values")

    def __init__(
        self, values: dict[str, Any] | None = None, seen: bool = False, refunded: Any = None
    ) -> None:
        self.values = {} if values is None else values
        self.seen = seen
        self.refunded = refunded
        self.mark: _Mark | None = None
        self.refunds: list[tuple[Decimal, _Mark]] = []

    def __reduce__(self) -> tuple[type[_Memory], tuple[dict[str, Any]]]:
        # A copy or an unpickled instance knows nothing: at worst a repeated event, which is idempotent.
        return _Memory, ({},)


class Watch:
    """Calls ``react`` for a saved row that fulfils ``when`` and did not when it was read.

    Args:
        where: What to name in the log.
        when: Attribute paths and the values that each may have; empty: to be new is enough.
        react: A receiver of ``post_save``; returns whether there was anything to record.
        reads: Attribute paths that ``react`` uses, so that it never sees an expression in place of a value.
        refund_path: Attribute path of what was refunded so far; empty where there is none.
        read_refund: Reads the amount from what the path leads to.
        refund: As ``react``; called whenever that amount has changed.
    """

    def __init__(
        self,
        where: str,
        model: type[models.Model],
        when: Mapping[str, Collection[Any]],
        react: React,
        *,
        reads: Iterable[str] = (),
        refund_path: str = "",
        read_refund: Callable[[Any], Decimal] = Decimal,
        refund: React | None = None,
    ) -> None:
        self.where, self.model, self.when, self.react = where, model, dict(when), react
        self.refund_path, self.read_refund, self.refund = refund_path, read_refund, refund
        self._key = f"_{where}"
        watched = [*self.when, refund_path] if refund_path else list(self.when)
        fields = {path: field for path in watched if (field := find_field(model, path)) is not None}
        self._columns = {path: field.attname for path, field in fields.items()}
        self._names = {path: {field.name, field.attname} for path, field in fields.items()}
        self._reads = {field.attname for path in reads if (field := find_field(model, path.split(".")[0]))}
        self._reads.update(self._columns.values())
        #: The fields that decide; None where something decides that is no column of the row.
        self._decisive = (
            set().union(*self._names.values()) if watched and len(fields) == len(watched) else None
        )

    def connect(self) -> None:
        """Connect to the model, its proxies and its children."""
        for model in apps.get_models(include_auto_created=True):
            if issubclass(model, self.model):
                plug(post_init, self._remember, sender=model, uid=self.where)
                plug(pre_save, self._forget, sender=model, uid=self.where)
                plug(post_save, self._saved, sender=model, uid=self.where)

    def has_recorded(self, instance: models.Model) -> bool:
        """Return whether this instance was recorded, and no rollback has undone it."""
        mark = self._recall(instance).mark
        return mark is not None and mark.stands

    def _remember(self, sender: Any, instance: models.Model, **kwargs: Any) -> None:
        # Runs for every row that is read: only what the columns hold is kept, and looked at when it is saved.
        held = instance.__dict__
        held[self._key] = [held.get(column, ...) for column in self._columns.values()]

    def _recall(self, instance: models.Model) -> _Memory:
        held = instance.__dict__.get(self._key)
        if isinstance(held, _Memory):
            return held
        read = zip(self._columns, held or (), strict=False)
        values = {path: value for path, value in read if value is not ...}
        seen = held is not None and all(
            path in values and values[path] in accepted for path, accepted in self.when.items()
        )
        memory = instance.__dict__[self._key] = _Memory(values, seen, values.get(self.refund_path))
        return memory

    def _forget(self, sender: Any, instance: models.Model, **kwargs: Any) -> None:
        # Made by hand, not read: what it holds says nothing of the database, even where it has a key.
        if instance._state.adding:
            instance.__dict__[self._key] = _Memory({})

    def _saved(self, sender: Any, **kwargs: Any) -> None:
        saved = kwargs.get("update_fields")
        if kwargs.get("raw") or (
            saved is not None and self._decisive is not None and self._decisive.isdisjoint(saved)
        ):
            return
        try:
            self._look(sender, saved, kwargs)
        except Exception as error:  # logged; the shop's order matters more than our points
            log_failure(self.where, error)
            if is_order_lost():
                raise

    def _look(self, sender: Any, saved: Collection[str] | None, kwargs: dict[str, Any]) -> None:
        instance = kwargs["instance"]
        memory = self._recall(instance)
        row = self._read_anew(instance, kwargs.get("using"))
        for path, column in self._columns.items():
            if (saved is None or not self._names[path].isdisjoint(saved)) and column in row.__dict__:
                memory.values[path] = row.__dict__[column]
        fulfilled = all(
            (memory.values[path] if path in memory.values else follow(row, path)) in accepted
            for path, accepted in self.when.items()
        )
        recorded = memory.seen or self.has_recorded(instance)
        kwargs = {**kwargs, "instance": row}
        try:
            if fulfilled and not recorded and self.react(sender, **kwargs):
                memory.mark = _Mark()
        finally:
            # A refund counts even if the event could not be read: the event finds what it left.
            if self.refund is not None and (fulfilled or recorded or self.refund_path in memory.values):
                self._look_at_refunds(sender, memory, kwargs)

    def _read_anew(self, instance: models.Model, using: str | None) -> models.Model:
        """Return the instance, or a fresh copy where it holds expressions (``F("paid") + 1``), not values."""
        if any(hasattr(instance.__dict__.get(column), "resolve_expression") for column in self._reads):
            return type(instance)._base_manager.using(using).get(pk=instance.pk)
        return instance

    def _look_at_refunds(self, sender: Any, memory: _Memory, kwargs: dict[str, Any]) -> None:
        local = self.refund_path in memory.values
        value = memory.values[self.refund_path] if local else follow(kwargs["instance"], self.refund_path)
        amount = self.read_refund(value)
        memory.refunds = [(known, mark) for known, mark in memory.refunds if mark.stands]
        known = memory.refunds[-1][0] if memory.refunds else self.read_refund(memory.refunded)
        if amount != known and self.refund is not None and self.refund(sender, **kwargs):
            memory.refunds.append((amount, _Mark()))
