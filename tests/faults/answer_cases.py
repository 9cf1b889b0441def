"""Answers of Modzy that do not come, do not help, or come late; and its history."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from modzy_relay.lifecycle import State
from sandbox.fault_proxy import Effect, When, cut, hang, hold, status
from tests.faults.script import (
    AFTER,
    BEFORE,
    STEPS,
    SUBMIT_TIMEOUT_SECONDS,
    Script,
    Scripts,
    go_on_for,
    kill_once,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.fault_proxy import Answer
    from tests.faults.lane import Lane

SCRIPTS = Scripts()


@SCRIPTS.add(quick=True, settings={"HISTORY_SETTLE": "1s"})
def disturbed_effects(lane: Lane) -> None:
    """A short selection of the matrix."""
    selection: list[tuple[str, Effect, When, Answer, int]] = [
        ("connection cut after POST", Effect.POST, AFTER, cut(), 1),
        ("429 before POST", Effect.POST, BEFORE, status(429), 1),
        ("500 after insert", Effect.INSERT, AFTER, status(500), 1),
        ("connection cut after announcement", Effect.ANNOUNCE, AFTER, cut(), 3),
        ("503 before record", Effect.RECORD, BEFORE, status(503), 3),
    ]
    for name, effect, when, answer, count in selection:
        path = f"{name.replace(' ', '-')}.txt"
        lane.fault(effect, when, path=path, detail=STEPS[effect], answer=answer, count=count)
        lane.upload(lane.case(f"{name} (short run)"), path)


_LOST_ANSWERS: Sequence[Mapping[str, Answer]] = (
    {
        "connection closed": cut(),
        "connection reset": cut(reset=True),
        "no answer in time": hang(SUBMIT_TIMEOUT_SECONDS + 1.5),
        "408": status(408),
    },
    {
        "500": status(500),
        "502 with a page of HTML": status(502, "<html>Bad Gateway</html>"),
        "504": status(504),
        "307 to somewhere else": status(307, "", {"Location": "http://127.0.0.1:9/"}),
    },
    {
        "200 with a page of HTML": status(200, "<html>Welcome</html>"),
        "200 and nothing else": status(200),
        "204": status(204),
        "200 with half of a JSON object": status(200, '{"jobIdentifier": "4d'),
    },
    {
        "200 without a job identifier": status(200, {"status": "SUBMITTED"}),
        "200 with an empty job identifier": status(200, {"jobIdentifier": ""}),
        "200 with a list": status(200, []),
    },
)


def _lose_answers(lane: Lane, *, answers: Mapping[str, Answer]) -> None:
    """Modzy has the job, and the app does not hear of it."""
    for number, (name, answer) in enumerate(answers.items()):
        case = lane.case(f"answer lost after acceptance: {name}")
        path = f"lost-{number}.txt"
        lane.fault(Effect.POST, AFTER, path=path, answer=answer)
        lane.upload(case, path)


def _register_lost_answers() -> None:
    # Few in one process: one failure after the other opens the breaker for longer and longer.
    SCRIPTS.extend(
        Script(f"lostanswers{number}", functools.partial(_lose_answers, answers=answers))
        for number, answers in enumerate(_LOST_ANSWERS, 1)
    )


@SCRIPTS.add()
def refused_for_good(lane: Lane) -> None:
    """Statuses that say that Modzy will never take this submission."""
    for code in (400, 404, 413, 422):
        case = lane.case(f"refused for good: {code}")
        path = f"refused-{code}.txt"
        lane.fault(Effect.POST, BEFORE, path=path, answer=status(code, {"message": "no"}))
        lane.upload(case, path, expected=(State.REJECTED,), jobs=0)


@SCRIPTS.add(seconds=330)
def request_late_in_the_network(lane: Lane) -> None:
    """Modzy gets the request after the app has stopped waiting for the answer."""
    case = lane.case("the POST arrives at Modzy 2 s after its time-out")
    lane.fault(Effect.POST, BEFORE, path="late.txt", answer=hold(SUBMIT_TIMEOUT_SECONDS + 2))
    lane.upload(case, "late.txt")
    case = lane.case(
        "the POST arrives at Modzy after the second one was sent",
        argued="A request may be in the network for longer than HISTORY_SETTLE (2 min by default) "
        "after the connection that carried it was given up. Modzy then gets it after history was "
        "asked. When the job is followed history is asked once more; the extra job is cancelled "
        "if it still runs, and alarmed.",
    )
    lane.fault(Effect.POST, BEFORE, path="very-late.txt", answer=hold(75))
    # The job that is followed has to live until the late one is there.
    lane.modzy.misbehave({"do": "job", "options": {"running_seconds": 90.0}}, count=None)
    lane.upload(case, "very-late.txt")


@SCRIPTS.add()
def lying_statuses(lane: Lane) -> None:
    """429 and 503 that come although the job was accepted."""
    for code in (429, 503):
        case = lane.case(
            f"Modzy accepts the job and answers {code}",
            argued=f"{code} is taken at its word: nothing was done. A gateway that answers so "
            "after it has passed the request on makes a second job. When the job is followed "
            "history is asked, and the extra job is cancelled if it still runs, and alarmed.",
        )
        path = f"lie-{code}.txt"
        lane.fault(Effect.POST, AFTER, path=path, answer=status(code))
        lane.upload(case, path)


@SCRIPTS.add(settings={"HISTORY_SETTLE": "40s"})
def history_lags(lane: Lane) -> None:
    """History shows a job 30 s after it was accepted; HISTORY_SETTLE allows for 40 s."""
    lane.modzy.set_options(history_lag=30.0)
    case = lane.case("answer lost, history lags by 30 s")
    for number in range(3):
        path = f"lag-{number}.txt"
        lane.fault(Effect.POST, AFTER, path=path, answer=cut())
        lane.upload(case, path)
    kill_once(lane, lane.case("SIGKILL after POST, history lags by 30 s"), Effect.POST, AFTER, "k")


@SCRIPTS.add()
def history_down(lane: Lane) -> None:
    """Answers are lost and history cannot be read for a while."""
    case = lane.case("answer lost, history answers 503, hangs or cuts for 75 s")
    down = [
        lane.fault(Effect.HISTORY, BEFORE, certain=False, answer=answer, count=None)
        for answer in (status(503), hang(3), cut())
    ]
    for number in range(3):
        path = f"down-{number}.txt"
        lane.fault(Effect.POST, AFTER, path=path, answer=cut())
        lane.upload(case, path)
    # Each request is met by the first fault that is left.
    for fault in down:
        go_on_for(lane, 25)
        fault.count = fault.fired
    lane.journal.clear_faults()
    case.remarks.append(f"{sum(fault.fired for fault in down)} questions in vain")


@SCRIPTS.add(settings={"GIVE_UP_AFTER": "30s"})
def history_never_readable(lane: Lane) -> None:
    """The outcome cannot be found out: a row that says so, and no second POST."""
    lane.fault(Effect.HISTORY, BEFORE, answer=status(500), count=None)
    accepted = lane.case("answer lost after acceptance, history down beyond GIVE_UP_AFTER")
    lane.fault(Effect.POST, AFTER, path="accepted.txt", answer=cut())
    lane.upload(accepted, "accepted.txt", expected=(State.UNCERTAIN,))
    not_accepted = lane.case("POST cut before Modzy, history down beyond GIVE_UP_AFTER")
    lane.fault(Effect.POST, BEFORE, path="cut.txt", answer=cut())
    lane.upload(not_accepted, "cut.txt", expected=(State.UNCERTAIN,), jobs=0)


@SCRIPTS.add()
def history_too_late(lane: Lane) -> None:
    """History shows the job only after HISTORY_SETTLE, or never."""
    late = lane.case(
        "answer lost, history lags by 30 s where HISTORY_SETTLE allows for 3 s",
        argued="HISTORY_SETTLE has to be longer than Modzy's history lags (2 min by default). "
        "If it is not, the version is submitted again; when the job is followed, history is asked "
        "once more, and the extra job is cancelled if it still runs, and alarmed.",
    )
    lane.modzy.set_options(running_seconds=60.0)
    lane.fault(Effect.POST, AFTER, path="late.txt", answer=cut())
    lane.modzy.misbehave({"do": "job", "options": {"history_lag": 30.0}})
    lane.upload(late, "late.txt")
    lane.until("the first POST is over", lambda: lane.modzy.jobs.all())
    never = lane.case(
        "answer lost, history never shows the job",
        argued="Nobody can tell a job that Modzy hides from one that it never had. The version "
        "is submitted again once HISTORY_SETTLE is over.",
    )
    lane.fault(Effect.POST, AFTER, path="never.txt", answer=cut())
    lane.modzy.misbehave({"do": "job", "options": {"history_lag": 1e7}})
    lane.upload(never, "never.txt")


_register_lost_answers()
