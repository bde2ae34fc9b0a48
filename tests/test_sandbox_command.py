"""The sandbox's command, with and without Django."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from django_koomalooma.sandbox import Sandbox, describe

from .sandbox_client import COMMITMENT, COMMITMENTS, HEADERS, USER, call

ALONE = ("-m", "django_koomalooma.sandbox")
IN_A_SHOP = ("-m", "django", "koomalooma_sandbox", "--settings", "tests.settings")


def run_command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )


@pytest.mark.parametrize("command", [ALONE, IN_A_SHOP], ids=["alone", "in a shop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_the_command_takes_another_port_says_so_and_stops_cleanly(
    command: tuple[str, ...], number: int
) -> None:
    with Sandbox() as taken:
        process = run_command(
            *command,
            f"--port={taken.port}",
            "--misbehave=status:status=429,retry_after=7,call=any",
            "--misbehave=status:status=500,times=always,call=users",
        )
        lines = [process.stdout.readline() for _ in range(6)] if process.stdout else []
    port = int(re.findall(r":(\d+)/api", lines[1])[0])
    statuses = []
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/api/users", json.dumps(USER), HEADERS)
        answer = connection.getresponse()
        statuses.append((answer.status, answer.getheader("Retry-After")))
        connection.close()

    process.send_signal(number)
    rest, errors = process.communicate(timeout=10)

    assert lines == [
        f"Port {taken.port} is in use; taking {port} instead.\n",
        f"A pretend koomalooma is serving on http://127.0.0.1:{port}/api. Settings for the shop:\n",
        "KOOMALOOMA_PARTNER_ID = 'sandbox-partner'\n",
        "KOOMALOOMA_API_TOKEN = 'sandbox-token'\n",
        f"KOOMALOOMA_API_URL = 'http://127.0.0.1:{port}/api'\n",
        f"Its ledger: http://127.0.0.1:{port}/_sandbox/ledger   Stop with Ctrl-C.\n",
    ]
    assert statuses == [(429, "7"), (500, None), (500, None)]
    assert rest == "Sandbox stopped; its ledger holds 0 bookings.\n"
    assert (process.returncode, errors) == (0, "")


def test_the_command_takes_up_a_ledger_and_its_campaigns(tmp_path: Path) -> None:
    (tmp_path / "campaigns.json").write_text('{"hello": {"points": 80}}')
    with Sandbox(ledger=tmp_path / "ledger.jsonl") as before:
        call(before, "/api/users", USER)
        call(before, COMMITMENTS, COMMITMENT)

    process = run_command(
        *ALONE, "--port=0", f"--ledger={tmp_path}/ledger.jsonl", f"--strict={tmp_path}/campaigns.json"
    )
    first = process.stdout.readline() if process.stdout else ""
    port = int(re.findall(r":(\d+)/api", first)[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", COMMITMENTS, json.dumps(COMMITMENT | {"campaign_id": "hello"}), HEADERS)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    process.terminate()
    rest, _ = process.communicate(timeout=10)

    assert answer["loyalty_units"] == 80
    assert "its ledger holds 2 bookings" in rest


def test_whatever_was_answered_before_a_kill_is_in_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Sandbox(ledger=path) as before:
        call(before, "/api/users", USER)
    process = run_command(*ALONE, "--port=0", f"--ledger={path}")
    first = process.stdout.readline() if process.stdout else ""
    port = int(re.findall(r":(\d+)/api", first)[0])
    answered: list[str] = []

    def book_until_it_dies() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                connection.request("POST", COMMITMENTS, json.dumps(COMMITMENT), HEADERS)
                answered.append(json.loads(connection.getresponse().read())["id"])
        connection.close()

    clients = [threading.Thread(target=book_until_it_dies) for _ in range(4)]
    for client in clients:
        client.start()
    while len(answered) < 100:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=10)
    for client in clients:
        client.join(10)
    with Sandbox(ledger=path) as after:
        call(after, COMMITMENTS, COMMITMENT)

    bookings = after.bookings()
    assert {booking["id"] for booking in bookings} >= set(answered)
    assert [booking["n"] for booking in bookings] == list(range(1, len(bookings) + 1))
    assert len(answered) + 1 <= len(bookings) <= len(answered) + 1 + len(clients)


def test_importing_the_sandbox_loads_neither_django_nor_requests() -> None:
    loaded = (
        "import sys, django_koomalooma.sandbox.cli as _; print({'django', 'requests'} & set(sys.modules))"
    )

    process = run_command("-c", loaded)
    output, errors = process.communicate(timeout=10)

    assert (output, errors) == ("set()\n", "")


def test_help_lists_the_faults() -> None:
    process = run_command(*IN_A_SHOP, "--help")

    output, _ = process.communicate(timeout=10)

    assert describe() in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--host", "0.0.0.0"], "loopback only", id="open to the world"),
        pytest.param(["--misbehave", "explode"], "no fault is called 'explode'", id="unknown fault"),
        pytest.param(["--misbehave", "late_201:seconds"], "write seconds=value", id="option without value"),
        pytest.param(["--strict", "/nowhere.json"], "/nowhere.json", id="no such file"),
        pytest.param(["--strict", "{"], "property name", id="no JSON"),
        pytest.param(["--percent", "nan"], "percent", id="percent is NaN"),
        pytest.param(["--port", "70000"], "port", id="port out of range"),
    ],
)
def test_the_command_says_what_it_cannot_do(arguments: list[str], words: str) -> None:
    process = run_command(*ALONE, *arguments)

    _, errors = process.communicate(timeout=10)

    assert process.returncode == 2
    assert words in errors.splitlines()[-1]
