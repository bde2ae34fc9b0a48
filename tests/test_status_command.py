"""``koomalooma_status``: what a person, a monitor and the owner of a new token get."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from django.core.management import call_command
from django.db import OperationalError
from django.utils import timezone
from kombu.transport import TRANSPORT_ALIASES
from pytest_django import Settings

from django_koomalooma import gate, shops
from django_koomalooma.models import Commitment, Gate, KoomaloomaUser
from django_koomalooma.testing import Koomalooma
from tests.factories import CampaignFactory, CommitmentFactory

pytestmark = pytest.mark.django_db

TOKEN = "eyJ-secret-token"


@pytest.fixture(autouse=True)
def _recipients(settings: Settings) -> None:
    settings.ADMINS = settings.MANAGERS = ["somebody"]


@pytest.fixture
def swept() -> None:
    gate.read()
    Gate.objects.update(swept_at=timezone.now(), ran_at=timezone.now())


@pytest.fixture
def campaign() -> Any:
    return CampaignFactory()


def run(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    code = 0
    try:
        call_command("koomalooma_status", *arguments, stdout=out)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    return code, out.getvalue()


def test_a_person_reads_what_is_connected_recorded_and_sent(campaign: Any, swept: None) -> None:
    CommitmentFactory.create_batch(2, campaign=campaign, issued=True, loyalty_units=500)
    CommitmentFactory(campaign=campaign, held=True)

    code, text = run()

    assert code == 0
    lines = text.splitlines()
    assert lines[0] == "Sending. Nothing is waiting."
    assert "  koomalooma:   http://127.0.0.1:9/api, partner sandbox-partner, a token is set" in lines
    assert "  broker:       not asked, KOOMALOOMA_WAKE_UP is off: the sweep sends." in lines
    assert "  sweep:        0 seconds ago (Celery beat or cron)" in lines
    assert "Recorded: 3" in lines
    assert "  Waiting:      1 (1 of them on hold)" in lines
    assert "  Sent:         2" in lines
    assert "Points sent, daily: 1,000 of 100,000" in lines
    assert "To look at" not in lines


@pytest.mark.parametrize(
    ("trait", "code"), [("issued", 0), ("in_doubt", 1), ("refused", 1)], ids=["sent", "unclear", "refused"]
)
def test_the_exit_code_tells_a_monitor(campaign: Any, swept: None, trait: str, code: int) -> None:
    CommitmentFactory(campaign=campaign, **{trait: True})

    assert run()[0] == run("--json")[0] == code


def test_a_stop_is_told_with_reason_and_next_try(campaign: Any, swept: None) -> None:
    gate.stop("koomalooma could not be reached 5 times in a row.", gate.Cause.UNREACHABLE)

    code, text = run()

    assert code == 2
    assert "Stopped: koomalooma could not be reached 5 times in a row." in text
    assert re.search(r"^  Tries again by itself: [\d: -]+; “Go on” in the admin tries at once\.$", text, re.M)


def test_a_stop_for_a_setting_says_when_it_tries_again_and_how_to_try_at_once(
    campaign: Any, swept: None
) -> None:
    gate.stop("KOOMALOOMA_CA_BUNDLE is wrong.", gate.Cause.CONFIGURATION)

    _, text = run()

    assert re.search(r"^  Tries again by itself: [\d: -]+; “Go on” in the admin tries at once\.$", text, re.M)


def test_a_token_that_was_put_in_is_not_missed_any_more(campaign: Any, swept: None) -> None:
    gate.stop("No token yet: set KOOMALOOMA_API_TOKEN.", gate.Cause.NO_TOKEN)

    _, text = run()

    assert "a token is set" in text
    assert "The token is there now." in text
    assert "No token yet" not in text


@pytest.fixture
def _connected_anew() -> Iterator[None]:
    yield
    shops.disconnect()


@pytest.mark.usefixtures("_connected_anew")
def test_a_broken_connection_is_the_first_that_is_said(
    campaign: Any, swept: None, settings: Settings
) -> None:
    settings.KOOMALOOMA_TRIGGERS = [{"signal": "no.such.signal", "event": "tests.test_checks.find"}]
    shops.connect()

    code, text = run()
    _, told = run("--json")

    assert code == 1
    assert text.splitlines()[0].startswith("Orders are not recorded: KOOMALOOMA_TRIGGERS[0]")
    assert "  shop:         Not connected: KOOMALOOMA_TRIGGERS[0]" in text
    assert "Nothing is connected by settings" not in text
    assert "Once it is mended, koomalooma_backfill records what was missed." in text
    assert json.loads(told)["headline"] == text.splitlines()[0]


def test_a_slip_of_the_pen_is_told_with_what_was_meant(
    campaign: Any, swept: None, settings: Settings
) -> None:
    settings.KOOMALOOMA_TRIGERS = []

    _, text = run()
    _, told = run("--json")

    assert "    Did you mean KOOMALOOMA_TRIGGERS?" in text.splitlines()
    assert [one["hint"] for one in json.loads(told)["settings"]] == ["Did you mean KOOMALOOMA_TRIGGERS?"]


def test_what_was_sent_too_much_is_summed(campaign: Any, swept: None) -> None:
    for currency, worth in (("EUR", "60.00"), ("EUR", "90.50"), ("JPY", "1")):
        row = CommitmentFactory(campaign=campaign, issued=True, currency=currency)
        Commitment.objects.filter(pk=row.pk).update(net_value=worth)

    code, text = run()
    _, told = run("--json")

    assert code == 0
    assert "Sent too much: 3, together 49.50 EUR, 99 JPY (worth less now than was sent)" in text.splitlines()
    assert json.loads(told)["over_issued"] == {"count": 3, "value": {"EUR": "49.50", "JPY": "99"}}


def test_a_program_gets_the_same_facts(campaign: Any, swept: None) -> None:
    gate.stop("Christmas holidays.")
    CommitmentFactory(campaign=campaign, in_doubt=True)

    code, text = run("--json")

    told = json.loads(text)
    assert (code, told["exit_code"], told["level"]) == (2, 2, "stopped")
    assert told["sending"] | {"since": ""} == {
        "is_sending": False,
        "code": "person",
        "reason": "Christmas holidays.",
        "since": "",
        "next_probe_at": None,
        "needs_person": True,
    }
    assert told["counts"] == {
        "queued": 0,
        "sending": 0,
        "issued": 0,
        "refused": 0,
        "in_doubt": 1,
        "cancelled": 0,
        "written_off": 0,
        "skipped": 0,
    }
    assert told["caps"] == {
        "daily": {"units": 0, "cap": 100000},
        "monthly": {"units": 0, "cap": 2000000},
    }
    assert [problem["code"] for problem in told["problems"]] == ["stopped", "in_doubt"]


def test_a_wrong_setting_is_told_and_costs_no_other_fact(
    campaign: Any, swept: None, settings: Settings
) -> None:
    settings.KOOMALOOMA_POLICY = "no.such.Policy"

    code, text = run()

    assert code == 1
    assert text.startswith("Sending. Nothing is waiting.")
    assert "koomalooma.E006: KOOMALOOMA_POLICY is 'no.such.Policy'" in text


def test_a_mode_that_does_not_exist_is_told_without_a_traceback(swept: None, settings: Settings) -> None:
    settings.KOOMALOOMA_MODE = "dry"

    code, text = run()

    assert code == 2
    assert "KOOMALOOMA_MODE is 'dry': give 'live', 'dry_run' or 'off'." in text


def test_a_database_that_is_down_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("could not connect: password=hunter2")

    monkeypatch.setattr("django_koomalooma.management.commands.koomalooma_status.read_status", fail)

    code, text = run()

    assert code == 2
    assert "The tables cannot be read (OperationalError). Is the database up, and migrated?" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"broker_url": ""}, "none is set for Celery: cron sends."),
        ({"broker_url": "memory://broker"}, "memory://:**@broker// answers."),
        (
            {"broker_url": "amqp://guest:hunter2@127.0.0.1:1//"},
            "amqp://guest:**@127.0.0.1:1// does not answer: nobody is woken, the sweep sends.",
        ),
        (
            {"broker_url": "memory://", "task_always_eager": True},
            "Celery runs tasks eagerly: nobody is woken, the sweep sends.",
        ),
        (
            {"broker_url": "nodriver://guest:hunter2@127.0.0.1//"},
            "unknown (ModuleNotFoundError: No module named 'no_driver')",
        ),
    ],
    ids=["none", "answers", "dead", "eager", "not installed"],
)
def test_the_broker_is_asked_and_its_password_not_shown(
    swept: None,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    sentence: str,
) -> None:
    settings.KOOMALOOMA_WAKE_UP = True
    monkeypatch.setitem(TRANSPORT_ALIASES, "nodriver", "no_driver:Transport")
    app = Celery("status", set_as_current=False)
    app.conf.update(options)
    monkeypatch.setattr("django_koomalooma.management.commands.koomalooma_status.current_app", app)

    _, text = run()

    assert f"  broker:       {sentence}" in text.splitlines()
    assert "hunter2" not in text


def test_live_tries_the_token_with_a_customer_that_is_kept_nowhere(
    koomalooma: Koomalooma, campaign: Any, swept: None
) -> None:
    code, text = run("--live")

    (user,) = koomalooma.sandbox.users()
    assert code == 0
    assert "Address and token work (HTTP 201 after 0.0 s)." in text
    assert user["partner_user_id"] not in text
    assert (KoomaloomaUser.objects.count(), Commitment.objects.count()) == (0, 0)
    assert koomalooma.bookings() == []


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ({"fault": "status", "status": 401}, 2, "does not accept the account or the token"),
        ({"fault": "status", "status": 403}, 2, "does not accept the account or the token"),
        ({"fault": "status", "status": 400}, 1, "koomalooma refused"),
        ({"fault": "status", "status": 503}, 1, "HTTP 503"),
    ],
    ids=["401", "403", "400", "503"],
)
def test_live_says_what_went_wrong(
    koomalooma: Koomalooma, campaign: Any, swept: None, fault: dict[str, Any], code: int, words: str
) -> None:
    koomalooma.misbehave(call="users", **fault)

    found, text = run("--live")

    assert found == code
    assert words in text


def test_live_without_a_token_sends_nothing(koomalooma: Koomalooma, swept: None, settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""

    code, text = run("--live")

    assert code == 2
    assert "KOOMALOOMA_API_TOKEN" in text
    assert koomalooma.sandbox.users() == []


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--live",)], ids=["plain", "json", "live"])
@pytest.mark.parametrize("token", [TOKEN, f"{TOKEN}\n", TOKEN.encode()], ids=["right", "newline", "bytes"])
def test_the_token_is_never_shown(
    koomalooma: Koomalooma, settings: Settings, arguments: tuple[str, ...], token: object
) -> None:
    settings.KOOMALOOMA_API_TOKEN = token

    _, text = run(*arguments)

    assert TOKEN not in text
