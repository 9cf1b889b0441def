"""The use cases on whatever stands behind the ports: real services, or doubles of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modzy_relay.breaker import Breaker
from modzy_relay.follow import Follower
from modzy_relay.lookup import Lookup
from modzy_relay.relay import Relay
from modzy_relay.results import ResultKeeper
from modzy_relay.sweep import Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from modzy_relay.lifecycle import Timing
    from modzy_relay.ports import Ledger, Modzy, Outbox, ResultStore, Uploads
    from modzy_relay.routing import Route


@dataclass(frozen=True)
class UseCases:
    """What one process of the app can do; they share one breaker."""

    relay: Relay
    follower: Follower
    sweeper: Sweeper
    lookup: Lookup


def assemble(
    *,
    uploads: Uploads,
    ledger: Ledger,
    outbox: Outbox,
    modzy: Modzy,
    results: ResultStore | None,
    routes: Sequence[Route],
    timing: Timing,
    lookback: timedelta,
    ticks: Callable[[], float],
    chance: Callable[[], float] = random.random,
) -> UseCases:
    """Put the use cases together; sends nothing.

    Args:
        uploads: The watched container.
        ledger: One row per blob version.
        outbox: Announcements and reminders.
        modzy: The platform.
        results: Where results go; None = they are not kept.
        routes: In order of precedence, the default route last.
        timing: The durations in force.
        lookback: How far back the very first sweep looks.
        ticks: Monotonic seconds.
        chance: Uniform in [0, 1), for jitter.
    """
    breaker = Breaker(ticks, chance)
    follower = Follower(
        ledger=ledger,
        outbox=outbox,
        modzy=modzy,
        breaker=breaker,
        results=ResultKeeper(modzy, results) if results is not None else None,
        timing=timing,
        chance=chance,
    )
    relay = Relay(
        uploads=uploads,
        ledger=ledger,
        outbox=outbox,
        modzy=modzy,
        follower=follower,
        breaker=breaker,
        routes=routes,
        timing=timing,
        chance=chance,
    )
    sweeper = Sweeper(
        uploads=uploads,
        ledger=ledger,
        outbox=outbox,
        relay=relay,
        timing=timing,
        lookback=lookback,
        ticks=ticks,
        chance=chance,
    )
    return UseCases(relay, follower, sweeper, Lookup(uploads, ledger, follower.submission_of))
