"""The tables: their constraints hold in the database itself, and their one-row rules."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import (
    DataError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)
from django.db.models.deletion import ProtectedError
from django.utils import timezone

from django_koomalooma.models import (
    Commitment,
    KoomaloomaUser,
    is_data_error,
    shorten_reference,
    storable,
)
from django_koomalooma.querysets import database_now, guarded_update
from django_koomalooma.statuses import NEXT, CommitmentStatus, may_become
from tests.factories import CampaignFactory, CommitmentFactory, KoomaloomaUserFactory

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "values",
    [
        {"status": "sent"},
        {"status": "issued"},
        {"status": "skipped", "due_at": None, "net_value": Decimal(-1)},
        {"due_at": None},
        {"campaign": None},
        {"transaction_value": Decimal(-1)},
    ],
    ids=[
        "unknown status",
        "finished and due",
        "negative",
        "open and not due",
        "points without campaign",
        "sent less",
    ],
)
def test_the_database_refuses_what_cannot_be(values: dict[str, Any]) -> None:
    row = CommitmentFactory()

    with pytest.raises(IntegrityError), transaction.atomic():
        Commitment.objects.filter(pk=row.pk).update(**values)


@pytest.mark.parametrize("field", ["key", "trace_key"])
def test_key_and_trace_key_are_unique(field: str) -> None:
    first = CommitmentFactory()

    with pytest.raises(IntegrityError), transaction.atomic():
        CommitmentFactory(**{field: getattr(first, field)})


def test_one_customer_for_a_user() -> None:
    first = KoomaloomaUserFactory()

    with pytest.raises(IntegrityError), transaction.atomic():
        KoomaloomaUserFactory(user=first.user)


def test_deleting_a_user_keeps_his_commitments_and_his_id_at_koomalooma() -> None:
    customer = KoomaloomaUserFactory(registered=True)
    row = CommitmentFactory(issued=True, user=customer.user, koomalooma_user=customer)

    customer.user.delete()

    row.refresh_from_db()
    assert (row.user, row.koomalooma_user, row.status) == (None, customer, "issued")
    assert KoomaloomaUser.objects.get().user is None


def test_a_campaign_with_commitments_cannot_be_deleted() -> None:
    row = CommitmentFactory()

    with pytest.raises(ProtectedError):
        row.campaign.delete()


def test_campaigns_that_reward_the_same_at_the_same_time_are_refused() -> None:
    CampaignFactory(name="First", ends_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))

    overlapping = CampaignFactory.build(starts_at=dt.datetime(2025, 12, 1, tzinfo=dt.UTC))
    following = CampaignFactory.build(starts_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    elsewhere = CampaignFactory.build(site="other.example")
    asleep = CampaignFactory.build(is_active=False)

    with pytest.raises(ValidationError, match="“First” rewards the same at the same time"):
        overlapping.full_clean()
    for campaign in (following, elsewhere, asleep):
        campaign.full_clean()


def test_a_campaign_that_ends_before_it_starts_is_refused() -> None:
    campaign = CampaignFactory.build(ends_at=dt.datetime(2019, 1, 1, tzinfo=dt.UTC))

    with pytest.raises(ValidationError, match="ends before it starts"):
        campaign.full_clean()


@pytest.mark.parametrize(
    ("field", "value"), [("goal", "Big Sale"), ("currency", "eur"), ("minimum_value", Decimal(-1))]
)
def test_a_campaign_is_checked_field_by_field(field: str, value: object) -> None:
    campaign = CampaignFactory.build(**{field: value})

    with pytest.raises(ValidationError) as caught:
        campaign.full_clean()

    assert list(caught.value.message_dict) == [field]


def test_a_campaign_starts_now_unless_told_otherwise() -> None:
    from django_koomalooma.models import Campaign

    campaign = Campaign(name="New", remote_id="new")

    assert abs((campaign.starts_at - timezone.now()).total_seconds()) < 5


def test_long_references_are_cut_with_a_mark_of_their_own() -> None:
    first, second = shorten_reference("x" * 999 + "a"), shorten_reference("x" * 999 + "b")

    assert len(first) == len(second) == 255
    assert first != second
    assert shorten_reference("ORDER-1") == "ORDER-1"


def test_what_no_database_keeps_is_replaced() -> None:
    assert storable("a\0b\ud800c🧦") == "a\ufffdb?c🧦"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("value too long for type character varying(255)"), True),
        (OperationalError(1366, "Incorrect string value: '\\xF0\\x9F'"), True),
        (OperationalError(1264, "Out of range value"), True),
        (ProgrammingError(1406, "Data too long"), True),
        (OperationalError(1213, "Deadlock found"), False),
        (OperationalError(), False),
        (IntegrityError(1062, "Duplicate entry"), False),
        (ValueError(1366), False),
    ],
    ids=str,
)
def test_a_value_that_the_database_cannot_keep_is_told_from_other_trouble(
    error: Exception, told: bool
) -> None:
    assert is_data_error(error) is told


def test_statuses_may_only_become_what_the_design_says() -> None:
    allowed = {(now.value, then.value) for now, nexts in NEXT.items() for then in nexts}

    assert allowed == {
        ("queued", "sending"), ("queued", "cancelled"),
        ("sending", "issued"), ("sending", "refused"), ("sending", "in_doubt"), ("sending", "queued"),
        ("issued", "in_doubt"),
        ("refused", "queued"), ("refused", "cancelled"),
        ("in_doubt", "issued"), ("in_doubt", "refused"), ("in_doubt", "queued"), ("in_doubt", "written_off"),
        ("cancelled", "queued"),
        ("written_off", "issued"),
        ("skipped", "queued"),
    }  # fmt: skip
    assert may_become("queued", "sending")
    assert not may_become("issued", "queued")
    assert set(NEXT) == set(CommitmentStatus)


def test_a_guarded_update_writes_only_what_the_guard_allows() -> None:
    mine = CommitmentFactory(sending=True)
    lost = CommitmentFactory(sending=True)
    decided = CommitmentFactory(cancelled=True)

    written = guarded_update(
        "default",
        Commitment,
        ("status", "due_at"),
        [
            ("issued", None, mine.pk, mine.lease),
            ("issued", None, lost.pk, mine.lease),
            ("issued", None, decided.pk, mine.lease),
        ],
        keys=("id", "lease"),
        statuses=("sending", "in_doubt"),
    )

    assert written == 1
    assert dict(Commitment.objects.values_list("pk", "status")) == {
        mine.pk: "issued",
        lost.pk: "sending",
        decided.pk: "cancelled",
    }


def test_the_databases_clock_is_utc_and_the_same_as_ours() -> None:
    now = database_now("default")

    assert abs((now - timezone.now()).total_seconds()) < 5


def test_the_due_index_serves_what_is_due() -> None:
    if connection.vendor == "mysql":
        pytest.skip("MariaDB: EXPLAIN tells nothing about an empty table")
    due = Commitment.objects.due(timezone.now())[:10]

    plan = due.explain() if connection.vendor == "sqlite" else _plan_without_seqscan(due)

    assert "koomalooma_due" in plan


def _plan_without_seqscan(queryset: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
    return str(queryset.explain())


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
