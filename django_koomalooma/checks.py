"""System checks: each wrong setting, with what to do. They touch no network, and no database but for W010.

All of them are warnings for Django, the ``E`` ids too, which mean "cannot work until mended": an error would
also stop ``migrate`` and ``runserver``, and points must never keep a shop from starting. Let your pipeline
fail on them with ``manage.py check --tag koomalooma --fail-level WARNING``. An id is never used again.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from celery import current_app
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import checks, mail
from django.core.checks import CheckMessage, Tags
from django.db import DatabaseError, connections, router
from django.utils.module_loading import import_string

from . import shops, status
from .conf import HARD_LIMIT, RUN_SECONDS, SOFT_LIMIT, Settings, conf
from .endpoint import Endpoint
from .exceptions import ConfigurationError
from .models import Commitment
from .policy import get_policy
from .widget import PLACEHOLDER

TAG: Final = "koomalooma"
NAMES: Final = frozenset(name for name, value in vars(Settings).items() if isinstance(value, property))
_A_URL: Final = "https://koomalooma.invalid/api"


def register() -> None:
    """Register every check under the tag ``koomalooma``; the one that reads tables as a database check alone.

    Under both tags Django 6.1 would read the tables whenever ours are asked for.
    """
    for check in _SETTINGS:
        checks.register(check, TAG)
    checks.register(check_sweep, Tags.database)


def _shield(check: Callable[[], Iterable[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    """Adapt a check to Django; a wrong type is told once, by :func:`check_types`, and ends the others."""

    def run(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
        found: list[CheckMessage] = []
        with contextlib.suppress(ConfigurationError):
            found.extend(check())
        return found

    return run


def warn(id_: str, message: object, hint: str = "") -> CheckMessage:
    """Return a message of ours. It must not show a secret."""
    return checks.Warning(str(message), hint=hint or None, id=f"koomalooma.{id_}")


def is_token_callable() -> bool:
    """Whether the token comes from a function; it may ask a vault over the network, so no check calls it."""
    return callable(getattr(settings, "KOOMALOOMA_API_TOKEN", ""))


def check_types() -> Iterator[CheckMessage]:
    """E001: a setting has a wrong type or value."""
    for name in sorted(NAMES):
        if name == "api_token" and is_token_callable():
            continue
        try:
            getattr(conf, name)
        except ConfigurationError as error:
            yield warn("E001", error)


def check_address() -> Iterator[CheckMessage]:
    """E002 to E004: the way to koomalooma cannot work."""
    url, proxies = conf.api_url, conf.proxies
    try:
        Endpoint.read(url, "token", "partner", {})
    except ConfigurationError as error:
        yield warn("E002", error)
    try:
        Endpoint.read(_A_URL, "token", "partner", proxies)
    except ConfigurationError as error:
        yield warn("E003", error)
    if conf.ca_bundle and not os.path.exists(conf.ca_bundle):
        yield warn("E004", f"KOOMALOOMA_CA_BUNDLE is {conf.ca_bundle!r}: there is no such file.")


def check_token() -> Iterator[CheckMessage]:
    """W001: nothing is sent yet. E005: the token cannot go into a header."""
    token = "" if is_token_callable() else conf.api_token
    missing = [] if conf.partner_id else ["KOOMALOOMA_PARTNER_ID"]
    if not token and not is_token_callable():
        missing.append("KOOMALOOMA_API_TOKEN")
    if missing and conf.mode != "off":
        yield warn(
            "W001",
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: "
            "points are recorded, nothing is sent.",
            "koomalooma's support hands out both. What is recorded until then is not lost.",
        )
    if token:
        try:
            Endpoint.read(_A_URL, token, "partner", {})
        except ConfigurationError as error:
            yield warn("E005", error)


def check_paths() -> Iterator[CheckMessage]:
    """E006, E007: a dotted path leads nowhere."""
    policy = conf.policy
    try:
        get_policy()
    except ConfigurationError as error:
        yield warn("E006", error)
    except Exception as error:  # noqa: BLE001 - the shop's module, or its policy's own __init__
        yield warn("E006", f"KOOMALOOMA_POLICY is {policy!r}: {type(error).__name__}: {error}")
    if isinstance(conf.orders, str):
        try:
            orders = import_string(conf.orders)
        except Exception as error:  # noqa: BLE001 - the shop's module
            yield warn("E007", f"KOOMALOOMA_ORDERS is {conf.orders!r}: {error}")
        else:
            if not callable(orders):
                yield warn("E007", f"KOOMALOOMA_ORDERS is {conf.orders!r}: give a function (since, until).")


def check_connections() -> Iterator[CheckMessage]:
    """E009: the shop or a trigger is not connected, so it earns nothing. W011: connected, and looks wrong."""
    told = {message.msg for message in check_types()}
    for error in shops.connection_errors():
        if str(error) not in told:
            yield warn("E009", error)
    for sentence in shops.connection_warnings():
        yield warn("W011", sentence)


def check_names() -> Iterator[CheckMessage]:
    """W002: a setting that nobody reads, a slip of the pen most likely. Its value is not shown."""
    known = {f"KOOMALOOMA_{name.upper()}" for name in NAMES}
    for name in sorted(name for name in dir(settings) if name.startswith("KOOMALOOMA_")):
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, 0.7)
            yield warn("W002", f"There is no setting {name}.", f"Did you mean {close[0]}?" if close else "")


def check_times() -> Iterator[CheckMessage]:
    """W003: a run could be ended in the middle of calls, or lose its rows while it works."""
    two_calls = 2 * (conf.connect_timeout + conf.read_timeout)
    if RUN_SECONDS + two_calls > SOFT_LIMIT:
        yield warn(
            "W003",
            "KOOMALOOMA_CONNECT_TIMEOUT and KOOMALOOMA_READ_TIMEOUT are so long that the task's time limit "
            "may end a run in the middle of its calls.",
            f"Together at most {(SOFT_LIMIT - RUN_SECONDS) / 2:g} seconds.",
        )
    if conf.lease <= HARD_LIMIT:
        yield warn(
            "W003",
            f"KOOMALOOMA_LEASE is {conf.lease}, not more than the task's time limit: what is still being "
            "sent may be taken for abandoned, and is unclear then.",
            f"Leave it at 120, or give more than {HARD_LIMIT}.",
        )


def check_databases() -> Iterator[CheckMessage]:
    """E008: points and customers are apart. W004: SQLite gives up where it should wait."""
    using = router.db_for_write(Commitment)
    customers = router.db_for_write(get_user_model())
    if using != customers:
        yield warn(
            "E008",
            f"DATABASE_ROUTERS keeps customers in {customers!r} and koomalooma's tables in {using!r}.",
            "Keep both, and the orders, in one database: points are recorded in the order's transaction.",
        )
    options = connections[using].settings_dict.get("OPTIONS") or {}
    mode = str(options.get("transaction_mode") or "DEFERRED").upper()
    if connections[using].vendor == "sqlite" and mode == "DEFERRED":
        yield warn(
            "W004",
            "SQLite without transaction_mode fails with “database is locked” when two write at once.",
            f'DATABASES["{using}"]["OPTIONS"] = {{"transaction_mode": "IMMEDIATE", "timeout": 20}}',
        )


def check_celery() -> Iterator[CheckMessage]:
    """W005: Celery runs tasks at once, in the process that asks; fine in tests alone."""
    if hasattr(mail, "outbox"):  # set by Django's own test environment
        return
    try:
        eager = current_app.conf.task_always_eager
    except Exception:  # noqa: BLE001 - the shop's Celery settings are not ours to judge
        return
    if eager:
        yield warn(
            "W005",
            "CELERY_TASK_ALWAYS_EAGER is on: no worker is told of new points, only the sweep sends them.",
            "Switch it off outside tests.",
        )


def check_recipients() -> Iterator[CheckMessage]:
    """W006, W007: nobody gets the alarms by mail. Nobody needs them under ``DEBUG``."""
    if conf.mode == "off" or settings.DEBUG:
        return
    if not settings.ADMINS:
        yield warn("W006", "ADMINS is empty: nobody gets a mail when sending stops.")
    if not settings.MANAGERS:
        yield warn("W007", "MANAGERS is empty: nobody gets a mail when points need a decision.")


def check_snippet() -> Iterator[CheckMessage]:
    """W008, W009: the widget would not know who looks at it, or shows another partner's points."""
    snippet = conf.widget_snippet
    if not snippet:
        return
    if PLACEHOLDER not in snippet:
        yield warn(
            "W008",
            f"KOOMALOOMA_WIDGET_SNIPPET has no {PLACEHOLDER}.",
            "Paste the snippet as koomalooma's panel shows it, before any id is filled in.",
        )
    partner = re.search(r"""data-partner-id\s*=\s*["']?([^"'\s>]*)""", snippet)
    if partner and conf.partner_id and partner[1] != conf.partner_id:
        yield warn("W009", "data-partner-id in KOOMALOOMA_WIDGET_SNIPPET is not KOOMALOOMA_PARTNER_ID.")


def check_sweep(
    app_configs: Sequence[Any] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W010: nothing sweeps. Asked where Django checks databases: ``check --database default``."""
    try:
        if router.db_for_write(Commitment) not in (databases or ()):
            return []
        sentence = status.find_late_sweep()
    except (ConfigurationError, DatabaseError):
        return []  # the tables are not there yet, or the database is down: not ours to tell
    if not sentence:
        return []
    return [warn("W010", sentence, "Start Celery beat with our entry, or let cron call koomalooma_deliver.")]


# Made once: Django knows a check by its identity, and ready() runs again where a test changes INSTALLED_APPS.
_SETTINGS: Final = tuple(
    _shield(check)
    for check in (
        check_types,
        check_address,
        check_token,
        check_paths,
        check_connections,
        check_names,
        check_times,
        check_databases,
        check_celery,
        check_recipients,
        check_snippet,
    )
)
