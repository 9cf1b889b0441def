"""Many random runs of the model, and the interleavings that once broke a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from interleaving import Fate
from relay_world import (
    AFTER_POST,
    BEFORE_POST,
    TIMING,
    Trust,
    Violation,
    World,
    explore,
)
from seeded_mistakes import MISTAKES

from modzy_relay.lifecycle import State
from modzy_relay.messages import EventType
from modzy_relay.modzy_api import UnavailableError
from modzy_relay.testing import Reply, cut_off

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seeded_mistakes import Mistake

PATH = "letters/a.txt"
_LONGER_THAN_A_CLAIM = TIMING.lease + TIMING.clock_margin + 2 * TIMING.settle


@pytest.fixture
def world() -> Iterator[World]:
    """A world with one fresh upload, whose event is being dealt with."""
    world = World()
    world.write_blob(PATH)
    world.deliver_event(0, PATH)
    yield world
    world.close()


def _run_to(world: World, point: str, trouble: int = 0) -> None:
    """Let the first worker go on until it stands at a point."""
    while world.tasks[0].worker.at != point:
        world.step(0, trouble=trouble)


def _others_run(world: World) -> None:
    """Let everybody but the first worker run to their ends."""
    while len(world.tasks) > 1:
        world.step(1)


def _explore_all(runs: int) -> None:
    for seed in range(runs):
        explore(seed)


def test_a_run_can_be_repeated() -> None:
    """The same seed gives the same run, step by step, so that a failure can be looked into."""
    first, second = explore(7), explore(7)
    assert first.trace == second.trace


@pytest.mark.parametrize("first", range(0, 600, 100))
def test_no_interleaving_breaks_a_rule(first: int) -> None:
    """One job for each version, none lost, whatever happens while the assumptions hold."""
    for seed in range(first, first + 100):
        explore(seed)


@pytest.mark.parametrize("trust", [Trust.HOLE, Trust.LYING_HISTORY])
def test_where_doubles_cannot_be_ruled_out_they_are_cancelled(trust: Trust) -> None:
    """Where an assumption does not hold, one job counts and what can be seen of others is ended."""
    doubled = 0
    for seed in range(120):
        world = explore(seed, trust)
        doubled += any(len(world.modzy.jobs_of(row.item_key)) > 1 for row in world.ledger.rows())
    assert doubled, "no run had a double, so nothing was tested"


@pytest.mark.faults
@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize("first", range(100_000, 105_000, 1000))
def test_no_interleaving_breaks_a_rule_in_the_long_campaign(trust: Trust, first: int) -> None:
    """As above, with many more runs."""
    for seed in range(first, first + 1000):
        explore(seed, trust)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_check_finds_a_seeded_mistake(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay with one rule broken does not pass the model check."""
    mistake(monkeypatch)
    with pytest.raises(Violation):
        _explore_all(1500)


def test_adopting_the_own_job_does_not_cancel_it(world: World) -> None:
    """A process that stood still after its POST finds its job adopted, and lets it live."""
    _run_to(world, "outbox.announce?")
    world.wait(_LONGER_THAN_A_CLAIM)
    world.deliver_event(1, PATH)
    _others_run(world)
    world.settle()
    world.check_end()
    assert not world.modzy.to_cancel


def test_a_job_that_ended_before_it_was_adopted_is_finished_properly(world: World) -> None:
    """Its results are kept and its end is told, though it was final when it was found."""
    world.modzy.job_life = TIMING.settle / 2
    world.replies = (cut_off(accepted=True),)
    world.run(0)
    world.wait(TIMING.settle)
    world.settle()
    world.check_end()
    (row,) = world.ledger.rows()
    assert row.job_status == "COMPLETED"
    assert row.result_location
    told = [event.type for event in world.outbox.announcements]
    assert told == [EventType.JOB_SUBMITTED, EventType.JOB_FINISHED]


def test_history_that_is_down_at_the_first_look_is_no_error(world: World) -> None:
    """A look that cannot ask for doubles is put off like any other, not thrown at the host."""
    world.replies = (cut_off(accepted=False),)
    world.run(0)
    world.wait(_LONGER_THAN_A_CLAIM)
    world.replies = (Reply(),)
    world.deliver_reminder(0, 0)
    world.run(0)
    (row,) = world.ledger.rows()
    assert (row.state, row.attempts) == (State.SUBMITTED, 2)
    world.modzy.fault = lambda request: UnavailableError("down") if request == "find" else None
    world.wait(TIMING.submit)
    world.processes[0].relay.advance(row.key)
    assert world.ledger.rows()[0].is_open
    world.settle()
    world.check_end()


def test_a_job_posted_through_the_hole_by_a_process_that_then_died_is_cancelled() -> None:
    """Even when its sender can no longer say so, the second job is found and ended."""
    world = World(Trust.HOLE)
    world.write_blob(PATH)
    world.deliver_event(0, PATH)
    _run_to(world, BEFORE_POST)
    world.wait(_LONGER_THAN_A_CLAIM)
    world.deliver_event(1, PATH)
    _others_run(world)
    _run_to(world, AFTER_POST)
    world.step(0, Fate.KILL)
    world.settle()
    world.check_end()
    (row,) = world.ledger.rows()
    jobs = {job.job_identifier for job in world.modzy.jobs_of(row.item_key)}
    assert len(jobs) == 2
    assert world.modzy.to_cancel == jobs - {row.job_identifier}


def test_a_claim_that_ran_out_before_the_post_posts_nothing(world: World) -> None:
    """However long a process stands still before its last look at the clock, one job is posted."""
    _run_to(world, "modzy.submit?")
    world.wait(_LONGER_THAN_A_CLAIM)
    world.deliver_event(1, PATH)
    _others_run(world)
    world.run(0)
    assert len(world.modzy.posts) == 1
    world.settle()
    world.check_end()
