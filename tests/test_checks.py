"""The system checks: every wrong setting is told, by name, and none stops a shop from starting."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from django.core import checks, mail
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import OperationalError, ProgrammingError, connections
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma import checks as our_checks
from django_koomalooma import gate, shops
from django_koomalooma.models import Gate
from django_koomalooma.policy import Policy
from tests.factories import CommitmentFactory

TOKEN = "eyJ-secret-token"


@pytest.fixture(autouse=True)
def _a_shop_where_all_is_well(settings: Settings) -> None:
    settings.ADMINS = settings.MANAGERS = ["somebody"]
    settings.KOOMALOOMA_API_TOKEN = TOKEN


def find(**kwargs: Any) -> list[checks.CheckMessage]:
    tags = ["koomalooma", "database"] if kwargs else ["koomalooma"]
    found = [one for one in checks.run_checks(tags=tags, **kwargs) if str(one.id).startswith("koomalooma")]
    assert TOKEN not in repr([(message.msg, message.hint) for message in found])
    return found


def ids() -> list[str]:
    return [str(message.id).removeprefix("koomalooma.") for message in find()]


def test_a_shop_where_all_is_well_hears_nothing() -> None:
    assert find() == []


@pytest.mark.parametrize(
    ("name", "value", "id_"),
    [
        ("PARTNER_ID", 7, "E001"),
        ("API_TOKEN", b"eyJ-secret-token", "E001"),
        ("MODE", "dry", "E001"),
        ("CURRENCY", "eur", "E001"),
        ("CONNECT_TIMEOUT", 0, "E001"),
        ("READ_TIMEOUT", "20", "E001"),
        ("LEASE", 120.5, "E001"),
        ("CONCURRENCY", 0, "E001"),
        ("RUNS", True, "E001"),
        ("WAKE_UP", "yes", "E001"),
        ("DAILY_CAP", -1, "E001"),
        ("MONTHLY_CAP", "2000000", "E001"),
        ("SHOP", 7, "E001"),
        ("SHOP_OPTIONS", [], "E001"),
        ("TRIGGERS", {"signal": "shop.signals.paid"}, "E001"),
        ("ORDERS", 7, "E001"),
        ("POLICY", 7, "E001"),
        ("GUESTS", 1, "E001"),
        ("WIDGET_SNIPPET", 7, "E001"),
        ("PROXIES", "http://user:password@proxy", "E001"),
        ("CA_BUNDLE", 7, "E001"),
        ("RETENTION_DAYS", 0, "E001"),
        ("API_URL", 7, "E001"),
        ("API_URL", "http://api.example.com/api", "E002"),
        ("API_URL", "ftp://api.example.com/api", "E002"),
        ("API_URL", "api.example.com", "E002"),
        ("PROXIES", {"https": "socks5://proxy:1080"}, "E003"),
        ("CA_BUNDLE", "/no/such/file.pem", "E004"),
        ("API_TOKEN", "eyJ-secret-token\n", "E005"),
        ("API_TOKEN", "eyJ-secret-token\r\nX-Evil: 1", "E005"),
        ("POLICY", "no.such.Policy", "E006"),
        ("POLICY", "decimal.Decimal", "E006"),
        ("POLICY", "tests.test_checks.BrokenPolicy", "E006"),
        ("ORDERS", "no.such.function", "E007"),
        ("ORDERS", "tests.test_checks.TOKEN", "E007"),
        ("PARTNER_ID", "", "W001"),
        ("API_TOKEN", None, "W001"),
        ("API_TOKEN", "", "W001"),
        ("TOKEN", "x", "W002"),
        ("READ_TIMEOUT", 40, "W003"),
        ("LEASE", 110, "W003"),
        ("WIDGET_SNIPPET", "<script></script>", "W008"),
        ("WIDGET_SNIPPET", "<div data-partner-id='other' id='%%sessionId%%'>", "W009"),
    ],
    ids=lambda value: str(value)[:30].replace("\r\n", " "),
)
def test_a_wrong_setting_is_told_once_and_by_its_name(
    settings: Settings, name: str, value: object, id_: str
) -> None:
    setattr(settings, f"KOOMALOOMA_{name}", value)

    (message,) = find()

    assert message.id == f"koomalooma.{id_}"
    assert f"KOOMALOOMA_{name}" in message.msg
    assert "password" not in f"{message.msg} {message.hint}"


class BrokenPolicy(Policy):
    """A policy of a shop that cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no rules today")


