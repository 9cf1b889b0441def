"""Days of outage on a simulated clock: nothing lost, nothing doubled, few POSTs, quick recovery.

Run with ``-rP`` to see how many POSTs were tried.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from modzy_relay.lifecycle import State, Timing
from modzy_relay.messages import EventType
from modzy_relay.modzy_api import AnswerTimeoutError, NotSentError, UnavailableError
from modzy_relay.routing import Route
from modzy_relay.testing import (
    ManualClock,
    MemoryLedger,
    MemoryModzy,
    MemoryOutbox,
    MemoryUploads,
    Reply,
    busy,
    hanging,
    unreachable,
)
from modzy_relay.use_cases import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from modzy_relay.lifecycle import Submission

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TIMING = Timing(
    submit=timedelta(seconds=30),
    settle=timedelta(minutes=2),
    give_up=timedelta(days=7),
    follow=timedelta(days=7),
)
SWEEP_EVERY = timedelta(minutes=15)
OUTAGE = timedelta(hours=72)
#: Between two calls that fail the breaker stays open for half of its longest pause at least.
SHORTEST_PAUSE = timedelta(seconds=150)
#: Calls that fail before the pauses have grown to their full length.
WARMING_UP = 10


class Simulation:
    """One process of the app, driven from event to event."""

    def __init__(self) -> None:
        chance = random.Random(3).random  # noqa: S311 - jitter, and repeatable
        self.clock = ManualClock(START)
        self.uploads = MemoryUploads(self.clock)
        self.ledger = MemoryLedger(self.clock)
        self.outbox = MemoryOutbox(self.clock)
        # Jobs that run for days keep the follower's visits out of the picture.
        self.modzy = MemoryModzy(self.clock, job_life=timedelta(days=30))
        use_cases = assemble(
            uploads=self.uploads,
            ledger=self.ledger,
            outbox=self.outbox,
            modzy=self.modzy,
            results=None,
            routes=(Route("**", "ed542963de", "1.0.1", "input.txt"),),
            timing=TIMING,
            lookback=timedelta(days=2),
            ticks=self.clock.ticks,
            chance=chance,
        )
        self.relay, self.sweeper = use_cases.relay, use_cases.sweeper
        self._next_sweep = START

    def run(self, until: datetime, arrivals: Iterable[datetime] = ()) -> None:
        """Deliver everything as it falls due; a blob is uploaded at each arrival."""
        waiting = sorted(arrivals, reverse=True)
        while True:
            due = [self._next_sweep, *waiting[-1:]]
            visible_at = self.outbox.next_visible_at()
            if visible_at is not None:
                due.append(visible_at)
            if min(due) > until:
                self._advance_to(until)
                return
            self._advance_to(min(due))
            if waiting and waiting[-1] <= self.clock.now():
                path = f"{waiting.pop():%d-%H%M%S.%f}.txt"
                self.uploads.put(path)
                self.relay.submit_upload(path)
            if self._next_sweep <= self.clock.now():
                self.sweeper.run()
                self._next_sweep = self.clock.now() + SWEEP_EVERY
            reminder = self.outbox.receive()
            if reminder is not None:
                self.relay.advance(reminder.key)

    def _advance_to(self, time: datetime) -> None:
        self.clock.advance(max(time - self.clock.now(), timedelta()))

    def states(self) -> Counter[State]:
        """How many rows are in which state."""
        return Counter(row.state for row in self.ledger.rows())


@dataclass
class Outage:
    """A way for Modzy to fail.

    Attributes:
        name: For the test's name.
        begin: Makes it fail.
    """

    name: str
    begin: Callable[[Simulation], None] = field(repr=False)


def _refuse(simulation: Simulation) -> None:
    """Every second call is answered 503, the others find nobody listening."""
    turns = iter(range(10**9))
    modzy = simulation.modzy
    modzy.reply = lambda _: busy() if next(turns) % 2 else unreachable()
    modzy.fault = lambda _: (
        UnavailableError("down", status=503) if next(turns) % 2 else NotSentError("refused")
    )


def _hang(simulation: Simulation) -> None:
    """No call is answered; every third job that was asked for exists all the same."""
    turns = iter(range(10**9))

    def reply(_: Submission) -> Reply:
        return hanging(TIMING.submit, accepted=next(turns) % 3 == 0)

    def fault(_: str) -> Exception:
        simulation.clock.advance(TIMING.submit)
        return AnswerTimeoutError("no answer in time")

    simulation.modzy.reply = reply
    simulation.modzy.fault = fault


def _recover(simulation: Simulation) -> None:
    simulation.modzy.reply = lambda _: Reply()
    simulation.modzy.fault = lambda _: None


OUTAGES = (Outage("refusing", _refuse), Outage("hanging", _hang))


def _arrivals(uploads: int) -> list[datetime]:
    return [START + OUTAGE * (number / uploads) for number in range(uploads)]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name)
@pytest.mark.parametrize("uploads", [200, pytest.param(1000, marks=pytest.mark.faults)])
def test_uploads_during_a_long_outage_are_all_submitted_once(uploads: int, outage: Outage) -> None:
    """72 hours without Modzy: each upload has its one job within an hour of recovery."""
    simulation = Simulation()
    outage.begin(simulation)
    simulation.run(START + OUTAGE, _arrivals(uploads))
    modzy = simulation.modzy
    tried = Counter(modzy.posts)
    states = simulation.states()
    print(  # noqa: T201 - the numbers are the point of the simulation
        f"{outage.name}: {uploads} uploads, {len(modzy.posts)} POSTs in {OUTAGE}, "
        f"at most {max(tried.values())} for one upload, "
        f"{len(tried)} uploads tried at all; {states}"
    )
    assert len(modzy.posts) <= OUTAGE / SHORTEST_PAUSE + WARMING_UP
    assert set(states) <= {State.DEFERRED, State.SUBMITTING}

    _recover(simulation)
    simulation.run(START + OUTAGE + timedelta(hours=1))

    assert simulation.states() == {State.SUBMITTED: uploads}
    assert len(modzy.jobs) == uploads
    for row in simulation.ledger.rows():
        assert [job.job_identifier for job in modzy.jobs_of(row.item_key)] == [row.job_identifier]
    announced = Counter(event.id for event in simulation.outbox.announcements)
    assert len(announced) == uploads


def test_what_modzy_never_took_is_abandoned_and_told_once() -> None:
    """An outage longer than GIVE_UP_AFTER that surely accepted nothing ends in ABANDONED."""
    simulation = Simulation()
    _refuse(simulation)
    simulation.run(START + timedelta(days=8), _arrivals(20))
    simulation.run(START + timedelta(days=12))
    assert simulation.states() == {State.ABANDONED: 20}
    _told_once(simulation, 20)


def test_what_modzy_may_have_taken_is_uncertain_and_told_once() -> None:
    """Where a POST's outcome was never found out, the row says so, and nothing is sent again."""
    simulation = Simulation()
    _hang(simulation)
    simulation.run(START + timedelta(days=12), _arrivals(20))
    doubtful = set(simulation.modzy.posts)
    assert doubtful
    for row in simulation.ledger.rows():
        expected = State.UNCERTAIN if row.item_key in doubtful else State.ABANDONED
        assert row.state is expected
    _told_once(simulation, 20)
    posts = len(simulation.modzy.posts)
    _recover(simulation)
    simulation.run(START + timedelta(days=14))
    assert len(simulation.modzy.posts) == posts


def _told_once(simulation: Simulation, uploads: int) -> None:
    events = simulation.outbox.announcements
    assert {event.type for event in events} == {EventType.SUBMISSION_FAILED}
    assert len({event.id for event in events}) == len(events) == uploads
