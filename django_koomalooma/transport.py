"""Send one request over `wire.py`'s connections and read its answer, the status first.

Built on requests' adapter without a Session, so that redirects, retries and the environment have no say.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import os
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from .wire import Watchdog, WireCall, WireHTTPPool, WireHTTPSPool, this_thread

MAX_BODY = 64 * 1024
MAX_RETRY_AFTER = 3600.0
DEFAULT_RETRY_AFTER = 60.0
#: What the wire may raise. Anything else (KeyboardInterrupt, a soft time limit, a bug of ours) passes through
#: as it is, and the caller takes each exception that is not a CallFailed as in doubt.
WIRE_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)
_POOLS = {"http": WireHTTPPool, "https": WireHTTPSPool}


class _Adapter(HTTPAdapter):
    """requests' adapter for one origin: what a Session or a look at each URL would add is left out."""

    def __init__(
        self, origin: str, *, pool_size: int, proxy: str | None, ca_bundle: str | None, watchdog: Watchdog
    ):
        self._origin = urlsplit(origin)
        self._proxy = proxy
        self._watchdog = watchdog
        self._tls = _tls_context(ca_bundle) if origin.startswith("https") or proxy else None
        self._pool: HTTPConnectionPool | None = None
        super().__init__(pool_connections=1, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        if self._pool is None:
            manager = self.poolmanager
            if self._proxy:
                manager = self.proxy_manager_for(self._proxy, proxy_ssl_context=self._tls)
            pool = manager.connection_from_host(
                self._origin.hostname,
                self._origin.port,
                self._origin.scheme,
                pool_kwargs={"ssl_context": self._tls, "cert_reqs": "CERT_REQUIRED"},
            )
            pool.watchdog = self._watchdog
            self._pool = pool
        return self._pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave the pool as it is: its TLS context requires a certificate of the bundle."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        url = str(request.url)
        if self._proxy and self._origin.scheme == "http":
            return url
        return url[len(self._origin.geturl()) :]

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = resp.status
        response.raw = resp
        return response


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Make one context for all connections: reading the bundle anew for each is dear."""
    # urllib3's own context, because urllib3 1.26 checks host names itself and wants them unchecked here.
    context = create_urllib3_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    place = ca_bundle or DEFAULT_CA_BUNDLE_PATH
    if os.path.isdir(place):
        context.load_verify_locations(capath=place)
    else:
        context.load_verify_locations(cafile=place)
    return context


class Transport:
    """Send one request at a time per thread, over connections that never cross a fork.

    Args:
        origin: scheme, host and port of all requests, as in `https://api.example.com`.
        connect_timeout: seconds to connect, per address of the host.
        read_timeout: seconds to wait for the next bytes; a whole call ends after the sum of both.
        proxy: address of an HTTP proxy.
        ca_bundle: file or directory of certificates to trust instead of the usual ones.

    Raises:
        OSError: the CA bundle cannot be read (`ssl.SSLError` is one).
    """

    def __init__(
        self,
        origin: str,
        *,
        connect_timeout: float,
        read_timeout: float,
        pool_size: int,
        proxy: str | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        self._timeout = urllib3.Timeout(connect=connect_timeout, read=read_timeout)
        self._watchdog = Watchdog(connect_timeout + read_timeout)
        self._adapter = _Adapter(
            origin, pool_size=pool_size, proxy=proxy, ca_bundle=ca_bundle, watchdog=self._watchdog
        )
        self.pid = os.getpid()

    @contextlib.contextmanager
    def exchange(self, call: WireCall, url: str, headers: Mapping[str, str], body: bytes) -> Iterator[Any]:
        """POST the body and yield urllib3's response as soon as its status is known, the body unread.

        The call is watched until the block ends; a connection whose answer was not read to its end is closed.

        Raises:
            requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError,
            ValueError: no status was seen; `call.sent` tells whether a byte may have left.
        """
        request = requests.PreparedRequest()
        request.method = "POST"
        request.url = url
        # A plain dict does: urllib3 reads the names as they are, and it is three times cheaper to copy.
        request.headers = cast("Any", {**headers, "Content-Length": str(len(body))})
        request.body = body
        this_thread.call = call
        self._watchdog.arm(call)
        raw = None
        try:
            raw = self._adapter.send(request, stream=True, timeout=cast("Any", self._timeout)).raw
            yield raw
        finally:
            try:
                if raw is not None and not raw.closed:
                    raw.close()
            finally:
                self._watchdog.disarm(call)
                this_thread.call = None

    def close(self) -> None:
        """Close all idle connections."""
        self._adapter.close()
        self._watchdog.close()


def read_body(raw: Any, call: WireCall) -> tuple[bytes, bool, BaseException | None]:
    """Read at most 64 KiB of a body whose status is already known: nothing here may hide that status."""
    length = raw.headers.get("Content-Length", "")
    expected = int(length) if length.isdecimal() and len(length) < 18 else None
    body = b""
    ended = False
    try:
        while len(body) < MAX_BODY and len(body) != expected and not ended:
            chunk = raw.read(MAX_BODY - len(body), decode_content=False)
            body += chunk
            ended = not chunk
        if len(body) == expected == 0:
            raw.read()  # lets go of the connection
        complete = len(body) == expected or (expected is None and ended and not call.overdue)
        if raw.headers.get("Content-Encoding", "").lower() == "gzip":
            unzip = zlib.decompressobj(wbits=31)
            body = unzip.decompress(body, MAX_BODY)
            complete = complete and unzip.eof
    except (*WIRE_ERRORS, zlib.error) as error:
        return body, False, error
    return body, complete, None


def read_retry_after(value: str | None) -> float:
    """Read seconds or a date (RFC 9110, 10.2.3): at least one second, at most an hour."""
    seconds = DEFAULT_RETRY_AFTER
    if value and value.isascii() and value.isdecimal():
        seconds = float(value)
    elif value:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            seconds = DEFAULT_RETRY_AFTER
    return min(max(seconds, 1.0), MAX_RETRY_AFTER)


def chain(error: BaseException | None) -> list[BaseException]:
    """Return the exception and those that led to it, at most ten: urllib3 keeps some as arguments only."""
    links: list[BaseException] = []
    waiting = [error]
    while waiting and len(links) < 10:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and not any(link is known for known in links):
            links.append(link)
            waiting += [link.__cause__, link.__context__, *link.args]
    return links
