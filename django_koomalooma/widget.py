"""The session id that koomalooma's widget and ``POST /users`` share (R9), and the pasted snippet (R14)."""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any

from django.utils.safestring import SafeString, mark_safe

from .conf import conf
from .exceptions import ConfigurationError

logger = logging.getLogger("django_koomalooma")

SESSION_KEY = "koomalooma_session_id"
PLACEHOLDER = "%%sessionId%%"
# Hex needs no escaping in an attribute, a script, a URL or a style, so any place in the snippet will do.
_ID = re.compile(r"[0-9a-f]{32}")


def session_id_for(request: Any) -> str:
    """Return the visitor's session id: random, kept in the Django session's data, the same for page and API.

    It is never Django's session key, which is the login cookie's value. Put it into
    ``EarningEvent.session_id`` at the checkout.

    Args:
        request: Django's request, or one of Django REST framework.

    Returns:
        32 hex characters; ``""`` where the request has no session.
    """
    session = getattr(request, "session", None)
    if session is None:
        return ""
    session_id = session.get(SESSION_KEY)
    if not isinstance(session_id, str) or not _ID.fullmatch(session_id):
        session_id = session[SESSION_KEY] = secrets.token_hex(16)
    return session_id


def render_snippet(request: Any) -> SafeString:
    """Return the snippet of ``KOOMALOOMA_WIDGET_SNIPPET`` for this visitor, as the shop's owner pasted it.

    Returns:
        Nothing where there is no snippet, or no session to keep the id in (an e-mail of the shop's, for
        instance): half a widget would only show an error to the customer.
    """
    try:
        snippet = conf.widget_snippet
    except ConfigurationError as error:
        logger.error("The widget is left out: %s", error)
        return mark_safe("")
    session_id = session_id_for(request) if snippet else ""
    if not session_id:
        return mark_safe("")
    return mark_safe(snippet.replace(PLACEHOLDER, session_id))  # noqa: S308 - the owner's own script, and hex
