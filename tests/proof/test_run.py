"""The long run, short: a minute in all, in every suite. The seed of a run that fails stands in its output."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import services
from tests.proof.run import FILES
from tests.proof.stage import ROOT

pytestmark = pytest.mark.proof


@pytest.mark.parametrize(
    ("database", "broker", "minutes"),
    [
        pytest.param("sqlite", FILES, "0.2", id="sqlite, no server"),
        pytest.param(
            "postgres",
            services.REDIS,
            "0.5",
            id="postgres, redis",
            marks=[pytest.mark.postgres, pytest.mark.redis],
        ),
        pytest.param(
            "postgres",
            services.RABBITMQ,
            "0.5",
            id="postgres, rabbitmq",
            marks=[pytest.mark.postgres, pytest.mark.rabbitmq],
        ),
    ],
)
def test_shopping_under_kills_and_faults_breaks_no_promise(database: str, broker: str, minutes: str) -> None:
    options = ["--database", database, "--broker", broker, "--minutes", minutes, "--kills", "3"]
    options += ["--orders", "40"]

    done = subprocess.run(
        [sys.executable, "-m", "tests.proof.run", *options],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    table = dict(line.rsplit("  ", 1) for line in done.stdout.splitlines() if "  " in line)
    figures = {name.strip(): value for name, value in table.items()}
    assert int(figures["paid orders"]) >= 40
    assert (figures["doubles"], figures["lost"], figures["stuck"]) == ("0", "0", "0")
