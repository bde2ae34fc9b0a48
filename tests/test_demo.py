"""The demo as a visitor runs it, and the whole way: shopper, paid order, worker, sandbox, admin page."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

import django_koomalooma
from example_project.demo_parts.shoppers import Shopper
from tests import services

DEMO = Path(__file__).resolve().parent.parent / "example_project" / "demo.py"
OURS = ("DJANGO_", "KOOMALOOMA_", "CELERY_", "EXAMPLE_", "DATABASE_URL")
LIMIT = 120


@dataclass
class Visit:
    """One running demo: its process, what it has said, and the mark that all of its processes carry."""

    process: subprocess.Popen[str]
    log: Path
    mark: str

    def said(self) -> str:
        """Return what the demo has printed so far."""
        return self.log.read_text()

    def wait_for(self, words: str) -> None:
        """Wait until the demo has said something."""
        wait_until(lambda: words in self.said() or self.process.poll() is not None, self.said)
        assert words in self.said(), self.said()

    def address(self, name: str) -> str:
        """Return one of the addresses that the demo has printed."""
        found = re.search(rf"^  {name} +(\S+)", self.said(), re.MULTILINE)
        assert found is not None, self.said()
        return found[1]

    def processes(self) -> dict[int, str]:
        """Return the command lines of the demo's processes that are alive, by id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # ended meanwhile, or another user's
        return found


def wait_until(reached: Callable[[], bool], explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not reached():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


@contextmanager
def visit(folder: Path, *options: str, **environment: str) -> Iterator[Visit]:
    """Start the demo in an environment that nothing of the present one changes."""
    mark = f"demo-mark-{secrets.token_hex(8)}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    package = Path(django_koomalooma.__file__).resolve().parent.parent
    temporary = folder / "tmp"
    temporary.mkdir()
    environment |= {"PYTHONPATH": str(package), "TMPDIR": str(temporary), "DEMO_MARK": mark}
    log = folder / "demo.log"
    command = [sys.executable, str(DEMO), "--port=0", "--sandbox-port=0", *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=inherited | environment | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    demo = Visit(process, log, mark)
    try:
        yield demo
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_once_prints_the_table_agrees_with_the_ledger_and_goes_round_ports_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        port, sandbox_port = first.getsockname()[1], second.getsockname()[1]

        with visit(tmp_path, "--once", f"--port={port}", f"--sandbox-port={sandbox_port}") as demo:
            code = demo.process.wait(LIMIT)

            said = demo.said()
            assert code == 0, said
            assert f"Port {port} is in use by something else. The shop takes another one." in said
            assert f"Port {sandbox_port} is in use by something else. The sandbox takes another one." in said
            # 5 % of EUR 38.90 is 194.5 points, which the sandbox rounds; an unpaid order; a guest.
            assert re.search(r"^K-\w+ +anna +38\.90 +Paid +Sent +195 +195$", said, re.MULTILINE), said
            assert re.search(r"^K-\w+ +chloe +178\.00 +Waiting for payment$", said, re.MULTILINE), said
            assert re.search(r"^K-\w+ +a guest +9\.90 +Paid +No points$", said, re.MULTILINE), said
            assert re.search(r"^signup +ben +20\.00 +Sent +100 +100$", said, re.MULTILINE), said
            assert "The shop and the ledger agree: 7 bookings" in said
            assert demo.processes() == {}
            assert list((tmp_path / "tmp").iterdir()) == []


def test_once_fails_when_the_ledger_has_what_the_shop_cannot_know(tmp_path: Path) -> None:
    with visit(tmp_path, "--once", "--misbehave=status:status=500,book=true") as demo:
        code = demo.process.wait(LIMIT)

        assert code == 1, demo.said()
        assert re.search(r"^DIFFERENCE: .* is in_doubt, yet the ledger has it\.$", demo.said(), re.MULTILINE)
        assert demo.processes() == {}


def test_the_demo_ends_with_the_reason_when_a_process_of_it_dies(tmp_path: Path) -> None:
    with visit(tmp_path) as demo:
        demo.wait_for("Ctrl-C ends it")
        server = next(number for number, command in demo.processes().items() if " serve " in command)

        os.kill(server, signal.SIGKILL)
        code = demo.process.wait(60)

        assert code == 1, demo.said()
        assert "The web server has ended by itself (exit code -9)." in demo.said()
        assert demo.processes() == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    with visit(tmp_path) as demo:
        demo.wait_for("Ctrl-C ends it")

        demo.process.kill()
        demo.process.wait(20)

        wait_until(lambda: demo.processes() == {}, lambda: str(demo.processes()))


def the_whole_way(demo: Visit) -> None:
    """Order as a customer, and look at the points as the customer, as koomalooma and as the shop's staff."""
    demo.wait_for("Ctrl-C ends it")
    shop = demo.address("Shop")
    customer = Shopper(shop)
    customer.sign_up(f"erin-{secrets.token_hex(3)}")
    number = customer.order("lamp", "scarf", email="erin@customer.example")

    customer.pay(number)

    page = f"orders/{number}/"
    wait_until(lambda: "693 points" in customer.get(page).text, demo.said)
    bookings = requests.get(demo.address("Sandbox"), timeout=20).json()
    assert [row["loyalty_units"] for row in bookings if row["transaction_value"] == "138.50"] == [693]
    clerk = Shopper(shop)
    clerk.log_in("admin", "admin")
    row = re.search(
        rf"<tr[^>]*>(?:(?!</tr>).)*{number}.*?</tr>",
        clerk.get(f"admin/koomalooma/commitment/?q={number}").text,
        re.DOTALL,
    )
    assert row is not None
    assert "693" in row[0]
    assert "Sent" in row[0]


def leave(demo: Visit, folder: Path, stop: signal.Signals) -> None:
    """End the demo as a person at the terminal does, twice as tox passes it on, and look for leftovers."""
    assert len(demo.processes()) >= 4

    demo.process.send_signal(stop)
    time.sleep(0.01)
    demo.process.send_signal(stop)
    code = demo.process.wait(60)

    assert code == 0, demo.said()
    assert demo.processes() == {}
    assert list((folder / "tmp").iterdir()) == []


def test_the_whole_way_on_sqlite_with_the_embedded_broker_until_ctrl_c(tmp_path: Path) -> None:
    with visit(tmp_path) as demo:
        the_whole_way(demo)
        leave(demo, tmp_path, signal.SIGINT)


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """Make a PostgreSQL database for one test, and give its URL."""
    import psycopg  # Only here: most runs of the suite have no PostgreSQL.

    parts = urlsplit(server)
    name = f"koo_demo_{secrets.token_hex(4)}"
    with psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield parts._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.postgres
@pytest.mark.redis
def test_the_whole_way_on_postgresql_with_redis(tmp_path: Path) -> None:
    with (
        new_database(services.POSTGRES) as database,
        visit(tmp_path, DATABASE_URL=database, CELERY_BROKER_URL=services.REDIS) as demo,
    ):
        the_whole_way(demo)
        leave(demo, tmp_path, signal.SIGTERM)


@pytest.mark.postgres
@pytest.mark.rabbitmq
def test_the_whole_way_on_postgresql_with_rabbitmq(tmp_path: Path) -> None:
    with (
        new_database(services.POSTGRES) as database,
        visit(tmp_path, DATABASE_URL=database, CELERY_BROKER_URL=services.RABBITMQ) as demo,
    ):
        the_whole_way(demo)
        leave(demo, tmp_path, signal.SIGTERM)
