"""Events and reminders that are repeated, lost or foreign, and blobs that change meanwhile."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

from modzy_relay.lifecycle import State
from sandbox.fault_proxy import Effect, cut
from tests.faults.lane import queue_length
from tests.faults.script import AFTER, BEFORE, THROTTLED, Scripts, until_in, until_struck

if TYPE_CHECKING:
    from sandbox.fault_proxy import FaultProxy, Sighting
    from tests.faults.lane import Lane
    from tests.faults.verdict import Case

SCRIPTS = Scripts()


@SCRIPTS.add(
    hosts=2,
    settings={"BLOB_TRIGGER_SOURCE": "EventGrid"},
    options=("--emit-events", "--event-copies", "3", "--event-interval", "0.3"),
)
def events_three_times(lane: Lane) -> None:
    """Two app processes on one container, each event three times at once and three times later."""
    _warm_up(lane)
    case = lane.case("two app processes, each event 3 times at once and 3 times later")
    paths = [f"thrice/{number:02}.txt" for number in range(30)]
    for path in paths:
        lane.upload(case, path)
    lane.settle()
    for path in paths:
        for _ in range(3):
            lane.run_submit_upload(path)
    lane.until("the late events are through", lambda: _executions(lane) >= 6 * len(paths))


def _warm_up(lane: Lane) -> None:
    """Upload until the emulated event subscription has begun to deliver."""
    case = lane.case("uploads before the event subscription began")
    lane.cases.remove(case)
    number = 0
    deadline = time.monotonic() + 30
    while not lane.rows() and time.monotonic() < deadline:
        lane.upload(case, f"warm-{number}.txt", expected=())
        number += 1
        time.sleep(0.5)


def _executions(lane: Lane) -> int:
    logs = [host.output() for host in lane.hosts]
    return sum(text.count("Executed submit_upload (Succeeded") for text in logs)


@SCRIPTS.add(settings={"BLOB_TRIGGER_SOURCE": "EventGrid"}, sweep_seconds=4.0, sweep=True)
def events_never(lane: Lane) -> None:
    """No event at all: the sweep finds the uploads."""
    case = lane.case("the event is lost, the sweep finds the upload")
    for number in range(5):
        lane.upload(case, f"silent/{number}.txt")


@SCRIPTS.add(quick=True, settings={"HISTORY_SETTLE": "1s"})
def due_messages_repeated(lane: Lane) -> None:
    """Reminders that come five times at once, in every open state."""
    deferred = lane.case("reminder 5 times, upload put off")
    lane.fault(Effect.POST, BEFORE, path="deferred.txt", answer=THROTTLED)
    lane.upload(deferred, "deferred.txt")
    doubtful = lane.case("reminder 5 times, outcome of the POST unknown")
    lane.fault(Effect.POST, AFTER, path="doubtful.txt", answer=cut())
    lane.upload(doubtful, "doubtful.txt")
    plain = lane.case("reminder 5 times, job submitted")
    lane.upload(plain, "plain.txt")
    paths = ("deferred.txt", "doubtful.txt", "plain.txt")
    lane.until("all have their rows", lambda: all(lane.state_of(path) for path in paths))
    delays = (0, 4, 12, 18)
    for path in paths:
        for delay in delays:
            for _ in range(5):
                lane.due_queue.send_message(_reminder(lane, path), visibility_timeout=delay)


def _reminder(lane: Lane, path: str) -> str:
    row = lane.rows_of(path)[0]
    return json.dumps({"ledger_key": f"{row['PartitionKey']}.{row['RowKey']}"})


@SCRIPTS.add(sweep_seconds=4.0, sweep=True)
def due_messages_lost(lane: Lane) -> None:
    """Every reminder is deleted by hand; the sweep finds rows that nobody looks at."""
    cases = {
        "deferred.txt": lane.case("reminder lost, upload put off"),
        "doubtful.txt": lane.case("reminder lost, outcome of the POST unknown"),
        "plain.txt": lane.case("reminder lost, job submitted"),
    }
    lane.fault(Effect.POST, BEFORE, path="deferred.txt", answer=THROTTLED)
    lane.fault(Effect.POST, AFTER, path="doubtful.txt", answer=cut())
    for path, case in cases.items():
        lane.upload(case, path)
    expected = {
        "deferred.txt": {State.DEFERRED},
        "doubtful.txt": {State.SUBMITTING},
        "plain.txt": {State.SUBMITTED},
    }

    def have_come_so_far() -> bool:
        return all(lane.state_of(path) in states for path, states in expected.items())

    lane.until("each is in its state", have_come_so_far)
    lane.due_queue.clear_messages()


@SCRIPTS.add(sweep=True)
def poison_messages(lane: Lane) -> None:
    """Messages in the due queue that are not the relay's."""
    case = lane.case("garbage in the due queue, beside uploads")
    raw = lane.raw_queue(lane.names.due_queue)
    for text in (
        "not base64 !",
        _encoded("no JSON"),
        _encoded('{"ledger_key": 5}'),
        _encoded("[]"),
    ):
        raw.send_message(text)
    lane.due_queue.send_message(json.dumps({"ledger_key": "2020-01-01-a.aaaaaaaaaaaaaaaaaaaaaaaa"}))
    for number in range(3):
        lane.upload(case, f"beside-{number}.txt")
    lane.until("four messages are poison", lambda: queue_length(lane.poison_queue) == 4)
    lane.run_function("sweep")
    lane.until(
        "the sweep tells of them",
        lambda: any(name == "poison.found" for name, _ in lane.log_events()),
    )
    case.remarks.append("4 of 5 foreign messages in the poison queue; 1 named no row: dropped")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@SCRIPTS.add()
def overwritten_and_deleted(lane: Lane) -> None:
    """Before the upload could be submitted."""
    old = lane.case("overwritten before it could be submitted: the old version")
    new = lane.case("overwritten before it could be submitted: the new version")
    deleted = lane.case("deleted before it could be submitted")
    for path in ("overwritten.txt", "deleted.txt"):
        lane.fault(Effect.POST, BEFORE, path=path, answer=THROTTLED)
    lane.upload(old, "overwritten.txt", b"old", expected=(State.GONE,), jobs=0)
    lane.upload(deleted, "deleted.txt", expected=(State.GONE,), jobs=0)
    for path in ("overwritten.txt", "deleted.txt"):
        until_in(lane, path, State.DEFERRED)
    lane.upload(new, "overwritten.txt", b"new content")
    lane.uploads.delete_blob("deleted.txt")
    _overwrite_in_between(lane)


def _overwrite_in_between(lane: Lane) -> None:
    """The old version was looked at: it may be submitted, with the new content, once at most."""
    for effect in (Effect.HEAD, Effect.INSERT):
        old = lane.case(f"overwritten right after the {effect}: the old version")
        new = lane.case(f"overwritten right after the {effect}: the new version")
        path = f"between-{effect}.txt"

        def overwrite(
            _proxy: FaultProxy, _seen: Sighting, case: Case = new, path: str = path
        ) -> None:
            lane.upload(case, path, b"new content")

        fault = lane.fault(effect, AFTER, path=path, act=overwrite)
        lane.upload(old, path, b"old")
        until_struck(lane, fault)
