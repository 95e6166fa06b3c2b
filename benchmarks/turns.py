"""What is compared is measured in turn, so that whatever disturbs the machine disturbs all of it alike.

round 1: A B C    round 2: A B C    ...    the median of each
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from benchmarks.cells import Measured

Name = TypeVar("Name")
Point = Callable[[], Measured]


def in_turn(what: str, points: Mapping[Name, Point], rounds: int) -> dict[Name, Measured]:
    """Measure every point once a round; progress goes to stderr under the name ``what``."""
    seen: dict[Name, list[Measured]] = {name: [] for name in points}
    for number in range(rounds):
        print(f"{what}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for name, point in points.items():
            seen[name].append(point())
    return {name: _median(measured) for name, measured in seen.items()}


def _median(repeats: Sequence[Measured]) -> Measured:
    """The medians of each figure by itself."""

    def of(name: str) -> float:
        return float(statistics.median(getattr(measured, name) for measured in repeats))

    return Measured(of("rate"), of("cpu_us"), of("p50_ms"), of("p99_ms"))
