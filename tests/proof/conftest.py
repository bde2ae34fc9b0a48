"""Fixtures of the proof: one real database per vendor for the whole session, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from pytest_django import DjangoDbBlocker, Settings

from django_koomalooma import gate
from tests.proof import shop
from tests.proof.stage import Stage, clean, make_config, make_database, put_in_place

QUICK: dict[str, Any] = {
    "KOOMALOOMA_LEASE": 1,
    "KOOMALOOMA_CONNECT_TIMEOUT": 0.5,
    "KOOMALOOMA_READ_TIMEOUT": 0.8,
    "KOOMALOOMA_CONCURRENCY": 8,
    "KOOMALOOMA_RUNS": 4,
    "KOOMALOOMA_DAILY_CAP": None,
    "KOOMALOOMA_MONTHLY_CAP": None,
    "KOOMALOOMA_WAKE_UP": False,
}
VENDORS = [
    pytest.param("sqlite", id="sqlite"),
    pytest.param("postgres", id="postgres", marks=pytest.mark.postgres),
    pytest.param("mariadb", id="mariadb", marks=pytest.mark.mariadb),
]


class Databases:
    """The databases of this session, each made when a test first asks for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._urls: dict[str, str] = {}

    def find(self, vendor: str) -> str:
        """Return the URL of the vendor's database."""
        if vendor not in self._urls:
            self._urls[vendor] = self._stack.enter_context(make_database(vendor))
        return self._urls[vendor]


@pytest.fixture(scope="session")
def proof_databases(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Databases]:
    with django_db_blocker.unblock(), ExitStack() as stack:
        yield Databases(stack)


@pytest.fixture
def vendor() -> str:
    """The database's vendor; a test that wants all three parametrizes it with VENDORS."""
    return "sqlite"


@pytest.fixture
def stage(
    vendor: str,
    proof_databases: Databases,
    django_db_blocker: DjangoDbBlocker,
    settings: Settings,
    tmp_path: Path,
) -> Iterator[Stage]:
    """An empty shop with one campaign on a real database, and a sandbox; leases last a second."""
    with django_db_blocker.unblock():
        url = proof_databases.find(vendor)
        with put_in_place(make_config(url)):
            clean()
            get_user_model().objects.all().delete()
            shop.open_shop()
            gate.read()
            for name, value in QUICK.items():
                setattr(settings, name, value)
            stage = Stage(url, tmp_path / "ledger", dict(QUICK))
            with stage.sandbox:
                for name, value in stage.sandbox.settings().items():
                    setattr(settings, name, value)
                try:
                    yield stage
                finally:
                    stage.close()
