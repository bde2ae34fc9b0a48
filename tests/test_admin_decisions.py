"""Decisions in the admin: by POST, with a permission, after a page that says what will happen."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from django_koomalooma import gate, review, shops
from django_koomalooma.exceptions import ConfigurationError
from django_koomalooma.models import Commitment, Decision, Gate
from django_koomalooma.status import moment
from tests.factories import CampaignFactory, CommitmentFactory, DeliveryAttemptFactory, UserFactory

pytestmark = pytest.mark.django_db

LIST = "/admin/koomalooma/commitment/"
HOME = "/admin/koomalooma/"
STATUSES = ["queued", "sending", "issued", "refused", "in_doubt", "cancelled", "written_off", "skipped"]
ALLOWED = {
    "send_now": {"queued": "queued"},
    "hold": {"queued": "queued"},
    "cancel": {"queued": "cancelled", "refused": "cancelled"},
    "restore": {"cancelled": "queued", "skipped": "queued", "refused": "queued"},
    "settle": {"in_doubt": "issued", "written_off": "issued"},
    "send_again": {"in_doubt": "queued", "refused": "queued"},
    "give_up": {"in_doubt": "written_off"},
    "reopen": {},
}
MANAGE = ["send_now", "hold", "cancel", "restore"]
SETTLE = ["settle", "send_again", "give_up", "reopen"]


def clerk(client: Client, *permissions: str) -> Client:
    """Log in somebody with these permissions and no others."""
    user = get_user_model().objects.create_user("ada", "ada@example.com", "pw", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    assert user.user_permissions.count() == len(permissions)
    client.force_login(user)
    return client


@pytest.fixture
def boss(client: Client) -> Client:
    """A browser of somebody who may view, manage and settle."""
    return clerk(client, "view_commitment", "manage_commitment", "settle_commitment")


def make(status: str, **values: Any) -> Commitment:
    """Return a commitment of that status, with all that its decisions may need."""
    if status != "queued":
        values[status] = True
    values.setdefault("campaign", CampaignFactory())
    return CommitmentFactory(terms={"net_value": "100.00"}, **values)  # type: ignore[no-any-return, no-untyped-call]  # factory-boy is untyped


def confirm(client: Client, verb: str, *rows: Commitment, **said: str) -> Any:
    """Press a decision's button and confirm what the page says."""
    chosen = {"action": verb, "_selected_action": [row.pk for row in rows]}
    page = client.post(LIST, chosen)
    if page.status_code != 200 or "seen" not in (page.context or {}):
        return page
    until = (timezone.localdate() + dt.timedelta(days=3)).isoformat() if verb == "hold" else ""
    answers = {
        "confirm": "yes",
        "seen": page.context["seen"],
        "why": "Support said so.",
        "until": until,
    } | said
    return client.post(LIST, chosen | answers)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("verb", review.VERBS)
def test_each_action_on_each_status(boss: Client, verb: str, status: str) -> None:
    row = make(status)
    before = Commitment.objects.values().get()

    confirm(boss, verb, row)

    after = Commitment.objects.values().get()
    if status in ALLOWED[verb]:
        assert after["status"] == ALLOWED[verb][status]
        assert Decision.objects.get().by == "ada"
    else:
        assert after == before
        assert not Decision.objects.exists()


@pytest.mark.parametrize("verb", review.VERBS)
def test_page_before_an_action_changes_nothing(boss: Client, verb: str) -> None:
    rows = [make(status) for status in STATUSES]
    before = list(Commitment.objects.values())

    page = boss.post(LIST, {"action": verb, "_selected_action": [row.pk for row in rows]})

    assert page.status_code == 200
    assert page.templates[0].name == "admin/koomalooma/decide.html"
    shown = {step.row.status for step in page.context["allowed"]}
    assert shown == set(ALLOWED[verb])
    assert len(page.context["allowed"]) + len(page.context["left_out"]) == len(rows)
    for row in rows:
        assert row.reference in page.content.decode()
    assert list(Commitment.objects.values()) == before


