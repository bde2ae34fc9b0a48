"""Runs functions at once, each on a database connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connections


class Thread(threading.Thread):
    """A thread that closes its connections and keeps what the function returned or raised."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._act()
        except BaseException as error:
            self.result = error
        finally:
            connections.close_all()

    def outcome(self) -> Any:
        """Wait for the end and return what came of it, an exception as a value."""
        self.join(30)
        assert not self.is_alive(), "the thread hangs"
        return self.result


def together(*acts: Callable[[], Any]) -> list[Any]:
    """Run all at a barrier; return what each returned or raised."""
    barrier = threading.Barrier(len(acts), timeout=10)

    def start(act: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            barrier.wait()
            return act()

        return run

    threads = [Thread(start(act)) for act in acts]
    return [thread.outcome() for thread in threads]


def elsewhere(act: Callable[[], Any]) -> Any:
    """Run the function in another thread, so on another connection, and wait for it."""
    outcome = Thread(act).outcome()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
