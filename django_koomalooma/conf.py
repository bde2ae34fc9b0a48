"""Every setting, one typed property each, read live. The docstrings are the manual's settings table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.conf import settings

from .exceptions import ConfigurationError

MODES: Final = ("live", "dry_run", "off")

RUN_SECONDS: Final = 30.0
SOFT_LIMIT: Final = 95
HARD_LIMIT: Final = 110
"""Seconds: a delivery run's own deadline, and the limits of its Celery task. Own deadline (then what is in
flight) < soft < hard < ``KOOMALOOMA_LEASE``. Here, so that the checks need not load the delivery."""


def _wrong(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"KOOMALOOMA_{name} is {value!r}: give {wanted}.")


def _get(name: str, default: Any) -> Any:
    return getattr(settings, f"KOOMALOOMA_{name}", default)


def _text(name: str, default: str = "") -> str:
    value = _get(name, default)
    if value is None:
        return default
    if not isinstance(value, str):
        raise _wrong(name, value, "text")
    return value.strip()


def _number(name: str, default: float, least: float, most: float) -> float:
    value = _get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise _wrong(name, value, f"a number from {least:g} to {most:g}")
    return float(value)


def _count(name: str, default: int, least: int, most: int) -> int:
    value = _get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, value, f"a whole number from {least} to {most}")
    return value


def _flag(name: str, default: bool) -> bool:
    value = _get(name, default)
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _cap(name: str, default: int) -> int | None:
    return None if _get(name, default) is None else _count(name, default, 1, 10**12)


class Settings:
    """The settings of this app. Each property reads ``django.conf.settings`` at every access.

    Raises:
        ConfigurationError: From each property, when the setting has a wrong type or value; the message
            names the setting and says what to give.
    """

    @property
    def partner_id(self) -> str:
        """Your partner id at koomalooma, the value of ``data-partner-id`` in the widget's snippet.

        Needed to send.
        """
        return _text("PARTNER_ID")

    @property
    def api_token(self) -> str:
        """The token from koomalooma's support staff: a string, or a callable that returns it.

        Needed to send.
        """
        value = _get("API_TOKEN", "")
        if callable(value):
            try:
                value = value()
            except Exception as error:  # noqa: BLE001 - the shop's; its message may hold the token
                raise ConfigurationError(
                    f"KOOMALOOMA_API_TOKEN: the callable failed with {type(error).__name__}."
                ) from None
        if value is None:
            return ""
        if not isinstance(value, str):
            # The value is not shown: it may be the token in another wrapping.
            raise ConfigurationError(
                f"KOOMALOOMA_API_TOKEN is a {type(value).__name__}: give text, or a callable that returns it."
            )
        return value.strip(" ")

    @property
    def api_url(self) -> str:
        """The base of the Partner API, without a slash at the end."""
        return _text("API_URL", "https://api.koomalooma.com/api").rstrip("/")

    @property
    def mode(self) -> str:
        """``"live"``; ``"dry_run"``: everything is decided and recorded, nothing is queued.

        ``"off"``: nothing is recorded.
        """
        value = _text("MODE", "live")
        if value not in MODES:
            raise _wrong("MODE", value, "'live', 'dry_run' or 'off'")
        return value

    @property
    def currency(self) -> str:
        """The currency of events that do not name one: three upper-case letters (ISO 4217)."""
        value = _text("CURRENCY", "EUR")
        if len(value) != 3 or not value.isascii() or not value.isupper():
            raise _wrong("CURRENCY", value, "three upper-case letters, as 'EUR'")
        return value

    @property
    def connect_timeout(self) -> float:
        """Seconds to wait for a connection to koomalooma."""
        return _number("CONNECT_TIMEOUT", 3.05, 0.01, 30)

    @property
    def read_timeout(self) -> float:
        """Seconds to wait for koomalooma's answer."""
        return _number("READ_TIMEOUT", 20, 0.01, 60)

    @property
    def lease(self) -> int:
        """Seconds that a delivery run may keep a commitment; what is not recorded by then is in doubt."""
        return _count("LEASE", 120, 1, 3600)

    @property
    def concurrency(self) -> int:
        """The most calls in flight in one delivery run, and so the most that one crash can put in doubt."""
        return _count("CONCURRENCY", 32, 1, 256)

    @property
    def runs(self) -> int:
        """Delivery runs at a time, over all machines."""
        return _count("RUNS", 1, 1, 64)

    @property
    def wake_up(self) -> bool:
        """Whether a paid order wakes a Celery worker; ``False`` leaves all delivery to the sweep."""
        return _flag("WAKE_UP", True)

    @property
    def daily_cap(self) -> int | None:
        """Points a day after which sending waits for the next day.

        ``None`` for no cap (koomalooma's default: 100,000).
        """
        return _cap("DAILY_CAP", 100_000)

    @property
    def monthly_cap(self) -> int | None:
        """Points a month after which sending waits for the next month.

        ``None`` for no cap (koomalooma's default: 2,000,000).
        """
        return _cap("MONTHLY_CAP", 2_000_000)

    @property
    def shop(self) -> str | None:
        """The shop framework: ``"auto"``, a short name such as ``"oscar"``, or ``None``.

        Also the dotted path of an adapter of your own.
        """
        value = _get("SHOP", "auto")
        if value is not None and not isinstance(value, str):
            raise _wrong("SHOP", value, "'auto', the name of an adapter, a dotted path, or None")
        return value or None

    @property
    def shop_options(self) -> Mapping[str, Any]:
        """Options of the shop's adapter.

        ``paid_statuses``, ``cancelled_statuses``, ``user``, ``reference``, ``value``, ``currency``.
        """
        value = _get("SHOP_OPTIONS", {})
        if not isinstance(value, Mapping):
            raise _wrong("SHOP_OPTIONS", value, "a dict")
        return value

    @property
    def triggers(self) -> Sequence[Mapping[str, Any]]:
        """What else earns points: a list of dicts that name a signal or a model (see "Connecting a shop")."""
        value = _get("TRIGGERS", ())
        if not isinstance(value, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in value):
            raise _wrong("TRIGGERS", value, "a list of dicts")
        return value

    @property
    def orders(self) -> str | Callable[..., Any] | None:
        """Dotted path of a function ``(since, until)`` that gives the paid orders of a period as events.

        For backfill and audit.
        """
        value = _get("ORDERS", None)
        if value is not None and not isinstance(value, str) and not callable(value):
            raise _wrong("ORDERS", value, "a dotted path")
        return value or None

    @property
    def policy(self) -> str:
        """Dotted path of a subclass of ``django_koomalooma.policy.Policy`` with the shop's own rules."""
        return _text("POLICY", "django_koomalooma.policy.Policy") or "django_koomalooma.policy.Policy"

    @property
    def guests(self) -> bool:
        """Whether guest orders earn points, by the e-mail address, of which only a keyed hash is kept."""
        return _flag("GUESTS", False)

    @property
    def widget_snippet(self) -> str:
        """The snippet that koomalooma's panel generates, pasted whole.

        ``%%sessionId%%`` in it is replaced.
        """
        return _text("WIDGET_SNIPPET")

    @property
    def proxies(self) -> Mapping[str, str]:
        """Proxies to koomalooma, as ``{"https": "http://proxy:3128"}``.

        Proxies of the environment are never used.
        """
        value = _get("PROXIES", None) or {}
        if not isinstance(value, Mapping) or not all(
            isinstance(key, str) and isinstance(url, str) for key, url in value.items()
        ):
            # The value is not shown: it may hold a password.
            raise ConfigurationError(
                "KOOMALOOMA_PROXIES: give a dict of text such as {'https': 'http://proxy:3128'}."
            )
        return value

    @property
    def ca_bundle(self) -> str | None:
        """Path of a file with the certificates to trust instead of the usual ones."""
        return _text("CA_BUNDLE") or None

    @property
    def retention_days(self) -> int | None:
        """Days after which the attempts of finished commitments are pruned; ``None`` keeps them for ever."""
        return None if _get("RETENTION_DAYS", None) is None else _count("RETENTION_DAYS", 0, 1, 36_500)

    def names_token(self) -> bool:
        """Whether a token is named, without asking a callable for it, which a checkout must not wait for."""
        value = _get("API_TOKEN", "")
        return bool(self.partner_id and (callable(value) or value))

    def can_send(self) -> bool:
        """Whether partner id and token are there."""
        return bool(self.partner_id and self.api_token)


conf: Final = Settings()
