"""Where the calls go: address, token, proxy, checked before anything is sent, and never shown.

Knows what a setting must look like; sends nothing.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

import requests

from .exceptions import ConfigurationError


class _Secret(str):
    """A text that goes over the wire as it is and shows in no traceback that prints local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[secret]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One partner's way into koomalooma, all of it checked.

    Args:
        url: base address without a slash at its end.
        origin: scheme, host and port of it.
        path: what follows the origin.
        proxy: address of the proxy for it, if there is one.
        secrets: what no record may show.
    """

    url: str
    origin: str
    path: str
    partner_id: str
    proxy: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def read(cls, api_url: str, token: str, partner_id: str, proxies: Mapping[str, str] | None) -> Self:
        """Check the settings.

        Raises:
            ConfigurationError: one of them cannot work; the message names it.
        """
        url = _read_api_url(api_url)
        path = urlsplit(url).path
        if not token or token != token.strip() or not re.fullmatch(r"[\x20-\x7e\xa0-\xff]+", token):
            raise ConfigurationError(
                "KOOMALOOMA_API_TOKEN must be the token as koomalooma handed it out: one line, no blanks."
            )
        if not partner_id:
            raise ConfigurationError("KOOMALOOMA_PARTNER_ID is empty: set the partner id of this shop.")
        proxy = _read_proxy(url, proxies)
        return cls(
            url=url,
            origin=url.removesuffix(path),
            path=path,
            partner_id=partner_id,
            proxy=proxy,
            headers={
                "X-KoomaLooma-JWT": _Secret(token),
                "Content-Type": "application/json",
                "Accept": "application/json",
                "User-Agent": "django-koomalooma",
            },
            secrets=_secrets(token, proxy),
        )

    def scrub(self, data: bytes) -> bytes:
        """Take the secrets out of something that will be kept or shown."""
        for secret in self.secrets:
            data = data.replace(secret, b"[secret]")
        return data


def _read_api_url(api_url: str) -> str:
    request = requests.PreparedRequest()
    try:
        request.prepare_url(api_url.strip().rstrip("/"), None)
        url = str(request.url).rstrip("/")
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigurationError(f"KOOMALOOMA_API_URL is not an address: {error}") from None
    if parts.scheme not in {"http", "https"} or parts.username or parts.query or parts.fragment:
        raise ConfigurationError(
            "KOOMALOOMA_API_URL must look like https://api.koomalooma.com/api, without user or query."
        )
    if parts.scheme == "http" and not _is_this_machine(host):
        raise ConfigurationError(
            f"KOOMALOOMA_API_URL must be https:// for {host}: the token would travel in the clear."
        )
    return url


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_proxy(url: str, proxies: Mapping[str, str] | None) -> str | None:
    proxy: str | None = requests.utils.select_proxy(url, dict(proxies or {}))
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            "KOOMALOOMA_PROXIES must map a scheme to an http:// or https:// address, "
            'as in {"https": "http://proxy:3128"}.'
        )
    return proxy


def _secrets(token: str, proxy: str | None) -> tuple[bytes, ...]:
    """List what no record may show: the token, and the proxy's password as set and as sent."""
    secrets = [token.encode("latin-1"), token.encode()]
    parts = urlsplit(proxy or "")
    if parts.password:
        sent = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
        secrets += [
            base64.b64encode(sent.encode()),
            parts.password.encode(),
            unquote(parts.password).encode(),
        ]
    return tuple(dict.fromkeys(secrets))
