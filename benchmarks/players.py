"""Processes that measure when told to: each has its own settings, and all can be compared in turns."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from benchmarks.api import ROOT


class Player:
    """A Django process that calls functions of one module on request.

    Args:
        module: Of this package, whose functions it calls.
        environment: On top of our own, ``DATABASE_URL`` for instance.
        root: The source tree it runs in; another one to compare two states of the source.
    """

    def __init__(self, module: str, environment: Mapping[str, str], root: Path = ROOT) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.players", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "benchmarks.settings"} | dict(environment),
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def start(self, function: str, *args: Any, **kwargs: Any) -> None:
        """Ask for a call without waiting for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([function, args, kwargs]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer of what was asked for.

        Raises:
            RuntimeError: The call failed; the message is its traceback.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process has ended")
        failure, value = json.loads(line)
        if failure:
            raise RuntimeError(failure)
        return value

    def call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function there and return what it returned."""
        self.start(function, *args, **kwargs)
        return self.answer()


def main(name: str) -> None:
    """Answer requests line by line, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anything prints must not be taken for an answer
    import django  # only the process that plays needs it

    django.setup()
    module = importlib.import_module(f"benchmarks.{name}")
    for line in sys.stdin:
        function, args, kwargs = json.loads(line)
        try:
            reply = ["", getattr(module, function)(*args, **kwargs)]
        except Exception:
            reply = [traceback.format_exc(), None]
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
