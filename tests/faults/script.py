"""What a case of the fault matrix is made of: scripts, and what they have in common."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modzy_relay.lifecycle import State
from modzy_relay.messages import EventType
from sandbox.fault_proxy import Effect, When, cut, status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.fault_proxy import Fault, FaultProxy, Sighting
    from tests.faults.lane import Control, Lane
    from tests.faults.verdict import Case

    Run = Callable[[Lane], None]

BEFORE, AFTER = When.BEFORE, When.AFTER
SIDES = (BEFORE, AFTER)
#: The order of effects on the way to a job; the second member tells the effect from its likes.
STEPS: Mapping[Effect, str | None] = {
    Effect.HEAD: None,
    Effect.INSERT: None,
    Effect.POST: None,
    Effect.ANNOUNCE: EventType.JOB_SUBMITTED,
    Effect.REMIND: None,
    Effect.RECORD: State.SUBMITTED,
}
#: Of a lane's settings.
SUBMIT_TIMEOUT_SECONDS = 2
THROTTLED = status(429)


@dataclass(frozen=True)
class Script:
    """What is done on a lane.

    A script sets faults, uploads, and returns when what it wanted has happened; the campaign then
    waits until everything has come to its end, and counts.

    Attributes:
        name: also the lane's.
        run: the script itself.
        lane: arguments of the lane.
        quick: part of every test run.
        sweep: the sweep is run again and again until all is settled.
        own_storage: the lane gets an emulator of its own, which keeps its data when it is stopped.
        seconds: the longest that settling may take.
    """

    name: str
    run: Run
    lane: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    sweep: bool = False
    own_storage: bool = False
    seconds: float = 240


class Scripts(list[Script]):
    """The scripts of one module."""

    def add(self, **members: Any) -> Callable[[Run], Run]:
        """Take in a function under its own name; what a ``Script`` does not take is the lane's."""
        own = {name: members.pop(name) for name in list(members) if name in _SCRIPT_MEMBERS}

        def register(run: Run) -> Run:
            self.append(Script(run.__name__.replace("_", ""), run, members, **own))
            return run

        return register


_SCRIPT_MEMBERS = frozenset({"quick", "sweep", "own_storage", "seconds"})


def kill(proxy: FaultProxy, _seen: Sighting) -> None:
    """SIGKILL the app process."""
    proxy.kill_app()


def freeze(proxy: FaultProxy, _seen: Sighting) -> None:
    """SIGSTOP the app process; the script lets it go on."""
    proxy.freeze_app()


def resume_all(lane: Lane) -> None:
    """SIGCONT every app process."""
    for host in lane.hosts:
        host.resume()


def until_struck(lane: Lane, fault: Fault) -> None:
    """Wait for the effect that the fault waits for."""
    lane.until(f"{fault} of {fault.path}", lambda: fault.fired)


def until_in(lane: Lane, path: str, state: State) -> None:
    """Wait until the only row of a blob is in a state."""
    lane.until(f"{path} is {state}", lambda: lane.state_of(path) == state)


def go_on_for(lane: Lane, seconds: float) -> None:
    """Let time pass, as a person with a watch would, and restart what dies meanwhile."""
    over = time.monotonic() + seconds
    lane.until(f"{seconds} s have passed", lambda: time.monotonic() > over)


def kill_once(lane: Lane, case: Case, effect: Effect, when: When, path: str) -> None:
    """Upload, and wait until the process has been killed at that point of it."""
    fault = lane.fault(
        effect, when, path=path, detail=STEPS[effect], act=kill, answer=cut(reset=True)
    )
    lane.upload(case, path)
    until_struck(lane, fault)


def control_of(lane: Lane) -> Control:
    """The control of a lane that was made with one; raises ValueError without."""
    if lane.control is None:
        raise ValueError("this script needs a lane with control")
    return lane.control
