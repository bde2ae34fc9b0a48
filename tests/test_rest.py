"""The REST addresses: what a customer may read, and what not."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory
from django.urls import include, path
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import force_authenticate

from django_koomalooma.rest.views import CommitmentListView
from django_koomalooma.widget import SESSION_KEY
from tests.factories import CampaignFactory, CommitmentFactory, UserFactory

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = [path("koomalooma/", include("django_koomalooma.rest.urls"))]

REPLY = {
    "id": "c-1",
    "user_id": "u-1",
    "partner_id": "sandbox-partner",
    "loyalty_units": 500,
    "free_loyalty_units": 500,
    "redeemable_loyalty_units": 0,
    "redeemed_loyalty_units": 0,
    "redeemed": False,
    "loyalty_accumulation_value": "5.00",
    "goal": {"type": "purchase", "value": "100"},
    "confirmation_status": "pending",
    "promotion_goal_description": "Order A-1",
    "promotion_goal_category": "purchase",
    "created_at": "2026-11-02T10:00:00+00:00",
    "updated_at": "2026-11-02T10:00:00+00:00",
    "something_new": "not shown",
}


@pytest.fixture
def shopper(client: Client) -> object:
    user = UserFactory()
    client.force_login(user)
    return user


def test_a_customer_reads_each_named_field_and_nothing_else(client: Client, shopper: object) -> None:
    row = CommitmentFactory(
        issued=True,
        user=shopper,
        reference="A-1",
        net_value=Decimal("80.50"),
        transaction_value=Decimal("100.00"),
        occurred_at=dt.datetime(2026, 11, 2, 9, 0, tzinfo=dt.UTC),
        issued_at=dt.datetime(2026, 11, 2, 10, 0, tzinfo=dt.UTC),
        reason="settled by Ann: rude words",
        reply=REPLY,
    )

    answer = client.get("/koomalooma/commitments/")

    assert answer.status_code == 200
    shown = {name: value for name, value in REPLY.items() if name != "something_new"}
    assert len(shown) == 15
    assert answer.json() == {
        "count": 1,
        "next": None,
        "previous": None,
        "results": [
            {
                "code": row.trace_key,
                "status": "issued",
                "goal": "purchase",
                "reference": "A-1",
                "description": "Order A-1",
                "site": "",
                "value": "80.50",
                "currency": "EUR",
                "points": 500,
                "occurred_at": "2026-11-02T10:00:00+01:00",
                "sends_at": None,
                "issued_at": "2026-11-02T11:00:00+01:00",
                "koomalooma": shown,
            }
        ],
    }


@pytest.mark.parametrize("reply", [None, [], "text", {"raw": "<html>"}], ids=repr)
def test_an_answer_that_could_not_be_read_is_unknown_field_by_field(
    client: Client, shopper: object, reply: object
) -> None:
    CommitmentFactory(issued=True, user=shopper, loyalty_units=None, reply=reply)

    (row,) = client.get("/koomalooma/commitments/").json()["results"]

    assert row["points"] is None
    assert set(row["koomalooma"].values()) == {None}
    assert len(row["koomalooma"]) == 15


def test_when_points_will_be_sent_is_told_but_not_when_a_lease_ends(client: Client, shopper: object) -> None:
    due_at = timezone.now() + dt.timedelta(days=14)
    CommitmentFactory(user=shopper, due_at=due_at, occurred_at=timezone.now())
    CommitmentFactory(user=shopper, sending=True, occurred_at=timezone.now() - dt.timedelta(days=1))

    waiting, sending = client.get("/koomalooma/commitments/").json()["results"]

    assert dt.datetime.fromisoformat(waiting["sends_at"]) == due_at
    assert (sending["status"], sending["sends_at"], sending["koomalooma"]) == ("sending", None, None)


def test_another_customers_points_are_not_readable(client: Client, shopper: object) -> None:
    CommitmentFactory(reference="OF-ANOTHER")
    CommitmentFactory(user=None, email_hash="0" * 64, reference="OF-A-GUEST")

    answer = client.get("/koomalooma/commitments/")

    assert answer.json()["results"] == []


def test_a_visitor_who_is_not_signed_in_is_refused(client: Client) -> None:
    CommitmentFactory(user=None, email_hash="0" * 64)

    answer = client.get("/koomalooma/commitments/")

    assert answer.status_code in {401, 403}
    assert "results" not in answer.json()


def test_a_token_user_without_a_row_sees_no_guests_points(rf: RequestFactory) -> None:
    CommitmentFactory(user=None, email_hash="0" * 64)
    request = rf.get("/")
    force_authenticate(request, get_user_model()(username="from a token"))

    answer = CommitmentListView.as_view()(request)

    assert answer.data["results"] == []


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nothing_can_be_written(client: Client, shopper: object, method: str) -> None:
    answer = getattr(client, method)("/koomalooma/commitments/")

    assert answer.status_code == 405


def test_the_newest_come_first_page_by_page(client: Client, shopper: object) -> None:
    now, campaign = timezone.now(), CampaignFactory()
    for days in range(25):
        CommitmentFactory(
            user=shopper,
            campaign=campaign,
            reference=f"{days} days ago",
            occurred_at=now - dt.timedelta(days),
        )

    first = client.get("/koomalooma/commitments/").json()
    second = client.get(first["next"]).json()

    assert [row["reference"] for row in first["results"]][:2] == ["0 days ago", "1 days ago"]
    assert (len(first["results"]), first["count"]) == (20, 25)
    assert [row["reference"] for row in second["results"]] == [
        "20 days ago",
        "21 days ago",
        "22 days ago",
        "23 days ago",
        "24 days ago",
    ]


def test_a_list_takes_the_same_few_statements_however_long_it_is(
    client: Client, shopper: object, django_assert_max_num_queries: pytest.FixtureRequest
) -> None:
    campaign = CampaignFactory()
    for _ in range(20):
        CommitmentFactory(user=shopper, campaign=campaign)

    with django_assert_max_num_queries(4):  # type: ignore[operator]  # session, user, count, page
        client.get("/koomalooma/commitments/")


def test_the_session_address_tells_a_guest_what_the_widget_needs(client: Client) -> None:
    answer = client.get("/koomalooma/session/")
    again = client.get("/koomalooma/session/")

    assert answer.json() == {
        "partner_id": "sandbox-partner",
        "session_id": client.session[SESSION_KEY],
    }
    assert again.json() == answer.json()
    assert "no-store" in answer["Cache-Control"]


def test_the_session_address_has_no_id_where_the_shop_has_no_sessions(
    client: Client, settings: Settings
) -> None:
    settings.MIDDLEWARE = []

    answer = client.get("/koomalooma/session/")

    assert answer.json() == {"partner_id": "sandbox-partner", "session_id": None}


def test_a_browser_gets_json_where_the_browsable_pages_are_not_installed(
    client: Client, shopper: object
) -> None:
    assert not apps.is_installed("rest_framework")

    answer = client.get("/koomalooma/commitments/", headers={"accept": "text/html,*/*"})

    assert answer["Content-Type"] == "application/json"


def test_the_shops_own_renderers_are_used_where_rest_framework_is_installed(
    client: Client, shopper: object, settings: Settings
) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]

    answer = client.get("/koomalooma/commitments/", headers={"accept": "text/html"})

    assert answer["Content-Type"].startswith("text/html")
