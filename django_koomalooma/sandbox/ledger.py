"""What the sandbox has booked: one JSON line per booking, on the disk before the answer leaves.

Owns the two files (bookings, users), the numbering and the caps; leaves the checks to rules.py.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no flock; there two sandboxes on one ledger go unnoticed
    fcntl = None  # type: ignore[assignment]  # the module is absent, and that is what None says

Row = dict[str, Any]


def now() -> str:
    """Return the time in UTC, always with six decimals."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class CapReached(Exception):
    """The booking would lift the partner's points over a cap."""


class LedgerError(Exception):
    """The ledger cannot be used; the message says why and what to do."""


class JsonLines:
    """An append-only file of JSON objects; without a path it keeps nothing.

    Args:
        durable: force every line to the disk. Many writers share one fsync: while one waits for the disk,
            the next ones have written already and are covered by the following fsync.
    """

    def __init__(self, path: Path | None, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._file = -1
        self._written = self._synced = 0
        self._sync_lock = threading.Lock()

    def open(self) -> list[Row]:
        """Open the file and return its rows; a last line cut off by a crash was never answered and goes.

        Raises:
            LedgerError: another sandbox has the file open, or a line is not JSON.
        """
        if self._path is None:
            return []
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if fcntl:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = self._path.read_bytes()
            end = data.rfind(b"\n") + 1
            os.ftruncate(self._file, end)
            return [json.loads(line) for line in data[:end].splitlines()]
        except BlockingIOError:
            self.close()
            raise LedgerError(f"{self._path} is in use by another sandbox: give each its own file") from None
        except ValueError as error:
            self.close()
            raise LedgerError(f"{self._path} is not a sandbox ledger: {error}") from error

    def write(self, row: Row) -> int:
        """Append a row (one writer at a time) and return what to pass to `sync`.

        Raises:
            OSError: the file is closed or the disk is full.
        """
        if self._path is not None:
            data = json.dumps(row).encode() + b"\n"
            while data:
                data = data[os.write(self._file, data) :]
        self._written += 1
        return self._written

    def sync(self, position: int) -> None:
        """Return once the row is on the disk.

        Raises:
            OSError: the file is closed, or the disk failed.
        """
        if not self._durable or self._path is None:
            return
        with self._sync_lock:
            if self._synced < position:
                written = self._written
                os.fsync(self._file)
                self._synced = written

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Ledger:
    """Bookings and users of one pretend partner account.

    Args:
        path: where the bookings go; the users go beside it, into `<name>.users`. None keeps both in memory.
        durable: fsync before a booking counts as made; off for benchmarks.
    """

    def __init__(self, path: Path | None = None, *, durable: bool = True) -> None:
        self._persistent = path is not None
        self._bookings_file = JsonLines(path, durable=durable)
        self._users_file = JsonLines(path and path.with_name(path.name + ".users"), durable=durable)
        self._lock = threading.Lock()
        self._bookings: list[Row] = []
        self._users: dict[str, Row] = {}
        self._units: Counter[str] = Counter()

    def open(self) -> None:
        """Open the files and take up the count where they end.

        Raises:
            LedgerError: a file is in use or is not a ledger.
        """
        bookings = self._bookings_file.open()
        try:
            users = self._users_file.open()
        except LedgerError:
            self._bookings_file.close()
            raise
        if self._persistent:
            self._bookings = bookings
            self._users = {row["user_id"]: row for row in users}
            self._units = Counter()
            for row in bookings:
                self._count(row)

    def close(self) -> None:
        """Close the files. What was booked can still be read from memory."""
        with self._lock:
            self._bookings_file.close()
            self._users_file.close()

    def add_user(self, user_id: str, partner_user_id: str, user_session_id: str) -> None:
        """Remember a user; the same one again only changes the session."""
        row = {
            "user_id": user_id,
            "partner_user_id": partner_user_id,
            "user_session_id": user_session_id,
            "at": now(),
        }
        with self._lock:
            self._users[user_id] = row
            position = self._users_file.write(row)
        self._users_file.sync(position)

    def has_user(self, user_id: str) -> bool:
        return user_id in self._users

    def book(
        self, fields: Row, units: int, *, daily_cap: int | None = None, monthly_cap: int | None = None
    ) -> Row:
        """Book a commitment and return its ledger line.

        Raises:
            CapReached: the day's or the month's points (UTC) would exceed the cap; nothing was booked.
        """
        with self._lock:
            at = now()
            for cap, period, name in ((daily_cap, at[:10], "daily"), (monthly_cap, at[:7], "monthly")):
                if cap is not None and self._units[period] + units > cap:
                    raise CapReached(f"the {name} cap of {cap} points would be exceeded")
            number = self._bookings[-1]["n"] + 1 if self._bookings else 1
            row = {"n": number, "id": uuid.uuid4().hex, **fields, "loyalty_units": units, "at": at}
            position = self._bookings_file.write(row)
            self._bookings.append(row)
            self._count(row)
        self._bookings_file.sync(position)
        return row

    def bookings(self) -> list[Row]:
        """Return every booking, oldest first."""
        with self._lock:
            return [dict(row) for row in self._bookings]

    def users(self) -> list[Row]:
        """Return every user with the latest session."""
        with self._lock:
            return [dict(row) for row in self._users.values()]

    def _count(self, row: Row) -> None:
        self._units[row["at"][:10]] += row["loyalty_units"]
        self._units[row["at"][:7]] += row["loyalty_units"]
