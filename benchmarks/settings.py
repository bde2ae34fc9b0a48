"""The settings of the benchmarks: those of the tests, with a file for SQLite and a small shop."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403 - the suite's settings are the base on purpose
from tests.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.shop"]
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # What Django's documentation advises for a site that serves requests and a worker.
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"
DATABASES["default"]["CONN_MAX_AGE"] = None

LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "ERROR"}}

KOOMALOOMA_API_URL = os.environ.get("KOOMALOOMA_BENCH_API", "http://127.0.0.1:9/api")
KOOMALOOMA_CONCURRENCY = 32
KOOMALOOMA_DAILY_CAP = None
KOOMALOOMA_MONTHLY_CAP = None
