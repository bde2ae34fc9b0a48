"""What staff may decide: each decision on each status, against double clicks and late answers."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings
from pytest_django.fixtures import DjangoCaptureOnCommitCallbacks

from django_koomalooma import gate, review, wakeup
from django_koomalooma.client import Verdict
from django_koomalooma.delivery import deliver_due
from django_koomalooma.earning import amend, earn
from django_koomalooma.earning import cancel as withdraw
from django_koomalooma.exceptions import NotAllowed
from django_koomalooma.history import keep_late_answer
from django_koomalooma.models import Commitment, Decision
from django_koomalooma.querysets import CommitmentQuerySet
from django_koomalooma.replies import read_commitment
from django_koomalooma.review import sending
from django_koomalooma.sandbox import Sandbox
from django_koomalooma.signals import commitment_issued
from django_koomalooma.statuses import may_become
from tests.factories import (
    CampaignFactory,
    CommitmentFactory,
    DeliveryAttemptFactory,
    UserFactory,
    make_event,
)

pytestmark = pytest.mark.django_db

STATUSES = ["queued", "sending", "issued", "refused", "in_doubt", "cancelled", "written_off", "skipped"]
WISH = review.Wish(why="Support said so.", until=timezone.now() + dt.timedelta(days=3650))
LATE_201 = read_commitment(b'{"id": "late-1", "loyalty_units": 500, "confirmation_status": "pending"}')


def make(status: str, **values: Any) -> Commitment:
    """Return a commitment of that status, with all that its decisions may need."""
    if status != "queued":
        values[status] = True
    values.setdefault("campaign", CampaignFactory())
    return CommitmentFactory(terms={"net_value": "100.00"}, **values)  # type: ignore[no-any-return, no-untyped-call]  # factory-boy is untyped


def ago(**span: float) -> dt.datetime:
    """Return a time in the past."""
    return timezone.now() - dt.timedelta(**span)


ALLOWED = {
    "send_now": {"queued": "queued"},
    "hold": {"queued": "queued"},
    "cancel": {"queued": "cancelled", "refused": "cancelled"},
    "restore": {"cancelled": "queued", "skipped": "queued", "refused": "queued"},
    "settle": {"in_doubt": "issued", "written_off": "issued"},
    "send_again": {"in_doubt": "queued", "refused": "queued"},
    "give_up": {"in_doubt": "written_off"},
    "reopen": {},  # only what a person had settled: see below
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("verb", review.VERBS)
def test_each_decision_is_allowed_on_its_statuses_only(verb: str, status: str) -> None:
    row = make(status)
    before = Commitment.objects.values().get()

    if status in ALLOWED[verb]:
        review.decide(verb, row, "ada", WISH)
        after = Commitment.objects.get()
        assert after.status == ALLOWED[verb][status]
        assert after.lease is None
        decision = Decision.objects.get()
        assert (decision.what, decision.by, decision.why, decision.before, decision.after) == (
            verb, "ada", "Support said so.", status, after.status,
        )  # fmt: skip
    else:
        with pytest.raises(NotAllowed):
            review.decide(verb, row, "ada", WISH)
        assert Commitment.objects.values().get() == before
        assert not Decision.objects.exists()


def test_no_decision_makes_a_step_that_the_statuses_do_not_know() -> None:
    for verb in review.VERBS.values():
        for before in verb.before:
            assert before == verb.after or may_become(before, verb.after)


def test_settle_keeps_the_id_and_points_that_the_person_knows() -> None:
    row = make("in_doubt")
    call = DeliveryAttemptFactory(commitment=row, started_at=ago(days=3))

    review.settle(row, UserFactory(username="ada"), commitment_id=" c-9 ", units=250, evidence="Invoice 7")

    row = Commitment.objects.get()
    assert (row.status, row.remote_id, row.loyalty_units) == ("issued", "c-9", 250)
    assert row.reason == "Settled by a person: Invoice 7"
    assert row.issued_at == call.started_at
    decision = row.decisions.get()
    assert (decision.by, decision.user.username) == ("ada", "ada")
    assert decision.details == {"commitment_id": "c-9", "units": 250}


def test_settle_tells_listeners_once_it_is_committed(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    told: list[int] = []

    def listen(commitment: Commitment, **kwargs: object) -> None:
        told.append(commitment.pk)

    row = make("in_doubt")
    commitment_issued.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            review.settle(row, "ada")
    finally:
        commitment_issued.disconnect(listen)

    assert told == [row.pk]


@pytest.mark.parametrize("units", [-1, 2**63])
def test_settle_refuses_points_that_cannot_be(units: int) -> None:
    row = make("in_doubt")

    with pytest.raises(NotAllowed):
        review.settle(row, "ada", units=units)

    assert Commitment.objects.get().status == "in_doubt"


def test_settle_gives_one_id_to_one_commitment_only() -> None:
    rows = [make("in_doubt"), make("in_doubt")]

    with pytest.raises(NotAllowed):
        review.settle(rows, "ada", commitment_id="c-9")

    assert set(Commitment.objects.values_list("status", flat=True)) == {"in_doubt"}


def test_send_again_waits_until_a_late_answer_cannot_come_any_more() -> None:
    early, ripe = make("in_doubt"), make("in_doubt")
    DeliveryAttemptFactory(commitment=early, started_at=ago(minutes=14))
    DeliveryAttemptFactory(commitment=ripe, started_at=ago(minutes=16))

    result = review.send_again([early, ripe], "ada", why="Support has not got it.")

    assert result.done == [ripe]
    assert [row for row, _ in result.left_out] == [early]
    assert "Wait until" in result.left_out[0][1]


def test_send_again_needs_a_reason() -> None:
    with pytest.raises(NotAllowed):
        review.send_again(make("in_doubt"), "ada", why=" ")

    assert Commitment.objects.get().status == "in_doubt"


def test_send_again_allows_one_more_booking_and_no_third(sandbox: Sandbox) -> None:
    CampaignFactory()
    row = earn(make_event())
    sandbox.misbehave("close_after_booking")
    deliver_due()
    row.attempts.update(started_at=ago(minutes=20))
    seen = Commitment.objects.get()
    assert seen.status == "in_doubt"

    review.send_again(seen, "ada", why="Support has not got it.")
    with pytest.raises(NotAllowed):
        review.send_again(seen, "ada", why="Clicked twice.")
    deliver_due()
    deliver_due()

    assert Commitment.objects.get().status == "issued"
    assert len(sandbox.bookings()) == 2
    assert Decision.objects.filter(what="send_again").count() == 1


def test_send_again_leaves_alone_what_the_shop_has_withdrawn() -> None:
    row = make("in_doubt", withdrawn_at=ago(days=1), net_value=Decimal(0))

    with pytest.raises(NotAllowed, match="withdrawn"):
        review.send_again(row, "ada", why="Try")


def test_hold_keeps_a_commitment_until_then() -> None:
    row = make("queued")
    until = timezone.now() + dt.timedelta(days=3)

    review.hold(row, "ada", until=until, why="May come back")

    row = Commitment.objects.get()
    assert (row.status, row.due_at, row.reason) == ("queued", until, "May come back")


@pytest.mark.parametrize("days", [-1, 4000])
def test_hold_refuses_a_time_that_makes_no_sense(days: int) -> None:
    row = make("queued")

    with pytest.raises(NotAllowed):
        review.hold(row, "ada", until=timezone.now() + dt.timedelta(days=days))


def test_send_now_ends_the_hold_and_wakes_a_worker(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    woken: list[bool] = []
    monkeypatch.setattr(wakeup, "notify", lambda: woken.append(True))
    row = make("queued", held=True)

    with django_capture_on_commit_callbacks(execute=True):
        review.send_now(row, "ada")

    assert Commitment.objects.due(timezone.now() + dt.timedelta(seconds=1)).count() == 1
    assert woken == [True]


def test_restore_takes_back_a_cancellation_by_the_shop_with_the_first_value() -> None:
    CampaignFactory()
    earn(make_event(value=Decimal("80.00")))
    withdraw("purchase", "ORDER-1")
    row = Commitment.objects.get()
    assert (row.status, row.net_value) == ("cancelled", 0)

    review.restore(row, "ada")

    row = Commitment.objects.get()
    assert (row.status, row.net_value, row.withdrawn_at) == ("queued", Decimal("80.00"), None)


@pytest.mark.parametrize("withdraw_by", ["cancel", "amend"])
def test_restore_takes_the_value_that_the_shop_amended_it_to_last(withdraw_by: str) -> None:
    CampaignFactory()
    earn(make_event(value=Decimal("80.00")))
    amend("purchase", "ORDER-1", Decimal("30.00"))
    if withdraw_by == "amend":
        amend("purchase", "ORDER-1", Decimal(0))
        review.cancel(Commitment.objects.get(), "ada")
    withdraw("purchase", "ORDER-1")
    withdraw("purchase", "ORDER-1")  # the shop says it twice
    row = Commitment.objects.get()
    assert (row.status, row.net_value) == ("cancelled", 0)

    (step,) = review.preview("restore", [row])
    review.restore(row, "ada")

    assert "30.00 EUR" in step.sentence
    row = Commitment.objects.get()
    assert (row.status, row.net_value, row.withdrawn_at) == ("queued", Decimal("30.00"), None)


def test_restore_minds_the_days_that_the_campaign_holds() -> None:
    paid = ago(days=1)
    CampaignFactory(hold_days=14)
    earn(make_event(occurred_at=paid))
    row = Commitment.objects.get()
    review.cancel(row, "ada")

    review.restore(row, "ada")

    assert Commitment.objects.get().due_at == paid + dt.timedelta(days=14)


@pytest.mark.parametrize(
    "values",
    [{"user": None}, {"terms": {"before_event": True}}, {"net_value": 0, "terms": {}}],
    ids=["nobody", "before the event", "worth nothing"],
)
def test_restore_refuses_what_could_not_be_sent(values: dict[str, Any]) -> None:
    row = CommitmentFactory(cancelled=True, **values)

    with pytest.raises(NotAllowed):
        review.restore(row, "ada")

    assert Commitment.objects.get().status == "cancelled"


def test_restore_sends_nothing_in_a_dry_run(settings: Settings) -> None:
    settings.KOOMALOOMA_MODE = "dry_run"

    with pytest.raises(NotAllowed, match="dry_run"):
        review.restore(make("skipped"), "ada")


def test_what_had_no_campaign_is_awarded_once_there_is_one() -> None:
    row = earn(make_event(value=Decimal("80.00"), occurred_at=ago(days=2), description="Two chairs"))
    assert row.status == "skipped"
    with pytest.raises(NotAllowed, match="No campaign"):
        review.restore(row, "ada")
    campaign = CampaignFactory(name="Spring", starts_at=ago(hours=1), category="chairs")

    (step,) = review.preview("restore", [row])
    review.restore(row, "ada")

    assert "80.00 EUR, campaign “Spring”" in step.sentence
    assert "before the campaign began" in step.sentence
    row = Commitment.objects.get()
    assert (row.status, row.campaign, row.net_value, row.category) == (
        "queued", campaign, Decimal("80.00"), "chairs",
    )  # fmt: skip
    assert row.description == f"Two chairs KL-{row.trace_key}"


def test_what_is_awarded_later_is_worth_what_the_shop_amended_it_to() -> None:
    earn(make_event(value=Decimal("80.00")))
    amend("purchase", "ORDER-1", Decimal("30.00"))
    CampaignFactory()

    review.restore(Commitment.objects.get(), "ada")

    assert Commitment.objects.get().net_value == Decimal("30.00")


def test_what_is_awarded_later_minds_the_campaigns_minimum() -> None:
    row = earn(make_event(value=Decimal("80.00")))
    CampaignFactory(minimum_value=Decimal(100))

    with pytest.raises(NotAllowed, match="minimum"):
        review.restore(row, "ada")


def test_what_a_person_settled_can_be_opened_again() -> None:
    row = make("in_doubt")
    review.settle(row, "ada", commitment_id="c-9", units=250)

    review.reopen(row, "bob", why="It was another order.")

    row = Commitment.objects.get()
    assert (row.status, row.remote_id, row.loyalty_units, row.issued_at) == ("in_doubt", "", None, None)
    assert [d.what for d in row.decisions.all()] == ["settle", "reopen"]


def test_cancelling_what_was_sent_again_says_that_it_may_have_arrived() -> None:
    row = make("in_doubt")
    review.send_again(row, "ada", why="Lost")

    review.cancel(row, "ada")

    assert "may have arrived" in Commitment.objects.get().reason


def test_a_decision_on_a_row_that_changed_is_left_out() -> None:
    row = make("queued")
    stale = Commitment.objects.get()
    review.hold(row, "ada", until=timezone.now() + dt.timedelta(days=3))

    result = review.cancel([stale], "bob")

    assert result.done == []
    assert result.left_out == [(stale, review.CHANGED)]
    assert Commitment.objects.get().status == "queued"


def test_a_decision_on_what_a_run_has_leased_meanwhile_does_nothing() -> None:
    row = make("queued")
    stale = Commitment.objects.get()
    Commitment.objects.filter(pk=row.pk).update(status="sending", lease=uuid.uuid4())

    with pytest.raises(NotAllowed):
        review.cancel(stale, "ada")

    assert Commitment.objects.get().status == "sending"


def test_a_decision_on_an_older_page_is_left_out() -> None:
    row = make("in_doubt")
    seen = {row.pk: review.version(row)}
    Commitment.objects.update(updated_at=timezone.now() + dt.timedelta(seconds=1))

    result = review.decide("give_up", [Commitment.objects.get()], "ada", review.Wish(), seen=seen)

    assert result.done == []
    assert Commitment.objects.get().status == "in_doubt"


def test_preview_writes_nothing() -> None:
    rows = [make(status) for status in STATUSES]
    before = list(Commitment.objects.values())

    for verb in review.VERBS:
        review.preview(verb, rows)

    assert list(Commitment.objects.values()) == before
    assert not Decision.objects.exists()


# -- answers that come after a person has decided


def test_late_answer_never_overrides_a_person_and_raises_a_double_loudly(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    row = make("in_doubt")
    review.send_again(row, "ada", why="Lost")
    deliver_due()
    assert Commitment.objects.get().status == "issued"

    keep_late_answer(row.pk, Verdict.ANSWERED, LATE_201, "", timezone.now())

    row = Commitment.objects.get()
    assert row.status == "issued"
    assert row.remote_id != "late-1"
    assert "Booked twice" in row.reason
    assert [r.levelno for r in caplog.records if "Booked twice" in r.message] == [logging.CRITICAL]
    late = row.decisions.last()
    assert late is not None
    assert (late.what, late.by, late.details["commitment_id"]) == ("late_answer", "koomalooma", "late-1")


@pytest.mark.parametrize(
    ("verb", "status", "cries"),
    [("settle", "issued", False), ("give_up", "written_off", True), ("send_again", "issued", False)],
)
def test_late_proof_meets_what_a_person_decided(
    verb: str, status: str, cries: bool, caplog: pytest.LogCaptureFixture
) -> None:
    row = make("in_doubt")
    review.decide(verb, row, "ada", WISH)

    keep_late_answer(row.pk, Verdict.ANSWERED, LATE_201, "", timezone.now())

    after = Commitment.objects.get()
    assert after.status == status
    assert (after.loyalty_units == 500) == (status == "issued")
    assert any(record.levelno == logging.CRITICAL for record in caplog.records) == cries


def test_late_proof_stops_the_second_sending_that_it_makes_needless(sandbox: Sandbox) -> None:
    row = make("in_doubt")
    review.send_again(row, "ada", why="Lost")

    keep_late_answer(row.pk, Verdict.ANSWERED, LATE_201, "", timezone.now())
    deliver_due()

    assert sandbox.bookings() == []
    assert Commitment.objects.get().remote_id == "late-1"


def test_what_was_given_up_is_settled_with_what_the_late_answer_said() -> None:
    row = make("in_doubt")
    review.give_up(row, "ada")
    keep_late_answer(row.pk, Verdict.ANSWERED, LATE_201, "", timezone.now())

    review.settle(Commitment.objects.get(), "ada")

    row = Commitment.objects.get()
    assert (row.status, row.remote_id, row.loyalty_units) == ("issued", "late-1", 500)


def test_late_refusal_of_what_a_person_settled_is_cried_out(caplog: pytest.LogCaptureFixture) -> None:
    row = make("in_doubt")
    review.settle(row, "ada")

    keep_late_answer(row.pk, Verdict.REFUSED, None, "koomalooma refused it (HTTP 400).", timezone.now())

    assert Commitment.objects.get().status == "issued"
    assert "did not" in Commitment.objects.get().reason
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


# -- sending as a whole


def test_first_token_sends_what_was_recorded(settings: Settings, sandbox: Sandbox) -> None:
    CampaignFactory()
    token, settings.KOOMALOOMA_API_TOKEN = settings.KOOMALOOMA_API_TOKEN, ""
    earn(make_event())
    deliver_due()
    settings.KOOMALOOMA_API_TOKEN = token
    deliver_due()
    assert [choice.name for choice in review.choices(gate.state().code)] == [
        "send_recorded",
        "only_from_now_on",
    ]

    review.send_recorded("ada")
    deliver_due()

    assert len(sandbox.bookings()) == 1


def test_first_token_can_mean_only_from_now_on(settings: Settings, sandbox: Sandbox) -> None:
    CampaignFactory()
    token, settings.KOOMALOOMA_API_TOKEN = settings.KOOMALOOMA_API_TOKEN, ""
    earn(make_event())
    settings.KOOMALOOMA_API_TOKEN = token
    deliver_due()

    review.only_from_now_on("ada")
    later = earn(make_event(reference="ORDER-2"))
    deliver_due()

    row = Commitment.objects.get(reference="ORDER-1")
    assert (row.status, row.decisions.get().by) == ("cancelled", "ada")
    assert [booking["promotion_goal_description"] for booking in sandbox.bookings()] == [later.description]


def test_only_from_now_on_comes_to_an_end_though_a_snapshot_still_shows_what_others_cancelled(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    CampaignFactory()
    token, settings.KOOMALOOMA_API_TOKEN = settings.KOOMALOOMA_API_TOKEN, ""
    rows = [earn(make_event(reference=str(number))) for number in range(5)]
    settings.KOOMALOOMA_API_TOKEN = token
    deliver_due()
    written: list[dict[str, Any]] = []

    def write_nothing(self: CommitmentQuerySet, **values: Any) -> int:
        assert len(written) < len(rows), "each row is tried once"
        written.append(values)
        return 0

    monkeypatch.setattr(CommitmentQuerySet, "update", write_nothing)
    monkeypatch.setattr(sending, "_MANY", 2)

    review.only_from_now_on("ada")

    assert [values["status"] for values in written] == ["cancelled"] * 5


@pytest.mark.parametrize(
    ("cause", "names"),
    [
        ("", ["pause"]),
        (gate.Cause.PERSON, ["go_on"]),
        (gate.Cause.ACCOUNT, ["pause", "go_on"]),
        (gate.Cause.NO_TOKEN, []),
        (gate.Cause.CAP, []),
        (gate.Cause.MOVED, ["moved", "copy"]),
        (gate.Cause.COPY, ["moved"]),
    ],
)
def test_each_stop_offers_its_own_choices(cause: str, names: list[str]) -> None:
    assert [choice.name for choice in review.choices(cause)] == names


def test_pause_and_go_on() -> None:
    review.choose("pause", "ada", "stock-taking")
    assert gate.state().reason == "Paused by ada: stock-taking"
    with pytest.raises(NotAllowed):
        review.choose("pause", "bob")

    review.choose("go_on", "bob")

    assert gate.state().is_sending


def test_copy_never_sends_and_can_be_taken_back(sandbox: Sandbox) -> None:
    make("queued")
    gate.stop("The database is another one.", gate.Cause.MOVED)

    review.choose("copy", "ada")
    deliver_due()
    assert sandbox.bookings() == []
    review.choose("moved", "ada")
    deliver_due()

    assert len(sandbox.bookings()) == 1


def test_late_answer_for_a_deleted_row_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    keep_late_answer(4711, Verdict.ANSWERED, LATE_201, "", timezone.now())

    assert "was deleted" in caplog.text
