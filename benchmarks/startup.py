"""What ``django.setup()`` takes, Celery and DRF loaded: once in a fresh interpreter, with us or without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from benchmarks.api import ROOT


def once(cache: str, *, ours: bool) -> dict[str, float]:
    """Start an interpreter, and return its seconds and MiB of ``django.setup()``.

    Args:
        cache: A folder for compiled modules.
    """
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "KOOMALOOMA_BENCH_APP": str(int(ours)),
        "PYTHONPYCACHEPREFIX": cache,
    }
    # Compiled once, as on any server: the first round, which compiles, does not count.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup"],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env=environment,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _rss() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure, and print."""
    import celery.app.task  # noqa: F401 - part of what is compared
    import django
    import kombu.connection  # noqa: F401 - as above
    import requests  # noqa: F401 - as above: a shop that calls anything has it
    import rest_framework.serializers  # noqa: F401 - as above
    from celery import shared_task  # noqa: F401 - as above
    from django.conf import settings

    ours = ("django_koomalooma",) if os.environ["KOOMALOOMA_BENCH_APP"] == "1" else ()
    theirs = [app for app in settings.INSTALLED_APPS if "koomalooma" not in app and app != "benchmarks.shop"]
    settings.INSTALLED_APPS = [*theirs, *ours]
    before, started = _rss(), time.perf_counter()
    django.setup()
    print(json.dumps({"seconds": time.perf_counter() - started, "mib": _rss() - before}))


if __name__ == "__main__":
    main()
