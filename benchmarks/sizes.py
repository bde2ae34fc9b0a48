"""How long each part is measured."""

from __future__ import annotations

from dataclasses import dataclass


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
        (32, 128),
    ),
}
