"""Kill points: wrap one function of this process, so that it dies or freezes there; the product has no hooks.

A point is ``module:name:when``, or ``module:name:when:count:act``: ``when`` is before or after, ``count``
says at which call, ``act`` is kill (SIGKILL), stop (SIGSTOP) or term. ``half-body`` dies with half of a
commitment's body sent.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import urllib3.connection

ACTS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
HALF_BODY = "half-body"


def arm(spec: str) -> None:
    """Arm the points named in ``spec``, parted by spaces.

    Raises:
        AttributeError: There is no such function.
    """
    for point in spec.split():
        if point == HALF_BODY:
            _arm_half_body()
            continue
        module, name, when, *rest = point.split(":")
        count, act = (*rest, *("1", "kill")[len(rest) :])
        holder: Any = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            holder = getattr(holder, part)
        setattr(holder, last, _wrap(getattr(holder, last), when, int(count), ACTS[act]))


def _wrap(function: Callable[..., Any], when: str, count: int, act: signal.Signals) -> Callable[..., Any]:
    if when not in ("before", "after"):
        raise ValueError(f"{when!r}: say before or after")
    calls = itertools.count(1)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        number = next(calls)
        if when == "before" and number == count:
            _signal(act)
        result = function(*args, **kwargs)
        if when == "after" and number == count:
            _signal(act)
        return result

    return wrapped


def _signal(act: signal.Signals) -> None:
    os.kill(os.getpid(), act)
    # A signal to a process with threads may be served by another one: let it happen before this one goes on.
    time.sleep(0.3)


def _arm_half_body() -> None:
    send = urllib3.connection.HTTPConnection.send

    def send_half(self: urllib3.connection.HTTPConnection, data: bytes) -> None:
        if b"promotion_goal_description" in data:
            send(self, data[: (data.index(b"{") + len(data)) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        send(self, data)

    urllib3.connection.HTTPConnection.send = send_half  # type: ignore[method-assign, assignment]  # the point of this module
