"""The two calls of koomalooma's partner API, and the one table "what happened -> verdict".

Values go in, an `Answer` or a `CallFailed` comes out. Knows HTTP, nothing of Django's ORM or settings;
sockets and the wire flag live in `transport.py`.
"""

from __future__ import annotations

import enum
import http.client
import json
import logging
import os
import re
import ssl
import time
import traceback
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import requests
import urllib3.exceptions
from urllib3.util.ssl_match_hostname import CertificateError

from . import exceptions
from .endpoint import Endpoint
from .transport import WIRE_ERRORS, Transport, chain, read_body, read_retry_after
from .wire import WireCall, clock

__all__ = ["Answer", "PartnerClient", "Verdict", "clock", "looks_like_commitment"]

logger = logging.getLogger(__name__)

MAX_ERROR = 2 * 1024


class Verdict(enum.StrEnum):
    """What one call came to."""

    ANSWERED = "answered"
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    MISCONFIGURED = "misconfigured"
    LATER = "later"
    ACCOUNT = "account"
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that is known of one call, the token left out.

    Args:
        body: at most 64 KiB of the answer, decompressed.
        complete: the whole body arrived and was not cut.
        error: the chain of exceptions, class names and messages, at most 2 KiB.
        retry_after: seconds to wait, when koomalooma asked for it (429).
        sent: a byte may have left this machine.
        duration: seconds.
    """

    verdict: Verdict
    method: str
    path: str
    request_body: str = field(repr=False)
    sent: bool
    http_status: int | None = None
    body: bytes = field(default=b"", repr=False)
    complete: bool = False
    error: str = ""
    retry_after: float | None = None
    duration: float = 0.0


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def looks_like_commitment(body: bytes) -> bool:
    """Tell whether the body is a JSON object with the two fields that a booking cannot do without."""
    value = _json_object(body)
    return value is not None and "id" in value and "loyalty_units" in value


def _is_object(body: bytes) -> bool:
    return _json_object(body) is not None


def _any(body: bytes) -> bool:
    return True


# The table. The wire flag comes first: flag down and no answer -> UNSENT. Then the first row that fits the
# status and the body. Whatever no row names is in doubt: time-outs, resets, 3xx, 5xx, odd 2xx and 4xx.


class _Row(NamedTuple):
    statuses: Container[int]
    verdict: Verdict
    body: Callable[[bytes], bool] = _any


_EITHER_CALL = (
    _Row({400, 404, 405, 410, 413, 415, 422}, Verdict.REFUSED),
    _Row({401, 402, 403}, Verdict.ACCOUNT),
    _Row({429}, Verdict.LATER),
)
COMMITMENT_TABLE = (
    _Row({201}, Verdict.ANSWERED),
    _Row(range(200, 300), Verdict.ANSWERED, looks_like_commitment),
    *_EITHER_CALL,
)
#: An unclear create-user is repeated, since it issues nothing; so a 201 counts only when it can be read.
USER_TABLE = (
    _Row(range(200, 300), Verdict.ANSWERED, _is_object),
    _Row({409}, Verdict.ANSWERED),
    *_EITHER_CALL,
)
#: Exceptions before the first byte that a person has to mend; after any other the call may be repeated.
MISCONFIGURED = (
    ssl.SSLCertVerificationError,
    CertificateError,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidSchema,
    urllib3.exceptions.LocationValueError,
    http.client.InvalidURL,
    UnicodeError,
)
FAILURES: Mapping[Verdict, type[exceptions.CallFailed]] = {
    Verdict.NOT_SENT: exceptions.NotSent,
    Verdict.MISCONFIGURED: exceptions.Misconfigured,
    Verdict.LATER: exceptions.SendLater,
    Verdict.ACCOUNT: exceptions.AccountTrouble,
    Verdict.REFUSED: exceptions.Refused,
    Verdict.IN_DOUBT: exceptions.MayHaveArrived,
}


def _verdict_unsent(error: BaseException | None) -> Verdict:
    if any(isinstance(link, MISCONFIGURED) for link in chain(error)):
        return Verdict.MISCONFIGURED
    return Verdict.NOT_SENT


def _verdict_answered(table: tuple[_Row, ...], status: int, body: bytes) -> Verdict:
    for row in table:
        if status in row.statuses and row.body(body):
            return row.verdict
    return Verdict.IN_DOUBT


class PartnerClient:
    """Call koomalooma's partner API: no retry, no redirect, nothing taken from the environment.

    Safe to share between threads, each making one call at a time. Connections are kept for a second between
    calls and never cross a fork. A call ends after `connect_timeout + read_timeout` seconds at the latest
    (looking up a host name is the one step that cannot be cut short; after it nothing is sent any more).

    Args:
        api_url: base address; plain http:// is allowed on this machine only.
        token: goes into the header X-KoomaLooma-JWT as it is, and nowhere else.
        connect_timeout: seconds.
        read_timeout: seconds.
        pool_size: connections kept; use no more threads than that.
        proxies: requests' mapping of scheme to proxy address.
        ca_bundle: file or directory of certificates to trust.

    Raises:
        ConfigurationError: a value cannot work; the message names the setting.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        partner_id: str,
        *,
        connect_timeout: float = 3.05,
        read_timeout: float = 20.0,
        pool_size: int = 32,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        self._endpoint = Endpoint.read(api_url, token, partner_id, proxies)

        def open_transport() -> Transport:
            return Transport(
                self._endpoint.origin,
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                pool_size=pool_size,
                proxy=self._endpoint.proxy,
                ca_bundle=ca_bundle,
            )

        self._open_transport = open_transport
        try:
            self._transport = open_transport()
        except OSError as error:
            raise exceptions.ConfigurationError(
                f"KOOMALOOMA_CA_BUNDLE {ca_bundle!r} cannot be read as certificates: {error}"
            ) from None
        self._inherited: list[Transport] = []

    def __repr__(self) -> str:
        return f"<PartnerClient {self._endpoint.url} for partner {self._endpoint.partner_id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        if self._transport.pid == os.getpid():
            self._transport.close()

    def create_user(
        self, partner_user_id: str, user_session_id: str, *, send_before: float | None = None
    ) -> Answer:
        """Make a customer known to koomalooma; it issues no points and may be repeated.

        Args:
            partner_user_id: the same for one customer for ever.
            user_session_id: what the page's koomalooma script gets as its session id.
            send_before: a reading of `clock()` after which no byte may leave.

        Raises:
            CallFailed: the subclass says what to do next. An exception of any other kind: in doubt.
        """
        payload = {
            "partner_id": self._endpoint.partner_id,
            "partner_user_id": partner_user_id,
            "user_session_id": user_session_id,
        }
        return self._call("/users", payload, USER_TABLE, send_before)

    def create_commitment(
        self,
        user_id: str,
        campaign_id: str,
        transaction_value: str,
        description: str,
        category: str,
        *,
        send_before: float | None = None,
    ) -> Answer:
        """Issue points to a customer; koomalooma cannot take them back, so this is never repeated blindly.

        Args:
            user_id: koomalooma's name for the customer.
            transaction_value: what the campaign computes points from, as in `"1234.50"`.
            send_before: a reading of `clock()` after which no byte may leave.

        Raises:
            CallFailed: the subclass says what to do next. An exception of any other kind: in doubt.
        """
        payload = {
            "campaign_id": campaign_id,
            "transaction_value": transaction_value,
            "promotion_goal_description": description,
            "promotion_goal_category": category,
        }
        return self._call(f"/users/{_segment(user_id)}/commitments", payload, COMMITMENT_TABLE, send_before)

    def _call(
        self, path: str, payload: dict[str, str], table: tuple[_Row, ...], send_before: float | None
    ) -> Answer:
        answer = self._exchange(path, payload, table, send_before)
        if answer.verdict is not Verdict.ANSWERED:
            # Raised here and not further down, so that a traceback with local variables shows the scrubbed
            # answer only, and no exception of the wire hangs on to it.
            raise FAILURES.get(answer.verdict, exceptions.MayHaveArrived)(answer)
        return answer

    def _exchange(
        self, path: str, payload: dict[str, str], table: tuple[_Row, ...], send_before: float | None
    ) -> Answer:
        """Make one call, at most once, and judge it."""
        request_body = json.dumps(payload)
        call = WireCall(send_before)
        started = time.monotonic()
        status, retry_after, body, complete = None, None, b"", False
        failure: BaseException | None = None
        try:
            if "//" in path:
                raise requests.exceptions.InvalidURL(
                    "the customer's koomalooma id cannot be part of an address"
                )
            with self._transport_of_this_process().exchange(
                call, self._endpoint.url + path, self._endpoint.headers, request_body.encode()
            ) as raw:
                status, retry_after = raw.status, raw.headers.get("Retry-After")
                body, complete, failure = read_body(raw, call)
        except WIRE_ERRORS as error:
            failure = error
        except BaseException as error:  # noqa: BLE001 - it goes on, without what must not be seen
            raise _without_frames(error) from None
        if status is not None:
            verdict = _verdict_answered(table, status, body)
            if not call.sent:
                logger.critical("An answer came though no byte was seen to leave: the wire flag is broken.")
                call.sent = True
        elif call.sent:
            verdict = Verdict.IN_DOUBT
        else:
            verdict = _verdict_unsent(failure)
        return Answer(
            verdict=verdict,
            method="POST",
            path=self._endpoint.path + path,
            request_body=request_body,
            sent=call.sent,
            http_status=status,
            body=self._endpoint.scrub(body),
            complete=complete,
            error=self._describe(failure, call),
            retry_after=read_retry_after(retry_after) if verdict is Verdict.LATER else None,
            duration=time.monotonic() - started,
        )

    def _describe(self, failure: BaseException | None, call: WireCall) -> str:
        parts = ["the call's total time ran out"] if call.overdue else []
        parts += [f"{type(link).__name__}: {link}" for link in chain(failure)]
        text = self._endpoint.scrub("; ".join(parts).encode(errors="replace"))[:MAX_ERROR]
        return re.sub(r"[\x00-\x1f\x7f]+", " ", text.decode(errors="ignore"))

    def _transport_of_this_process(self) -> Transport:
        if self._transport.pid != os.getpid():
            # Kept and never touched: its sockets and locks are the parent's (a child on an inherited
            # connection read another's answer, measured).
            self._inherited.append(self._transport)
            self._transport = self._open_transport()
        return self._transport


def _without_frames(error: BaseException) -> BaseException:
    """Return the error with its frames written down instead: they hold the request's bytes, token and all.

    A time limit or a bug passes through us while they are on the stack, and reports print local variables.
    """
    error.add_note("".join(["Inside the call to koomalooma:\n", *traceback.format_tb(error.__traceback__)]))
    for link in chain(error):
        link.__traceback__ = None
    return error


def _segment(user_id: str) -> str:
    """Return the id as one segment of a path, or "" for one that would name another address."""
    if user_id in {".", ".."}:  # RFC 3986, 5.2.4
        return ""
    try:
        return quote(user_id, safe="")
    except UnicodeError:
        return ""
