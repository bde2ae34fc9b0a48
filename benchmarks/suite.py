"""Every row of the table: who plays against whom, how often, and what is kept of it."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import api, celery_app, databases, startup
from benchmarks.figures import Figure, ratio, take_turns
from benchmarks.players import Player
from tests import broker_faults, services

Result = dict[str, Any]
CUSTOMERS = 5000


@dataclass(frozen=True, slots=True)
class Size:
    """How long it is measured."""

    name: str
    rounds: int
    orders: int
    backlog: int
    seconds: float
    tables: tuple[int, ...]
    memory: int
    latencies: tuple[float, ...]
    windows: tuple[int, ...]


SIZES = {
    "smallest": Size("smallest", 1, 5, 40, 0.2, (300, 600), 1500, (0.0, 0.02), (32,)),
    "quick": Size("quick", 4, 150, 800, 2.0, (10_000, 100_000), 10_000, (0.0, 0.02, 0.1), (32, 64)),
    "full": Size(
        "full",
        8,
        600,
        2000,
        4.0,
        (10_000, 1_000_000, 5_000_000),
        100_000,
        (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
        (8, 32, 64, 128),
    ),
}


def checkout(vendor: str, size: Size) -> Result:
    """Compare an order with us and without; a healthy broker is told of each."""
    with (
        databases.made(vendor) as url,
        Player("checkout", {"DATABASE_URL": url}) as shop,
        _redis() as redis,
    ):
        shop.call("prepare", 200)
        if redis:
            shop.call("connect", redis.url)
        shop.call("duel", 20)
        seen = [shop.call("duel", max(size.orders // 10, 5)) for _ in range(10)]
        added = shop.call("added_statements")
    medians = {name: [statistics.median(block[name]) for block in seen] for name in ("with", "without")}
    return {
        "ratio": ratio(medians["with"], medians["without"]).as_dict(),
        "milliseconds": 1000 * statistics.median(medians["without"]),
        "added": added,
    }


def broker(vendor: str, size: Size) -> Result:
    """Compare orders while the broker is dead with orders while it is well: six ways to be dead."""
    results: Result = {}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(databases.made(vendor))
        stack.enter_context(Player("checkout", {"DATABASE_URL": url})).call("prepare", 200)
        for kind, faults in _brokers(stack).items():
            healthy = stack.enter_context(Player("checkout", {"DATABASE_URL": url}))
            healthy.call("connect", *faults.pop("healthy"))
            for name, where in faults.items():
                shop = stack.enter_context(Player("checkout", {"DATABASE_URL": url}))
                shop.call("connect", *where)
                blocks: dict[str, list[list[float]]] = {"dead": [], "healthy": []}

                def play(who: Player, label: str, seen: dict[str, list[list[float]]] = blocks) -> float:
                    seen[label].append(who.call("orders", max(size.orders // 6, 5)))
                    return 0.0

                take_turns(
                    {
                        "dead": lambda shop=shop, play=play: play(shop, "dead"),  # type: ignore[misc]
                        "healthy": lambda healthy=healthy, play=play: play(healthy, "healthy"),  # type: ignore[misc]
                    },
                    size.rounds,
                )
                results[f"{kind} {name}"] = {
                    "median": _of_blocks(blocks, statistics.median),
                    "worst": _of_blocks(blocks, max),
                    "worst_ms": 1000 * max(itertools.chain(*blocks["dead"][1:])),
                    "worst_healthy_ms": 1000 * max(itertools.chain(*blocks["healthy"][1:])),
                }
    return results


def _of_blocks(blocks: dict[str, list[list[float]]], summary: Callable[[list[float]], float]) -> Result:
    dead, healthy = ([summary(block) for block in blocks[name][1:]] for name in ("dead", "healthy"))
    return ratio(dead, healthy).as_dict()


def _brokers(stack: contextlib.ExitStack) -> dict[str, dict[str, list[Any]]]:
    refused = stack.enter_context(broker_faults.refused_port())
    hole = stack.enter_context(broker_faults.black_hole())
    found: dict[str, dict[str, list[Any]]] = {}
    with contextlib.suppress(FileNotFoundError):
        well, frozen = (stack.enter_context(broker_faults.ThrowawayRedis()) for _ in range(2))
        frozen.freeze()
        found["Redis"] = {
            "healthy": [well.url],
            "refused": [f"redis://127.0.0.1:{refused}/0"],
            "black hole": [f"redis://127.0.0.1:{hole}/0"],
            "frozen": [frozen.url],
        }
    if not services.no_rabbitmq():
        port = int(services.RABBITMQ.rpartition(":")[2].split("/")[0])
        proxies = [stack.enter_context(broker_faults.Proxy(port)) for _ in range(2)]
        proxies[1].freeze()

        def at(port: int) -> list[Any]:
            # Queues of our own kind: a temporary one, gone with its connection.
            return [f"amqp://guest:guest@127.0.0.1:{port}//"]

        found["RabbitMQ"] = {
            "healthy": at(proxies[0].port),
            "refused": at(refused),
            "black hole": at(hole),
            "frozen": at(proxies[1].port),
        }
    return found


@contextlib.contextmanager
def _redis() -> Iterator[broker_faults.ThrowawayRedis | None]:
    try:
        redis = broker_faults.ThrowawayRedis()
    except FileNotFoundError:
        yield None
        return
    with redis:
        yield redis


def drain(vendor: str, size: Size) -> Result:
    """Compare a delivery run at no latency with a bare loop of the same calls, in one process."""
    with api.running() as server, databases.made(vendor) as url, _drainer(url, server) as player:
        player.call("prepare", CUSTOMERS)
        runs: list[Result] = []

        def deliver() -> float:
            runs.append(player.call("deliver", size.backlog, customers=CUSTOMERS))
            return float(runs[-1]["rate"])

        seen = take_turns(
            {"run": deliver, "loop": lambda: float(player.call("loop", size.backlog)["rate"])}, size.rounds
        )
        limit = server.measure_limit(size.seconds)
    return {
        "ratio": ratio(seen["run"], seen["loop"]).as_dict(),
        "loop": statistics.median(seen["loop"]),
        "statements": statistics.median(run["statements"] for run in runs[1:]),
        "busy": statistics.median(run["busy"] for run in runs[1:]),
        "limit": limit,
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
                    "statements": statistics.median(run["statements"] for run in runs),
                }
            )
    return {"points": points}


def celery(vendor: str, size: Size) -> Result:
    """Compare our task in a Celery worker with a bare loop, and with a task for each commitment."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(_redis())
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
            watcher.start("lock_waits", 0.5)
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