@pytest.mark.parametrize(
    ("permissions", "verbs"),
    [
        (["view_commitment"], []),
        (["view_commitment", "manage_commitment"], MANAGE),
        (["view_commitment", "settle_commitment"], SETTLE),
        (["manage_commitment", "settle_commitment"], []),
        (["change_commitment", "add_commitment", "delete_commitment"], []),
    ],
    ids=["view", "manage", "settle", "without view", "Django's own"],
)
def test_each_action_needs_its_permission(client: Client, permissions: list[str], verbs: list[str]) -> None:
    clerk(client, *permissions)
    start = {verb: next(iter(allowed), "issued") for verb, allowed in ALLOWED.items()}

    done = []
    for verb, status in start.items():
        row = make(status)
        if verb == "reopen":
            row = make("in_doubt")
            review.settle(row, "bob")
        confirm(client, verb, row)
        if row.decisions.filter(what=verb, by="ada").exists():
            done.append(verb)

    assert done == verbs


@pytest.mark.parametrize("verb", review.VERBS)
def test_get_does_nothing(boss: Client, verb: str) -> None:
    rows = [make(status) for status in STATUSES]
    before = list(Commitment.objects.values())
    seen = json.dumps({row.pk: review.version(row) for row in rows})

    boss.get(
        LIST,
        {
            "action": verb,
            "_selected_action": [row.pk for row in rows],
            "confirm": "yes",
            "seen": seen,
            "why": "x",
        },
    )

    assert list(Commitment.objects.values()) == before
    assert not Decision.objects.exists()


def test_anonymous_visitors_do_nothing(client: Client) -> None:
    row = make("queued")
    seen = json.dumps({row.pk: review.version(row)})

    answer = client.post(
        LIST, {"action": "cancel", "_selected_action": [row.pk], "confirm": "yes", "seen": seen}
    )
    others = [client.post(f"{LIST}sending/{name}/") for name in review.CHOICES]

    assert {page.status_code for page in [answer, *others]} == {302}
    assert all(page["Location"].startswith("/admin/login/") for page in [answer, *others])
    assert Commitment.objects.get().status == "queued"
    assert gate.state().is_sending


