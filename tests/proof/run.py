"""The long run: shoppers, real Celery workers, all faults mixed, random kills; then the oracle's table.

``python -m tests.proof.run --minutes 5 --seed 1 --database postgres://… --broker redis://…``
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
from celery import Celery

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = {
    "KOOMALOOMA_LEASE": 3,
    "KOOMALOOMA_CONNECT_TIMEOUT": 0.5,
    "KOOMALOOMA_READ_TIMEOUT": 1.0,
    "KOOMALOOMA_CONCURRENCY": 8,
    "KOOMALOOMA_RUNS": 3,
    "KOOMALOOMA_DAILY_CAP": None,
    "KOOMALOOMA_MONTHLY_CAP": None,
    "KOOMALOOMA_WAKE_UP": True,
}
TOKEN = "sandbox-token"
PARTNER = "sandbox-partner"
SLOT_SECONDS = "2"
FILES = "filesystem://"


@dataclass
class Options:
    """What the run is asked for: it ends when all three of time, orders and kills are reached."""

    minutes: float
    seed: str
    database: str
    broker: str
    orders: int = 0
    kills: int = 0
    faults: float = 0.2
    """The share of calls that a fault spoils."""


@dataclass
class Tally:
    """What happened beside the oracle's finding."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    seen: int = 0
    seconds: float = 0.0


