"""Medians and ratios of paired runs: what is measured on a noisy machine is only compared within its pair."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with its spread: the middle half of what was seen."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Summarise what was seen."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into the file of results."""
        return asdict(self)


def take_turns(
    players: dict[str, Callable[[], float]], rounds: int, *, seed: int = 1
) -> dict[str, list[float]]:
    """Let each play once in every round, in an order that changes, after one round that does not count."""
    chance = random.Random(seed)
    seen: dict[str, list[float]] = {name: [] for name in players}
    for number in range(rounds + 1):
        for name in chance.sample(list(players), len(players)):
            value = players[name]()
            if number:
                seen[name].append(value)
    return seen


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Return how many times ``theirs`` ours is, from pairs of one round each."""
    return Figure.of([one / other for one, other in zip(ours, theirs, strict=True)])
