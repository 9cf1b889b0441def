"""What the benchmarks share: medians that can be trusted a little, and a way to tell them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians in milliseconds.

    Attributes:
        cpu: Of the calling thread.
        wall: On the clock.
    """

    cpu: float
    wall: float


def cost_of(calls: Sequence[Callable[[], object]], rounds: int) -> list[Cost]:
    """Cost of each call; the calls take turns, so that a busy machine is busy for all of them."""
    cpu: list[list[float]] = [[] for _ in calls]
    wall: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for number, call in enumerate(calls):
            began, began_cpu = time.perf_counter(), time.thread_time()
            call()
            cpu[number].append((time.thread_time() - began_cpu) * 1000)
            wall[number].append((time.perf_counter() - began) * 1000)
    return [
        Cost(statistics.median(cpu[number]), statistics.median(wall[number]))
        for number in range(len(calls))
    ]


def tell(text: str) -> None:
    """Write a line to the terminal."""
    print(text, flush=True)  # noqa: T201 - a terminal program
