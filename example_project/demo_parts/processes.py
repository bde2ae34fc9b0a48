"""Starts child processes, watches them, and ends every one of them with all that it has started itself."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
BUSY_GRACE = 10.0
IDLE_GRACE = 1.0


class ChildDied(RuntimeError):
    """A process that the demo needs has ended; the message holds the end of its log."""


def die_with_parent() -> None:
    """Ask Linux to end this child when the demo itself is killed and cannot clean up."""
    # Runs between fork and exec: nothing here may fail or take a lock.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process in a group of its own, writing to a log file."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            # A session of its own: Ctrl-C in the terminal reaches the demo, which ends its children in order.
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )

    def check(self) -> None:
        """Raise when the process has ended.

        Raises:
            ChildDied: With the last lines of its log.
        """
        code = self.process.poll()
        if code is not None:
            last = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise ChildDied(
                f"The {self.name} has ended by itself (exit code {code}). Its last lines:\n{last}"
            )

    def ask_to_end(self) -> None:
        """Send SIGTERM to the process; a Celery worker then ends its pool by itself."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self, deadline: float) -> None:
        """Wait for the process, then kill what is left of its group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(deadline - time.monotonic(), 0.1))
        # What it has started ends with it; a moment is enough, since a zombie counts as alive until reaped.
        last = min(deadline, time.monotonic() + 0.5)
        while time.monotonic() < last and self._group_lives():
            time.sleep(0.05)
        # Nothing is left of most groups (macOS says "not permitted" for one of zombies).
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


class Children:
    """All processes of one demo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Child] = []
        #: How long they may take to end. A Celery worker needs some seconds even when it has nothing to do.
        self.grace = BUSY_GRACE

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start one more; its log is `<name>.log` in the demo's folder."""
        child = Child(name, command, environment, self.folder / f"{name.replace(' ', '-')}.log")
        self.running.append(child)
        return child

    def check(self) -> None:
        """Raise ChildDied when one has ended."""
        for child in self.running:
            child.check()

    def end(self) -> None:
        """End all of them, the last one first, within the grace."""
        deadline = time.monotonic() + self.grace
        for child in reversed(self.running):
            child.ask_to_end()
        for child in reversed(self.running):
            child.end(deadline)
        self.running.clear()


def wait_for_file(path: Path, children: Children, seconds: float) -> str:
    """Return the text of a file that a child is about to write.

    Raises:
        ChildDied: A child has ended before.
        TimeoutError: It took too long.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists():
            return path.read_text()
        children.check()
        time.sleep(0.05)
    raise TimeoutError(f"{path.name} was not written within {seconds:.0f} s.")