def test_actions_need_the_csrf_token() -> None:
    browser = clerk(Client(enforce_csrf_checks=True), "view_commitment", "manage_commitment")
    row = make("queued")
    seen = json.dumps({row.pk: review.version(row)})

    answers = [
        browser.post(
            LIST, {"action": "cancel", "_selected_action": [row.pk], "confirm": "yes", "seen": seen}
        ),
        browser.post(f"{LIST}sending/pause/"),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert Commitment.objects.get().status == "queued"
    assert gate.state().is_sending


def test_second_click_does_nothing_more(boss: Client) -> None:
    row = make("in_doubt")
    chosen = {"action": "send_again", "_selected_action": [row.pk]}
    seen = boss.post(LIST, chosen).context["seen"]
    click = chosen | {"confirm": "yes", "seen": seen, "why": "Support has not got it."}

    boss.post(LIST, click)
    second = boss.post(LIST, click, follow=True)

    assert Decision.objects.filter(what="send_again").count() == 1
    assert "was left as it is" in second.content.decode()


def test_page_that_is_out_of_date_does_nothing(boss: Client) -> None:
    row = make("queued")
    chosen = {"action": "cancel", "_selected_action": [row.pk]}
    seen = boss.post(LIST, chosen).context["seen"]
    review.hold(row, "bob", until=timezone.now() + dt.timedelta(days=9))

    boss.post(LIST, chosen | {"confirm": "yes", "seen": seen})

    assert Commitment.objects.get().status == "queued"


@pytest.mark.parametrize("seen", ["", "[]", "[" * 50_000, "nonsense", '{"x": 1}', '{"1": null}'])
def test_confirmation_that_was_tampered_with_does_nothing(boss: Client, seen: str) -> None:
    row = make("queued")

    boss.post(LIST, {"action": "cancel", "_selected_action": [row.pk], "confirm": "yes", "seen": seen})

    assert Commitment.objects.get().status == "queued"


def test_only_what_the_page_showed_is_done(boss: Client) -> None:
    shown, other = make("queued"), make("queued")
    seen = boss.post(LIST, {"action": "cancel", "_selected_action": [shown.pk]}).context["seen"]

    boss.post(
        LIST,
        {"action": "cancel", "_selected_action": [shown.pk, other.pk], "confirm": "yes", "seen": seen},
    )

    assert [row.status for row in Commitment.objects.order_by("id")] == ["cancelled", "queued"]


def test_more_than_fit_on_one_page_are_cut_and_it_says_so(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_koomalooma.admin.decisions.MOST_AT_ONCE", 2)
    rows = [make("queued") for _ in range(3)]

    page = boss.post(LIST, {"action": "cancel", "_selected_action": [row.pk for row in rows]})

    assert [step.row for step in page.context["allowed"]] == rows[:2]
    assert "You chose more than 2" in page.content.decode()


def test_full_page_of_decisions_fits_djangos_limit_of_fields(boss: Client) -> None:
    campaign = CampaignFactory()
    rows = [make("queued", campaign=campaign) for _ in range(300)]

    confirm(boss, "cancel", *rows)

    assert Commitment.objects.filter(status="cancelled").count() == 300


def test_reason_is_asked_for_where_it_is_needed(boss: Client) -> None:
    row = make("in_doubt")

    page = confirm(boss, "send_again", row, why="  ")

    assert page.status_code == 200
    assert "This field is required." in page.content.decode()
    assert Commitment.objects.get().status == "in_doubt"


@pytest.mark.parametrize("until", ["", "2020-01-01", "9999-12-31", "soon"])
def test_hold_needs_a_day_to_come(boss: Client, until: str) -> None:
    make("queued", held=True)
    before = Commitment.objects.values().get()

    page = confirm(boss, "hold", Commitment.objects.get(), until=until)

    assert page.status_code == 200
    assert Commitment.objects.values().get() == before


def test_settle_keeps_what_was_typed_in(boss: Client) -> None:
    row = make("in_doubt")

    confirm(boss, "settle", row, commitment_id="c-9", units="250")

    row = Commitment.objects.get()
    assert (row.status, row.remote_id, row.loyalty_units) == ("issued", "c-9", 250)


def test_hostile_text_is_shown_as_text_on_every_page(boss: Client) -> None:
    evil = "<script>alert(1)</script>"
    row = make("in_doubt", reference=evil, reason=evil, user=UserFactory(username="<b>x</b>"))
    other = make("queued", reference=evil, goal="signup")

    pages = [
        boss.post(LIST, {"action": "settle", "_selected_action": [row.pk, other.pk]}),
        confirm(boss, "give_up", row, why=evil),
        boss.get(HOME),
        boss.get(f"{LIST}{row.pk}/change/"),
        boss.get(LIST, follow=True),
    ]

    for page in pages:
        assert evil not in page.content.decode()
        assert "<b>x</b>" not in page.content.decode()


def test_send_now_says_when_nobody_is_sending(boss: Client) -> None:
    row = make("queued", due_at=timezone.now() - dt.timedelta(hours=1))
    Commitment.objects.update(created_at=timezone.now() - dt.timedelta(hours=1))

    page = boss.post(LIST, {"action": "send_now", "_selected_action": [row.pk]})

    assert "Nobody is sending. No worker or cron so far. Tell your developer." in page.content.decode()


@pytest.mark.parametrize(
    ("status", "labels"),
    [
        ("queued", ["Send now", "Hold back", "Cancel: no points"]),
        ("sending", []),
        ("issued", []),
        ("refused", ["Cancel: no points", "Send again"]),
        ("in_doubt", ["It arrived", "Send again", "Give up"]),
        ("cancelled", ["Give points after all"]),
        ("written_off", ["It arrived"]),
        ("skipped", ["Give points after all"]),
    ],
)
def test_page_of_a_commitment_offers_what_fits(boss: Client, status: str, labels: list[str]) -> None:
    row = make(status)

    page = boss.get(f"{LIST}{row.pk}/change/")

    assert [verb.label for verb in page.context["verbs"]] == labels


def test_decision_from_the_page_of_a_commitment_returns_there(boss: Client) -> None:
    row = make("queued")

    answer = confirm(boss, "cancel", row, back="page")

    assert answer["Location"] == f"{LIST}{row.pk}/change/"
    assert "Support said so." in boss.get(answer["Location"]).content.decode()


# -- the first page


def test_first_page_says_that_it_is_sending(boss: Client) -> None:
    CampaignFactory()
    make("queued", due_at=timezone.now() - dt.timedelta(seconds=40))
    gate.read()
    Gate.objects.update(swept_at=timezone.now(), ran_at=timezone.now())

    page = boss.get(HOME).content.decode()

    assert "<h1>koomalooma points</h1>" in page
    assert "Sending. 1 waiting, oldest 40 seconds." in page
    assert "Pause sending" in page


def test_first_page_says_that_there_is_no_token(boss: Client, settings: Any) -> None:
    settings.KOOMALOOMA_API_TOKEN = ""
    for _ in range(12):
        make("queued")

    page = boss.get(HOME).content.decode()

    assert "Not sending. No token yet. 12 orders recorded, nothing lost." in page


def test_first_page_says_that_there_is_no_campaign(client: Client) -> None:
    clerk(client, "view_commitment", "add_campaign")
    CommitmentFactory.create_batch(12, skipped=True)

    page = client.get(HOME).content.decode()

    assert "No campaign. 12 paid orders earned nothing." in page
    assert '<a class="button koo-button" href="/admin/koomalooma/campaign/add/">Add campaign</a>' in page


def test_first_page_says_since_when_nobody_is_sending(boss: Client) -> None:
    make("queued", due_at=timezone.now() - dt.timedelta(hours=1))
    gate.read()
    last = timezone.now() - dt.timedelta(minutes=30)
    Gate.objects.update(swept_at=last, ran_at=last)

    page = boss.get(HOME).content.decode()

    assert "Nobody is sending. No worker or cron since " in page
    assert "Tell your developer." in page


def test_first_page_shows_a_stop_with_its_reason_and_next_try(boss: Client) -> None:
    make("queued")
    gate.stop("koomalooma could not be reached 5 times in a row.", gate.Cause.UNREACHABLE)

    for page in (HOME, LIST):
        text = boss.get(page).content.decode()
        assert "Not sending." in text
        assert "koomalooma could not be reached 5 times in a row." in text
        assert "It tries again by itself at " in text


def test_first_page_and_list_tell_the_stop_as_it_is_now(boss: Client) -> None:
    make("queued")
    gate.stop("No token yet: set KOOMALOOMA_API_TOKEN.", gate.Cause.NO_TOKEN)

    for page in (HOME, LIST):
        text = boss.get(page).content.decode()
        assert "The token is there now." in text
        assert "No token yet" not in text


def test_first_page_says_that_orders_are_not_recorded(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    make("queued")
    monkeypatch.setattr(shops, "connection_errors", lambda: [ConfigurationError("KOOMALOOMA_SHOP is 'x'.")])

    page = boss.get(HOME)

    sending = page.context["overview"].sending
    assert (sending.tone, sending.headline) == ("bad", "Orders are not recorded: KOOMALOOMA_SHOP is 'x'.")
    assert sending.detail.startswith("Once it is mended, koomalooma_backfill records what was missed. ")
    assert "Sending. 1 waiting" in page.content.decode()


def test_first_page_counts_what_it_leads_to(boss: Client) -> None:
    CommitmentFactory.create_batch(3, skipped=True)
    CommitmentFactory(skipped=True, reason="A guest.")
    CommitmentFactory(issued=True, transaction_value="100.00", net_value="60.00")

    page = boss.get(HOME)

    tiles = {tile.label: tile for tile in page.context["overview"].tiles}
    for label, count in (("No campaign", 3), ("Sent too much", 1)):
        rows = boss.get(f"{LIST}?{tiles[label].query}").context["cl"].result_list
        assert len(rows) == count
        assert tiles[label].number in (str(count), "…")
    assert tiles["No campaign"].number == "3"


def test_first_page_misses_the_first_sweep_soon(boss: Client) -> None:
    at = timezone.now() - dt.timedelta(minutes=6)
    make("queued", due_at=at, created_at=at)
    gate.read()
    Gate.objects.update(ran_at=timezone.now())

    assert "No sweep so far: neither Celery beat nor cron is running." in boss.get(HOME).content.decode()


@pytest.mark.parametrize(("minutes", "shown"), [(14, True), (16, False)], ids=["too early", "time enough"])
def test_page_says_from_when_an_unclear_one_may_be_sent_again(
    boss: Client, minutes: int, shown: bool
) -> None:
    row = CommitmentFactory(in_doubt=True)
    at = timezone.now() - dt.timedelta(minutes=minutes)
    DeliveryAttemptFactory(commitment=row, started_at=at)

    page = boss.get(f"{LIST}{row.pk}/change/").content.decode()

    words = f"“Send again” is possible from {moment(at + review.WAIT)}:"
    assert (words in page) is shown


def test_first_page_lists_what_needs_a_decision_oldest_first(boss: Client) -> None:
    make("refused", reference="FIRST")
    make("in_doubt", reference="SECOND")
    make("issued", reference="FINE")

    page = boss.get(HOME)

    text = page.content.decode()
    assert text.index("FIRST") < text.index("SECOND")
    assert "FINE" not in text


def test_first_page_counts_no_further_than_a_thousand(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_koomalooma.overview.MOST", 2)
    CommitmentFactory.create_batch(4, issued=True)

    tiles = {str(tile.label): tile.number for tile in boss.get(HOME).context["overview"].tiles}

    assert (tiles["Sent"], tiles["Waiting"]) == ("2+", "0")


def test_first_page_shows_no_points_to_those_who_may_not_see_them(client: Client) -> None:
    clerk(client, "view_campaign")
    make("in_doubt", reference="SECRET")

    page = client.get(HOME)

    assert page.status_code == 200
    assert "SECRET" not in page.content.decode()
    assert "Not sending" not in page.content.decode()


@pytest.mark.parametrize("name", review.CHOICES)
def test_decisions_about_sending_do_nothing_by_get(boss: Client, name: str) -> None:
    make("queued")
    gate.read()
    if name != "pause":
        gate.stop("Why", next(iter(review.CHOICES[name].causes)))
    before = Gate.objects.values().first()

    page = boss.get(f"{LIST}sending/{name}/")

    assert page.status_code == 200
    assert Gate.objects.values().first() == before
    assert gate.state().is_sending == (name == "pause")


@pytest.mark.parametrize("name", review.CHOICES)
def test_decisions_about_sending_need_the_permission_to_manage(client: Client, name: str) -> None:
    clerk(client, "view_commitment", "settle_commitment")
    if name != "pause":
        gate.stop("Why", next(iter(review.CHOICES[name].causes)))

    answers = [client.get(f"{LIST}sending/{name}/"), client.post(f"{LIST}sending/{name}/")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert gate.state().is_sending == (name == "pause")


def test_pause_and_go_on(boss: Client) -> None:
    boss.post(f"{LIST}sending/pause/", {"why": "Stock-taking <b>"})
    assert gate.state().reason == "Paused by ada: Stock-taking <b>"
    assert "Stock-taking &lt;b&gt;" in boss.get(HOME).content.decode()

    boss.post(f"{LIST}sending/go_on/")

    assert gate.state().is_sending


def test_decision_about_sending_that_does_not_fit_does_nothing(boss: Client) -> None:
    gate.stop("The database is another one.", gate.Cause.MOVED)

    page = boss.get(f"{LIST}sending/go_on/")
    boss.post(f"{LIST}sending/go_on/")
    boss.post(f"{LIST}sending/pause/")

    assert "This does not fit how sending stands now." in page.content.decode()
    assert gate.state().code == gate.Cause.MOVED


def test_unknown_decision_about_sending_is_not_found(boss: Client) -> None:
    assert boss.post(f"{LIST}sending/explode/").status_code == 404


def test_calls_and_decisions_are_shown_with_a_commitment(boss: Client) -> None:
    row = make("in_doubt")
    DeliveryAttemptFactory(commitment=row, error="ReadTimeout: no answer", http_status=None)
    review.give_up(row, "bob", why="Too small to ask")

    page = boss.get(f"{LIST}{row.pk}/change/").content.decode()

    for words in ("ReadTimeout: no answer", "bob", "Too small to ask"):
        assert words in page
