"""The session id that page and API share, and the widget's tag."""

from __future__ import annotations

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.template import Context, Template
from django.test import RequestFactory
from pytest_django import Settings

from django_koomalooma.widget import SESSION_KEY, session_id_for

pytestmark = pytest.mark.django_db

SNIPPET = (
    '<div data-partner-id="p-1" data-session="%%sessionId%%"></div>'
    "<script>start('%%sessionId%%')</script><img src=\"https://example.com/?s=%%sessionId%%\">"
)


@pytest.fixture
def request_(rf: RequestFactory) -> HttpRequest:
    request = rf.get("/")
    request.session = SessionStore()
    return request


def render(context: dict[str, object]) -> str:
    return Template("{% load koomalooma %}[{% koomalooma_widget %}]").render(Context(context))


def test_one_session_keeps_one_id_and_another_gets_another(request_: HttpRequest, rf: RequestFactory) -> None:
    other = rf.get("/")
    other.session = SessionStore()

    first, again, others = session_id_for(request_), session_id_for(request_), session_id_for(other)

    assert first == again != others


def test_the_id_is_not_the_login_cookies_value(request_: HttpRequest) -> None:
    request_.session.save()

    session_id = session_id_for(request_)

    assert session_id != request_.session.session_key
    assert request_.session[SESSION_KEY] == session_id


def test_the_id_survives_the_new_key_that_a_login_gives(request_: HttpRequest) -> None:
    before = session_id_for(request_)
    request_.session.save()
    key = request_.session.session_key

    request_.session.cycle_key()

    assert request_.session.session_key != key
    assert session_id_for(request_) == before


@pytest.mark.parametrize("kept", ['"><script>', 7, None, "A" * 32, "a" * 32 + "\n"], ids=repr)
def test_a_kept_value_that_is_not_ours_is_replaced(request_: HttpRequest, kept: object) -> None:
    request_.session[SESSION_KEY] = kept

    session_id = session_id_for(request_)

    assert len(session_id) == 32
    assert set(session_id) <= set("0123456789abcdef")


def test_a_request_without_session_has_no_id(rf: RequestFactory) -> None:
    assert session_id_for(rf.get("/")) == ""


def test_the_tag_puts_the_id_into_each_place_of_the_snippet(
    request_: HttpRequest, settings: Settings
) -> None:
    settings.KOOMALOOMA_WIDGET_SNIPPET = SNIPPET
    request_.session[SESSION_KEY] = "0123456789abcdef0123456789abcdef"

    html = render({"request": request_})

    assert html == (
        '[<div data-partner-id="p-1" data-session="0123456789abcdef0123456789abcdef"></div>'
        "<script>start('0123456789abcdef0123456789abcdef')</script>"
        '<img src="https://example.com/?s=0123456789abcdef0123456789abcdef">]'
    )


@pytest.mark.parametrize("snippet", ["", None, 7], ids=["empty", "None", "of a wrong type"])
def test_the_tag_renders_nothing_without_a_snippet(
    request_: HttpRequest, settings: Settings, snippet: object
) -> None:
    settings.KOOMALOOMA_WIDGET_SNIPPET = snippet

    html = render({"request": request_})

    assert html == "[]"
    assert SESSION_KEY not in request_.session


def test_the_tag_renders_nothing_without_a_request(settings: Settings) -> None:
    settings.KOOMALOOMA_WIDGET_SNIPPET = SNIPPET

    html = render({})

    assert html == "[]"
