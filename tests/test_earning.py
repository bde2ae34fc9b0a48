"""Earning: each event leaves one row, with points owed or with the reason why not."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, connection, transaction
from django.db.models.signals import pre_save
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from django_koomalooma import deciding, earning, wakeup
from django_koomalooma.earning import amend, cancel, earn
from django_koomalooma.exceptions import ConfigurationError, InvalidEvent
from django_koomalooma.models import Campaign, Commitment, make_key
from django_koomalooma.policy import Policy
from django_koomalooma.querysets import CommitmentQuerySet
from django_koomalooma.signals import commitment_queued, order_amended, order_cancelled, order_paid
from django_koomalooma.statuses import CommitmentStatus
from tests.factories import CampaignFactory, CommitmentFactory, UserFactory, make_event

pytestmark = pytest.mark.django_db


class NetPolicy(Policy):
    """Points for half of what was paid, none for staff; yen are converted."""

    def net_value(self, event: Any) -> Decimal:
        return Decimal(event.value) / 2

    def exclusion(self, event: Any) -> str:
        return "Staff earn no points." if event.user and event.user.is_staff else ""

    def convert(self, value: Decimal, currency: str, to: str) -> Decimal | None:
        return value / 160 if (currency, to) == ("JPY", "EUR") else super().convert(value, currency, to)


def test_earn_records_points_owed_with_frozen_terms() -> None:
    campaign = CampaignFactory(minimum_value=Decimal(10), category="shoes")
    user = UserFactory()

    row = earn(make_event(user=user, reference="ORDER-7", session_id="s-1"))

    row.refresh_from_db()
    assert (row.status, row.reason) == (CommitmentStatus.QUEUED, "")
    assert (row.campaign, row.user, row.reference, row.session_id) == (campaign, user, "ORDER-7", "s-1")
    assert (row.net_value, row.currency, row.category) == (Decimal("100.00"), "EUR", "shoes")
    assert row.description == f"Order ORDER-7 KL-{row.trace_key}"
    assert row.transaction_value is None
    assert row.terms == {
        "value": "100.00",
        "currency": "EUR",
        "policy": "django_koomalooma.policy.Policy",
        "net_value": "100.00",
        "fixed": False,
        "campaign": campaign.remote_id,
        "hold_days": 0,
        "minimum_value": "10.000",
    }


def test_earn_costs_a_savepoint_an_insert_and_its_release_in_the_steady_state() -> None:
    CampaignFactory()
    user = UserFactory()
    earn(make_event(user=user, reference="warm"))

    with (
        CaptureQueriesContext(
            connection,
        ) as queries,
        transaction.atomic(),
    ):
        earn(make_event(user=user, reference="ORDER-2"))

    words = [query["sql"].split()[0] for query in queries]
    assert words[1:-1] == ["SAVEPOINT", "INSERT", "RELEASE"]


@pytest.mark.parametrize(
    ("campaign", "event", "reason"),
    [
        (None, {}, "No campaign rewards this yet."),
        ({"goal": "signup"}, {}, "No campaign rewards this yet."),
        ({"is_active": False}, {}, "No campaign rewards this yet."),
        ({"site": "other.example"}, {}, "No campaign rewards this yet."),
        ({"starts_at": dt.datetime(2999, 1, 1, tzinfo=dt.UTC)}, {}, "Paid before the campaign began."),
        ({"ends_at": dt.datetime(2021, 1, 1, tzinfo=dt.UTC)}, {}, "Paid after the campaign had ended."),
        ({}, {"currency": "CHF"}, "Paid in CHF; the campaign is in EUR."),
        ({"minimum_value": Decimal(150)}, {}, "Below the campaign's minimum of 150.00 EUR."),
        ({}, {"value": Decimal(0)}, "Nothing was paid."),
        ({}, {"email": "guest@example.com"}, "Bought as a guest: points need an account."),
        ({}, {"user": AnonymousUser()}, "Bought as a guest: points need an account."),
    ],
    ids=[
        "no campaign", "other goal", "switched off", "other site", "before", "after", "currency", "minimum",
        "nothing paid", "guest", "anonymous",
    ],
)  # fmt: skip
def test_an_event_without_points_leaves_a_row_with_the_reason(
    campaign: dict[str, Any] | None, event: dict[str, Any], reason: str
) -> None:
    if campaign is not None:
        CampaignFactory(**campaign)

    row = earn(make_event(**event))

    row.refresh_from_db()
    assert (row.status, row.reason, row.due_at) == (CommitmentStatus.SKIPPED, reason, None)


def test_a_campaign_is_chosen_by_site_and_date_of_the_event() -> None:
    CampaignFactory(ends_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), remote_id="old")
    CampaignFactory(starts_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), remote_id="new")
    CampaignFactory(site="shoes.example", remote_id="shoes")
    user = UserFactory()

    at = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
    chosen = [
        earn(make_event(user=user, reference="1", occurred_at=at)).terms["campaign"],
        earn(make_event(user=user, reference="2")).terms["campaign"],
        earn(make_event(user=user, reference="3", site="shoes.example")).terms["campaign"],
    ]

    assert chosen == ["old", "new", "shoes"]


def test_a_campaign_that_is_new_in_another_process_counts_at_once() -> None:
    user = UserFactory()
    earn(make_event(user=user, reference="1"))
    Campaign.objects.bulk_create([CampaignFactory.build(remote_id="new")])  # sends no signal here

    row = earn(make_event(user=user, reference="2"))

    assert row.status == CommitmentStatus.QUEUED


def test_points_without_a_hold_are_due_even_by_a_clock_that_is_behind() -> None:
    CampaignFactory()
    CampaignFactory(goal="review", hold_days=1)
    long_ago = timezone.now() - dt.timedelta(days=30)

    now = earn(make_event())
    held = earn(make_event(goal="review", occurred_at=long_ago))

    for row in (now, held):
        assert row.due_at == row.created_at - dt.timedelta(minutes=1)


def test_a_hold_puts_the_points_off_from_the_day_of_the_event() -> None:
    CampaignFactory(hold_days=14)
    paid_at = timezone.now() - dt.timedelta(days=1)

    row = earn(make_event(occurred_at=paid_at))

    assert row.due_at == paid_at + dt.timedelta(days=14)


def test_a_signup_is_worth_the_campaigns_fixed_value() -> None:
    CampaignFactory(goal="signup", fixed_value=Decimal(5))

    row = earn(make_event(goal="signup", value=Decimal(0)))

    assert (row.status, row.net_value, row.is_fixed) == (CommitmentStatus.QUEUED, Decimal("5.00"), True)


def test_a_signup_without_fixed_value_is_owed_with_zero() -> None:
    CampaignFactory(goal="signup")

    row = earn(make_event(goal="signup", value=Decimal(0)))

    assert (row.status, row.net_value) == (CommitmentStatus.QUEUED, Decimal("0.00"))


def test_a_repeated_event_returns_the_first_row() -> None:
    CampaignFactory()
    user = UserFactory()

    first, second = (earn(make_event(user=user)) for _ in range(2))

    assert first.pk == second.pk
    assert Commitment.objects.count() == 1


def test_a_repeat_after_a_change_of_campaign_cannot_pay_twice() -> None:
    old = CampaignFactory()
    user = UserFactory()
    earn(make_event(user=user))
    old.is_active = False
    old.save()
    CampaignFactory()

    again = earn(make_event(user=user))

    assert again.campaign == old
    assert Commitment.objects.count() == 1


def test_a_repeat_with_another_value_is_flagged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    CampaignFactory()
    user = UserFactory()
    earn(make_event(user=user))

    with caplog.at_level(logging.WARNING):
        row = earn(make_event(user=user, value=Decimal("120.00")))

    row.refresh_from_db()
    assert row.net_value == Decimal("100.00")
    assert row.terms["repeated_with"] == ["120.00", "EUR"]
    assert "A refund is an amend()" in caplog.text


@pytest.mark.parametrize(
    "reference",
    ["x" * 1000, "🧦" * 300, "ORD-a\0b", "\ud800", "ORD-a"],
    ids=["long", "emoji", "nul", "surrogate", "plain"],
)
def test_an_odd_reference_is_kept_and_found_again(reference: str) -> None:
    CampaignFactory()
    user = UserFactory()

    first, second = (earn(make_event(user=user, reference=reference)) for _ in range(2))

    assert (first.status, first.pk) == (CommitmentStatus.QUEUED, second.pk)
    assert len(first.reference) <= 255


def test_references_that_a_collation_takes_for_one_are_two() -> None:
    CampaignFactory()
    user = UserFactory()

    for reference in ("ORD-a", "ord-A", "🧦", "👟", "1", "1 "):
        earn(make_event(user=user, reference=reference))

    assert Commitment.objects.count() == 6


def test_the_key_tells_site_goal_and_reference_apart() -> None:
    keys = {make_key("a", "b", "c"), make_key("", "a", "bc"), make_key("ab", "", "c"), make_key("a", "b", "")}

    assert len(keys) == 4


def test_a_guest_is_known_by_a_keyed_hash_of_his_address_only(settings: Settings) -> None:
    settings.KOOMALOOMA_GUESTS = True
    CampaignFactory()

    first = earn(make_event(reference="1", email="Guest@Example.com "))
    second = earn(make_event(reference="2", email="guest@example.com"))

    assert first.status == CommitmentStatus.QUEUED
    assert first.email_hash == second.email_hash
    assert len(first.email_hash) == 64
    assert "example" not in str({k: str(v) for k, v in vars(first).items()}).lower()


def test_a_guest_without_an_address_earns_nothing(settings: Settings) -> None:
    settings.KOOMALOOMA_GUESTS = True
    CampaignFactory()

    row = earn(make_event(user=None))

    assert row.reason == "A guest without an e-mail address."


def test_the_shops_policy_decides_value_exclusion_and_currency(settings: Settings) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.NetPolicy"
    CampaignFactory()

    half = earn(make_event(reference="1"))
    staff = earn(make_event(reference="2", user=UserFactory(is_staff=True)))
    yen = earn(make_event(reference="3", value=Decimal(32000), currency="JPY"))

    assert half.net_value == Decimal("50.00")
    assert (staff.status, staff.reason) == (CommitmentStatus.SKIPPED, "Staff earn no points.")
    assert (yen.net_value, yen.currency) == (Decimal("100.00"), "EUR")


def test_a_wrong_policy_names_the_setting(settings: Settings) -> None:
    settings.KOOMALOOMA_POLICY = "nowhere.Policy"

    with pytest.raises(ConfigurationError, match=r"KOOMALOOMA_POLICY is 'nowhere\.Policy'"):
        earn(make_event())


@pytest.mark.parametrize(
    ("worth", "error"),
    [
        (Decimal("NaN"), "InvalidEvent"),
        (Decimal(-1), "InvalidEvent"),
        (1.5, "InvalidEvent"),
        (None, "InvalidEvent"),
    ],
    ids=["nan", "negative", "float", "none"],
)
def test_what_the_shops_policy_gets_wrong_leaves_a_row_without_points(
    worth: Any, error: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Policy, "net_value", lambda self, event: worth)
    CampaignFactory()

    row = earn(make_event())

    row.refresh_from_db()
    assert (row.status, row.reason) == ("skipped", f"The shop's policy failed ({error}); see the log.")
    assert "KOOMALOOMA_POLICY failed for purchase ORDER-1" in caplog.text


def test_the_checkout_never_asks_a_callable_for_the_token(settings: Settings) -> None:
    def ask_vault() -> str:
        raise TimeoutError("the vault is slow")

    settings.KOOMALOOMA_API_TOKEN = ask_vault
    CampaignFactory()

    row = earn(make_event())

    assert row.status == CommitmentStatus.QUEUED
    assert "before_token" not in row.terms


def test_dry_run_decides_and_records_and_owes_nothing(settings: Settings) -> None:
    settings.KOOMALOOMA_MODE = "dry_run"
    campaign = CampaignFactory()

    row = earn(make_event())

    assert (row.status, row.reason) == (CommitmentStatus.SKIPPED, "Dry run: nothing was sent.")
    assert (row.campaign, row.net_value) == (campaign, Decimal("100.00"))


def test_off_records_nothing(settings: Settings) -> None:
    settings.KOOMALOOMA_MODE = "off"
    CampaignFactory()

    row = earn(make_event())
    changed = amend("purchase", "ORDER-1", Decimal(1))

    assert row.pk is None
    assert changed.pk is None
    assert Commitment.objects.count() == 0


def test_what_is_earned_without_a_token_is_queued_and_marked(settings: Settings) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""
    CampaignFactory()

    row = earn(make_event())

    assert row.status == CommitmentStatus.QUEUED
    assert row.terms["before_token"] is True


def test_another_model_in_the_place_of_the_user_is_an_error_that_names_it() -> None:
    class Customer:
        pk = 1
        is_authenticated = True

    with pytest.raises(InvalidEvent, match="user is a Customer"):
        earn(make_event(user=Customer()))


def test_the_shops_object_is_kept_as_source() -> None:
    CampaignFactory()
    order = UserFactory()

    row = earn(make_event(source=order))

    assert Commitment.objects.get(pk=row.pk).source == order


def test_a_wakeup_follows_the_commit_and_a_rollback_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(wakeup, "notify", lambda: woken.append("woken"))
    CampaignFactory()
    user = UserFactory()

    with django_capture_on_commit_callbacks(execute=True):
        earn(make_event(user=user, reference="kept"))
        with transaction.atomic():
            earn(make_event(user=user, reference="undone"))
            transaction.set_rollback(True)

    assert woken == ["woken"]
    assert list(Commitment.objects.values_list("reference", flat=True)) == ["kept"]


def test_listeners_hear_of_points_owed_and_may_raise(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    heard: list[str] = []

    def listen(commitment: Commitment, **kwargs: Any) -> None:
        heard.append(commitment.reference)
        raise ValueError("a bug of the shop's")

    CampaignFactory()
    commitment_queued.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            earn(make_event())
    finally:
        commitment_queued.disconnect(listen)

    assert heard == ["ORDER-1"]


@pytest.mark.parametrize("use_tz", [True, False], ids=["aware", "naive"])
@pytest.mark.parametrize(
    "at",
    [dt.datetime(2026, 7, 1, 10, tzinfo=dt.UTC), dt.datetime(2026, 7, 1, 12)],
    ids=["told aware", "told naive"],
)
def test_a_time_of_either_kind_is_read_in_the_projects_time_zone(
    at: dt.datetime, use_tz: bool, settings: Settings
) -> None:
    settings.USE_TZ = use_tz
    kept = dt.datetime(2026, 7, 1, 10, tzinfo=dt.UTC) if use_tz else dt.datetime(2026, 7, 1, 12)
    CampaignFactory(starts_at=kept - dt.timedelta(days=1))

    with timezone.override("Asia/Tokyo"):
        row = earn(make_event(occurred_at=at))

    assert (row.status, row.reason) == (CommitmentStatus.QUEUED, "")
    assert Commitment.objects.get().occurred_at == kept


class LookingUpPolicy(Policy):
    """Asks a table that is not migrated yet."""

    def exclusion(self, event: Any) -> str:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM a_table_that_is_not_there")
        return ""


@pytest.mark.parametrize("left", [False, True], ids=["new", "changed before"])
def test_an_event_leaves_its_row_when_a_query_of_the_policy_fails(
    left: bool, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.LookingUpPolicy"
    CampaignFactory()
    if left:
        amend("purchase", "ORDER-1", Decimal("60.00"))

    row = earn(make_event())

    row.refresh_from_db()
    assert (row.status, row.due_at) == (CommitmentStatus.SKIPPED, None)
    assert row.reason.startswith("It could not be decided (")
    assert row.net_value == (Decimal("60.00") if left else Decimal("100.00"))
    assert "A query failed while purchase ORDER-1 was decided." in caplog.text


@pytest.mark.django_db(transaction=True)
def test_the_key_of_guests_is_read_once_and_kept_only_when_it_is_committed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KOOMALOOMA_GUESTS = True
    monkeypatch.setattr(deciding, "_guest_keys", {})
    CampaignFactory()
    with transaction.atomic():
        undone = earn(make_event(reference="1", email="guest@example.com"))
        transaction.set_rollback(True)

    first = earn(make_event(reference="2", email="guest@example.com"))
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        second = earn(make_event(reference="3", email="guest@example.com"))

    assert undone.email_hash != first.email_hash == second.email_hash
    assert [query["sql"].split()[0] for query in queries][1:-1] == ["SAVEPOINT", "INSERT", "RELEASE"]


# -- amend and cancel


@pytest.mark.parametrize(
    "trait", ["held", "sending", "issued", "refused", "in_doubt", "cancelled", "written_off", "skipped"]
)
def test_amend_writes_the_net_value_alone_in_any_status(trait: str) -> None:
    before = CommitmentFactory(**{trait: True}, reference="A")
    kept = ("status", "due_at", "transaction_value", "reason", "lease")

    after = amend("purchase", "A", Decimal("60.00"))

    assert after.net_value == Decimal("60.00")
    before.refresh_from_db()
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]


def test_what_is_refunded_after_it_was_sent_is_kept_as_issued_too_much() -> None:
    CommitmentFactory(issued=True, reference="A")

    row = amend("purchase", "A", Decimal("60.00"))

    assert row.over_issued == Decimal("40.00")
    assert Commitment.objects.over_issued_value() == {"EUR": Decimal("40.00")}


def test_cancel_closes_what_waits_and_leaves_other_statuses() -> None:
    waiting = CommitmentFactory(held=True, reference="A")
    sending = CommitmentFactory(sending=True, reference="B")
    issued = CommitmentFactory(issued=True, reference="C")

    for reference in "ABC":
        cancel("purchase", reference, reason="Returned")

    rows = {row.reference: row for row in Commitment.objects.all()}
    assert (rows["A"].status, rows["A"].reason, rows["A"].due_at) == ("cancelled", "Returned", None)
    assert (rows["B"].status, rows["C"].status) == ("sending", "issued")
    assert {row.net_value for row in rows.values()} == {Decimal(0)}
    assert rows["C"].over_issued == Decimal("100.00")
    assert all(row.withdrawn_at for row in rows.values())
    assert {waiting.pk, sending.pk, issued.pk} == {row.pk for row in rows.values()}


def test_an_amend_before_its_event_is_found_by_it() -> None:
    CampaignFactory()
    left = amend("purchase", "ORDER-1", Decimal("60.00"))

    row = earn(make_event())

    assert (left.status, row.pk) == (CommitmentStatus.SKIPPED, left.pk)
    assert (row.status, row.net_value) == (CommitmentStatus.QUEUED, Decimal("60.00"))


def test_an_amend_before_its_event_is_converted_as_one_after_it(settings: Settings) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.NetPolicy"
    CampaignFactory()
    yen = {"value": Decimal(32000), "currency": "JPY"}

    amend("purchase", "before", Decimal(8000))
    before = earn(make_event(reference="before", **yen))
    earn(make_event(reference="after", **yen))
    after = amend("purchase", "after", Decimal(8000))

    for row in (before, after):
        row.refresh_from_db()
        assert (row.status, row.net_value, row.currency) == ("queued", Decimal("50.00"), "EUR")


def test_an_amend_before_its_event_keeps_the_decimals_that_the_event_has() -> None:
    CampaignFactory(currency="KWD")
    amend("purchase", "ORDER-1", Decimal(9))
    amend("purchase", "ORDER-1", Decimal("1.234"))

    row = earn(make_event(currency="KWD"))

    assert row.net_value == Decimal("1.234")


def broken_convert(self: Policy, value: Decimal, currency: str, to: str) -> Decimal:
    with connection.cursor() as cursor:
        cursor.execute("SELECT rate FROM a_table_that_is_not_there")
    return value


@pytest.mark.parametrize(
    "convert",
    [lambda *args: Decimal(-1), lambda *args: None, lambda *args: 1 / 0, broken_convert],
    ids=["negative", "none", "raises", "query"],
)
def test_an_amend_that_the_policy_cannot_convert_counts_at_the_rate_of_its_event(
    convert: Callable[..., Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.NetPolicy"
    CampaignFactory()
    earn(make_event(reference="yen", value=Decimal(32000), currency="JPY"))  # earns for EUR 100
    earn(make_event(reference="euro"))
    monkeypatch.setattr(NetPolicy, "convert", convert)

    yen = amend("purchase", "yen", Decimal(8000))
    euro = amend("purchase", "euro", Decimal("30.00"))

    for row in (yen, euro):
        row.refresh_from_db()
    assert (yen.net_value, euro.net_value) == (Decimal("25.00"), Decimal("30.00"))


@pytest.mark.parametrize("value", [Decimal("60.00"), None], ids=["amended", "not amended"])
def test_what_was_withdrawn_before_its_event_stays_withdrawn_and_its_last_worth_is_kept(
    value: Decimal | None,
) -> None:
    CampaignFactory()
    if value is not None:
        amend("purchase", "ORDER-1", value)
    cancel("purchase", "ORDER-1")

    row = earn(make_event())

    assert (row.status, row.net_value) == (CommitmentStatus.CANCELLED, Decimal(0))
    assert row.terms.get("last_net_value") == (None if value is None else "60.00")


def test_the_last_worth_of_what_was_withdrawn_before_its_event_is_converted(settings: Settings) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.NetPolicy"
    CampaignFactory()
    amend("purchase", "ORDER-1", Decimal(8000))
    cancel("purchase", "ORDER-1")

    row = earn(make_event(value=Decimal(32000), currency="JPY"))

    assert (row.net_value, row.currency, row.terms["last_net_value"]) == (Decimal(0), "EUR", "50.00")


def test_an_amend_after_a_cancel_does_not_revive_an_event_that_comes_later() -> None:
    CampaignFactory()
    cancel("purchase", "ORDER-1")
    amend("purchase", "ORDER-1", Decimal("60.00"))

    row = earn(make_event())

    assert (row.status, row.net_value) == (CommitmentStatus.CANCELLED, Decimal("60.00"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("verb", ["earn", "amend", "cancel"])
def test_what_a_transactions_old_snapshot_does_not_show_is_found_all_the_same(verb: str) -> None:
    if connection.vendor != "mysql":
        pytest.skip(
            "only MySQL's REPEATABLE READ hides what an INSERT collides with: run it with DATABASE_URL"
        )
    CampaignFactory()
    user = UserFactory()
    event = make_event(user=user)
    call: dict[str, Callable[[], Commitment]] = {
        "earn": lambda: earn(event),
        "amend": lambda: amend("purchase", "ORDER-1", Decimal("60.00")),
        "cancel": lambda: cancel("purchase", "ORDER-1"),
    }
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    try:
        with transaction.atomic():
            assert not Commitment.objects.exists()  # takes the snapshot
            elsewhere(lambda: earn(event))
            row = call[verb]()
    finally:
        connection.close()

    row = Commitment.objects.get(pk=row.pk)
    told = {"earn": ("queued", 100), "amend": ("queued", 60), "cancel": ("cancelled", 0)}
    assert (row.status, row.net_value) == told[verb]


def elsewhere(call: Callable[[], object]) -> None:
    """Run the call in another thread, over a connection of its own."""

    def run() -> None:
        try:
            call()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_a_cancel_before_its_event_is_found_by_it() -> None:
    CampaignFactory()
    cancel("purchase", "ORDER-1")

    row = earn(make_event())
    again = earn(make_event(user=row.user))

    assert (row.status, row.reason) == (CommitmentStatus.CANCELLED, "Withdrawn by the shop.")
    assert again.status == CommitmentStatus.CANCELLED
    assert Commitment.objects.count() == 1


@pytest.mark.parametrize(
    ("paid_after", "status"), [(dt.timedelta(minutes=5), "queued"), (dt.timedelta(minutes=-5), "cancelled")]
)
def test_an_order_that_is_paid_after_it_was_cancelled_earns(paid_after: dt.timedelta, status: str) -> None:
    CampaignFactory()
    left = cancel("purchase", "ORDER-1")
    assert left.withdrawn_at is not None

    row = earn(make_event(occurred_at=left.withdrawn_at + paid_after))

    row.refresh_from_db()
    assert (row.pk, row.status) == (left.pk, status)


def test_a_signup_that_was_cancelled_before_it_is_not_owed() -> None:
    CampaignFactory(goal="signup")
    cancel("signup", "ORDER-1")

    row = earn(make_event(goal="signup", value=Decimal(0)))

    assert row.status == CommitmentStatus.CANCELLED


# -- signals


def test_the_three_signals_earn_amend_and_cancel() -> None:
    CampaignFactory()
    order_paid.send(sender=None, event=make_event())
    order_amended.send(sender=None, goal="purchase", reference="ORDER-1", value=Decimal("70.00"))
    amended = Commitment.objects.get().net_value
    order_cancelled.send(sender=None, goal="purchase", reference="ORDER-1")

    row = Commitment.objects.get()
    assert amended == Decimal("70.00")
    assert (row.status, row.net_value) == (CommitmentStatus.CANCELLED, Decimal(0))


@pytest.mark.parametrize(
    "error", [DatabaseError, RuntimeError, IntegrityError], ids=lambda error: error.__name__
)
def test_a_bug_of_ours_never_breaks_an_order(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error("ours")

    monkeypatch.setattr(earning, "decide", fail)
    user = UserFactory()

    with transaction.atomic():
        order_paid.send(sender=None, event=make_event(user=user))
        order = UserFactory(username="the order")

    order.refresh_from_db()
    assert order.username == "the order"
    assert "No points were recorded for purchase ORDER-1" in caplog.text


def test_a_bug_in_an_amend_or_cancel_never_breaks_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    CommitmentFactory(reference="A")

    def fail(*args: Any) -> None:
        with transaction.atomic():
            Commitment.objects.update(status="no such status")

    monkeypatch.setattr(earning, "quantize", fail)
    monkeypatch.setattr(earning, "storable", fail)

    with transaction.atomic():
        order_amended.send(sender=None, goal="purchase", reference="A", value=Decimal(1))
        order_cancelled.send(sender=None, goal="purchase", reference="A", reason="x")
        order = UserFactory(username="the order")

    order.refresh_from_db()
    assert Commitment.objects.get().net_value == Decimal("100.00")


def order_and(send: Callable[[], object]) -> None:
    with transaction.atomic():
        UserFactory(username="the order")
        send()


SEND = {
    "paid": lambda: order_paid.send(sender=None, event=make_event()),
    "amended": lambda: order_amended.send(sender=None, goal="purchase", reference="1", value=Decimal(1)),
    "cancelled": lambda: order_cancelled.send(sender=None, goal="purchase", reference="1"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("send", SEND.values(), ids=SEND)
def test_an_order_that_is_lost_with_its_transaction_is_not_lost_without_a_word(
    send: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadlock(*args: Any, **kwargs: Any) -> None:
        raise OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")

    def no_savepoint(*args: Any) -> None:
        raise OperationalError(1305, "SAVEPOINT s1_x1 does not exist")

    monkeypatch.setattr(Commitment, "save", deadlock)
    monkeypatch.setattr(connection, "savepoint_rollback", no_savepoint)

    with pytest.raises(OperationalError, match="1213"):
        order_and(send)

    assert not get_user_model().objects.filter(username="the order").exists()


@pytest.mark.django_db(transaction=True)
def test_an_order_that_is_lost_in_the_policy_is_told_with_the_databases_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deadlock(*args: Any) -> None:
        raise OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")

    CampaignFactory()
    user = UserFactory()
    monkeypatch.setattr(Policy, "exclusion", deadlock)
    monkeypatch.setattr(connection, "savepoint_rollback", deadlock)

    with pytest.raises(OperationalError, match="1213"):
        order_and(lambda: order_paid.send(sender=None, event=make_event(user=user)))

    assert not get_user_model().objects.filter(username="the order").exists()


def _kill_connection(sender: Any, **kwargs: Any) -> None:
    other = connection.copy()
    with connection.cursor() as cursor, other.cursor() as killer:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_backend_pid()")
            killer.execute("SELECT pg_terminate_backend(%s)", cursor.fetchone())
        else:
            cursor.execute("SELECT connection_id()")
            killer.execute("KILL %s", cursor.fetchone())
    other.close()


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_is_killed_while_we_write_is_told_to_the_shop() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no connections to kill: run it with DATABASE_URL of a database server")
    user = UserFactory()
    pre_save.connect(_kill_connection, sender=Commitment)
    try:
        with pytest.raises(DatabaseError):
            order_and(lambda: order_paid.send(sender=None, event=make_event(user=user)))
    finally:
        pre_save.disconnect(_kill_connection, sender=Commitment)
        connection.close()

    assert not get_user_model().objects.filter(username="the order").exists()


def test_a_repeat_that_cannot_be_flagged_never_breaks_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    CampaignFactory()
    user = UserFactory()
    earn(make_event(user=user))
    save = Commitment.save_base

    def lock_timeout(self: Commitment, **kwargs: Any) -> None:
        if kwargs["update_fields"]:
            with transaction.mark_for_rollback_on_error("default"):
                raise OperationalError("canceling statement due to lock timeout")
        save(self, **kwargs)

    monkeypatch.setattr(Commitment, "save_base", lock_timeout)

    with transaction.atomic():
        order_paid.send(sender=None, event=make_event(user=user, value=Decimal(120)))
        order = UserFactory(username="the order")

    order.refresh_from_db()
    assert order.username == "the order"


@pytest.mark.parametrize("event", [None, object(), {"reference": "1"}], ids=["none", "object", "dict"])
def test_nonsense_through_a_signal_is_logged_and_does_not_raise(
    event: Any, caplog: pytest.LogCaptureFixture
) -> None:
    order_paid.send(sender=None, event=event)
    order_amended.send(sender=None, goal="purchase", reference="1", value=1.5)
    order_cancelled.send(sender=None, goal="", reference="")

    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 3
    assert Commitment.objects.count() == 0


@pytest.fixture(
    params=[DataError("no such letter"), OperationalError(1366, "Incorrect string value")], ids=repr
)
def _no_socks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that keeps no emoji, as MySQL's utf8."""
    save, update = Commitment.save, CommitmentQuerySet.update

    def check(values: Iterable[object]) -> None:
        if any("🧦" in str(value) for value in values):
            raise request.param

    def save_checked(self: Commitment, **kwargs: Any) -> None:
        check(vars(self).values())
        save(self, **kwargs)

    def update_checked(self: CommitmentQuerySet, **values: Any) -> int:
        check(values.values())
        return update(self, **values)

    monkeypatch.setattr(Commitment, "save", save_checked)
    monkeypatch.setattr(CommitmentQuerySet, "update", update_checked)


@pytest.mark.usefixtures("_no_socks")
def test_a_text_that_the_database_refuses_is_kept_plain() -> None:
    CampaignFactory()

    row = earn(make_event(reference="🧦-1"))

    assert (row.status, row.reference) == (CommitmentStatus.QUEUED, "?-1")
    assert row.terms["reference"] == r"\U0001f9e6-1"
    assert row.key == make_key("", "purchase", "🧦-1")


@pytest.mark.usefixtures("_no_socks")
def test_a_change_that_the_database_refuses_is_kept_plain_before_its_event_and_after() -> None:
    CampaignFactory()

    left = amend("purchase", "🧦-1", Decimal("60.00"))
    filled = earn(make_event(reference="🧦-1", description="🧦"))
    cancelled = cancel("purchase", "🧦-1", reason="🧦 sent back")

    assert (left.reference, filled.status, filled.net_value) == ("?-1", "queued", Decimal("60.00"))
    assert filled.description == f"? KL-{filled.trace_key}"
    cancelled.refresh_from_db()
    assert (cancelled.pk, cancelled.status, cancelled.reason) == (left.pk, "cancelled", "? sent back")
