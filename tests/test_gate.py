"""The gate: why sending stops, when it is tried again, and that nothing is lost meanwhile."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma import gate
from django_koomalooma.client import Verdict
from django_koomalooma.delivery import deliver_due
from django_koomalooma.earning import earn
from django_koomalooma.models import Commitment, Gate, KoomaloomaUser
from django_koomalooma.sandbox import Sandbox
from django_koomalooma.signals import queue_resumed, queue_stopped
from tests.factories import CampaignFactory, CommitmentFactory, UserFactory, make_event

pytestmark = pytest.mark.django_db


def make_probe_due() -> None:
    Gate.objects.update(next_probe_at=timezone.now() - dt.timedelta(seconds=1))


def minutes_to_probe() -> float:
    until = gate.state().next_probe_at
    assert until is not None
    return (until - timezone.now()).total_seconds() / 60


def test_a_person_stops_and_resumes(sandbox: Sandbox) -> None:
    CommitmentFactory()

    gate.stop("We count the till.")
    stopped, state = deliver_due(), gate.state()
    gate.resume()
    resumed = deliver_due()

    assert (stopped.leased, stopped.stopped) == (0, "We count the till.")
    assert (state.is_sending, state.code, state.needs_person) == (False, "person", True)
    assert (resumed.issued, gate.state().is_sending) == (1, True)


def test_what_stops_by_itself_never_overwrites_a_persons_stop() -> None:
    gate.stop("We count the till.")

    gate.stop("koomalooma asked to wait.", gate.Cause.LATER)
    gate.postpone("Tried again, and failed.", gate.Cause.UNREACHABLE)
    gate.reopen()

    assert (gate.state().code, gate.state().reason) == ("person", "We count the till.")


def test_stop_and_resume_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def stopped(reason: str, code: str, **kwargs: Any) -> None:
        heard.append(f"stopped {code}: {reason}")

    def resumed(**kwargs: Any) -> None:
        heard.append("resumed")

    queue_stopped.connect(stopped)
    queue_resumed.connect(resumed)
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                gate.stop("Out of order.")
            for _ in range(2):
                gate.resume()
    finally:
        queue_stopped.disconnect(stopped)
        queue_resumed.disconnect(resumed)

    assert heard == ["stopped person: Out of order.", "resumed"]
    assert "Sending is stopped: Out of order." in caplog.text


# -- token


def test_without_a_token_all_is_recorded_and_nothing_leased(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = None
    CampaignFactory()
    earn(make_event())

    run = deliver_due()

    assert (run.leased, gate.state().code) == (0, "no_token")
    assert run.stopped == "No token yet: set KOOMALOOMA_API_TOKEN. Everything is recorded, nothing is lost."
    assert Commitment.objects.get().status == "queued"


@pytest.mark.parametrize("ran_before", [True, False], ids=["a worker ran before", "no worker ran before"])
def test_the_first_token_asks_a_person_about_what_was_recorded(
    ran_before: bool, sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""
    CampaignFactory()
    earn(make_event())
    if ran_before:
        deliver_due()
    settings.KOOMALOOMA_API_TOKEN = "sandbox-token"

    asked = deliver_due()
    state = gate.state()
    gate.resume()
    sent = deliver_due()

    assert (asked.leased, state.code, state.needs_person) == (0, "first_token", True)
    assert state.reason == "The token is there. Decide: send the 1 recorded, or only what comes from now on."
    assert sent.issued == 1


def test_a_first_token_with_nothing_recorded_starts_by_itself(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""
    deliver_due()
    settings.KOOMALOOMA_API_TOKEN = "sandbox-token"
    CampaignFactory()
    earn(make_event())

    run = deliver_due()

    assert run.issued == 1


def test_the_state_does_not_ask_for_a_token_that_is_there(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""
    deliver_due()
    settings.KOOMALOOMA_API_TOKEN = "sandbox-token"

    state = gate.state()

    assert (state.is_sending, state.reason) == (False, gate.TOKEN_IS_THERE)


def test_a_token_that_was_lost_and_is_back_asks_nobody(sandbox: Sandbox, settings: Settings) -> None:
    CampaignFactory()
    deliver_due()
    settings.KOOMALOOMA_API_TOKEN = ""
    earn(make_event())
    deliver_due()
    settings.KOOMALOOMA_API_TOKEN = "sandbox-token"

    run = deliver_due()

    assert run.issued == 1


def test_a_token_may_be_a_callable_that_rotates(sandbox: Sandbox, settings: Settings) -> None:
    tokens = iter(["sandbox-token"] * 50)
    settings.KOOMALOOMA_API_TOKEN = lambda: next(tokens)
    CommitmentFactory()

    assert deliver_due().issued == 1


def test_a_token_callable_that_fails_stops_the_queue_and_is_tried_again(
    sandbox: Sandbox, settings: Settings
) -> None:
    def ask_vault() -> str:
        raise TimeoutError("secret-token")

    CommitmentFactory()
    settings.KOOMALOOMA_API_TOKEN = ask_vault
    run = deliver_due()
    state = gate.state()
    settings.KOOMALOOMA_API_TOKEN = "sandbox-token"
    make_probe_due()

    assert (run.stopped, state.code) == (
        "KOOMALOOMA_API_TOKEN: the callable failed with TimeoutError.",
        "configuration",
    )
    assert deliver_due().issued == 1


# -- probes


def test_a_stopped_queue_is_probed_with_a_call_that_issues_nothing_then_sends(
    sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    sandbox.misbehave("status", status=403, times=None, call="any")
    for _ in range(3):
        CommitmentFactory()
    deliver_due()
    too_early = deliver_due()
    sandbox.behave()
    make_probe_due()

    run = deliver_due()

    assert too_early.leased == 0
    assert (run.issued, gate.state().is_sending) == (3, True)
    assert Gate.objects.get().probes == 0


def test_probes_that_fail_come_at_growing_intervals(sandbox: Sandbox) -> None:
    sandbox.misbehave("status", status=403, times=None, call="any")
    CommitmentFactory()
    deliver_due()
    waits = [round(minutes_to_probe())]

    for _ in range(6):
        make_probe_due()
        deliver_due()
        waits.append(round(minutes_to_probe()))

    assert waits == [1, 2, 5, 15, 30, 60, 60]
    assert sandbox.bookings() == []


def test_after_a_probe_one_commitment_goes_first_and_an_unclear_one_stops_again(
    sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 3
    sandbox.misbehave("status", status=502, times=None)
    for _ in range(10):
        CommitmentFactory()
    deliver_due()
    make_probe_due()

    run = deliver_due()

    assert (run.leased, run.in_doubt) == (1, 1)
    assert gate.state().code == "in_doubt"
    assert round(minutes_to_probe()) == 2


def test_one_customer_cannot_keep_the_queue_shut(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    for _ in range(2):
        CommitmentFactory()
    gate.stop("Out of order.", gate.Cause.UNREACHABLE)
    sandbox.misbehave("status", status=500, call="users")
    make_probe_due()
    deliver_due()
    make_probe_due()

    run = deliver_due()

    assert run.issued == 2


def test_nothing_is_probed_for_without_a_customer(sandbox: Sandbox) -> None:
    gate.stop("Out of order.", gate.Cause.UNREACHABLE)
    make_probe_due()

    run = deliver_due()

    assert (run.stopped, sandbox.users()) == ("Out of order.", [])


def test_a_wait_that_koomalooma_asked_for_is_not_cut_short_by_another_stop() -> None:
    gate.stop("koomalooma asked to wait.", gate.Cause.LATER, until=timezone.now() + dt.timedelta(minutes=30))

    gate.stop("3 answers in a row were unclear.", gate.Cause.IN_DOUBT)

    assert round(minutes_to_probe()) == 30


def test_a_wait_never_takes_the_place_of_a_stop_that_wants_a_probe() -> None:
    gate.stop("Trouble with the account.", gate.Cause.ACCOUNT)

    gate.stop("koomalooma asked to wait.", gate.Cause.LATER, until=timezone.now() + dt.timedelta(minutes=30))

    assert (gate.state().code, round(minutes_to_probe())) == ("account", 30)


def test_a_pause_that_falls_into_an_automatic_stop_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gate.read()
    gate.stop("We count the till.")
    monkeypatch.setattr(gate, "read", lambda: before)

    gate.stop("The database is another one.", gate.Cause.MOVED)

    assert Gate.objects.get().code == "person"


# -- caps


def test_a_reached_daily_cap_parks_the_rest_until_the_next_day(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_DAILY_CAP = 1200
    settings.KOOMALOOMA_CONCURRENCY = 1
    for _ in range(5):
        CommitmentFactory()

    run = deliver_due()

    state = gate.state()
    assert (run.issued, state.code) == (3, "cap")
    assert state.reason == "The daily cap of 1,200 points is reached: 1,500 were sent."
    assert state.next_probe_at is not None
    local = timezone.localtime(state.next_probe_at)
    assert (local.hour, local.minute) == (0, 0)
    assert local.date() == timezone.localdate() + dt.timedelta(days=1)
    assert Commitment.objects.filter(status="queued").count() == 2


def test_what_a_cap_parked_goes_oldest_first_when_the_new_day_opens(
    sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_DAILY_CAP = 500
    settings.KOOMALOOMA_CONCURRENCY = 1
    now = timezone.now()
    for hours in (3, 2, 1):
        CommitmentFactory(reference=str(hours), due_at=now - dt.timedelta(hours=hours))
    deliver_due()
    Commitment.objects.filter(status="issued").update(issued_at=now - dt.timedelta(days=1))
    make_probe_due()

    run = deliver_due()

    assert run.issued == 1
    assert [b["promotion_goal_description"] for b in sandbox.bookings()] == ["Order 3", "Order 2"]


def test_a_raised_cap_opens_the_queue_at_the_next_run(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_DAILY_CAP = 500
    settings.KOOMALOOMA_CONCURRENCY = 1
    for _ in range(2):
        CommitmentFactory()
    deliver_due()
    settings.KOOMALOOMA_DAILY_CAP = None

    run = deliver_due()

    assert run.issued == 1


def test_the_monthly_cap_waits_for_the_next_month(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_MONTHLY_CAP = 500
    CommitmentFactory()

    deliver_due()
    deliver_due()

    state = gate.state()
    assert state.next_probe_at is not None
    assert (state.code, timezone.localtime(state.next_probe_at).day) == ("cap", 1)


def test_eighty_per_cent_of_a_cap_is_warned_of_once(
    sandbox: Sandbox, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.KOOMALOOMA_DAILY_CAP = 1000
    CommitmentFactory(issued=True, loyalty_units=800)

    for _ in range(2):
        deliver_due()

    assert [record.getMessage() for record in caplog.records] == [
        "800 of the daily cap of 1,000 points are sent."
    ]


# -- copied databases


def test_a_changed_partner_or_database_sends_nothing_until_a_person_decides(
    sandbox: Sandbox, settings: Settings
) -> None:
    deliver_due()
    CommitmentFactory()
    Gate.objects.update(fingerprint="of another database")

    asked, state = deliver_due(), gate.state()
    gate.resume()
    run = deliver_due()

    assert (asked.leased, state.code, state.needs_person) == (0, "moved", True)
    assert run.issued == 1


def test_with_another_partner_every_customer_is_made_known_again(
    sandbox: Sandbox, settings: Settings
) -> None:
    user, campaign = UserFactory(), CampaignFactory()
    CommitmentFactory(user=user, campaign=campaign)
    deliver_due()
    CommitmentFactory(user=user, campaign=campaign)
    with Sandbox(durable=False, partner_id="live-partner", token="live-token") as live:
        for name, value in live.settings().items():
            setattr(settings, name, value)

        asked = deliver_due().stopped
        gate.resume()
        run = deliver_due()

        assert asked.startswith("The partner id is another one than before.")
        assert (run.issued, len(live.users())) == (1, 1)


def test_a_moved_database_keeps_its_customers(sandbox: Sandbox) -> None:
    row = CommitmentFactory()
    deliver_due()
    Gate.objects.update(fingerprint="0" * 30 + "-" + gate.fingerprint().partition("-")[2])

    asked = deliver_due().stopped
    gate.resume()

    assert asked.startswith("The database is another one than before.")
    assert KoomaloomaUser.objects.get(user=row.user).registered_at is not None


def test_a_copy_never_sends(sandbox: Sandbox) -> None:
    CommitmentFactory()
    gate.stop("This is a copy.", gate.Cause.COPY)
    gate.stop("koomalooma asked to wait.", gate.Cause.LATER)

    run = deliver_due()

    assert (run.leased, gate.state().code) == (0, "copy")


def test_resuming_a_copy_that_was_stopped_for_another_reason_asks_first(sandbox: Sandbox) -> None:
    deliver_due()
    CommitmentFactory()
    gate.stop("We count the till.")
    Gate.objects.update(fingerprint="of the live database")

    gate.resume()

    assert (gate.state().code, deliver_due().leased) == ("moved", 0)


def test_the_fingerprint_knows_partner_and_database_and_no_path(settings: Settings) -> None:
    first = gate.fingerprint()
    settings.KOOMALOOMA_PARTNER_ID = "another"

    assert gate.fingerprint() != first


# -- counting


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([Verdict.NOT_SENT] * 4, ""),
        ([Verdict.NOT_SENT] * 5, "unreachable"),
        ([*[Verdict.NOT_SENT] * 4, Verdict.ANSWERED, *[Verdict.NOT_SENT] * 4], ""),
        ([*[Verdict.NOT_SENT] * 4, Verdict.REFUSED, *[Verdict.NOT_SENT] * 4], ""),
        ([Verdict.REFUSED] * 5, "refused"),
        ([Verdict.IN_DOUBT] * 2, ""),
        ([Verdict.IN_DOUBT] * 3, "in_doubt"),
        ([Verdict.IN_DOUBT, Verdict.NOT_SENT] * 3, "in_doubt"),
        ([Verdict.IN_DOUBT, Verdict.ANSWERED] * 3, ""),
    ],
)
def test_what_fails_in_a_row_stops_the_queue(verdicts: list[Verdict], code: str) -> None:
    counters = gate.Counters(gate.read())

    counters.add(verdicts)
    counters.write()

    assert gate.state().code == code


def test_counting_goes_on_over_runs(settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    for _ in range(3):
        CommitmentFactory()
        gate.Counters(gate.read()).write()
    counters = gate.Counters(gate.read())
    counters.add([Verdict.IN_DOUBT, Verdict.IN_DOUBT])
    counters.write()

    later = gate.Counters(gate.read())
    later.add([Verdict.IN_DOUBT])
    later.write()

    assert gate.state().code == "in_doubt"


def test_the_sweep_leaves_its_heartbeat_and_a_wakeup_does_not(sandbox: Sandbox) -> None:
    deliver_due(sweep=False)
    woken = Gate.objects.get().swept_at
    deliver_due()

    swept = Gate.objects.get().swept_at
    assert woken is None
    assert swept is not None
    assert abs((swept - timezone.now()).total_seconds()) < 60
