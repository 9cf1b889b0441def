"""App processes that die, stand still, or live at another time."""

from __future__ import annotations

import functools
import random
import time
from typing import TYPE_CHECKING

from modzy_relay.lifecycle import State
from sandbox.fault_proxy import Effect, When, cut, status
from tests.faults.script import (
    AFTER,
    BEFORE,
    SIDES,
    STEPS,
    THROTTLED,
    Script,
    Scripts,
    control_of,
    freeze,
    go_on_for,
    kill,
    kill_once,
    resume_all,
    until_in,
    until_struck,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.fault_proxy import FaultProxy, Sighting
    from tests.faults.lane import Control, Lane

SCRIPTS = Scripts()


@SCRIPTS.add(quick=True, settings={"HISTORY_SETTLE": "1s"})
def kills_one_after_the_other(lane: Lane) -> None:
    """The most telling points, on one process that dies at each of them."""
    for effect, when in (
        (Effect.INSERT, AFTER),
        (Effect.POST, BEFORE),
        (Effect.POST, AFTER),
        (Effect.RECORD, BEFORE),
    ):
        case = lane.case(f"SIGKILL {when} {effect}, while earlier ones recover")
        kill_once(lane, case, effect, when, f"{effect}-{when}.txt")


@SCRIPTS.add()
def kills_on_the_second_way(lane: Lane) -> None:
    """Around the claim and the POST of an upload that was put off before."""
    for effect, detail in ((Effect.RECORD, State.SUBMITTING), (Effect.POST, None)):
        for when in SIDES:
            name = "claim" if effect is Effect.RECORD else "POST"
            case = lane.case(f"SIGKILL {when} the {name} of a second attempt")
            path = f"second-{name}-{when}.txt"
            lane.fault(Effect.POST, BEFORE, path=path, answer=THROTTLED)
            fault = lane.fault(
                effect,
                when,
                path=path,
                detail=detail,
                act=kill,
                answer=cut(reset=True),
            )
            lane.upload(case, path)
            until_struck(lane, fault)


@SCRIPTS.add()
def kills_while_parking(lane: Lane) -> None:
    """The breaker is open: reminder first, then the row."""
    first = lane.case("429 with Retry-After")
    for effect, when in ((Effect.REMIND, AFTER), (Effect.INSERT, BEFORE), (Effect.INSERT, AFTER)):
        case = lane.case(f"SIGKILL {when} the {effect} of an upload that is parked")
        opener = f"opener-{effect}-{when}.txt"
        throttled = lane.fault(
            Effect.POST, BEFORE, path=opener, answer=status(429, headers={"Retry-After": "20"})
        )
        lane.upload(first, opener)
        until_struck(lane, throttled)
        until_in(lane, opener, State.DEFERRED)
        path = f"parked-{effect}-{when}.txt"
        fault = lane.fault(
            effect,
            when,
            path=None if effect is Effect.REMIND else path,
            act=kill,
            answer=cut(reset=True),
        )
        lane.upload(case, path)
        until_struck(lane, fault)


def _freeze_at(
    lane: Lane, *, effect: Effect, when: When, detail: str | None, tries: int = 1
) -> None:
    case = lane.case(f"SIGSTOP {when} {effect}, until another process has taken over")
    for number in range(tries):
        path = f"{effect}-{when}-{number}.txt"
        fault = lane.fault(
            effect, when, path=None if effect is Effect.MODEL else path, detail=detail, act=freeze
        )
        lane.upload(case, path)
        until_struck(lane, fault)
        until_in(lane, path, State.SUBMITTED)
        resume_all(lane)


def _register_freezes() -> None:
    points = {Effect.HEAD: None, Effect.INSERT: State.SUBMITTING, Effect.MODEL: None}
    SCRIPTS.extend(
        Script(
            f"freeze{effect.lower()}{when}",
            functools.partial(_freeze_at, effect=effect, when=when, detail=detail),
            lane={"hosts": 2},
        )
        for effect, detail in points.items()
        for when in SIDES
    )


@SCRIPTS.add(hosts=2)
def freeze_on_the_second_way(lane: Lane) -> None:
    """Around the claim of an upload that was put off before."""
    for when in SIDES:
        case = lane.case(f"SIGSTOP {when} the claim of a second attempt, until taken over")
        path = f"claim-{when}.txt"
        lane.fault(Effect.POST, BEFORE, path=path, answer=THROTTLED)
        fault = lane.fault(Effect.RECORD, when, path=path, detail=State.SUBMITTING, act=freeze)
        lane.upload(case, path)
        until_struck(lane, fault)
        until_in(lane, path, State.SUBMITTED)
        resume_all(lane)


@SCRIPTS.add(hosts=2)
def freeze_around_the_later_effects(lane: Lane) -> None:
    """After the POST: the job exists, and another process adopts it meanwhile."""
    for effect, when in (
        (Effect.POST, AFTER),
        (Effect.ANNOUNCE, BEFORE),
        (Effect.REMIND, AFTER),
        (Effect.RECORD, BEFORE),
    ):
        case = lane.case(f"SIGSTOP {when} {effect}, until another process has taken over")
        path = f"{effect}-{when}.txt"
        fault = lane.fault(effect, when, path=path, detail=STEPS[effect], act=freeze)
        lane.upload(case, path)
        until_struck(lane, fault)
        until_in(lane, path, State.SUBMITTED)
        resume_all(lane)


@SCRIPTS.add(hosts=2, control=True)
def frozen_after_the_guard(lane: Lane) -> None:
    """The last look at the lease allowed the POST, and the process stands still right there."""
    case = lane.case(
        "SIGSTOP between the last look at the lease and the first byte, until taken over"
    )
    control = control_of(lane)
    for number in range(2):
        path = f"guard-{number}.txt"
        control.stop_before_first_byte()
        lane.upload(case, path)
        lane.until("a process stops itself", lambda: control.has_stopped)
        until_in(lane, path, State.SUBMITTED)
        resume_all(lane)


@SCRIPTS.add(hosts=2, control=True)
def frozen_at_the_socket(lane: Lane) -> None:
    """What no guard can prevent: the extra job has to be found, cancelled and alarmed."""
    case = lane.case(
        "SIGSTOP between the last look at the time and the write of the body, until taken over",
        argued="A process can stand still between any two instructions, and Modzy takes no token "
        "with which it could refuse the late request. Each write looks at the time first, so the "
        "window is the few instructions between that look and the system call that writes the "
        "body, and the freeze has to begin there and last until the takeover: lease "
        "(3 x SUBMIT_TIMEOUT + 5 s), 5 s of clock margin and HISTORY_SETTLE, 220 s by default. "
        "The late job is found by the process that wakes up, cancelled at Modzy and alarmed.",
    )
    # A job that has ended cannot be cancelled any more.
    lane.modzy.set_options(running_seconds=20.0)
    control = control_of(lane)
    for number in range(2):
        path = f"socket-{number}.txt"
        control.stop_before_body()
        lane.upload(case, path)
        lane.until("a process stops itself", lambda: control.has_stopped)
        until_in(lane, path, State.SUBMITTED)
        resume_all(lane)
        _until_cancelled(lane, number + 1)


def _until_cancelled(lane: Lane, count: int) -> None:
    lane.until(
        f"{count} late jobs are cancelled",
        lambda: sum(job.status == "CANCELED" for job in lane.modzy.jobs.all()) >= count,
    )


@SCRIPTS.add(hosts=2, seconds=300)
def soak(lane: Lane) -> None:
    """A stream of uploads, each with a chance of a fault, on processes that die all the time."""
    seed = 20261123
    case = lane.case(
        "soak: 60 uploads on two processes, one of them killed every 3 to 6 s, "
        "one request in 25 cut before or after its effect"
    )
    case.remarks.append(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
    next_kill = time.monotonic() + chance.uniform(3, 6)
    for number in range(60):
        path = f"soak/{number:03}.txt"
        for effect in STEPS:
            for when in SIDES:
                if chance.random() < 1 / 25:
                    answer = cut(reset=chance.random() < 0.5)
                    # A killed process may never come to it.
                    lane.fault(effect, when, certain=False, path=path, answer=answer)
        lane.upload(case, path)
        go_on_for(lane, chance.uniform(0.3, 1.2))
        if time.monotonic() > next_kill:
            chance.choice(lane.hosts).kill()
            next_kill = time.monotonic() + chance.uniform(3, 6)


@SCRIPTS.add(control=True, seconds=300)
def clock_steps(lane: Lane) -> None:
    """The app's wall clock is set while an upload is on its way."""
    control = control_of(lane)
    for hours in (3, -3, 26):
        for effect, when in (
            (Effect.INSERT, AFTER),
            (Effect.POST, AFTER),
            (Effect.ANNOUNCE, AFTER),
        ):
            case = lane.case(f"wall clock set by {hours:+} h {when} {effect}")
            path = f"clock{hours}-{effect}.txt"
            fault = lane.fault(
                effect,
                when,
                path=path,
                detail=STEPS[effect],
                act=_clock_setter(control, hours),
                answer=cut() if effect is Effect.POST else None,
            )
            lane.upload(case, path)
            until_struck(lane, fault)


def _clock_setter(control: Control, hours: int) -> Callable[[FaultProxy, Sighting], object]:
    return lambda _proxy, _seen: control.step_clock(hours * 3600.0)


@SCRIPTS.add(control=True)
def clock_steps_with_kill(lane: Lane) -> None:
    """The process dies after the POST, and the one that comes after it lives at another time."""
    control = control_of(lane)
    for hours in (5, -5):
        case = lane.case(f"SIGKILL after POST, next process {hours:+} h off")
        path = f"kill{hours}.txt"
        lane.fault(Effect.POST, AFTER, path=path, act=kill, answer=cut(reset=True))
        lane.upload(case, path)
        lane.wait_for_death(lane.hosts[0])
        control.step_clock(hours * 3600.0)
        lane.keep_running()


_register_freezes()
