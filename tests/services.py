"""Finds the servers that some tests need, by environment variables with the usual addresses as defaults."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

POSTGRES = os.environ.get("KOOMALOOMA_TEST_POSTGRES") or "postgres://postgres@127.0.0.1:5432/postgres"
MARIADB = os.environ.get("KOOMALOOMA_TEST_MARIADB") or "mysql://root@127.0.0.1:3306/test"
REDIS = os.environ.get("KOOMALOOMA_TEST_REDIS") or "redis://127.0.0.1:6379/0"
RABBITMQ = os.environ.get("KOOMALOOMA_TEST_RABBITMQ") or "amqp://guest:guest@127.0.0.1:5672//"
CHROMIUM = os.environ.get("KOOMALOOMA_TEST_CHROMIUM") or shutil.which("chromium") or ""


def _missing(what: str, url: str, driver: str) -> str:
    """Return why a server cannot be used, or ``""``."""
    if importlib.util.find_spec(driver) is None:
        return f"{what}: the Python package {driver} is not installed"
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), timeout=1).close()
    except OSError as error:
        return f"{what}: nothing answers at {parts.hostname}:{parts.port} ({error.__class__.__name__})"
    return ""


@functools.cache
def no_postgres() -> str:
    """Return why PostgreSQL cannot be used, or ``""``."""
    return _missing("PostgreSQL", POSTGRES, "psycopg")


@functools.cache
def no_mariadb() -> str:
    """Return why MariaDB cannot be used, or ``""``."""
    return _missing("MariaDB", MARIADB, "MySQLdb")


@functools.cache
def no_redis() -> str:
    """Return why Redis cannot be used, or ``""``."""
    return _missing("Redis", REDIS, "redis")


@functools.cache
def no_rabbitmq() -> str:
    """Return why RabbitMQ cannot be used, or ``""``."""
    return _missing("RabbitMQ", RABBITMQ, "amqp")


@functools.cache
def no_browser() -> str:
    """Return why no browser can be driven, or ``""``."""
    if importlib.util.find_spec("playwright") is None:
        return "browser: the Python package playwright is not installed"
    if not CHROMIUM or not os.path.exists(CHROMIUM):
        return "browser: no chromium on the PATH and none in KOOMALOOMA_TEST_CHROMIUM"
    return ""


FINDERS: dict[str, Callable[[], str]] = {
    "postgres": no_postgres,
    "mariadb": no_mariadb,
    "redis": no_redis,
    "rabbitmq": no_rabbitmq,
    "browser": no_browser,
}
