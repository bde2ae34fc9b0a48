"""What must never get out, and what must never get in, tried through the whole app.

What the client alone must keep is in test_client.py and test_wire.py (redirects, proxies, the environment,
headers, certificates, bodies of any size); permissions, GET and CSRF of the admin are in test_admin*.py,
other customers' points in test_rest.py.
"""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from django import VERSION
from django.contrib.auth import get_user_model
from django.core import mail, serializers
from django.core.management import call_command
from django.test import Client
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter
from pytest_django import Settings

from django_koomalooma import gate, wire
from django_koomalooma.conf import conf
from django_koomalooma.delivery import deliver_due, open_client
from django_koomalooma.earning import earn
from django_koomalooma.models import (
    Campaign,
    Commitment,
    Decision,
    DeliveryAttempt,
    Gate,
    KoomaloomaUser,
)
from django_koomalooma.sandbox import Sandbox
from tests.factories import CampaignFactory, make_event
from tests.raw_server import RawServer, answering

pytestmark = pytest.mark.django_db

TOKEN = "eyJhbGciOiJIUzI1NiJ9.c0ffee-c0ffee-c0ffee.never-to-be-seen"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def secretive(settings: Settings) -> Iterator[Sandbox]:
    """A sandbox that takes only the distinctive token, and a shop that has it and mails every error."""
    with Sandbox(token=TOKEN, durable=False) as sandbox:
        for name, value in sandbox.settings().items():
            setattr(settings, name, value)
        settings.KOOMALOOMA_READ_TIMEOUT = 0.3
        boss = "boss@example.com"
        settings.ADMINS = settings.MANAGERS = [boss] if VERSION >= (6, 0) else [("Boss", boss)]
        handler = AdminEmailHandler(include_html=True)
        handler.setLevel(logging.WARNING)
        logging.getLogger().addHandler(handler)
        try:
            yield sandbox
        finally:
            logging.getLogger().removeHandler(handler)


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("boss"))
    return client


def every_page(client: Client) -> Iterator[str]:
    """Yield each page of the admin that shows something of ours."""
    places = ["/admin/", "/admin/koomalooma/"]
    for model in (Campaign, KoomaloomaUser, Commitment):
        name = f"/admin/koomalooma/{model._meta.model_name}/"
        places += [
            name,
            *[f"{name}{pk}/change/" for pk in model._default_manager.values_list("pk", flat=True)],
        ]
    for place in places:
        answer = client.get(place)
        assert answer.status_code == 200, place
        yield answer.content.decode()


def every_row() -> str:
    """Return the whole of our tables."""
    rows: list[Any] = []
    for model in (Campaign, KoomaloomaUser, Commitment, DeliveryAttempt, Decision, Gate):
        rows += model._default_manager.all()
    return f"{serializers.serialize('json', rows)} {rows!r}"