def tables(vendor: str, size: Size) -> Result:
    """Compare leases from tables of all sizes, and the staff's list over a large and a tiny one."""
    times = 5
    with contextlib.ExitStack() as stack:
        players: dict[int, Player] = {}
        for number in size.tables:
            url = stack.enter_context(databases.made(vendor, f"_{number}"))
            players[number] = stack.enter_context(Player("tables", {"DATABASE_URL": url}))
            players[number].call("prepare", number, 100)
        url = stack.enter_context(databases.made(vendor, "_tiny"))
        tiny = stack.enter_context(Player("tables", {"DATABASE_URL": url}))
        tiny.call("prepare", 200, 0)
        leases = {}
        for kind in ("lease_empty", "lease_due"):
            seen = take_turns(
                {
                    str(number): lambda p=player, k=kind: float(p.call(k, times))  # type: ignore[misc]
                    for number, player in players.items()
                },
                size.rounds,
            )
            base = seen[str(size.tables[0])]
            leases[kind] = {
                number: {
                    "ratio": ratio(values, base).as_dict(),
                    "milliseconds": 1000 * statistics.median(values),
                }
                for number, values in seen.items()
            }
        listed = max(number for number in size.tables if number <= 1_000_000)
        return {"leases": leases, "listed": listed, "pages": _pages(players[listed], tiny, size)}


def _pages(large: Player, tiny: Player, size: Size) -> Result:
    pages = {}
    ours, theirs = large.call("pages", 20 if size.name != "smallest" else 2), tiny.call("pages", 2)
    for name, address in ours.items():
        other = theirs[name]
        seen = take_turns(
            {
                "large": lambda a=address: float(large.call("look", a, 3)),  # type: ignore[misc]
                "tiny": lambda a=other: float(tiny.call("look", a, 3)),  # type: ignore[misc]
            },
            size.rounds,
        )
        pages[name] = {
            "ratio": ratio(seen["large"], seen["tiny"]).as_dict(),
            "statements": large.call("statements", address),
        }
    return pages


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
    for _ in range(size.rounds + 1):
        for ours in (True, False):
            figures[ours].append(startup.once(ours=ours))
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
    "tables": tables,
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
