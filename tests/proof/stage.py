"""Puts a test on stage: a real database in place of the suite's own, a sandbox, and processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import dj_database_url
from django.core.management import call_command
from django.db import connection, connections

from django_koomalooma import deciding
from django_koomalooma.delivery import Run, deliver_due
from django_koomalooma.models import Campaign, Commitment, Decision, DeliveryAttempt, Gate, KoomaloomaUser
from django_koomalooma.sandbox import Sandbox
from tests import services
from tests.proof import oracle, shop

ROOT = Path(__file__).resolve().parents[2]
NAME = f"koo_proof_{os.getpid()}"


def make_config(url: str) -> dict[str, Any]:
    """Return Django's settings of the database at ``url``, with the options of the suite's settings."""
    config = cast("dict[str, Any]", dj_database_url.parse(url))
    if config["ENGINE"].endswith("sqlite3"):
        config["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}
    if config["ENGINE"].endswith("mysql"):
        config["OPTIONS"] = {"charset": "utf8mb4"}
    return config


@contextlib.contextmanager
def put_in_place(config: dict[str, Any]) -> Iterator[None]:
    """Let ``default`` be another database, in all threads, until the block ends."""
    before, own = connections["default"], connections.settings["default"]
    connections.settings["default"] = {
        **own,
        "TEST": own["TEST"],
        "USER": "",
        "PASSWORD": "",
        "OPTIONS": {},
        **config,
    }
    for name in ("HOST", "PORT", "USER", "PASSWORD"):
        connections.settings["default"].setdefault(name, "")
    connections["default"] = connections.create_connection("default")
    deciding.campaigns.drop()
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = own
        connections["default"] = before
        deciding.campaigns.drop()


def swap_name(url: str, name: str) -> str:
    """Return the URL with another database name."""
    return f"{url.rsplit('/', 1)[0]}/{name}"


@contextlib.contextmanager
def make_database(vendor: str) -> Iterator[str]:
    """Make a migrated database of a vendor and return its URL; it is dropped at the end."""
    if vendor == "sqlite":
        with tempfile.TemporaryDirectory(prefix="koo-proof-") as folder:
            url = f"sqlite:///{folder}/shop.sqlite3"
            _migrate(url)
            yield url
        return
    server = {"postgres": services.POSTGRES, "mariadb": services.MARIADB}[vendor]
    admin = swap_name(server, "postgres" if vendor == "postgres" else "information_schema")
    _execute(admin, f"CREATE DATABASE {NAME}")
    try:
        _migrate(swap_name(server, NAME))
        yield swap_name(server, NAME)
    finally:
        _execute(admin, f"DROP DATABASE {NAME}" + (" WITH (FORCE)" if vendor == "postgres" else ""))


def _execute(url: str, sql: str) -> None:
    with put_in_place(make_config(url)), connection.cursor() as cursor:
        cursor.execute(sql)


def _migrate(url: str) -> None:
    with put_in_place(make_config(url)):
        call_command("migrate", verbosity=0)
        shop.make_tables()


def clean() -> None:
    """Empty the tables; the schema stays."""
    for model in (Decision, DeliveryAttempt, Commitment, KoomaloomaUser, Campaign, Gate, shop.Order):
        model.objects.all()._raw_delete("default")  # type: ignore[attr-defined]  # a table, not rows


def until(condition: Callable[[], Any], seconds: float = 10, what: str = "it") -> Any:
    """Wait for a condition, and return what it returned.

    Raises:
        TimeoutError: It did not come true.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise TimeoutError(f"{what} did not happen within {seconds} s")


class Stage:
    """A shop's database, a sandbox with a ledger, and worker processes that may be killed."""

    def __init__(self, url: str, ledger: Path, settings: dict[str, Any]) -> None:
        self.url = url
        self.ledger = ledger
        self.settings = settings
        self.sandbox = Sandbox(ledger=ledger)
        self._processes: list[subprocess.Popen[str]] = []

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process on this stage."""
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.proof.settings",
            "DATABASE_URL": self.url,
            "PYTHONPATH": str(ROOT),
            "PROOF_SETTINGS": json.dumps({**self.settings, **self.sandbox.settings()}),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``python -m`` with the arguments, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=self.environment(**environment),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def work(self, *arguments: str, points: str = "", **environment: str) -> subprocess.Popen[str]:
        """Start the worker with a command and its points."""
        return self.start("tests.proof.worker", *arguments, PROOF_POINTS=points, **environment)

    def killed(self, *arguments: str, points: str, **environment: str) -> None:
        """Run the worker until it is killed at its point.

        Raises:
            AssertionError: It ended otherwise: the point was never reached.
        """
        process = self.work(*arguments, points=points, **environment)
        out, err = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL, f"{process.returncode}: {out}{err}"

    def drain(self, seconds: float = 15) -> Run:
        """Let leases end, then sweep until nothing is open. The gate is resumed as an operator would.

        Raises:
            TimeoutError: Something stays open.
        """
        from django_koomalooma import gate

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.close_if_unusable_or_obsolete()  # as Celery does between tasks
            if gate.read().is_stopped:
                gate.resume()
            run = deliver_due()
            if not Commitment.objects.open().exists():
                return run
            time.sleep(0.05)
        rows = list(Commitment.objects.open().values_list("reference", "status", "reason"))
        raise TimeoutError(f"still open: {rows}")

    def check(self) -> oracle.Finding:
        """Ask the oracle."""
        return oracle.check(oracle.read_ledger(self.ledger))

    def close(self) -> None:
        """End what is left of the processes."""
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)
        self.sandbox.stop()
