"""An order with us against one without, and with a dead broker against a healthy one."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import databases
from benchmarks.figures import ratio, take_turns
from benchmarks.players import Player
from benchmarks.sizes import Size
from tests import broker_faults, services

Result = dict[str, Any]


def checkout(vendor: str, size: Size) -> Result:
    """Compare an order with us and without; a healthy broker is told of each."""
    with (
        databases.made(vendor) as url,
        Player("checkout", {"DATABASE_URL": url}) as shop,
        own_redis() as redis,
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
def own_redis() -> Iterator[broker_faults.ThrowawayRedis | None]:
    try:
        redis = broker_faults.ThrowawayRedis()
    except FileNotFoundError:
        yield None
        return
    with redis:
        yield redis
