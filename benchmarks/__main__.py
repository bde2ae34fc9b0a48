"""``python -m benchmarks``: measures, and writes the results and the page of the documentation."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from benchmarks import databases, report
from benchmarks.sizes import SIZES
from benchmarks.suite import NAMES, measure

PACKAGES = ("Django", "requests", "urllib3", "celery", "djangorestframework")


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on; nothing that tells one machine's name from another's."""
    import sqlite3  # for its version alone

    versions = {name: version(name) for name in PACKAGES}
    versions |= {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    if "postgresql" in databases.available():
        import psycopg  # only where PostgreSQL is measured

        from tests import services

        versions["psycopg"] = psycopg.__version__
        with psycopg.connect(services.POSTGRES) as connection:
            number = connection.info.server_version
        versions["PostgreSQL"] = f"{number // 10000}.{number % 10000}"
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "load_before": round(os.getloadavg()[0], 1),
    }


def main(arguments: list[str]) -> None:
    """Measure the parts that are named, all by default, and write what came of it."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    for name, help_text in (
        ("smallest", "a few rows each: does it run at all? Writes nothing unless told where"),
        ("quick", "some minutes; the default"),
        ("full", "half an hour and more; what the documentation shows"),
    ):
        size.add_argument(
            f"--{name}", dest="size", action="store_const", const=name, default="quick", help=help_text
        )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, help="parts; keeps the others' results"
    )
    parser.add_argument("--render", action="store_true", help="write the page again from the results")
    options = parser.parse_args(arguments)
    results = report.load()
    if not options.render:
        for name in options.only:
            started = time.monotonic()
            print(f"{name} ({options.size}) ...", end=" ", flush=True)
            load = os.getloadavg()[0]
            result = measure(name, SIZES[options.size])
            result |= {"size": options.size, "load": round(load, 1), "day": f"{datetime.now(UTC):%Y-%m-%d}"}
            results[name] = result
            print(f"{time.monotonic() - started:.0f} s")
            if options.size == "smallest":
                print(json.dumps(result))
            else:
                results["machine"] = describe_machine()
                report.save(results)
    if options.size != "smallest" or options.render:
        report.write(report.load())


if __name__ == "__main__":
    main(sys.argv[1:])
