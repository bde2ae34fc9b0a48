"""The fixture that shops use in their own tests."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from django_koomalooma.conf import conf
from django_koomalooma.delivery import Run
from django_koomalooma.earning import earn
from django_koomalooma.statuses import CommitmentStatus
from django_koomalooma.testing import Koomalooma
from tests.factories import make_event

pytestmark = pytest.mark.django_db


def test_what_a_shop_earns_is_booked_in_the_sandbox(koomalooma: Koomalooma) -> None:
    koomalooma.campaign()
    row = earn(make_event(reference="A-1"))

    run = koomalooma.deliver()

    row.refresh_from_db()
    (booking,) = koomalooma.bookings()
    assert (run.issued, run.more) == (1, False)
    assert (row.status, row.loyalty_units) == (CommitmentStatus.ISSUED, 500)
    assert (booking["transaction_value"], booking["loyalty_units"]) == ("100.00", 500)


def test_a_fault_shows_what_the_shop_will_see(koomalooma: Koomalooma) -> None:
    koomalooma.campaign()
    lost, sent = earn(make_event(reference="A-1")), earn(make_event(reference="A-2"))
    koomalooma.misbehave("close_after_booking")

    run = koomalooma.deliver()

    lost.refresh_from_db()
    sent.refresh_from_db()
    assert (run.in_doubt, run.issued) == (1, 1)
    assert {lost.status, sent.status} == {CommitmentStatus.IN_DOUBT, CommitmentStatus.ISSUED}
    assert len(koomalooma.bookings()) == 2


def test_a_fault_can_be_withdrawn(koomalooma: Koomalooma) -> None:
    koomalooma.campaign()
    koomalooma.misbehave("status", times=None, status=400)
    koomalooma.behave()
    earn(make_event())

    run = koomalooma.deliver()

    assert (run.issued, run.refused) == (1, 0)


def test_a_campaign_takes_the_fields_that_a_test_needs(koomalooma: Koomalooma) -> None:
    koomalooma.campaign("signup", fixed_value=20, remote_id="welcome")
    earn(make_event(goal="signup", value=0))

    koomalooma.deliver()

    (booking,) = koomalooma.bookings()
    assert (booking["campaign_id"], booking["transaction_value"]) == ("welcome", "20.00")


def test_nothing_of_the_shops_own_settings_can_lead_elsewhere(
    settings: Settings, request: pytest.FixtureRequest
) -> None:
    settings.KOOMALOOMA_API_TOKEN = "the real one"
    settings.KOOMALOOMA_MODE = "off"
    settings.KOOMALOOMA_WAKE_UP = True
    settings.KOOMALOOMA_PROXIES = {"http": "http://proxy:3128"}
    settings.KOOMALOOMA_CA_BUNDLE = "/etc/own.pem"

    koomalooma: Koomalooma = request.getfixturevalue("koomalooma")

    assert (conf.api_url, conf.api_token) == (koomalooma.sandbox.url, "sandbox-token")
    assert (conf.mode, conf.wake_up, conf.proxies, conf.ca_bundle) == ("live", False, {}, None)


def test_deliver_goes_on_until_nothing_is_left(
    koomalooma: Koomalooma, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run(leased=2, issued=1, refused=1, more=True), Run(leased=1, issued=1, stopped="Enough.")]
    monkeypatch.setattr("django_koomalooma.delivery.deliver_due", lambda sweep: runs.pop(0))

    total = koomalooma.deliver()

    assert total == Run(leased=3, issued=2, refused=1, stopped="Enough.")
    assert runs == []


def test_the_settings_are_the_shops_again_after_the_test() -> None:
    assert django_settings.KOOMALOOMA_API_URL == "http://127.0.0.1:9/api"


PAGE = Path(__file__).parent.parent / "docs" / "testing.rst"


@pytest.fixture
def order() -> SimpleNamespace:
    return SimpleNamespace(pay=lambda: earn(make_event(reference="T-1")))


def samples() -> dict[str, Any]:
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE.read_text("utf-8"), re.M)
    names: dict[str, Any] = {}
    exec(textwrap.dedent("\n".join(blocks)), names)
    return {name: value for name, value in names.items() if name.startswith(("test_", "pytest_"))}


def test_the_page_names_the_plugin() -> None:
    assert samples()["pytest_plugins"] == ["django_koomalooma.testing"]


@pytest.mark.parametrize("number", [1, 2], ids=["first", "second"])
def test_a_sample_of_the_page_runs_as_it_stands(
    koomalooma: Koomalooma, order: SimpleNamespace, number: int
) -> None:
    names = samples()

    list(names.values())[number](koomalooma, order)


def test_the_page_names_everything_that_the_fixture_has(koomalooma: Koomalooma) -> None:
    told = set(re.findall(r"^``(\w+)", PAGE.read_text("utf-8"), re.M)) - {"pytest"}

    assert told == {name for name in [*vars(koomalooma), *vars(Koomalooma)] if not name.startswith("_")}
