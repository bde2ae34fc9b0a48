"""Finds the signals, functions and models that a setting names; says what is wrong with a name, and where."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models.signals import ModelSignal
from django.dispatch import Signal
from django.utils.module_loading import import_string

from ..exceptions import ConfigurationError

_INDEXED = re.compile(r"(?P<path>[^\[\]]+)\[(?P<key>[^\]]+)\]")


def import_signal(where: str, path: object) -> Signal:
    """Return the signal that ``path`` leads to, or that it is.

    Raises:
        ConfigurationError: There is no such signal; the message begins with ``where``.
    """
    if isinstance(path, Signal):
        found: Any = path
    else:
        found = _import(where, path)
    if isinstance(found, ModelSignal):
        raise ConfigurationError(f"{where} is {path!r}: give a 'model' instead.")
    if isinstance(found, Mapping):
        raise ConfigurationError(
            f"{where} is {path!r}, a dict: name one of {', '.join(sorted(map(str, found)))}, as "
            f"{path}[{next(iter(found), '…')}]."
        )
    if not isinstance(found, Signal):
        raise ConfigurationError(f"{where} is {path!r}: it is a {type(found).__name__}, not a signal.")
    return found


def import_function(where: str, path: object) -> Callable[..., Any]:
    """Return the function that ``path`` leads to, or that it is.

    Raises:
        ConfigurationError: There is no such function; the message begins with ``where``.
    """
    found = path if callable(path) else _import(where, path)
    if not callable(found) or isinstance(found, Signal):
        raise ConfigurationError(f"{where} is {path!r}: it is a {type(found).__name__}, not a function.")
    try:
        takes_all = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(found).parameters.values())
    except ValueError:  # built in, without a signature
        takes_all = False
    if not takes_all:
        raise ConfigurationError(
            f"{where} is {path!r}: let the function take (sender, **kwargs), as receivers do."
        )
    return found


def _import(where: str, path: object) -> Any:
    """Import ``package.module.name``, ``package.module:name``, each with ``[key]`` for a dict."""
    if not isinstance(path, str) or not path:
        raise ConfigurationError(f"{where} is {path!r}: give a dotted path as text.")
    indexed = _INDEXED.fullmatch(path)
    plain, key = (indexed["path"], indexed["key"].strip("'\"")) if indexed else (path, None)
    try:
        found = import_string(plain.replace(":", "."))
    except Exception as error:
        raise ConfigurationError(f"{where} is {path!r}: {error}") from error
    if key is None:
        return found
    try:
        return found[key]
    except (KeyError, TypeError, IndexError):
        known = ", ".join(sorted(map(str, found))) if isinstance(found, Mapping) else "no keys"
        raise ConfigurationError(f"{where} is {path!r}: {plain} has no {key!r}, but {known}.") from None


def find_model(where: str, label: object) -> type[models.Model]:
    """Return the model with this label, ``"app.Model"``.

    Raises:
        ConfigurationError: There is no such model; the message begins with ``where``.
    """
    if isinstance(label, type) and issubclass(label, models.Model):
        return label
    try:
        return apps.get_model(str(label))
    except (LookupError, ValueError) as error:
        name = str(label).rpartition(".")[2].lower()
        like = [model._meta.label for model in apps.get_models() if model._meta.model_name == name]
        hint = f" Do you mean {' or '.join(like)}?" if like else ""
        raise ConfigurationError(f"{where} is {label!r}: {str(error).rstrip('.')}.{hint}") from None
