"""The audit: paid orders without a commitment are found, and recorded when asked to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma.audit import Finding
from django_koomalooma.earning import amend, cancel, earn
from django_koomalooma.events import EarningEvent
from django_koomalooma.models import Commitment
from tests.factories import CampaignFactory, UserFactory, make_event

pytestmark = pytest.mark.django_db

ORDERS: list[EarningEvent] = []


def paid_orders(since: dt.datetime, until: dt.datetime) -> Iterator[EarningEvent]:
    """Give the test's orders of the period."""
    return (event for event in ORDERS if since <= (event.occurred_at or timezone.now()) < until)


@pytest.fixture
def orders(settings: Settings) -> Iterator[list[EarningEvent]]:
    settings.KOOMALOOMA_ORDERS = f"{__name__}.paid_orders"
    yield ORDERS
    ORDERS.clear()


def test_a_missing_order_is_named_and_ends_with_one(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    CampaignFactory()
    user = UserFactory()
    orders += [make_event(user=user, reference="KEPT"), make_event(user=user, reference="LOST")]
    earn(orders[0])

    with pytest.raises(SystemExit) as ended:
        call_command("koomalooma_audit")

    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "purchase LOST: 100.00 EUR, missing",
        "2 paid orders, 1 missing, 0 worth something else.",
        "Missing: koomalooma_backfill with the same dates records them.",
    ]
    assert Commitment.objects.count() == 1


def test_backfill_records_what_is_missing_under_the_campaign_of_its_day(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    CampaignFactory(starts_at=timezone.now() - dt.timedelta(days=2))
    user = UserFactory()
    orders += [
        make_event(user=user, reference="NEW", occurred_at=timezone.now() - dt.timedelta(days=1)),
        make_event(user=user, reference="OLD", occurred_at=timezone.now() - dt.timedelta(days=5)),
    ]

    call_command("koomalooma_backfill")
    call_command("koomalooma_audit")

    assert dict(Commitment.objects.values_list("reference", "reason")) == {
        "NEW": "",
        "OLD": "Paid before the campaign began.",
    }
    assert capsys.readouterr().out.splitlines() == [
        "purchase NEW: 100.00 EUR, recorded: Waiting",
        "purchase OLD: 100.00 EUR, recorded: No points Paid before the campaign began.",
        "2 paid orders, 2 missing, 0 worth something else.",
        "2 paid orders, 0 missing, 0 worth something else.",
    ]


def test_an_order_that_is_worth_something_else_is_named_unless_the_shop_has_told(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    CampaignFactory()
    user = UserFactory()
    for reference in ("same", "refunded unseen", "refunded", "cancelled"):
        earn(make_event(user=user, reference=reference))
    amend("purchase", "refunded", Decimal("60.00"))
    cancel("purchase", "cancelled")
    orders += [
        make_event(user=user, reference="same"),
        make_event(user=user, reference="refunded unseen", value=Decimal("60.00")),
        make_event(user=user, reference="refunded", value=Decimal("60.00")),
        make_event(user=user, reference="cancelled", value=Decimal("60.00")),
    ]

    with pytest.raises(SystemExit) as ended:
        call_command("koomalooma_audit")

    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "purchase refunded unseen: 60.00 EUR, but its commitment says 100.00 EUR",
        "4 paid orders, 0 missing, 1 worth something else.",
        "Worth something else: tell the change from the shop, with amend() or order_amended; "
        "or decide in the admin.",
    ]


@pytest.mark.parametrize(
    ("seconds", "again"), [(-60, False), (60, True)], ids=["paid before it was cancelled", "paid afterwards"]
)
@pytest.mark.parametrize("aware", [True, False], ids=["aware", "naive"])
def test_an_order_that_was_paid_again_after_it_was_cancelled_is_named(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str], seconds: int, again: bool, aware: bool
) -> None:
    CampaignFactory()
    user = UserFactory()
    earn(make_event(user=user, reference="AGAIN"))
    cancel("purchase", "AGAIN")
    paid_at = timezone.now() + dt.timedelta(seconds=seconds)
    if not aware:
        paid_at = timezone.make_naive(paid_at, timezone.get_default_timezone())
    finding = Finding(make_event(user=user, reference="AGAIN", occurred_at=paid_at), Commitment.objects.get())

    assert (finding.is_paid_again, finding.is_different) == (again, False)
    if aware and again:
        orders.append(finding.event)
        with pytest.raises(SystemExit):
            call_command("koomalooma_audit")
        assert capsys.readouterr().out.splitlines() == [
            "purchase AGAIN: 100.00 EUR, paid again after it was cancelled",
            "1 paid orders, 0 missing, 0 worth something else, 1 paid again after it was cancelled.",
            "Paid again after it was cancelled: choose “Give points after all” in the admin, "
            "unless they were given by another order.",
        ]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("koomalooma_deliver", []),
        ("koomalooma_audit", []),
        ("koomalooma_backfill", []),
        ("koomalooma_reconcile", ["statement.csv"]),
    ],
    ids=["deliver", "audit", "backfill", "reconcile"],
)
def test_a_command_without_tables_ends_in_a_sentence(
    orders: list[EarningEvent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
) -> None:
    (tmp_path / "statement.csv").write_text("id,transaction_value\n1,2.00\n")
    monkeypatch.chdir(tmp_path)
    orders.append(make_event(reference="X"))

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "koomalooma_" in sql:
            raise ProgrammingError("relation does not exist; password=hunter2")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail), pytest.raises(CommandError) as ended:
        call_command(command, *arguments)

    assert str(ended.value) == (
        "The tables cannot be read (ProgrammingError). Is the database up, and migrated?"
    )


def test_the_period_is_the_one_asked_for(
    orders: list[EarningEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    orders.append(make_event(occurred_at=timezone.make_aware(dt.datetime(2026, 3, 5, 12))))

    call_command("koomalooma_audit", "--since", "2026-03-06", "--until", "2026-03-07")
    with pytest.raises(SystemExit):
        call_command("koomalooma_audit", "--since", "2026-03-05", "--until", "2026-03-06")

    assert capsys.readouterr().out.splitlines()[0] == "0 paid orders, 0 missing, 0 worth something else."


def test_a_shop_that_cannot_name_its_orders_is_told_what_to_do(settings: Settings) -> None:
    settings.KOOMALOOMA_ORDERS = None

    with pytest.raises(CommandError, match="KOOMALOOMA_ORDERS"):
        call_command("koomalooma_audit")


def test_a_day_that_cannot_be_read_is_named() -> None:
    with pytest.raises(CommandError, match="'yesterday' is not a day: write it as 2026-11-30"):
        call_command("koomalooma_audit", "--since", "yesterday")
