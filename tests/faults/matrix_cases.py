"""Every effect, before and after it, and everything that can happen there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sandbox.fault_proxy import Effect, When, cut, hang, status
from tests.faults.script import (
    AFTER,
    SIDES,
    STEPS,
    SUBMIT_TIMEOUT_SECONDS,
    Script,
    Scripts,
    kill_once,
    until_struck,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.fault_proxy import Answer, FaultProxy, Sighting
    from tests.faults.lane import Lane

SCRIPTS = Scripts()
_STORAGE_TIMEOUT_SECONDS = 20  # of the relay's storage clients


def _kill_around(lane: Lane, *, effect: Effect, when: When, tries: int) -> None:
    case = lane.case(f"SIGKILL {when} {effect}")
    for number in range(tries):
        kill_once(lane, case, effect, when, f"{effect}-{when}-{number}.txt")


def _tries(effect: Effect) -> tuple[int, int]:
    """How often in a row an effect is struck: once, and until the caller has to give up.

    The storage clients try three times. A POST is never tried again at once, so two failures are
    two looks at the row.
    """
    return (1, 2) if effect is Effect.POST else (1, 3)


def _cut_around(lane: Lane, *, reset: bool) -> None:
    name = "connection reset" if reset else "connection closed"
    for effect, detail in STEPS.items():
        for when in SIDES:
            case = lane.case(f"{name} {when} {effect}")
            for count in _tries(effect):
                path = f"{effect}-{when}-{count}.txt"
                lane.fault(
                    effect, when, path=path, detail=detail, answer=cut(reset=reset), count=count
                )
                lane.upload(case, path)


def _says_the_truth(answer: Answer) -> bool:
    return answer.name not in {"429", "503"}


def _answer_with_errors(lane: Lane, *, answer: Answer) -> None:
    """Statuses; 429 and 503 of a POST mean that Modzy did nothing, so they only come before it."""
    for effect, detail in STEPS.items():
        for when in SIDES:
            if effect is Effect.POST and when is AFTER and not _says_the_truth(answer):
                continue
            case = lane.case(f"{answer.name} {when} {effect}")
            for count in _tries(effect):
                path = f"{effect}-{when}-{count}.txt"
                lane.fault(effect, when, path=path, detail=detail, answer=answer, count=count)
                lane.upload(case, path)


def _hang_around(lane: Lane, *, again: bool) -> None:
    for effect, detail in STEPS.items():
        seconds = SUBMIT_TIMEOUT_SECONDS if effect is Effect.POST else _STORAGE_TIMEOUT_SECONDS
        count = _tries(effect)[again]
        for when in SIDES:
            path = f"{effect}-{when}.txt"
            answer = hang(seconds + 1.5)
            lane.fault(effect, when, path=path, detail=detail, answer=answer, count=count)
            lane.upload(lane.case(f"time-out {when} {effect}"), path)


def _make_unavailable(lane: Lane, *, when: When) -> None:
    def refuse(proxy: FaultProxy, seen: Sighting) -> None:
        proxy.refuse(seen.service, 4.0)

    for effect, detail in STEPS.items():
        case = lane.case(f"service unavailable for 4 s {when} {effect}")
        path = f"{effect}-{when}.txt"
        fault = lane.fault(
            effect, when, path=path, detail=detail, act=refuse, answer=cut(reset=True)
        )
        lane.upload(case, path)
        until_struck(lane, fault)


def _register_matrix() -> None:
    def add(name: str, run: Callable[[Lane], None], **members: Any) -> None:
        SCRIPTS.append(Script(name, run, **members))

    add("hangonce", functools.partial(_hang_around, again=False), seconds=300)
    add("hangall", functools.partial(_hang_around, again=True), seconds=420)
    for when in SIDES:
        add(
            f"unavailable{when}",
            functools.partial(_make_unavailable, when=when),
            lane={"sweep_seconds": 6.0},
            sweep=True,
        )
    for name, reset in (("closed", False), ("reset", True)):
        add(name, functools.partial(_cut_around, reset=reset))
    for code in (429, 500, 503):
        add(f"status{code}", functools.partial(_answer_with_errors, answer=status(code)))
    for effect in STEPS:
        for when in SIDES:
            add(
                f"kill{effect.lower()}{when}",
                functools.partial(_kill_around, effect=effect, when=when, tries=3),
            )


_register_matrix()
