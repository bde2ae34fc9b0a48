"""The admin's pages: what staff read, find and cannot change."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from django_koomalooma import gate
from django_koomalooma.models import Campaign, Commitment
from django_koomalooma.replies import FIELDS
from tests.factories import (
    CampaignFactory,
    CommitmentFactory,
    DeliveryAttemptFactory,
    KoomaloomaUserFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

LIST = "/admin/koomalooma/commitment/"
ALL_ROWS = ["GUEST", "HELD", "MUCH", "NO", "NONE", "UNCLEAR", "WAITING"]


@pytest.fixture
def admin(client: Client) -> Client:
    """A browser of somebody who may do everything."""
    client.force_login(get_user_model().objects.create_superuser("boss", "boss@example.com", "pw"))
    return client


def test_list_shows_a_commitment_in_a_clerks_words(admin: Client) -> None:
    CommitmentFactory(
        issued=True,
        reference="ORDER-77",
        user=UserFactory(username="ada"),
        campaign=CampaignFactory(name="Spring"),
    )

    page = admin.get(LIST).content.decode()

    for words in ("Sent", "ORDER-77", "ada", "Spring", "100.00 EUR", "500"):
        assert words in page


def test_list_says_until_when_a_commitment_is_on_hold(admin: Client) -> None:
    CommitmentFactory(held=True)

    assert "On hold until " in admin.get(LIST).content.decode()


def test_page_of_a_commitment_names_all_fifteen_fields_of_the_answer(admin: Client) -> None:
    reply = {name: f"value of {name}" for name in FIELDS}
    row = CommitmentFactory(issued=True, reply=reply)

    page = admin.get(f"{LIST}{row.pk}/change/").content.decode()

    assert len(FIELDS) == 15
    for name in FIELDS:
        assert f"<label>{name[0].upper()}{name[1:]}:</label>" in page
        assert f'<div class="readonly">value of {name}</div>' in page


@pytest.mark.parametrize("reply", [None, {"raw": "<html>"}, [1, 2], "text", {"goal": {}, "id": ""}], ids=str)
def test_page_of_a_commitment_opens_whatever_koomalooma_answered(admin: Client, reply: object) -> None:
    row = CommitmentFactory(issued=True, reply=reply)

    assert admin.get(f"{LIST}{row.pk}/change/").status_code == 200


def test_page_of_a_commitment_shows_hostile_text_as_text(admin: Client) -> None:
    evil = "<script>alert(1)</script>"
    row = CommitmentFactory(in_doubt=True, description=evil, reason=evil, reply={"id": evil}, reference=evil)
    DeliveryAttemptFactory(commitment=row, error=evil, reply=evil)

    page = admin.get(f"{LIST}{row.pk}/change/").content.decode()
    listed = admin.get(LIST).content.decode()

    assert evil not in page + listed
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6


def test_nothing_of_a_commitment_can_be_added_changed_or_deleted(admin: Client) -> None:
    row = CommitmentFactory(issued=True)

    answers = [
        admin.get(f"{LIST}add/").status_code,
        admin.post(f"{LIST}{row.pk}/change/", {"status": "queued"}).status_code,
        admin.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code,
    ]

    assert answers == [403, 403, 403]
    row.refresh_from_db()
    assert row.status == "issued"


@pytest.mark.parametrize(
    "term",
    ["ORDER-77", "ABCDEFGH2345", "KL-ABCDEFGH2345", "kl-abcdefgh2345", "ada", "ada@example.com",
     "ADA@example.com", " remote-77 ", "their-77", "0123456789abcdef0123456789abcdef"],
)  # fmt: skip
def test_search_finds_by_whole_values(admin: Client, term: str) -> None:
    user = UserFactory(username="ada", email="ada@example.com")
    CommitmentFactory(
        issued=True,
        reference="ORDER-77",
        trace_key="ABCDEFGH2345",
        remote_id="remote-77",
        user=user,
        koomalooma_user=KoomaloomaUserFactory(
            user=user, remote_id="their-77", partner_user_id="0123456789abcdef0123456789abcdef"
        ),
    )
    CommitmentFactory(reference="ORDER-78")

    page = admin.get(LIST, {"q": term})

    assert [row.reference for row in page.context["cl"].result_list] == ["ORDER-77"]


def test_search_finds_a_reference_that_is_longer_than_its_column(admin: Client) -> None:
    from django_koomalooma.models import shorten_reference

    long = "R" * 1000
    CommitmentFactory(reference=shorten_reference(long))

    assert len(admin.get(LIST, {"q": long}).context["cl"].result_list) == 1


def test_search_finds_nothing_by_a_part(admin: Client) -> None:
    CommitmentFactory(reference="ORDER-77")

    assert list(admin.get(LIST, {"q": "ORDER"}).context["cl"].result_list) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "held"}, ["HELD"]),
        ({"status": "queued"}, ["WAITING"]),
        ({"status": "decide"}, ["NO", "UNCLEAR"]),
        ({"goal": "signup"}, ["NO"]),
        ({"campaign": "none"}, ["NONE"]),
        ({"status": "over_issued"}, ["MUCH"]),
        ({"recorded": "today"}, ALL_ROWS),
        ({"recorded": "30"}, ALL_ROWS),
        ({"campaign": "²"}, ALL_ROWS),
        ({"status": "nonsense", "campaign": "x"}, ALL_ROWS),
    ],
    ids=str,
)
def test_filters_keep_the_rows_they_name(admin: Client, query: dict[str, str], expected: list[str]) -> None:
    CommitmentFactory(reference="WAITING")
    CommitmentFactory(reference="HELD", held=True)
    CommitmentFactory(reference="UNCLEAR", in_doubt=True)
    CommitmentFactory(reference="NO", refused=True, goal="signup")
    CommitmentFactory(reference="NONE", skipped=True)
    CommitmentFactory(reference="GUEST", skipped=True, reason="A guest.")
    CommitmentFactory(reference="MUCH", issued=True, transaction_value="100.00", net_value="60.00")

    rows = admin.get(LIST, query).context["cl"].result_list

    assert sorted(row.reference for row in rows) == expected


@pytest.mark.parametrize("query", [{}, {"status": "issued", "goal": "purchase"}, {"q": "ORDER-77"}], ids=str)
def test_list_takes_at_most_four_statements_beside_the_login(
    admin: Client, query: dict[str, str], django_assert_max_num_queries: object
) -> None:
    CommitmentFactory.create_batch(60, issued=True)
    gate.read()

    with django_assert_max_num_queries(2 + 4):  # type: ignore[operator]  # pytest-django's own fixture
        admin.get(LIST, query)


def test_list_counts_no_further_than_it_pages(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_koomalooma.admin.listing.MOST", 3)
    monkeypatch.setattr("django_koomalooma.admin.CommitmentAdmin.list_per_page", 2)
    CommitmentFactory.create_batch(5)

    page = admin.get(LIST)

    assert page.context["cl"].result_count == 3
    assert "about" in page.content.decode() or "more than 3" in page.content.decode()
    assert admin.get(LIST, {"p": 2}).status_code == 200
    assert admin.get(LIST, {"p": 3}).status_code == 302


def test_campaign_is_made_with_name_id_and_goal(admin: Client) -> None:
    page = reverse("admin:koomalooma_campaign_add")
    form = admin.get(page).context["adminform"].form
    as_offered: dict[str, object] = {}
    for name, field in form.fields.items():
        value = form.get_initial_for_field(field, name)
        values = field.widget.decompress(value) if isinstance(value, dt.datetime) else [value]
        names = [name] if len(values) == 1 else [f"{name}_0", f"{name}_1"]
        as_offered |= {key: item for key, item in zip(names, values, strict=True) if item is not None}

    admin.post(page, as_offered | {"name": "Spring", "remote_id": "c-1", "goal": "purchase"})

    campaign = Campaign.objects.get()
    assert (campaign.name, campaign.remote_id, campaign.goal, campaign.is_active) == (
        "Spring",
        "c-1",
        "purchase",
        True,
    )


def test_campaign_with_commitments_cannot_be_deleted(admin: Client) -> None:
    row = CommitmentFactory()

    answer = admin.post(reverse("admin:koomalooma_campaign_delete", args=[row.campaign_id]), {"post": "yes"})

    assert answer.status_code == 403
    assert Commitment.objects.get().campaign is not None


def test_id_at_koomalooma_is_the_only_thing_of_a_customer_that_can_be_changed(admin: Client) -> None:
    customer = KoomaloomaUserFactory(registered=True)
    page = reverse("admin:koomalooma_koomaloomauser_change", args=[customer.pk])

    admin.post(page, {"remote_id": "new-id", "partner_user_id": "other"})

    before = customer.partner_user_id
    customer.refresh_from_db()
    assert (customer.remote_id, customer.partner_user_id) == ("new-id", before)


@pytest.mark.parametrize(
    "page", [LIST, "/admin/koomalooma/campaign/", "/admin/koomalooma/koomaloomauser/", "/admin/koomalooma/"]
)
def test_anonymous_visitors_are_sent_to_the_login(client: Client, page: str) -> None:
    answer = client.get(page)

    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")
