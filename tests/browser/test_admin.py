"""The clerk's work in a real browser: the first page and each decision, by clicking only."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from django_koomalooma import gate, review
from django_koomalooma.models import Commitment, Gate
from tests.factories import CampaignFactory, CommitmentFactory, DeliveryAttemptFactory, UserFactory

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Open = Callable[..., Page]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

HOME = "/admin/koomalooma/"
ALL = ("view_commitment", "manage_commitment", "settle_commitment")


def make(status: str, reference: str = "ORDER-77", **values: Any) -> Commitment:
    """Return a commitment of that status, whose last call was an hour ago."""
    if status != "queued":
        values[status] = True
    values.setdefault("campaign", CampaignFactory(name="Spring"))
    row: Commitment = CommitmentFactory(  # type: ignore[assignment, no-untyped-call]  # factory-boy is untyped
        reference=reference,
        terms={"net_value": "100.00"},
        user=UserFactory(username=f"shopper-of-{reference}"[:150]),
        **values,
    )
    if row.tries:
        DeliveryAttemptFactory(  # type: ignore[no-untyped-call]  # as above
            commitment=row,
            lease=row.lease or uuid.uuid4(),
            started_at=timezone.now() - dt.timedelta(hours=1),
            outcome="in_doubt",
            error="ReadTimeout",
        )
    return row


@pytest.mark.parametrize(
    ("status", "button", "after"),
    [
        ("queued", "Send now", "queued"),
        ("queued", "Hold back", "queued"),
        ("queued", "Cancel: no points", "cancelled"),
        ("cancelled", "Give points after all", "queued"),
        ("skipped", "Give points after all", "queued"),
        ("in_doubt", "It arrived", "issued"),
        ("in_doubt", "Send again", "queued"),
        ("in_doubt", "Give up", "written_off"),
        ("refused", "Send again", "queued"),
        ("written_off", "It arrived", "issued"),
    ],
)
def test_decision_on_the_page_of_a_commitment(open_as: Open, status: str, button: str, after: str) -> None:
    row = make(status)
    page = open_as(*ALL)

    page.goto(f"/admin/koomalooma/commitment/{row.pk}/change/")
    page.get_by_role("button", name=f"{button}…", exact=True).click()
    assert row.decisions.count() == 0
    page.get_by_label("Why").fill("Support said so.")
    page.get_by_role("button", name=button, exact=True).click()

    page.get_by_text(f"{button}: ORDER-77.").wait_for()
    row.refresh_from_db()
    assert row.status == after
    assert (row.decisions.get().by, row.decisions.get().why) == ("ada", "Support said so.")


def test_reopening_what_a_person_had_settled(open_as: Open) -> None:
    row = make("in_doubt")
    review.settle(row, "bob", units=5)
    page = open_as(*ALL)

    page.goto(f"/admin/koomalooma/commitment/{row.pk}/change/")
    page.get_by_role("button", name="It did not arrive after all…").click()
    page.get_by_role("button", name="It did not arrive after all", exact=True).click()
    assert page.get_by_label("Why").evaluate("field => field.matches(':invalid')")
    page.get_by_label("Why").fill("The customer complained.")
    page.get_by_role("button", name="It did not arrive after all", exact=True).click()

    page.get_by_text("It did not arrive after all: ORDER-77.").wait_for()
    row.refresh_from_db()
    assert row.status == "in_doubt"


def test_many_are_decided_from_the_list(open_as: Open) -> None:
    make("queued", "ORDER-1")
    make("in_doubt", "ORDER-2", campaign=CampaignFactory())
    page = open_as(*ALL)

    page.goto("/admin/koomalooma/commitment/")
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("cancel")
    page.get_by_role("button", name="Run", exact=False).or_(
        page.get_by_role("button", name="Go")
    ).first.click()
    page.get_by_text("This will happen to 1 commitment").wait_for()
    page.get_by_text("Left out: 1").wait_for()
    page.get_by_role("button", name="Cancel: no points").click()

    page.get_by_text("Cancel: no points: ORDER-1.").wait_for()
    assert dict(Commitment.objects.values_list("reference", "status")) == {
        "ORDER-1": "cancelled",
        "ORDER-2": "in_doubt",
    }


def test_going_back_changes_nothing(open_as: Open) -> None:
    row = make("in_doubt")
    page = open_as(*ALL)

    page.goto(f"/admin/koomalooma/commitment/{row.pk}/change/")
    page.get_by_role("button", name="Give up…").click()
    page.get_by_text("No, go back").click()

    page.wait_for_url(f"**/commitment/{row.pk}/change/")
    row.refresh_from_db()
    assert row.status == "in_doubt"


def test_first_page_pauses_and_goes_on(open_as: Open) -> None:
    make("queued")
    gate.read()
    Gate.objects.update(swept_at=timezone.now(), ran_at=timezone.now())
    page = open_as(*ALL)

    page.goto(HOME)
    page.get_by_text("Sending. 1 waiting").wait_for()
    page.get_by_role("link", name="Pause sending").click()
    page.get_by_label("Why").fill("Stock-taking")
    page.get_by_role("button", name="Pause sending").click()
    page.get_by_text("Paused by ada: Stock-taking").wait_for()
    assert not gate.state().is_sending
    page.get_by_role("link", name="Go on").click()
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("Sending. 1 waiting").wait_for()

    assert gate.state().is_sending


def test_first_page_finds_an_order_and_leads_to_what_needs_a_decision(open_as: Open) -> None:
    make("issued", "ORDER-1")
    row = make("in_doubt", "ORDER-2", campaign=CampaignFactory())
    page = open_as(*ALL)

    page.goto(HOME)
    page.get_by_label("Find an order").fill("ORDER-1")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name="ORDER-1").wait_for()
    assert page.get_by_role("link", name="ORDER-2").count() == 0
    page.goto(HOME)
    page.get_by_role("link", name="Unclear ORDER-2").click()

    page.wait_for_url(f"**/commitment/{row.pk}/change/")


@pytest.mark.parametrize("width", [1280, 390], ids=["wide", "narrow"])
def test_no_page_is_wider_than_the_screen(open_as: Open, width: int) -> None:
    row = make("in_doubt", "ORDER-" + "X" * 200)
    page = open_as(*ALL, "view_campaign", width=width)

    for address in (
        HOME,
        f"/admin/koomalooma/commitment/{row.pk}/change/",
        "/admin/koomalooma/commitment/sending/pause/",
    ):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
