"""Settings: read live, and each wrong value is an error that names its setting."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from django_koomalooma.conf import Settings as Conf
from django_koomalooma.conf import conf
from django_koomalooma.exceptions import ConfigurationError

SETTINGS = [name for name, value in vars(Conf).items() if isinstance(value, property)]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MODE", "test", "'live', 'dry_run' or 'off'"),
        ("MODE", 1, "text"),
        ("CURRENCY", "euro", "three upper-case letters"),
        ("CONNECT_TIMEOUT", "fast", "a number from 0.01 to 30"),
        ("READ_TIMEOUT", 0, "a number from 0.01 to 60"),
        ("LEASE", 1.5, "a whole number"),
        ("CONCURRENCY", 0, "a whole number from 1 to 256"),
        ("CONCURRENCY", True, "a whole number"),
        ("RUNS", 65, "a whole number from 1 to 64"),
        ("WAKE_UP", "no", "True or False"),
        ("DAILY_CAP", -1, "a whole number"),
        ("MONTHLY_CAP", "many", "a whole number"),
        ("SHOP", 5, "'auto'"),
        ("SHOP_OPTIONS", [], "a dict"),
        ("TRIGGERS", {}, "a list of dicts"),
        ("TRIGGERS", ["x"], "a list of dicts"),
        ("ORDERS", 5, "a dotted path"),
        ("PROXIES", "http://proxy", "a dict"),
        ("RETENTION_DAYS", 0, "a whole number"),
        ("GUESTS", 1, "True or False"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: Any, says: str, settings: Settings) -> None:
    setattr(settings, f"KOOMALOOMA_{name}", value)

    with pytest.raises(ConfigurationError) as caught:
        getattr(conf, name.lower())

    assert str(caught.value).startswith(f"KOOMALOOMA_{name}")
    assert says in str(caught.value)


def test_a_wrong_token_is_named_and_not_shown(settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = ["secret-token"]

    with pytest.raises(ConfigurationError, match="KOOMALOOMA_API_TOKEN is a list") as caught:
        _ = conf.api_token

    assert "secret-token" not in str(caught.value)


def test_settings_are_read_at_every_access(settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    first = conf.concurrency
    settings.KOOMALOOMA_CONCURRENCY = 2

    assert (first, conf.concurrency) == (1, 2)


@pytest.mark.parametrize("empty", [None, "", " "], ids=["none", "empty", "blank"])
def test_an_empty_token_counts_as_missing(empty: str | None, settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = empty

    assert not conf.can_send()


def test_caps_may_be_switched_off(settings: Settings) -> None:
    settings.KOOMALOOMA_DAILY_CAP = None

    assert conf.daily_cap is None


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_its_manual(name: str) -> None:
    assert len(getattr(Conf, name).__doc__) > 20
