"""The mails: who gets one, what for, how often, and that none can harm delivery."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django import VERSION
from django.core import mail
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma import alarms, gate
from django_koomalooma.delivery import deliver_due
from django_koomalooma.gate import Cause
from django_koomalooma.models import Gate
from django_koomalooma.sandbox import Sandbox
from tests.factories import CampaignFactory, CommitmentFactory, DeliveryAttemptFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _recipients(settings: Settings) -> None:
    admin, manager = "ann@example.com", "mo@example.com"
    settings.ADMINS = [admin] if VERSION >= (6, 0) else [("Ann", admin)]
    settings.MANAGERS = [manager] if VERSION >= (6, 0) else [("Mo", manager)]
    settings.EMAIL_SUBJECT_PREFIX = "[Shop] "


@pytest.fixture
def campaign() -> Any:
    return CampaignFactory()


def later(monkeypatch: pytest.MonkeyPatch, **span: float) -> None:
    at = timezone.now() + dt.timedelta(**span)
    monkeypatch.setattr(alarms, "database_now", lambda using: at)


def subjects() -> list[str]:
    return [message.subject for message in mail.outbox]


def test_a_shop_where_all_is_well_gets_no_mail(campaign: Any) -> None:
    CommitmentFactory(campaign=campaign, issued=True)
    CommitmentFactory(campaign=campaign)

    alarms.send_alarms()

    assert mail.outbox == []


def test_a_stop_is_mailed_to_the_admins_with_reason_and_next_try() -> None:
    gate.stop("koomalooma could not be reached 5 times in a row.", Cause.UNREACHABLE)

    alarms.send_alarms()

    (message,) = mail.outbox
    assert message.to == ["ann@example.com"]
    assert message.subject == "[Shop] koomalooma: sending is stopped"
    assert message.body.startswith("koomalooma could not be reached 5 times in a row.\n")
    assert "Nothing is lost" in message.body
    assert "It tries again by itself, next at " in message.body


def test_the_same_stop_is_mailed_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    gate.stop("No answer.", Cause.UNREACHABLE)
    counts = []

    for hours in (0, 1, 23, 25, 26):
        later(monkeypatch, hours=hours)
        alarms.send_alarms()
        counts.append(len(mail.outbox))

    assert counts == [1, 1, 1, 2, 2]


def test_a_stop_that_comes_and_goes_is_no_mail_each_time() -> None:
    for _ in range(5):
        gate.stop("No answer.", Cause.UNREACHABLE)
        alarms.send_alarms()
        gate.reopen()
        alarms.send_alarms()

    assert len(mail.outbox) == 1


def test_another_cause_is_mailed_at_once() -> None:
    gate.stop("No answer.", Cause.UNREACHABLE)
    alarms.send_alarms()
    gate.postpone("koomalooma does not accept the account.", Cause.ACCOUNT)

    alarms.send_alarms()

    assert [message.body.splitlines()[0] for message in mail.outbox] == [
        "No answer.",
        "koomalooma does not accept the account.",
    ]


@pytest.mark.parametrize(
    ("cause", "quiet", "told"),
    [
        (Cause.PERSON, 23, 25),
        (Cause.LATER, 0.9, 1.1),
        (Cause.NO_TOKEN, 23, 25),
    ],
    ids=["paused by a person", "asked to wait", "no token yet"],
)
def test_some_stops_are_given_time(
    monkeypatch: pytest.MonkeyPatch, cause: Cause, quiet: float, told: float
) -> None:
    gate.stop("Stopped.", cause)

    later(monkeypatch, hours=quiet)
    alarms.send_alarms()
    before = len(mail.outbox)
    later(monkeypatch, hours=told)
    alarms.send_alarms()

    assert (before, len(mail.outbox)) == (0, 1)


def test_a_token_that_was_there_and_is_gone_is_an_outage() -> None:
    gate.read()
    Gate.objects.update(fingerprint=gate.fingerprint())
    gate.stop("No token.", Cause.NO_TOKEN)

    alarms.send_alarms()

    assert len(mail.outbox) == 1


def test_a_copy_of_the_shop_stays_quiet_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    gate.stop("This is a copy.", Cause.COPY)
    later(monkeypatch, days=30)

    alarms.send_alarms()

    assert mail.outbox == []


def test_decisions_are_one_digest_to_the_managers(campaign: Any) -> None:
    unclear = [CommitmentFactory(campaign=campaign, in_doubt=True, reference=f"A-{n}") for n in range(12)]
    CommitmentFactory(campaign=campaign, refused=True, reference="B-1", reason="they said: <secret stuff>")

    alarms.send_alarms()

    (message,) = mail.outbox
    assert message.to == ["mo@example.com"]
    assert message.subject == "[Shop] koomalooma: 13 need a decision"
    assert "12 unclear: the points may have arrived." in message.body
    assert "1 refused by koomalooma" in message.body
    assert f"  A-0  KL-{unclear[0].trace_key}  Unclear  " in message.body
    assert message.body.count("KL-") == 10
    assert "secret" not in message.body


def test_the_digest_comes_at_most_once_a_day_and_not_again_for_the_same(
    campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    CommitmentFactory(campaign=campaign, in_doubt=True)
    alarms.send_alarms()
    counts = []

    later(monkeypatch, days=2)
    alarms.send_alarms()
    counts.append(len(mail.outbox))
    later(monkeypatch, hours=1)
    CommitmentFactory(campaign=campaign, in_doubt=True)
    alarms.send_alarms()
    counts.append(len(mail.outbox))
    later(monkeypatch, hours=25)
    alarms.send_alarms()
    counts.append(len(mail.outbox))
    later(monkeypatch, days=9)
    alarms.send_alarms()
    counts.append(len(mail.outbox))

    assert counts == [1, 1, 2, 3]


def test_what_waits_longer_than_a_day_is_in_the_digest(campaign: Any) -> None:
    row = CommitmentFactory(campaign=campaign, tries=1)
    DeliveryAttemptFactory(
        commitment=row, lease=row.key[:32], started_at=timezone.now() - dt.timedelta(hours=30)
    )

    alarms.send_alarms()

    (message,) = mail.outbox
    assert message.body.startswith("The oldest that should be sent waits for 1 day.\n")


@pytest.mark.parametrize(("admins", "managers"), [(True, False), (False, True)])
def test_an_empty_list_costs_the_other_nothing(
    settings: Settings, campaign: Any, admins: bool, managers: bool
) -> None:
    settings.ADMINS, settings.MANAGERS = (
        settings.ADMINS if admins else [],
        settings.MANAGERS if managers else [],
    )
    gate.stop("No answer.", Cause.UNREACHABLE)
    CommitmentFactory(campaign=campaign, in_doubt=True)

    alarms.send_alarms()

    assert len(mail.outbox) == 1


@pytest.mark.parametrize("mode", ["dry_run", "off"])
def test_a_mode_that_sends_nothing_mails_nothing(settings: Settings, campaign: Any, mode: str) -> None:
    settings.KOOMALOOMA_MODE = mode
    gate.stop("No answer.", Cause.UNREACHABLE)
    CommitmentFactory(campaign=campaign, in_doubt=True)

    alarms.send_alarms()

    assert mail.outbox == []


def test_a_mail_server_that_fails_is_tried_again_in_an_hour(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, campaign: Any
) -> None:
    tried = []

    def fail(subject: str, text: str) -> None:
        tried.append(subject)
        raise OSError("no mail today")

    monkeypatch.setattr(alarms, "mail_admins", fail)
    monkeypatch.setattr(alarms, "mail_managers", fail)
    gate.stop("No answer.", Cause.UNREACHABLE)
    CommitmentFactory(campaign=campaign, in_doubt=True)
    counts = []

    for minutes in (0, 50, 70):
        later(monkeypatch, minutes=minutes)
        alarms.send_alarms()
        counts.append(len(tried))

    assert counts == [2, 2, 4]
    assert "could not be sent; tried again in an hour" in caplog.text


def test_a_failure_of_the_alarms_never_reaches_delivery(
    sandbox: Sandbox, campaign: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alarms, "_find_decisions", lambda *_: 1 / 0)
    CommitmentFactory(campaign=campaign)

    run = deliver_due()

    assert run.issued == 1
    assert "The alarms failed" in caplog.text


@pytest.mark.parametrize(("sweep", "mails"), [(True, 1), (False, 0)], ids=["the sweep", "a wake-up"])
def test_the_sweep_alone_mails(sandbox: Sandbox, campaign: Any, sweep: bool, mails: int) -> None:
    CommitmentFactory(campaign=campaign)
    sandbox.misbehave("status", status=402)

    run = deliver_due(sweep=sweep)

    assert "account" in run.stopped
    assert len(mail.outbox) == mails


def test_no_mail_shows_the_token(sandbox: Sandbox, settings: Settings, campaign: Any) -> None:
    sandbox.rules.token = settings.KOOMALOOMA_API_TOKEN = "eyJ-secret-token"
    CommitmentFactory.create_batch(2, campaign=campaign)
    sandbox.misbehave("close_after_booking", times=1)
    sandbox.misbehave("status", times=1, status=401, body='{"your token": "eyJ-secret-token"}')

    deliver_due()

    assert len(mail.outbox) == 2
    assert "eyJ-secret-token" not in "".join(message.body + message.subject for message in mail.outbox)