def test_the_token_is_nowhere_after_every_kind_of_trouble(
    secretive: Sandbox, boss: Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    CampaignFactory()
    echo = {"error": "bad token", "token": TOKEN}
    troubles: list[tuple[str, dict[str, Any]]] = [
        *[("status", {"status": code, "body": echo}) for code in (201, 200, 302, 400, 403, 409, 429, 500)],
        ("status", {"status": 422, "body": f"the header was {TOKEN}", "headers": {"X-Echo": TOKEN}}),
        ("close_after_booking", {}),
        ("garbage_status_line", {}),
        ("silence_before_booking", {"seconds": 0.5}),
        ("bad_gzip", {}),
        ("redirect", {"location": f"http://127.0.0.1:9/{TOKEN}"}),
    ]

    for number, (fault, options) in enumerate(troubles):
        earn(make_event(reference=f"ORDER-{number}"))
        secretive.misbehave(fault, **options)
        deliver_due()
        gate.resume()
    secretive.misbehave("status", status=500, body=echo, call="users")
    earn(make_event(reference="LAST"))
    deliver_due()
    status = io.StringIO()
    with contextlib.suppress(SystemExit):  # its exit code says that something is wrong
        call_command("koomalooma_status", stdout=status)
    shown = {
        "tables": every_row(),
        "admin": "".join(every_page(boss)),
        "log": caplog.text,
        "output": "".join(capfd.readouterr()),
        "status": status.getvalue(),
        "mails": "".join(message.body + str(message.message()) for message in mail.outbox),
        "representations": repr(conf) + repr(open_client()) + repr(gate.state()),
    }

    assert [name for name, text in shown.items() if TOKEN in text or "never-to-be-seen" in text] == []
    assert mail.outbox
    assert "(HTTP 422)" in shown["tables"]
    assert secretive.requests()["calls"]["commitments"] >= len(troubles)


@pytest.mark.parametrize(
    "place",
    ["_new_conn", "send", "getresponse"],
    ids=["while connecting", "while sending", "while waiting"],
)
def test_an_error_that_nobody_foresaw_shows_no_token_with_its_local_variables(
    secretive: Sandbox, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug, or a time limit, in the middle of a call")

    monkeypatch.setattr(wire.WireHTTPConnection, place, fail)
    with open_client() as client, pytest.raises(ZeroDivisionError) as caught:
        client.create_commitment("user", "campaign", "1.00", "Order", "purchase")

    error = caught.value
    shown = {
        "traceback": "".join(traceback.format_exception(error)),
        "with locals": "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        ),
        "debug page": ExceptionReporter(None, type(error), error, error.__traceback__).get_traceback_html(),
    }
    assert [name for name, text in shown.items() if "never-to-be-seen" in text] == []


def test_plain_http_to_another_machine_stops_the_queue_and_sends_nothing(settings: Settings) -> None:
    CampaignFactory()
    row = earn(make_event())
    settings.KOOMALOOMA_API_URL = "http://koomalooma.example/api"

    run = deliver_due()

    row.refresh_from_db()
    assert "KOOMALOOMA_API_URL" in run.stopped
    assert (row.status, row.tries, gate.state().code) == ("queued", 0, gate.Cause.CONFIGURATION)


def test_a_certificate_that_is_not_trusted_stops_the_queue_and_gets_nothing(settings: Settings) -> None:
    CampaignFactory()
    row = earn(make_event())
    with RawServer(answering(201), tls=True) as impostor:
        settings.KOOMALOOMA_API_URL = impostor.url.replace("127.0.0.1", "localhost")
        deliver_due()

    row.refresh_from_db()
    assert (row.status, gate.state().code) == ("queued", gate.Cause.CONFIGURATION)
    assert impostor.requests == []


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("deep_json", {"depth": 20_000}),
        ("nul_in_body", {}),
        ("odd_types", {}),
        ("huge_body", {"bytes": 10_000_000}),
        ("status", {"status": 201, "book": True, "body": {"id": SCRIPT, "loyalty_units": SCRIPT, SCRIPT: 1}}),
        ("status", {"status": 201, "book": True, "body": SCRIPT}),
        ("status", {"status": 201, "book": True, "body": {"id": "1", "loyalty_units": 10**400}}),
        ("status", {"status": 400, "body": f"{SCRIPT}\0"}),
        ("status", {"status": 500, "body": {"error": SCRIPT}}),
    ],
    ids=[
        "deep", "NUL", "odd types", "10 MB", "script in fields", "script", "endless", "refusal", "error"
    ],
)  # fmt: skip
def test_hostile_answers_are_kept_as_text_and_every_page_opens(
    sandbox: Sandbox, boss: Client, fault: str, options: dict[str, Any]
) -> None:
    CampaignFactory(name=SCRIPT)
    row = earn(make_event(reference=SCRIPT, description=SCRIPT))
    sandbox.misbehave(fault, **options)

    deliver_due()

    row.refresh_from_db()
    assert row.status in ("issued", "refused", "in_doubt")
    assert len(sandbox.bookings()) == (1 if row.status == "issued" else 0)
    assert [page for page in every_page(boss) if SCRIPT in page] == []
    assert len(every_row()) < 100_000
