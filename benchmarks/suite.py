"""Every row of the table: who plays against whom, how often, and what is kept of it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
import tempfile
from collections.abc import Callable

from benchmarks import api, celery_app, databases, startup
from benchmarks.figures import Figure, ratio, take_turns
from benchmarks.orders import Result, broker, checkout, own_redis
from benchmarks.players import Player
from benchmarks.sizes import Size
from tests import services

CUSTOMERS = 5000
WINDOWS = (32, 128)


def drain(vendor: str, size: Size) -> Result:
    """Compare a delivery run at no latency with a bare loop of the same calls, in one process."""
    with api.running() as server, databases.made(vendor) as url, _drainer(url, server) as player:
        player.call("prepare", CUSTOMERS)
        runs: dict[int, list[Result]] = {window: [] for window in WINDOWS}

        def deliver(window: int) -> float:
            runs[window].append(player.call("deliver", size.backlog, customers=CUSTOMERS, concurrency=window))
            return float(runs[window][-1]["rate"])

        seen = take_turns(
            {str(window): functools.partial(deliver, window) for window in WINDOWS}
            | {"loop": lambda: float(player.call("loop", size.backlog)["rate"])},
            size.rounds,
        )
        limit = server.measure_limit(size.seconds)
    return {
        "limit": limit,
        "windows": {
            window: {
                "ratio": ratio(seen[str(window)], seen["loop"]).as_dict(),
                "statements": statistics.median(run["statements"] for run in done[1:]),
                "idle": statistics.median(run["idle"] for run in done[1:]),
            }
            for window, done in runs.items()
        },
    }


def latency(vendor: str, size: Size) -> Result:
    """Measure the rate at each latency and window, as a part of window / latency."""
    points = []
    with api.running() as server, databases.made(vendor) as url, _drainer(url, server) as player:
        player.call("prepare", CUSTOMERS)
        for wait, window in itertools.product(size.latencies, size.windows):
            server.set_latency(wait)
            ideal = window / wait if wait else 0.0
            count = int(min(max(ideal, 500) * size.seconds, 2.5 * size.backlog))
            runs = [
                player.call("deliver", count, customers=CUSTOMERS, concurrency=window)
                for _ in range(max(size.rounds // 3, 1))
            ]
            points.append(
                {
                    "latency": wait,
                    "window": window,
                    "ideal": ideal,
                    "rate": Figure.of([run["rate"] for run in runs]).as_dict(),
                    "busy": statistics.median(run["busy"] for run in runs),
                    "idle": statistics.median(run["idle"] for run in runs),
                    "statements": statistics.median(run["statements"] for run in runs),
                }
            )
    return {"points": points}


def celery(vendor: str, size: Size) -> Result:
    """Compare our task in a Celery worker with a bare loop, and with a task for each commitment."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(own_redis())
        if redis is None:
            return {"missing": "redis-server is not installed"}
        server = stack.enter_context(api.running())
        url = stack.enter_context(databases.made(vendor))
        environment = {
            "DATABASE_URL": url,
            "KOOMALOOMA_BENCH_API": server.url,
            "KOOMALOOMA_BENCH_BROKER": redis.url,
        }
        looper = stack.enter_context(_drainer(url, server))
        looper.call("prepare", CUSTOMERS)
        driver = stack.enter_context(Player("worker", environment))
        session = stack.enter_context(celery_app.running(environment, processes=1))
        driver.call("wait_ready")
        cpu: dict[str, list[float]] = {"drain": [], "one_by_one": []}

        def play(name: str, count: int) -> float:
            done = driver.call(name, count, CUSTOMERS, session)
            cpu[name].append(done["cpu"])
            return float(done["rate"])

        seen = take_turns(
            {
                "drain": lambda: play("drain", size.backlog),
                "one_by_one": lambda: play("one_by_one", max(size.backlog // 4, 20)),
                "loop": lambda: float(looper.call("loop", size.backlog)["rate"]),
            },
            size.rounds,
        )
    return {
        "against_loop": ratio(seen["drain"], seen["loop"]).as_dict(),
        "against_tasks": ratio(seen["drain"], seen["one_by_one"]).as_dict(),
        "cpu": ratio(cpu["drain"][1:], cpu["one_by_one"][1:]).as_dict(),
    }


def runs(size: Size) -> Result:
    """Let one, two and four worker processes deliver one backlog on PostgreSQL, at a latency of 20 ms."""
    window = 8
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(api.running())
        url = stack.enter_context(databases.made("postgresql"))
        players = [stack.enter_context(_drainer(url, server)) for _ in range(4)]
        watcher = stack.enter_context(_drainer(url, server))
        players[0].call("prepare", CUSTOMERS)
        server.set_latency(0.02)
        waits = []

        def play(count: int) -> float:
            players[0].call("fill", size.backlog, CUSTOMERS)
            watcher.start("lock_waits", size.seconds)
            options = {"customers": CUSTOMERS, "concurrency": window, "prepared": True, "runs": count}
            for player in players[:count]:
                player.start("deliver", size.backlog, **options)
            done = [player.answer() for player in players[:count]]
            waits.append(watcher.answer())
            return float(sum(run["issued"] for run in done) / max(run["seconds"] for run in done))

        seen = take_turns({str(count): lambda n=count: play(n) for count in (1, 2, 4)}, size.rounds)  # type: ignore[misc]
    return {
        "window": window,
        "one": statistics.median(seen["1"]),
        "two": ratio(seen["2"], seen["1"]).as_dict(),
        "four": ratio(seen["4"], seen["1"]).as_dict(),
        "waits": sum(waits),
    }


def leases(vendor: str, size: Size) -> Result:
    """Compare leases from tables of all sizes."""
    with contextlib.ExitStack() as stack:
        players: dict[int, Player] = {}
        for number in size.tables:
            url = stack.enter_context(databases.made(vendor, f"_{number}"))
            players[number] = stack.enter_context(Player("tables", {"DATABASE_URL": url}))
            players[number].call("prepare", number, 100)
        found: Result = {}
        for kind in ("lease_empty", "lease_due"):
            seen = take_turns(
                {str(number): functools.partial(player.call, kind, 5) for number, player in players.items()},
                size.rounds,
            )
            base = seen[str(size.tables[0])]
            found[kind] = {
                number: {
                    "ratio": ratio(values, base).as_dict(),
                    "milliseconds": 1000 * statistics.median(values),
                }
                for number, values in seen.items()
            }
    return found


def lists(vendor: str, size: Size) -> Result:
    """Compare the staff's list over a large table with the same over 200 rows."""
    listed = max(number for number in size.tables if number <= 1_000_000)
    with contextlib.ExitStack() as stack:
        large, tiny = (
            stack.enter_context(
                Player("tables", {"DATABASE_URL": stack.enter_context(databases.made(vendor, label))})
            )
            for label in ("_large", "_tiny")
        )
        large.call("prepare", listed, 100)
        tiny.call("prepare", 200, 0)
        pages = {}
        ours, theirs = large.call("pages", 2 if listed < 2000 else 20), tiny.call("pages", 2)
        for name, address in ours.items():
            other, shown = theirs[name], large.call("shown", address)
            if shown > tiny.call("shown", other):
                other = theirs["plain"]  # a view as long as ours: two hundred rows have few of some kinds
            seen = take_turns(
                {
                    "large": functools.partial(large.call, "look", address, 3),
                    "tiny": functools.partial(tiny.call, "look", other, 3),
                },
                size.rounds,
            )
            pages[name] = {
                "ratio": ratio(seen["large"], seen["tiny"]).as_dict(),
                "shown": shown,
                "statements": large.call("statements", address),
            }
    return {"listed": listed, "pages": pages}


def memory(vendor: str, size: Size) -> Result:
    """Watch the memory of one run over a large backlog, each row with another customer."""
    with api.running() as server, databases.made(vendor) as url, _drainer(url, server) as player:
        player.call("prepare", size.memory)
        player.call("deliver", 20, customers=20)
        seen = player.call("remember", size.memory, size.memory)
    first = [mib for done, mib in seen if done <= 1000] or [seen[0][1]]
    return {"rows": size.memory, "first": max(first), "growth": max(mib for _, mib in seen) - max(first)}


def setup(size: Size) -> Result:
    """Compare ``django.setup()`` with us and without, in fresh interpreters."""
    figures: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="koo_bench_") as cache:
        for _ in range(2 * size.rounds + 1):
            for ours in (True, False):
                figures[ours].append(startup.once(cache, ours=ours))
    pairs = list(zip(figures[True][1:], figures[False][1:], strict=True))
    return {
        name: Figure.of([one[name] - other[name] for one, other in pairs]).as_dict()
        for name in ("seconds", "mib")
    }


def _drainer(url: str, server: api.Api) -> Player:
    return Player("drain", {"DATABASE_URL": url, "KOOMALOOMA_BENCH_API": server.url})


_BY_VENDOR: dict[str, Callable[[str, Size], Result]] = {
    "checkout": checkout,
    "drain": drain,
    "latency": latency,
    "celery": celery,
    "leases": leases,
    "lists": lists,
    "memory": memory,
}
NAMES = (*_BY_VENDOR, "broker", "runs", "setup")


def measure(name: str, size: Size) -> Result:
    """Measure one part, on each database that is there."""
    vendors = databases.available()
    if name in _BY_VENDOR:
        return {vendor: _BY_VENDOR[name](vendor, size) for vendor in vendors}
    if name == "broker":
        return {vendors[0]: broker(vendors[0], size)}
    if name == "runs":
        return runs(size) if "postgresql" in vendors else {"missing": services.no_postgres()}
    return setup(size)
