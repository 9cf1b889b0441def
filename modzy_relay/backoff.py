"""How long to wait: pure arithmetic, the randomness handed in."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_RETRY = timedelta(seconds=15)
LONGEST_RETRY = timedelta(minutes=15)
FIRST_LOOK = timedelta(seconds=10)
LONGEST_LOOK = timedelta(minutes=10)


def retry_delay(
    deferrals: int, chance: Callable[[], float], at_least: timedelta = timedelta()
) -> timedelta:
    """Exponential delay with full jitter, 15 s doubling to 15 min; never below ``at_least``.

    Args:
        deferrals: How often this was put off before.
        chance: Uniform in [0, 1).
        at_least: What the server asked for (``Retry-After``); the jitter is then added to it, so
            that callers told the same time do not return together.
    """
    ceiling = min(
        LONGEST_RETRY.total_seconds(), FIRST_RETRY.total_seconds() * 2.0 ** min(deferrals, 10)
    )
    if not at_least:
        return timedelta(seconds=1 + (ceiling - 1) * chance())
    return at_least + chance() * min(timedelta(seconds=ceiling), at_least / 2)


def look_delay(looks: int, chance: Callable[[], float]) -> timedelta:
    """Delay before a job is looked at (again): 10 s growing by half to 10 min, 20 % jitter."""
    plain = min(LONGEST_LOOK.total_seconds(), FIRST_LOOK.total_seconds() * 1.5 ** min(looks, 20))
    return timedelta(seconds=plain * (0.8 + 0.4 * chance()))
