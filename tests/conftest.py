"""Fixtures of the whole suite, and what is skipped where a server is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from django_koomalooma import deciding
from django_koomalooma.sandbox import Sandbox
from tests import services

pytest_plugins = ["django_koomalooma.testing"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a server that is not there; where nothing may be skipped, fail."""
    for name, find in services.FINDERS.items():
        if item.get_closest_marker(name):
            missing = find()
            if missing and os.environ.get("KOOMALOOMA_TEST_NO_SKIP"):
                pytest.fail(f"nothing may be skipped here, but {missing}", pytrace=False)
            if missing:
                pytest.skip(missing)


@pytest.fixture(autouse=True)
def _fresh_campaigns() -> Iterator[None]:
    deciding.campaigns.drop()
    yield
    deciding.campaigns.drop()


@pytest.fixture
def sandbox(settings: Settings) -> Iterator[Sandbox]:
    """A pretend koomalooma in this process, and the settings that point at it."""
    with Sandbox(durable=False) as server:
        for name, value in server.settings().items():
            setattr(settings, name, value)
        yield server