class Crew:
    """The processes of the run, each restarted when it was killed."""

    def __init__(self, environment: dict[str, str], folder: Path, seed: str) -> None:
        self._environment = environment
        self._log = (folder / "log").open("w")
        self._seed = seed
        self._lives: Counter[str] = Counter()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start (again) what is called ``name``; its kind is the name's first word."""
        self._lives[name] += 1
        kind = name.split()[0]
        life = f"{name.replace(' ', '')}.{self._lives[name]}"
        command = {
            "shopper": ["tests.proof.shopper", life, self._seed, "0.1"],
            "sweeper": ["tests.proof.worker", "sweep"],
            "worker": [
                "celery", "-A", "tests.proof.app", "worker", "-P", "prefork", "-c", "2", "-l", "error",
                "-n", f"{life}@%h", "--without-gossip", "--without-mingle", "--without-heartbeat",
            ],
        }[kind]  # fmt: skip
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=self._environment,
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self, name: str, *, only_child: bool = False) -> str:
        """Kill -9 a process with its children, or one child of a worker; return what was killed."""
        process = self.processes[name]
        if only_child and (children := self._children(process)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(children[-1], signal.SIGKILL)
            return "child of a worker"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return {"worker": "whole worker"}.get(name.split()[0], name.split()[0])

    def freeze(self, name: str) -> None:
        """Stop a process, with its children, until :meth:`thaw`."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGCONT)

    def end(self, *kinds: str) -> None:
        """End all of these kinds."""
        for name in list(self.processes):
            if name.split()[0] in kinds:
                self.kill(name)
                del self.processes[name]

    @staticmethod
    def _children(process: subprocess.Popen[bytes]) -> list[int]:
        try:
            return [
                int(pid)
                for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            ]
        except OSError:
            return []


class Sandbox:
    """The sandbox as a process of its own, and its orders over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "ledger"
        with (folder / "sandbox").open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "django_koomalooma.sandbox", "--port", "0", "--ledger", self.ledger],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + 20
        while "serving on " not in (text := (folder / "sandbox").read_text()):
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"the sandbox did not start: {text}")
            time.sleep(0.05)
        self.url = text.split("serving on ")[1].split(". ")[0]
        self._control = self.url.removesuffix("/api") + "/_sandbox/"

    def ask(self, page: str, body: dict[str, Any] | None = None) -> Any:
        """Read one of its pages, or give it an order."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._control + page, data, {"Content-Type": "application/json"} if data else {}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def spoil(self, share: float) -> None:
        """Order all faults, so that about this share of the calls is spoilt."""
        from tests.proof.faults import TABLE

        every = share / len(TABLE)
        for fault, options, *_ in TABLE:
            self.ask("misbehave", {"fault": fault, "times": None, "probability": every, **options})
        for fault in ("close_after_booking", "html_body", "close_before_reading"):
            order = {"fault": fault, "times": None, "probability": share / 10, "call": "users"}
            self.ask("misbehave", order)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def play(options: Options) -> bool:
    """Play the run, print the table; return whether every promise held."""
    from tests.proof.stage import make_config, make_database, put_in_place

    with tempfile.TemporaryDirectory(prefix="koo-proof-") as name, make_database(options.database) as url:
        folder = Path(name)
        sandbox = Sandbox(folder)
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.proof.settings",
            "DATABASE_URL": url,
            "PYTHONPATH": str(ROOT),
            "PROOF_BROKER": options.broker,
            "PROOF_QUEUE": f"koo_proof_{os.getpid()}",
            "PROOF_PACE": SLOT_SECONDS,
            "PROOF_SETTINGS": json.dumps({**SETTINGS, "KOOMALOOMA_API_URL": sandbox.url}),
            "PROOF_CELERY": json.dumps(_broker_of_files(folder) if options.broker == FILES else {}),
        }
        crew = Crew(environment, folder, options.seed)
        try:
            with put_in_place(make_config(url)):
                return _play(options, sandbox, crew, folder)
        finally:
            crew.end("shopper", "worker", "sweeper")
            sandbox.stop()
            _drop_queue(environment["PROOF_QUEUE"], options.broker)


def _drop_queue(name: str, broker: str) -> None:
    if broker != FILES:
        with Celery(broker=broker).connection_for_write() as connection:
            connection.default_channel.queue_delete(name)


def _broker_of_files(folder: Path) -> dict[str, Any]:
    """Return the Celery settings of a broker that needs no server."""
    for name in ("queue", "control"):
        (folder / name).mkdir()
    queue, control = str(folder / "queue"), str(folder / "control")
    places = {"data_folder_in": queue, "data_folder_out": queue, "control_folder": control}
    return {"broker_transport_options": {**places, "polling_interval": 0.2}}


def _play(options: Options, sandbox: Sandbox, crew: Crew, folder: Path) -> bool:
    from django_koomalooma.models import Commitment
    from tests.proof import oracle, shop

    tally, dice, started = Tally(), random.Random(options.seed), time.monotonic()
    shop.open_shop()
    sandbox.spoil(options.faults)
    for name in ("worker 1", "worker 2", "sweeper 1", "shopper 1", "shopper 2"):
        crew.start(name)
    end = started + options.minutes * 60
    next_kill, frozen = time.monotonic() + 4, None
    while time.monotonic() < end or not _is_enough(options, tally):
        time.sleep(0.2)
        _watch(sandbox, tally)
        if time.monotonic() < next_kill:
            continue
        if frozen is not None:
            crew.thaw(frozen)
            frozen = None
        name = dice.choice(sorted(crew.processes))
        if dice.random() < 0.1 and name.startswith("worker"):
            crew.freeze(name)
            frozen = name
            tally.kills["frozen past the lease, then thawed"] += 1
            next_kill = time.monotonic() + SETTINGS["KOOMALOOMA_LEASE"] + 1.5
            continue
        killed = crew.kill(name, only_child=name.startswith("worker") and dice.random() < 0.5)
        tally.kills[killed] += 1
        if killed != "child of a worker":
            crew.start(name)
        next_kill = time.monotonic() + 1.5 + dice.random() * 3
    if frozen is not None:
        crew.thaw(frozen)
    crew.end("shopper")
    sandbox.ask("behave", {})
    until = time.monotonic() + 180
    while Commitment.objects.open().exists() and time.monotonic() < until:
        time.sleep(0.2)
        _watch(sandbox, tally)
    crew.end("worker", "sweeper")
    time.sleep(2)  # what was sent and not waited for may still be booked
    _watch(sandbox, tally)
    tally.seconds = time.monotonic() - started
    ledger = oracle.read_ledger(sandbox.ledger)
    finding = oracle.check(ledger)
    left = finding.statuses["queued"] + finding.statuses["sending"]
    _print(options, tally, finding, left, ledger)
    if finding.broken or left:
        print(json.dumps(finding.broken, indent=1))
        print((folder / "log").read_text()[-6000:])
    return not finding.broken and not left


def _is_enough(options: Options, tally: Tally) -> bool:
    from tests.proof.shop import Order

    killed = tally.kills.total() - tally.kills["frozen past the lease, then thawed"]
    return killed >= options.kills and (not options.orders or Order.objects.count() >= options.orders)


def _watch(sandbox: Sandbox, tally: Tally) -> None:
    """Count the faults, and do what an operator does: look at a stop, and let it go on after a while."""
    from django_koomalooma import gate
    from django_koomalooma.models import Gate
    from django_koomalooma.querysets import database_now

    requests = sandbox.ask("requests")
    fresh = min(requests["count"] - tally.seen, len(requests["last"]))
    tally.seen = requests["count"]
    tally.faults.update(
        exchange["fault"]
        for exchange in requests["last"][len(requests["last"]) - fresh :]
        if exchange["fault"]
    )
    row = Gate.objects.filter(is_stopped=True).first()
    if row is not None and row.since is not None:
        tally.stops[row.code] += 1
        if (database_now("default") - row.since).total_seconds() > 3:
            gate.resume()
            tally.resumed += 1


def _print(options: Options, tally: Tally, finding: Any, left: int, ledger: list[dict[str, Any]]) -> None:
    from django_koomalooma.models import Commitment

    codes = {booking["promotion_goal_description"][-12:] for booking in ledger}
    doubt = Commitment.objects.filter(status="in_doubt")
    booked = sum(code in codes for code in doubt.values_list("trace_key", flat=True))
    freezes = tally.kills.pop("frozen past the lease, then thawed", 0)
    rows: list[tuple[str, object]] = [
        ("database, broker", f"{options.database}, {options.broker.split(':')[0]}"),
        ("seed", options.seed),
        ("minutes", f"{tally.seconds / 60:.1f}"),
        ("paid orders", finding.orders),
        ("commitments", finding.commitments),
        ("bookings in the ledger", finding.bookings),
        ("kill -9", f"{tally.kills.total()} ({_list(tally.kills)})"),
        ("workers frozen past their lease", freezes),
        ("calls spoilt by a fault", f"{tally.faults.total()}, of {len(tally.faults)} kinds"),
        ("a person let a stopped queue go on", tally.resumed),
        ("statuses", _list(finding.statuses)),
        ("in doubt: booked / not booked", f"{booked} / {doubt.count() - booked}"),
        ("doubles", len(finding.doubled)),
        ("lost", len(finding.lost)),
        ("false issued", len(finding.false_issued)),
        ("false unsent", len(finding.false_unsent)),
        ("stuck", len(finding.stuck) + left),
        ("booked without an earlier attempt", len(finding.unannounced)),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _list(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def main() -> int:
    """Read the options and play."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.run", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", default=str(time.time_ns()), help="of kills and shoppers; printed")
    parser.add_argument(
        "--database", default="postgres", help="sqlite, postgres or mariadb (see tests/services.py)"
    )
    parser.add_argument(
        "--broker", default="redis://127.0.0.1:6379/0", help=f"Celery's broker_url; {FILES} needs no server"
    )
    parser.add_argument("--orders", type=int, default=0, help="go on until there are so many")
    parser.add_argument("--kills", type=int, default=0, help="go on until there were so many")
    parser.add_argument("--faults", type=float, default=0.2, help="share of calls spoilt (default 0.2)")
    options = Options(**vars(parser.parse_args()))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.proof.settings"
    os.environ["PROOF_SETTINGS"] = json.dumps(SETTINGS)
    django.setup()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process of ours is left behind
    print(f"seed {options.seed}", flush=True)
    return 0 if play(options) else 1


if __name__ == "__main__":
    sys.exit(main())
