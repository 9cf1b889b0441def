"""Requests to Modzy while 10,000 jobs are followed at once, with and without its webhook.

    python -m benchmarks.follow_load            print the tables of docs/following.md
    python -m benchmarks.follow_load --jobs 500

A simulation on a clock of its own that uses the relay's real delays (``modzy_relay.backoff``), the
second that a reminder is late by, and nothing else: no host, no storage, no network, no waiting.
Every job is looked at until a look finds it ended; that look costs a second request, for the
results. With the webhook, Modzy calls when a job ends and that look happens then.
"""

from __future__ import annotations

import argparse
import collections
import heapq
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modzy_relay.backoff import look_delay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MINUTE = 60.0
HOUR = 60 * MINUTE
#: A reminder becomes visible a second late; see ``queue_outbox.QueueOutbox.remind``.
_REMINDER_LATE = 1.0
#: From Modzy's call to the look that it causes: a message through the due queue.
_HINT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """When jobs are submitted and how long they run, in seconds."""

    name: str
    submitted_within: float
    shortest: float
    longest: float


SCENARIOS = (
    Scenario("short: 30 s to 5 min", 5 * MINUTE, 30.0, 5 * MINUTE),
    Scenario("long: 1 h to 6 h", 5 * MINUTE, HOUR, 6 * HOUR),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What following cost.

    Attributes:
        per_minute: Requests by minute since the first submission.
        looks: Looks in all.
        lateness: Seconds from each job's end to the look that found it, ascending.
    """

    per_minute: Mapping[int, int]
    looks: int
    lateness: Sequence[float]

    @property
    def requests(self) -> int:
        """Requests in all."""
        return sum(self.per_minute.values())

    def between(self, first: int, last: int) -> float:
        """Requests per minute, averaged over the minutes ``first`` <= m < ``last``."""
        return sum(self.per_minute.get(minute, 0) for minute in range(first, last)) / (last - first)


def simulate(scenario: Scenario, jobs: int, *, webhook: bool, seed: int = 1) -> Load:
    """Follow all jobs of a scenario to their ends."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable simulation
    waiting: list[tuple[float, float, int]] = []  # when it is looked at, when it ends, looks so far
    for _ in range(jobs):
        submitted = chance.uniform(0, scenario.submitted_within)
        ends = submitted + chance.uniform(scenario.shortest, scenario.longest)
        waiting.append((_next_look(submitted, ends, 0, chance.random, webhook=webhook), ends, 0))
    heapq.heapify(waiting)
    per_minute: collections.Counter[int] = collections.Counter()
    looks = 0
    lateness = []
    while waiting:
        now, ends, earlier = heapq.heappop(waiting)
        looks += 1
        per_minute[int(now // MINUTE)] += 1
        if now >= ends:
            per_minute[int(now // MINUTE)] += 1  # the results
            lateness.append(now - ends)
            continue
        at = _next_look(now, ends, earlier + 1, chance.random, webhook=webhook)
        heapq.heappush(waiting, (at, ends, earlier + 1))
    return Load(per_minute, looks, sorted(lateness))


def _next_look(
    now: float, ends: float, looks: int, chance: Callable[[], float], *, webhook: bool
) -> float:
    scheduled = now + look_delay(looks, chance).total_seconds() + _REMINDER_LATE
    return min(scheduled, ends + _HINT_SECONDS) if webhook else scheduled


_SPAN_LIMITS = (0, 1, 2, 5, 10, 20, 30, 60, 120, 240, 360, 480)


def table(scenario: Scenario, jobs: int) -> str:
    """Markdown: requests per minute over time, and the totals."""
    without, hinted = (simulate(scenario, jobs, webhook=webhook) for webhook in (False, True))
    lines = [
        f"| {jobs:,} jobs, {scenario.name} | without webhook | with webhook |",
        "|---|---:|---:|",
    ]
    end = max(without.per_minute) + 1
    limits = [limit for limit in _SPAN_LIMITS if limit < end] + [end]
    lines += [
        f"| requests/min, minute {first} to {last} "
        f"| {without.between(first, last):,.0f} | {hinted.between(first, last):,.0f} |"
        for first, last in itertools.pairwise(limits)
    ]
    busiest = [max(load.per_minute.values()) for load in (without, hinted)]
    each = [load.requests / jobs for load in (without, hinted)]
    median, p99 = (
        [load.lateness[int(len(load.lateness) * share)] for load in (without, hinted)]
        for share in (0.5, 0.99)
    )
    lines += [
        f"| busiest minute | {busiest[0]:,} | {busiest[1]:,} |",
        f"| requests for each job | {each[0]:.1f} | {each[1]:.1f} |",
        f"| end noticed after, median | {median[0]:,.0f} s | {median[1]:,.0f} s |",
        f"| end noticed after, 99 % | {p99[0]:,.0f} s | {p99[1]:,.0f} s |",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.follow_load")
    parser.add_argument("--jobs", type=int, default=10_000, help="followed at once (10000)")
    parsed = parser.parse_args(arguments)
    print("\n\n".join(table(scenario, parsed.jobs) for scenario in SCENARIOS))  # noqa: T201 - a terminal program


if __name__ == "__main__":
    main()