@pytest.mark.parametrize(
    "values",
    [
        {"API_URL": "http://127.0.0.1:8765/api"},
        {"API_URL": "http://localhost/api"},
        {"API_URL": "https://api.koomalooma.com/api/"},
        {"PROXIES": {"https": "http://user:password@proxy:3128"}},
        {"POLICY": "django_koomalooma.policy.Policy"},
        {"ORDERS": "tests.test_checks.find"},
        {"DAILY_CAP": None, "MONTHLY_CAP": None, "RETENTION_DAYS": None},
        {"WIDGET_SNIPPET": '<div data-partner-id="sandbox-partner" data-id="%%sessionId%%">'},
        {"MODE": "off", "API_TOKEN": "", "PARTNER_ID": ""},
    ],
    ids=lambda values: ", ".join(values),
)
def test_a_right_setting_is_left_alone(settings: Settings, values: dict[str, object]) -> None:
    for name, value in values.items():
        setattr(settings, f"KOOMALOOMA_{name}", value)

    assert find() == []


@pytest.fixture
def _connected_anew() -> Iterator[None]:
    yield
    shops.disconnect()


@pytest.mark.usefixtures("_connected_anew")
@pytest.mark.parametrize(
    ("name", "value", "id_"),
    [
        ("SHOP", "no_such_shop", "E009"),
        ("TRIGGERS", [{"signal": "no.such.signal", "event": "tests.test_checks.find"}], "E009"),
        ("TRIGGERS", [{"signals": "django.db.models.signals.post_save"}], "E009"),
        ("TRIGGERS", 7, "E001"),
        ("SHOP", 7, "E001"),
    ],
    ids=["no such shop", "no such signal", "no signal", "triggers of a wrong type", "shop of a wrong type"],
)
def test_what_cannot_be_connected_is_told_once(
    settings: Settings, name: str, value: object, id_: str
) -> None:
    setattr(settings, f"KOOMALOOMA_{name}", value)
    shops.connect()

    (message,) = find()

    assert message.id == f"koomalooma.{id_}"
    assert f"KOOMALOOMA_{name}" in message.msg


def test_what_is_connected_and_looks_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shops, "connection_warnings", lambda: ["'paied' is no status of the shop."])

    (message,) = find()

    assert (message.id, message.msg) == ("koomalooma.W011", "'paied' is no status of the shop.")


def test_a_slip_of_the_pen_is_named_with_what_was_meant_and_not_its_value(settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKN = TOKEN

    (message,) = find()

    assert (message.msg, message.hint) == (
        "There is no setting KOOMALOOMA_API_TOKN.",
        "Did you mean KOOMALOOMA_API_TOKEN?",
    )


@pytest.mark.django_db
def test_a_token_from_a_function_is_not_asked_for(settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = lambda: pytest.fail("a check asked for the token")
    CommitmentFactory(created_at=timezone.now() - dt.timedelta(hours=1))

    assert find() == []
    assert [message.id for message in find(databases=["default"])] == ["koomalooma.W010"]


def test_nothing_is_asked_of_network_or_database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a check used the network"))
    settings.KOOMALOOMA_API_TOKEN = ""

    assert ids() == ["W001"]  # and no mark lets this test use the database


def test_sqlite_that_gives_up_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "vendor", "sqlite")
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {"timeout": 20})

    (message,) = find()

    assert message.id == "koomalooma.W004"
    assert (
        message.hint == 'DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}'
    )


