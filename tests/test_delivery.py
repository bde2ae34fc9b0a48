"""Delivery against the sandbox: from owed to issued, and what each answer does to a commitment."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from decimal import Decimal
from typing import Any

import factory
import pytest
from django.db import DataError, OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from django_koomalooma import delivery, gate, leasing, recording, wakeup
from django_koomalooma.delivery import deliver_due
from django_koomalooma.earning import amend, cancel, earn
from django_koomalooma.models import Commitment, DeliveryAttempt, Gate, KoomaloomaUser
from django_koomalooma.policy import Policy
from django_koomalooma.querysets import CommitmentQuerySet
from django_koomalooma.sandbox import Sandbox
from django_koomalooma.signals import commitment_in_doubt, commitment_issued, commitment_refused
from django_koomalooma.statuses import CommitmentStatus
from tests.factories import (
    CampaignFactory,
    CommitmentFactory,
    DeliveryAttemptFactory,
    KoomaloomaUserFactory,
    UserFactory,
    make_event,
)

pytestmark = pytest.mark.django_db


class RefusingPolicy(Policy):
    """Refuses what is worth 13, fails at 14."""

    def refusal(self, commitment: Commitment) -> str:
        if commitment.net_value == 14:
            raise LookupError("the shop's own bug")
        return "The customer did not consent." if commitment.net_value == 13 else ""


def test_deliver_issues_what_was_earned_and_keeps_the_answer(sandbox: Sandbox) -> None:
    campaign = CampaignFactory()
    row = earn(make_event())

    run = deliver_due()

    row.refresh_from_db()
    assert (run.leased, run.issued, run.stopped, run.more) == (1, 1, "", False)
    assert (row.status, row.loyalty_units, row.reason) == (CommitmentStatus.ISSUED, 500, "")
    assert (row.transaction_value, row.due_at, row.tries) == (Decimal("100.00"), None, 1)
    (booking,) = sandbox.bookings()
    assert booking["campaign_id"] == campaign.remote_id
    assert booking["transaction_value"] == "100.00"
    assert booking["promotion_goal_description"] == f"Order ORDER-1 KL-{row.trace_key}"
    assert row.reply is not None
    assert (row.remote_id, row.reply["promotion_goal_category"]) == (booking["id"], "purchase")
    attempt = row.attempts.get()
    assert (attempt.outcome, attempt.http_status) == ("answered", 201)
    assert attempt.request.startswith(f"POST /api/users/{row.koomalooma_user.remote_id}/commitments\n")


def test_a_customer_is_created_once_by_a_random_id(sandbox: Sandbox) -> None:
    CampaignFactory()
    user = UserFactory(username="jane", email="jane@example.com")
    for reference in "ABC":
        earn(make_event(user=user, reference=reference, session_id="s-1"))

    deliver_due()

    (customer,) = KoomaloomaUser.objects.all()
    (created,) = sandbox.users()
    assert created["partner_user_id"] == customer.partner_user_id
    assert created["user_session_id"] == customer.registered_session_id == "s-1"
    assert "jane" not in str(created)
    assert len(sandbox.bookings()) == 3


def test_a_new_session_is_told_to_koomalooma_before_the_points(sandbox: Sandbox) -> None:
    customer = KoomaloomaUserFactory()
    CampaignFactory()
    for session in ("s-1", "s-2"):
        earn(make_event(user=customer.user, reference=session, session_id=session))
        deliver_due()

    customer.refresh_from_db()
    assert customer.registered_session_id == "s-2"
    assert [row["user_session_id"] for row in sandbox.users()][-1] == "s-2"


def test_guests_are_one_customer_each(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_GUESTS = True
    CampaignFactory()
    for reference, email in (("1", "a@example.com"), ("2", "A@example.com"), ("3", "b@example.com")):
        earn(make_event(reference=reference, email=email))

    run = deliver_due()

    assert run.issued == 3
    assert KoomaloomaUser.objects.filter(user=None).count() == 2


def test_held_points_wait(sandbox: Sandbox) -> None:
    CommitmentFactory(held=True)

    run = deliver_due()

    assert (run.leased, sandbox.bookings()) == (0, [])


def test_oldest_due_goes_first(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    now = timezone.now()
    for hours in (1, 3, 2):
        CommitmentFactory(reference=f"{hours} hours ago", due_at=now - dt.timedelta(hours=hours))

    deliver_due()

    assert [booking["promotion_goal_description"] for booking in sandbox.bookings()] == [
        "Order 3 hours ago",
        "Order 2 hours ago",
        "Order 1 hours ago",
    ]


def test_the_attempt_is_committed_before_the_first_byte_leaves(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int, bool]] = []
    submit = delivery.Sender.submit

    def look(self: delivery.Sender, calls: list[Any]) -> None:
        row = Commitment.objects.get()
        seen.append(
            (
                row.status,
                row.attempts.filter(lease=row.lease, ended_at=None).count(),
                connection.in_atomic_block,
            )
        )
        submit(self, calls)

    monkeypatch.setattr(delivery.Sender, "submit", look)
    CommitmentFactory()

    deliver_due()

    assert seen[0][:2] == ("sending", 1)


ANSWERS = [
    ("status", {"status": 400, "book": False}, "refused", 0),
    ("status", {"status": 404, "book": False}, "refused", 0),
    ("status", {"status": 405, "book": False}, "refused", 0),
    ("status", {"status": 410, "book": False}, "refused", 0),
    ("status", {"status": 413, "book": False}, "refused", 0),
    ("status", {"status": 415, "book": False}, "refused", 0),
    ("status", {"status": 422, "book": False}, "refused", 0),
    ("status", {"status": 409, "book": True}, "in_doubt", 1),
    ("status", {"status": 418, "book": False}, "in_doubt", 0),
    ("status", {"status": 500, "book": True}, "in_doubt", 1),
    ("status", {"status": 503, "book": False}, "in_doubt", 0),
    ("status", {"status": 204, "book": True}, "in_doubt", 1),
    ("redirect", {}, "in_doubt", 0),
    ("close_before_reading", {}, "in_doubt", 0),
    ("close_after_booking", {}, "in_doubt", 1),
    ("reset_after_booking", {}, "in_doubt", 1),
    ("garbage_status_line", {}, "in_doubt", None),
    ("ok_200_html", {}, "in_doubt", None),
    ("ok_200_commitment", {}, "issued", 1),
    ("truncated_json", {}, "issued", 1),
    ("empty_body", {}, "issued", 1),
    ("html_body", {}, "issued", 1),
    ("huge_body", {}, "issued", 1),
    ("deep_json", {}, "issued", 1),
    ("nul_in_body", {}, "issued", 1),
    ("odd_types", {}, "issued", 1),
    ("bad_gzip", {}, "issued", 1),
    ("reset_body", {}, "issued", 1),
    ("short_body", {}, "issued", 1),
]


@pytest.mark.parametrize(
    ("fault", "options", "status", "booked"),
    ANSWERS,
    ids=[f"{fault}-{options['status']}" if options else fault for fault, options, _, _ in ANSWERS],
)
def test_each_answer_decides_the_status(
    fault: str, options: dict[str, Any], status: str, booked: int | None, sandbox: Sandbox
) -> None:
    sandbox.misbehave(fault, **options)
    row = CommitmentFactory()

    deliver_due()
    deliver_due()

    row.refresh_from_db()
    assert row.status == status
    assert row.due_at is None
    assert row.attempts.count() == 1
    if booked is not None:
        assert len(sandbox.bookings()) == booked


def test_a_refusal_keeps_what_koomalooma_said(sandbox: Sandbox) -> None:
    sandbox.misbehave("status", status=400, book=False, body='{"message": "campaign ended"}')
    row = CommitmentFactory()

    deliver_due()

    row.refresh_from_db()
    assert row.reason == 'koomalooma refused it (HTTP 400): {"message": "campaign ended"}'


def test_an_unreachable_koomalooma_leaves_all_waiting_and_stops_after_five(settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    for _ in range(7):
        CommitmentFactory()

    run = deliver_due()

    assert (run.requeued, run.in_doubt, run.refused) == (5, 0, 0)
    assert set(Commitment.objects.values_list("status", flat=True)) == {"queued"}
    assert gate.state().code == gate.Cause.UNREACHABLE
    assert run.stopped == "koomalooma could not be reached 5 times in a row."


def test_three_unclear_answers_in_a_row_stop_the_queue(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    sandbox.misbehave("status", status=502, book=False, times=None)
    for _ in range(6):
        CommitmentFactory()

    run = deliver_due()

    assert (run.in_doubt, gate.state().code) == (3, gate.Cause.IN_DOUBT)


def test_an_unclear_answer_drops_the_window_to_one_until_the_first_success(
    sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 4
    sandbox.misbehave("status", status=502, book=False, times=2)
    for _ in range(10):
        CommitmentFactory()

    run = deliver_due()

    assert (run.in_doubt, run.issued) == (2, 8)
    assert not Gate.objects.get().is_careful


def test_five_refusals_in_a_row_stop_the_queue(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    sandbox.misbehave("status", status=404, book=False, times=None)
    for _ in range(8):
        CommitmentFactory()

    run = deliver_due()

    assert (run.refused, gate.state().code) == (5, gate.Cause.REFUSED)


@pytest.mark.parametrize("code", [401, 402, 403])
def test_account_trouble_stops_at_once_and_refuses_nothing(
    code: int, sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    sandbox.misbehave("status", status=code, book=False, times=None, call="any")
    for _ in range(3):
        CommitmentFactory()

    run = deliver_due()

    assert (run.requeued, gate.state().code) == (1, gate.Cause.ACCOUNT)
    assert set(Commitment.objects.values_list("status", flat=True)) == {"queued"}


def test_one_bad_row_does_not_stop_the_shop_for_ever(sandbox: Sandbox) -> None:
    bad = CommitmentFactory()
    sandbox.misbehave("status", status=403)
    deliver_due()
    Commitment.objects.filter(pk=bad.pk).update(due_at=timezone.now() + dt.timedelta(hours=1))
    CommitmentFactory()
    gate.resume()
    assert deliver_due().issued == 1
    Commitment.objects.filter(pk=bad.pk).update(due_at=timezone.now())
    sandbox.misbehave("status", status=403)

    deliver_due()

    bad.refresh_from_db()
    assert (bad.status, bad.tries) == ("refused", 2)
    assert bad.reason.startswith("koomalooma refused our account (HTTP 403)")


def test_too_many_requests_shuts_the_gate_for_the_time_named(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    sandbox.misbehave("status", status=429, book=False, headers={"Retry-After": "120"})
    for _ in range(2):
        CommitmentFactory()

    run = deliver_due()
    again = deliver_due()

    state = gate.state()
    assert (run.requeued, again.leased, state.code) == (1, 0, gate.Cause.LATER)
    assert state.next_probe_at is not None
    assert 115 < (state.next_probe_at - timezone.now()).total_seconds() <= 120
    Gate.objects.update(next_probe_at=timezone.now())
    assert deliver_due().issued == 2


def test_a_customer_who_cannot_be_created_is_tried_again(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    sandbox.misbehave("status", status=500, book=False, call="users", times=2)
    row = CommitmentFactory()

    run = deliver_due()

    row.refresh_from_db()
    assert (run.requeued, run.issued, row.tries) == (2, 1, 3)
    assert len(sandbox.bookings()) == 1


def test_a_refused_customer_refuses_the_commitment(sandbox: Sandbox) -> None:
    sandbox.misbehave("status", status=400, book=False, call="users")
    row = CommitmentFactory()

    deliver_due()

    row.refresh_from_db()
    assert (row.status, row.reason[:32]) == ("refused", "koomalooma refused the customer ")
    assert sandbox.bookings() == []


# -- what is left out


def test_what_became_worthless_is_cancelled_and_not_sent(sandbox: Sandbox) -> None:
    CampaignFactory()
    earn(make_event())
    amend("purchase", "ORDER-1", Decimal(0))

    run = deliver_due()

    row = Commitment.objects.get()
    assert (row.status, run.cancelled, sandbox.bookings()) == ("cancelled", 1, [])
    assert row.reason == "Worth nothing any more: withdrawn or refunded before it was sent."


def test_a_signup_worth_nothing_is_sent_all_the_same_but_not_when_it_was_withdrawn(sandbox: Sandbox) -> None:
    CampaignFactory(goal="signup")
    earn(make_event(goal="signup", value=Decimal(0), reference="stays"))
    withdrawn = earn(make_event(goal="signup", value=Decimal(0), reference="goes"))
    Commitment.objects.filter(pk=withdrawn.pk).update(status="sending", lease=uuid.uuid4())
    cancel("signup", "goes")
    Commitment.objects.filter(pk=withdrawn.pk).update(status="queued")

    deliver_due()

    assert dict(Commitment.objects.values_list("reference", "status")) == {
        "stays": "issued",
        "goes": "cancelled",
    }


def test_what_is_sent_is_the_net_value_of_the_moment(sandbox: Sandbox) -> None:
    CampaignFactory()
    earn(make_event())
    amend("purchase", "ORDER-1", Decimal("60.00"))

    deliver_due()

    row = Commitment.objects.get()
    assert (row.transaction_value, row.loyalty_units) == (Decimal("60.00"), 300)


def test_a_deleted_customer_cancels_what_waits_and_keeps_the_row(sandbox: Sandbox) -> None:
    row = CommitmentFactory()
    row.user.delete()

    deliver_due()

    row.refresh_from_db()
    assert (row.status, row.reason) == ("cancelled", "The customer was deleted before it was sent.")
    assert sandbox.bookings() == []


def test_the_shops_policy_may_refuse_at_the_last_moment(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.RefusingPolicy"
    for value in (12, 13, 14):
        CommitmentFactory(reference=str(value), net_value=Decimal(value))

    deliver_due()

    rows = {row.reference: row for row in Commitment.objects.all()}
    assert (rows["12"].status, rows["13"].status, rows["14"].status) == ("issued", "cancelled", "queued")
    assert rows["13"].reason == "The customer did not consent."
    assert rows["14"].due_at > timezone.now() + dt.timedelta(minutes=59)


# -- leases


def test_an_abandoned_lease_is_parked_and_never_sent_again(sandbox: Sandbox) -> None:
    row = CommitmentFactory(sending=True, due_at=timezone.now() - dt.timedelta(seconds=1))

    run = deliver_due()

    row.refresh_from_db()
    assert (run.abandoned, run.leased, row.status, row.due_at) == (1, 0, "in_doubt", None)
    assert row.lease is not None
    assert sandbox.bookings() == []


def test_a_live_lease_is_left_alone(sandbox: Sandbox) -> None:
    row = CommitmentFactory(sending=True)

    run = deliver_due()

    row.refresh_from_db()
    assert (run.abandoned, run.leased, row.status) == (0, 0, "sending")


def test_a_late_answer_overrides_the_sweep(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    row = CommitmentFactory()
    write = recording.Recording.record

    def sweep_first(self: recording.Recording, calls: Any) -> Any:
        Commitment.objects.update(due_at=timezone.now() - dt.timedelta(seconds=1))
        deliver_due()
        assert Commitment.objects.get().status == "in_doubt"
        return write(self, calls)

    monkeypatch.setattr(recording.Recording, "record", sweep_first)
    monkeypatch.setattr(delivery.conf.__class__, "runs", 2)

    deliver_due()

    row.refresh_from_db()
    assert (row.status, row.loyalty_units) == ("issued", 500)


def test_a_late_answer_never_overrides_a_person(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row = CommitmentFactory()
    write = recording.Recording.record

    def person_first(self: recording.Recording, calls: Any) -> Any:
        Commitment.objects.update(status="written_off", due_at=None, lease=None)
        return write(self, calls)

    monkeypatch.setattr(recording.Recording, "record", person_first)

    run = deliver_due()

    row.refresh_from_db()
    assert (row.status, run.issued) == ("written_off", 0)
    assert row.attempts.get().outcome == "answered"
    assert "It did arrive, though a person had decided otherwise" in caplog.text


def test_a_second_run_finds_the_slot_taken(sandbox: Sandbox) -> None:
    CommitmentFactory()
    gate.take_slot(uuid.uuid4(), sweep=False)

    run = deliver_due()

    assert (run.leased, run.stopped) == (0, "Another delivery run is under way.")


def test_a_dead_workers_slot_ends_by_itself(sandbox: Sandbox) -> None:
    CommitmentFactory()
    gate.take_slot(uuid.uuid4(), sweep=False)
    (run_id,) = Gate.objects.get().runs
    Gate.objects.update(runs={run_id: (timezone.now() - dt.timedelta(seconds=1)).timestamp()})

    run = deliver_due()

    assert run.issued == 1
    assert Gate.objects.get().runs == {}


# -- record


@pytest.mark.django_db(transaction=True)
def test_a_failing_write_is_repeated_and_the_call_is_not(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OperationalError("server closed the connection"), OperationalError("deadlock detected")]
    write = recording.Recording._write

    def fail_twice(self: recording.Recording, *args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return write(self, *args, **kwargs)

    monkeypatch.setattr(recording.Recording, "_write", fail_twice)
    monkeypatch.setattr(recording, "PAUSES", (0.0, 0.0))
    CommitmentFactory()

    run = deliver_due()

    assert run.issued == 1
    assert len(sandbox.bookings()) == 1


def test_an_answer_that_the_database_refuses_is_recorded_without_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded_update = recording.guarded_update

    def refuse(using: str, model: type, columns: Any, rows: Any, **kwargs: Any) -> int:
        if model is Commitment and any("ORDER-ODD" in str(value) for row in rows for value in row):
            raise DataError("cannot keep this")
        return guarded_update(using, model, columns, rows, **kwargs)

    monkeypatch.setattr(recording, "guarded_update", refuse)
    odd = CommitmentFactory(reference="ORDER-ODD")
    plain = CommitmentFactory()

    deliver_due()

    odd.refresh_from_db()
    plain.refresh_from_db()
    assert (odd.status, odd.loyalty_units, plain.status, plain.loyalty_units) == (
        "issued",
        None,
        "issued",
        500,
    )


def test_a_time_limit_records_what_is_in_flight(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeLimit(BaseException):
        pass

    collect = delivery.Sender.collect
    hits: list[int] = []

    def interrupt(self: delivery.Sender, *args: Any, **kwargs: Any) -> Any:
        hits.append(1)
        if len(hits) == 1:
            raise TimeLimit
        return collect(self, *args, **kwargs)

    monkeypatch.setattr(delivery.Sender, "collect", interrupt)
    for _ in range(3):
        CommitmentFactory()

    with pytest.raises(TimeLimit):
        deliver_due()

    statuses = set(Commitment.objects.values_list("status", flat=True))
    assert statuses <= {"issued", "queued"}
    assert len(sandbox.bookings()) == Commitment.objects.filter(status="issued").count()
    assert Gate.objects.get().runs == {}


# -- signals, wake-up, statements


def test_signals_follow_the_last_record_and_a_raising_listener_does_no_harm(
    sandbox: Sandbox, settings: Settings
) -> None:
    heard: list[tuple[str, str]] = []

    def listen(sender: Any, commitment: Commitment, **kwargs: Any) -> None:
        heard.append((commitment.reference, commitment.status))
        raise ValueError("a bug of the shop's")

    settings.KOOMALOOMA_CONCURRENCY = 1
    for signal in (commitment_issued, commitment_refused, commitment_in_doubt):
        signal.connect(listen)
    sandbox.misbehave("status", status=400, book=False)
    sandbox.misbehave("status", status=500, book=False)
    for reference in "ABC":
        CommitmentFactory(
            reference=reference, due_at=timezone.now() - dt.timedelta(seconds=100 - ord(reference))
        )
    try:
        deliver_due()
    finally:
        for signal in (commitment_issued, commitment_refused, commitment_in_doubt):
            signal.disconnect(listen)

    assert sorted(heard) == [("A", "refused"), ("B", "in_doubt"), ("C", "issued")]


def test_a_run_that_leaves_something_wakes_the_next(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []
    monkeypatch.setattr(wakeup, "notify", lambda: woken.append(1))
    CommitmentFactory()

    run = deliver_due(seconds=0)

    assert (run.more, woken) == (True, [1])


def test_a_full_window_costs_a_third_of_a_statement_a_row(
    sandbox: Sandbox, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KOOMALOOMA_DAILY_CAP = None
    monkeypatch.setattr(gate, "RUN_SLOT", dt.timedelta(hours=1))  # its renewal is no cost of a row
    collect = delivery.Sender.collect
    monkeypatch.setattr(
        delivery.Sender, "collect", lambda self, into, *args, **kwargs: collect(self, into, 32, 10.0, 10.0)
    )
    campaign = CampaignFactory()
    users = [UserFactory() for _ in range(8)]
    CommitmentFactory.create_batch(8, user=factory.Iterator(users), campaign=campaign)
    deliver_due()
    statements = {}

    for rows in (32, 160):
        CommitmentFactory.create_batch(rows, user=factory.Iterator(users), campaign=campaign)
        with CaptureQueriesContext(connection) as queries:
            assert deliver_due().issued == rows
        statements[rows] = len(queries)

    assert (statements[160] - statements[32]) / 128 < 0.34


@pytest.mark.parametrize("mode", ["dry_run", "off"])
def test_nothing_leaves_unless_the_mode_is_live(mode: str, sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_MODE = mode
    CommitmentFactory()

    run = deliver_due()

    assert (run.leased, run.stopped, sandbox.bookings()) == (0, f"KOOMALOOMA_MODE is {mode}.", [])


def test_a_token_with_a_newline_stops_the_queue_and_is_not_shown(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.KOOMALOOMA_API_TOKEN = "secret\nX-Evil: 1"
    row = CommitmentFactory()

    with caplog.at_level(logging.DEBUG):
        run = deliver_due()

    row.refresh_from_db()
    assert (row.status, gate.state().code) == ("queued", gate.Cause.CONFIGURATION)
    assert "KOOMALOOMA_API_TOKEN" in run.stopped
    assert "secret" not in run.stopped + caplog.text


def test_an_attempt_tells_nothing_of_the_token(sandbox: Sandbox) -> None:
    CommitmentFactory()

    deliver_due()

    assert "sandbox-token" not in str(list(DeliveryAttempt.objects.values()))


def test_attempts_are_numbered(sandbox: Sandbox) -> None:
    row = CommitmentFactory(tries=1)
    DeliveryAttemptFactory(
        commitment=row, lease=uuid.uuid4(), number=1, outcome="not_sent", ended_at=timezone.now()
    )

    deliver_due()

    assert list(row.attempts.values_list("number", "outcome")) == [(1, "not_sent"), (2, "answered")]


def test_old_attempts_of_what_is_finished_are_pruned_and_no_others(
    sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_RETENTION_DAYS = 30
    old, new = timezone.now() - dt.timedelta(days=31), timezone.now() - dt.timedelta(days=29)
    for status, ended_at in (("issued", old), ("issued", new), ("in_doubt", old), ("refused", old)):
        row = CommitmentFactory(**{status: True}, reference=f"{status} {ended_at:%d}")
        DeliveryAttemptFactory(commitment=row, lease=uuid.uuid4(), ended_at=ended_at)

    deliver_due(sweep=False)
    before = DeliveryAttempt.objects.count()
    deliver_due()

    assert before == 4
    assert sorted(DeliveryAttempt.objects.values_list("commitment__reference", flat=True)) == sorted(
        [f"in_doubt {old:%d}", f"issued {new:%d}", f"refused {old:%d}"]
    )
    assert Commitment.objects.count() == 4


def test_a_time_limit_in_the_middle_of_a_record_loses_no_answer(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TimeLimit(BaseException):
        pass

    guarded_update = recording.guarded_update
    hits: list[int] = []

    def interrupt(using: str, model: type, *args: Any, **kwargs: Any) -> int:
        written = guarded_update(using, model, *args, **kwargs)
        hits.append(written)
        if len(hits) == 1:
            raise TimeLimit
        return written

    monkeypatch.setattr(recording, "guarded_update", interrupt)
    CommitmentFactory()

    with pytest.raises(TimeLimit):
        deliver_due()

    assert Commitment.objects.get().status == "issued"
    assert len(sandbox.bookings()) == 1


# -- what a hostile reader found


def test_a_policy_that_returns_nothing_refuses_nothing(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.ForgetfulPolicy"
    CommitmentFactory()

    run = deliver_due()

    assert run.issued == 1


class ForgetfulPolicy(Policy):
    """Forgets to return anything."""

    def refusal(self, commitment: Commitment) -> Any:
        return None


def test_the_policy_is_asked_before_any_row_is_locked(
    sandbox: Sandbox, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KOOMALOOMA_POLICY = f"{__name__}.RefusingPolicy"
    asked: list[int] = []
    lock_due = CommitmentQuerySet.lock_due
    refusal = RefusingPolicy.refusal

    def ask(self: RefusingPolicy, row: Commitment) -> str:
        asked.append(row.pk)
        return refusal(self, row)

    monkeypatch.setattr(RefusingPolicy, "refusal", ask)

    def lock(self: Any, *args: Any) -> Any:
        seen.append(len(asked))
        return lock_due(self, *args)

    seen: list[int] = []
    monkeypatch.setattr(CommitmentQuerySet, "lock_due", lock)
    CommitmentFactory()

    deliver_due()

    assert seen[0] == len(asked) == 1


def test_what_belongs_to_a_deleted_campaign_is_cancelled_and_the_others_are_sent(sandbox: Sandbox) -> None:
    orphan, good = CommitmentFactory(), CommitmentFactory()
    Commitment.objects.filter(pk=orphan.pk).update(campaign_id=999_999)

    run = deliver_due()

    orphan.refresh_from_db()
    assert (orphan.status, orphan.reason) == ("cancelled", "Its campaign was deleted before it was sent.")
    assert (run.issued, run.cancelled) == (1, 1)
    assert [booking["campaign_id"] for booking in sandbox.bookings()] == [good.campaign.remote_id]


def test_a_mistake_while_calls_are_made_ready_leases_nothing(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> str:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(leasing, "format_amount", fail)
    CommitmentFactory()

    with pytest.raises(KeyError):
        deliver_due()

    row = Commitment.objects.get()
    assert (row.status, row.attempts.count()) == ("queued", 0)


def test_a_hanging_customer_is_tried_once_for_all_his_rows(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_READ_TIMEOUT = 0.3
    sandbox.misbehave("silence_before_booking", call="users", times=1, seconds=2.0)
    user, campaign = UserFactory(), CampaignFactory()
    CommitmentFactory.create_batch(6, user=user, campaign=campaign)

    run = deliver_due()

    assert (run.requeued, run.issued, run.in_doubt) == (6, 6, 0)
    assert gate.state().is_sending


def test_a_customer_who_can_never_be_created_is_refused_once_others_went_well(
    sandbox: Sandbox, settings: Settings
) -> None:
    settings.KOOMALOOMA_CONCURRENCY = 1
    bad = CommitmentFactory()
    sandbox.misbehave("status", status=500, call="users", times=5)
    deliver_due()
    sandbox.behave()
    CommitmentFactory()
    Gate.objects.update(next_probe_at=timezone.now())
    Commitment.objects.filter(pk=bad.pk).update(due_at=timezone.now() + dt.timedelta(hours=1))
    assert deliver_due().issued == 1
    Commitment.objects.filter(pk=bad.pk).update(due_at=timezone.now())
    sandbox.misbehave("status", status=500, call="users", times=None)

    deliver_due()

    bad.refresh_from_db()
    assert (bad.status, gate.state().is_sending) == ("refused", True)


def test_a_good_order_is_probed_before_a_bad_one_that_is_older(sandbox: Sandbox) -> None:
    CommitmentFactory(tries=7, due_at=timezone.now() - dt.timedelta(hours=5))
    good = CommitmentFactory()
    gate.stop("Out of order.", gate.Cause.UNREACHABLE)
    Gate.objects.update(next_probe_at=timezone.now())
    sandbox.misbehave("status", status=500, call="users", times=None)

    deliver_due()

    good.refresh_from_db()
    customers = KoomaloomaUser.objects.values_list("user", flat=True)
    assert list(customers) == [good.user_id]


def test_a_conflict_at_users_never_renames_a_customer(sandbox: Sandbox) -> None:
    customer = KoomaloomaUserFactory(registered=True, remote_id="good-id")
    sandbox.misbehave("status", status=409, call="users", body='{"id": "err-77f1"}')
    CommitmentFactory(user=customer.user, session_id="another")

    deliver_due()

    customer.refresh_from_db()
    assert customer.remote_id == "good-id"


def test_runs_side_by_side_share_what_a_cap_leaves(sandbox: Sandbox, settings: Settings) -> None:
    settings.KOOMALOOMA_DAILY_CAP = 2000
    settings.KOOMALOOMA_RUNS = 4
    settings.KOOMALOOMA_CONCURRENCY = 1
    checks: list[int | None] = []
    check_caps = gate.check_caps

    def check(now: dt.datetime) -> int | None:
        checks.append(check_caps(now))
        return checks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "check_caps", check)
        CommitmentFactory.create_batch(5)
        deliver_due()

    assert checks == [2000, 1500, 1000, 500, 0]


def test_account_trouble_after_a_success_that_began_earlier_refuses_nothing(sandbox: Sandbox) -> None:
    row = CommitmentFactory(tries=1)
    trouble_at = timezone.now() - dt.timedelta(minutes=10)
    DeliveryAttemptFactory(
        commitment=row, lease=uuid.uuid4(), outcome="account", http_status=402, ended_at=trouble_at
    )
    slower = CommitmentFactory(issued=True)
    DeliveryAttemptFactory(
        commitment=slower,
        lease=uuid.uuid4(),
        outcome="answered",
        started_at=trouble_at - dt.timedelta(seconds=5),
        ended_at=trouble_at + dt.timedelta(seconds=5),
    )
    sandbox.misbehave("status", status=402)

    deliver_due()

    row.refresh_from_db()
    assert row.status == "queued"


def test_an_interruption_while_answers_are_collected_loses_none(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TimeLimit(BaseException):
        pass

    collect = delivery.Sender.collect
    hits: list[int] = []

    def interrupt(self: Any, into: list[Any], *args: Any, **kwargs: Any) -> None:
        collect(self, into, *args, **kwargs)
        hits.append(len(into))
        if len(hits) == 1:
            raise TimeLimit

    monkeypatch.setattr(delivery.Sender, "collect", interrupt)
    CommitmentFactory.create_batch(3)

    with pytest.raises(TimeLimit):
        deliver_due()

    assert hits[0] > 0
    assert Commitment.objects.filter(status="sending").count() == 0
    assert len(sandbox.bookings()) == Commitment.objects.filter(status="issued").count()


def test_a_run_that_lost_its_slot_leases_nothing_more(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "RUN_SLOT", dt.timedelta(0))
    CommitmentFactory()
    run = delivery._DeliveryRun(30.0)
    take_slot = gate.take_slot
    answers = iter([True])
    monkeypatch.setattr(gate, "take_slot", lambda *args, **kwargs: next(answers, False))

    done = run.work(sweep=False)

    monkeypatch.setattr(gate, "take_slot", take_slot)
    assert (done.leased, done.more) == (0, True)


def test_an_emptied_id_makes_the_customer_known_again(sandbox: Sandbox) -> None:
    customer = KoomaloomaUserFactory(registered=True, remote_id="unknown-there")
    row = CommitmentFactory(user=customer.user)
    deliver_due()
    row.refresh_from_db()
    refused = row.status
    KoomaloomaUser.objects.filter(pk=customer.pk).update(remote_id="")
    Commitment.objects.filter(pk=row.pk).update(status="queued", due_at=timezone.now())

    deliver_due()

    row.refresh_from_db()
    assert (refused, row.status) == ("refused", "issued")
