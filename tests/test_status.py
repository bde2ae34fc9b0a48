"""How things stand: the facts, the sentence for the hurried, and what monitoring makes of it."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections
from django.db.models import F, Value
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma import gate, shops
from django_koomalooma.deciding import NO_CAMPAIGN
from django_koomalooma.exceptions import ConfigurationError
from django_koomalooma.models import Commitment, Gate
from django_koomalooma.status import Level, Status, age, find_late_sweep, read_status
from tests.factories import CampaignFactory, CommitmentFactory, DeliveryAttemptFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def campaign() -> Any:
    return CampaignFactory()


@pytest.fixture
def swept() -> None:
    gate.read()
    Gate.objects.update(swept_at=timezone.now(), ran_at=timezone.now())


def ago(**span: float) -> dt.datetime:
    return timezone.now() - dt.timedelta(**span)


def codes(status: Status) -> list[str]:
    return [problem.code for problem in status.problems]


def test_a_shop_where_all_is_well_has_nothing_to_look_at(campaign: Any, swept: None) -> None:
    CommitmentFactory.create_batch(2, campaign=campaign, issued=True)
    CommitmentFactory(campaign=campaign, held=True)

    status = read_status()

    assert status.headline == "Sending. Nothing is waiting."
    assert (status.counts["issued"], status.due, status.held, status.recorded) == (2, 0, 1, 3)
    assert (status.level, status.problems) == (Level.FINE, ())


def test_what_waits_is_counted_with_its_age(campaign: Any, swept: None) -> None:
    CommitmentFactory(campaign=campaign, due_at=ago(seconds=40))
    CommitmentFactory(campaign=campaign, due_at=ago(seconds=5))

    status = read_status()

    assert status.headline == "Sending. 2 waiting, oldest 40 seconds."
    assert status.level == Level.FINE


def test_without_a_token_nothing_is_sent_and_nothing_lost(campaign: Any, settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""
    CommitmentFactory.create_batch(12, campaign=campaign, due_at=ago(days=3), created_at=ago(days=3))

    status = read_status()

    assert status.headline == "Not sending. No token yet. 12 recorded, nothing lost."
    assert status.level == Level.STOPPED
    assert "unswept" not in codes(status)


def test_a_stop_is_told_with_its_reason(campaign: Any, swept: None) -> None:
    gate.stop("Christmas holidays.")

    status = read_status()

    assert status.headline == "Not sending. Christmas holidays. 0 waiting, nothing lost."
    assert (status.level, codes(status)) == (Level.STOPPED, ["stopped"])


def test_without_a_campaign_the_orders_that_earned_nothing_are_counted(swept: None) -> None:
    CommitmentFactory.create_batch(3, skipped=True, reason=NO_CAMPAIGN)
    CommitmentFactory(skipped=True, reason="Dry run: nothing was sent.")

    status = read_status()

    assert status.headline == "No campaign. 3 paid orders earned nothing."
    assert (status.level, codes(status)) == (Level.ATTENTION, ["no_campaign"])


def test_a_new_shop_reads_what_is_missing() -> None:
    status = read_status()

    assert status.headline == "No campaign yet: nothing earns points."
    assert (status.recorded, status.level) == (0, Level.ATTENTION)


@pytest.mark.parametrize(
    "fields",
    [
        {"is_active": False},
        {"ends_at": dt.datetime(2021, 1, 1, tzinfo=dt.UTC)},
        {"starts_at": dt.datetime(2999, 1, 1, tzinfo=dt.UTC)},
    ],
    ids=["switched off", "over", "to come"],
)
def test_a_campaign_that_rewards_nothing_now_does_not_count(fields: dict[str, Any], swept: None) -> None:
    CampaignFactory(**fields)

    status = read_status()

    assert status.campaigns == 0


def test_nobody_sends_when_neither_sweep_nor_wake_up_comes(campaign: Any) -> None:
    gate.read()
    Gate.objects.update(swept_at=ago(hours=3), ran_at=ago(hours=2))
    CommitmentFactory(campaign=campaign, due_at=ago(minutes=5))

    status = read_status()

    assert status.headline.startswith("Nobody is sending. No worker or cron since ")
    assert status.headline.endswith(". Tell your developer.")
    assert (status.level, codes(status)) == (Level.STOPPED, ["unswept"])
    assert status.problems[0].sentence == (
        "No sweep for 3 hours: neither Celery beat nor cron (koomalooma_deliver) is running."
    )


def test_wake_ups_alone_send_but_need_attention(campaign: Any) -> None:
    gate.read()
    Gate.objects.update(swept_at=ago(hours=3), ran_at=ago(seconds=2))
    CommitmentFactory(campaign=campaign)

    status = read_status()

    assert status.headline.startswith("Sending, but only when a new order comes: no sweep since ")
    assert (status.level, codes(status)) == (Level.ATTENTION, ["unswept"])


@pytest.mark.parametrize(
    ("minutes", "late"), [(14, False), (16, True)], ids=["14 minutes ago", "16 minutes ago"]
)
def test_the_first_sweep_is_missed_a_quarter_of_an_hour_after_the_first_event(
    campaign: Any, minutes: int, late: bool
) -> None:
    CommitmentFactory(campaign=campaign, issued=True, created_at=ago(minutes=minutes))

    status = read_status()

    assert status.is_unswept is late
    assert bool(find_late_sweep()) is late


def test_a_new_shop_needs_no_sweep() -> None:
    assert find_late_sweep() == ""
    assert not Gate.objects.exists()


@pytest.mark.parametrize("mode", ["dry_run", "off"])
def test_a_mode_that_sends_nothing_needs_no_sweep_and_is_no_stop(
    campaign: Any, settings: Settings, mode: str
) -> None:
    settings.KOOMALOOMA_MODE = mode
    CommitmentFactory(campaign=campaign, skipped=True, created_at=ago(days=2))

    status = read_status()

    assert status.headline == f"Not sending. KOOMALOOMA_MODE is {mode}. 1 recorded."
    assert status.level == Level.FINE


@pytest.mark.parametrize(
    ("trait", "code"),
    [("in_doubt", "in_doubt"), ("refused", "refused")],
)
def test_what_a_person_must_decide_needs_attention(campaign: Any, swept: None, trait: str, code: str) -> None:
    CommitmentFactory(campaign=campaign, **{trait: True})

    status = read_status()

    assert (status.level, codes(status)) == (Level.ATTENTION, [code])


def test_a_lease_that_ended_is_stuck_and_a_running_one_is_not(campaign: Any, swept: None) -> None:
    CommitmentFactory(campaign=campaign, sending=True, due_at=ago(seconds=1))
    CommitmentFactory(campaign=campaign, sending=True)

    status = read_status()

    assert (status.stuck, codes(status)) == (1, ["stuck"])


@pytest.mark.parametrize(("hours", "late"), [(23, False), (25, True)], ids=["23 hours", "25 hours"])
def test_what_waits_longer_than_a_day_needs_attention(
    campaign: Any, swept: None, hours: int, late: bool
) -> None:
    CommitmentFactory(campaign=campaign, due_at=ago(hours=hours))

    status = read_status()

    assert ("late" in codes(status)) is late


def test_failed_tries_do_not_make_a_commitment_young_again(campaign: Any, swept: None) -> None:
    row = CommitmentFactory(campaign=campaign, due_at=ago(seconds=3), tries=2)
    DeliveryAttemptFactory(commitment=row, number=1, lease=uuid.uuid4(), started_at=ago(hours=30))
    DeliveryAttemptFactory(commitment=row, number=2, lease=uuid.uuid4(), started_at=ago(hours=1))

    status = read_status()

    assert status.oldest_due_at is not None
    assert status.now - status.oldest_due_at < dt.timedelta(minutes=1)
    assert codes(status) == ["late"]


def test_a_hold_of_weeks_is_not_late(campaign: Any, swept: None) -> None:
    CommitmentFactory(campaign=campaign, created_at=ago(days=20), held=True)

    assert codes(read_status()) == []


def test_a_cap_needs_attention_at_eighty_per_cent(campaign: Any, swept: None, settings: Settings) -> None:
    settings.KOOMALOOMA_DAILY_CAP, settings.KOOMALOOMA_MONTHLY_CAP = 1000, None
    CommitmentFactory(campaign=campaign, issued=True, loyalty_units=800)

    status = read_status()

    assert [(cap.word, cap.units, cap.cap) for cap in status.caps] == [
        ("daily", 800, 1000),
        ("monthly", 800, None),
    ]
    assert [problem.sentence for problem in status.problems] == ["800 of the daily 1,000 points are used."]


def test_reading_takes_the_same_few_statements_however_much_there_is(
    campaign: Any, swept: None, django_assert_max_num_queries: Any
) -> None:
    CommitmentFactory.create_batch(30, campaign=campaign)

    with django_assert_max_num_queries(14):
        read_status()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (90_000, "1 day")],
    ids=str,
)
def test_an_age_is_told_in_one_unit(seconds: int, words: str) -> None:
    now = timezone.now()

    assert age(now - dt.timedelta(seconds=seconds), now) == words


def test_a_token_that_was_put_in_takes_the_place_of_the_stop_for_its_want(
    campaign: Any, swept: None, settings: Settings
) -> None:
    gate.stop("No token yet: set KOOMALOOMA_API_TOKEN.", gate.Cause.NO_TOKEN)
    CommitmentFactory(campaign=campaign)

    status = read_status()

    assert status.headline == (
        "Not sending. The token is there now. The next delivery run goes on, or asks what to do with what "
        "was recorded. 1 waiting, nothing lost."
    )
    assert not any("No token" in problem.sentence for problem in status.problems)


@pytest.mark.parametrize(
    ("connected", "words"),
    [(None, "Orders are not recorded"), (object(), "Not everything is recorded")],
    ids=["no shop", "the shop alone"],
)
@pytest.mark.parametrize("token", ["", "sandbox-token"], ids=["no token", "token"])
def test_what_is_not_recorded_comes_before_all_that_is_well(
    campaign: Any,
    swept: None,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    connected: Any,
    words: str,
    token: str,
) -> None:
    settings.KOOMALOOMA_API_TOKEN = token
    errors = [ConfigurationError("KOOMALOOMA_SHOP is 'x'."), ConfigurationError("KOOMALOOMA_TRIGGERS: no.")]
    monkeypatch.setattr(shops, "connection_errors", lambda: errors)
    monkeypatch.setattr(shops, "connected_shop", lambda: connected)

    status = read_status()

    assert status.headline == f"{words}: KOOMALOOMA_SHOP is 'x' (and 1 more)."
    assert "unrecorded" in codes(status)
    assert status.level >= Level.ATTENTION


def test_what_is_switched_off_is_not_said_to_be_broken(
    campaign: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KOOMALOOMA_MODE = "off"
    monkeypatch.setattr(shops, "connection_errors", lambda: [ConfigurationError("no")])

    status = read_status()

    assert (status.headline, status.level) == ("Not sending. KOOMALOOMA_MODE is off. 0 recorded.", Level.FINE)


@pytest.mark.parametrize(("minutes", "late"), [(4, False), (6, True)], ids=["4 minutes", "6 minutes"])
def test_what_waits_for_the_first_sweep_of_all_needs_attention_soon(
    campaign: Any, minutes: int, late: bool
) -> None:
    gate.read()
    Gate.objects.update(ran_at=timezone.now())
    at = ago(minutes=minutes)
    CommitmentFactory(campaign=campaign, due_at=at, created_at=at)

    status = read_status()

    assert codes(status) == (["unswept"] if late else [])
    assert status.level == (Level.ATTENTION if late else Level.FINE)
    assert status.headline.endswith("No sweep so far. Tell your developer.") is late


def test_what_was_sent_too_much_is_counted_and_summed_by_currency(campaign: Any, swept: None) -> None:
    for currency, worth in (("EUR", "60.00"), ("EUR", "90.50"), ("USD", "0"), ("USD", "100.00")):
        row = CommitmentFactory(campaign=campaign, issued=True, currency=currency)
        Commitment.objects.filter(pk=row.pk).update(net_value=Decimal(worth))
    unsent = CommitmentFactory(campaign=campaign, in_doubt=True)
    Commitment.objects.filter(pk=unsent.pk).update(net_value=0)

    status = read_status()

    assert status.over_issued == 3
    assert status.over_issued_value == {"EUR": Decimal("49.50"), "USD": Decimal("100.00")}


@pytest.mark.parametrize("capped", [False, True], ids=["all", "a capped count"])
def test_what_was_sent_too_much_is_found_by_its_own_index(campaign: Any, capped: bool) -> None:
    rows = Commitment.objects.over_issued()
    vendor = connections[rows.db].vendor
    if vendor == "mysql":
        pytest.skip("MariaDB has no partial indexes")
    CommitmentFactory.create_batch(3, campaign=campaign, issued=True)
    if vendor == "postgresql":
        with connections[rows.db].cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    query = rows.order_by().values("pk")[:1001] if capped else rows.order_by((F("pk") + Value(0)).desc())

    assert "koomalooma_over_issued" in query.explain()