class Apart:
    """A router that keeps customers in a database of their own."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "people" if model._meta.app_label == "auth" else None


def test_customers_in_another_database_are_told(settings: Settings) -> None:
    settings.DATABASE_ROUTERS = ["tests.test_checks.Apart"]

    (message,) = find()

    assert message.id == "koomalooma.E008"
    assert message.msg == (
        "DATABASE_ROUTERS keeps customers in 'people' and koomalooma's tables in 'default'."
    )


def test_an_eager_celery_is_told_outside_tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("eager", set_as_current=False)
    app.conf.task_always_eager = True
    monkeypatch.setattr("django_koomalooma.checks.current_app", app)
    in_tests = ids()
    monkeypatch.delattr(mail, "outbox")

    outside = ids()

    assert (in_tests, outside) == ([], ["W005"])


def test_an_app_that_is_made_ready_twice_tells_everything_once(settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""

    our_checks.register()

    assert ids() == ["W001"]


def test_a_shop_that_is_being_made_needs_no_alarms(settings: Settings) -> None:
    settings.ADMINS = settings.MANAGERS = []
    settings.DEBUG = True

    assert find() == []


@pytest.mark.parametrize(("name", "id_"), [("ADMINS", "W006"), ("MANAGERS", "W007")])
def test_a_list_without_anybody_for_the_alarms_is_told(settings: Settings, name: str, id_: str) -> None:
    setattr(settings, name, [])

    (message,) = find()

    assert message.id == f"koomalooma.{id_}"
    assert message.msg.startswith(f"{name} is empty")


@pytest.mark.django_db
def test_a_missing_sweep_is_told_only_where_databases_are_checked() -> None:
    gate.read()
    Gate.objects.update(swept_at=timezone.now() - dt.timedelta(hours=3))
    CommitmentFactory()

    quiet, told = find(), find(databases=["default"])

    assert quiet == []
    assert [(message.id, message.msg) for message in told] == [
        (
            "koomalooma.W010",
            "No sweep for 3 hours: neither Celery beat nor cron (koomalooma_deliver) is running.",
        )
    ]


@pytest.mark.parametrize("error", [ProgrammingError("no such table"), OperationalError("down")], ids=str)
def test_a_database_without_our_tables_is_left_to_migrate(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr("django_koomalooma.status.find_late_sweep", fail)

    assert find(databases=["default"]) == []


@pytest.mark.django_db
def test_a_sweep_that_comes_is_not_told() -> None:
    gate.read()
    Gate.objects.update(swept_at=timezone.now())
    CommitmentFactory()

    assert find(databases=["default"]) == []


@pytest.mark.django_db(transaction=True)
def test_everything_wrong_at_once_still_lets_the_shop_migrate_and_start(settings: Settings) -> None:
    settings.KOOMALOOMA_API_URL = "http://api.example.com"
    settings.KOOMALOOMA_MODE = "dry"
    settings.KOOMALOOMA_POLICY = "no.such.Policy"
    settings.KOOMALOOMA_ORDERS = "no.such.orders"
    settings.KOOMALOOMA_TRIGGERS = 7
    settings.KOOMALOOMA_PROXIES = 7
    settings.ADMINS = settings.MANAGERS = []

    call_command("migrate", verbosity=0, skip_checks=False, stderr=io.StringIO())

    assert ids()
    assert not [message.id for message in find() if message.is_serious()]


def test_a_pipeline_can_fail_on_them(settings: Settings) -> None:
    settings.KOOMALOOMA_MODE = "dry"

    with pytest.raises(SystemCheckError, match=r"koomalooma\.E001.*KOOMALOOMA_MODE is 'dry'"):
        call_command("check", "--tag", "koomalooma", "--fail-level", "WARNING")
