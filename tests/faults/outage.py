"""An outage of Modzy in real time, while uploads keep coming at a steady rate."""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modzy_relay.lifecycle import State
from sandbox.fault_proxy import MODZY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.lane import Lane
    from tests.faults.verdict import Case

SECONDS = 60.0
_UPLOADS_PER_SECOND = 5.0
_SECONDS_BEFORE = 5.0
_RECOVERY_SECONDS = 400.0
_PARKED = "Modzy is failing or throttling"
# 2026-11-23T13:27:13.152Z INFO [-] sandbox.host: Executed submit_upload (Succeeded, id=5e, 7 ms)
_EXECUTED = re.compile(r"Executed submit_upload \(Succeeded, id=(\S+), (\d+) ms\)")
# 2026-11-23T13:27:13.152Z WARNING [5e88...] modzy_relay: submission.deferred {"submission": ...}
_PUT_OFF = re.compile(r"\[(\S+)\] modzy_relay: submission\.(?:deferred|in_doubt) (\{.*\})")


@dataclass(frozen=True)
class OutageReport:
    """What an outage did.

    Attributes:
        uploads: how many came in, before, during and after.
        parked_ms: durations of the invocations that parked an upload without calling Modzy.
        calls: how often Modzy was called in vain.
        submitted_after: seconds from the end of the outage to the last submission.
    """

    name: str
    uploads: int
    parked_ms: tuple[int, ...]
    calls: int
    submitted_after: float

    def lines(self) -> Iterator[str]:
        """The report as cells of a table."""
        parked = sorted(self.parked_ms)
        yield self.name
        yield str(self.uploads)
        yield str(len(parked))
        yield f"{statistics.median(parked):.0f} ms" if parked else "-"
        yield f"{parked[len(parked) * 95 // 100]} ms" if parked else "-"
        yield f"{parked[-1]} ms" if parked else "-"
        yield str(self.calls)
        yield f"{self.submitted_after:.0f} s"


def refuse(lane: Lane) -> None:
    """Modzy refuses connections for the time of the outage."""
    lane.proxies[0].refuse(MODZY, SECONDS)


def hang(lane: Lane) -> None:
    """Modzy takes requests and says nothing."""
    lane.modzy.misbehave({"do": "hang", "seconds": None}, method=None, path_regex="", count=None)


def end_hanging(lane: Lane) -> None:
    """Modzy answers again; what hangs is cut."""
    lane.modzy.service.rules.replace([])
    lane.modzy.service.release()


def run_outage(
    lane: Lane, name: str, begin: Callable[[Lane], None], end: Callable[[Lane], None] | None = None
) -> OutageReport:
    """Upload steadily; Modzy goes away and comes back; wait until all are submitted."""
    lane.start()
    case = lane.case(f"{name}, {_UPLOADS_PER_SECOND:.0f} uploads a second")
    _upload_for(lane, case, _SECONDS_BEFORE)
    begin(lane)
    _upload_for(lane, case, SECONDS)
    if end is not None:
        end(lane)
    ended = datetime.now(UTC)
    _upload_for(lane, case, _SECONDS_BEFORE)

    def all_submitted() -> bool:
        rows = lane.rows()
        return len(rows) == len(case.versions) and all(
            row["state"] == State.SUBMITTED for row in rows
        )

    lane.until("all are submitted", all_submitted, seconds=_RECOVERY_SECONDS)
    last = max(row["submitted_at"] for row in lane.rows())
    lane.settle(seconds=_RECOVERY_SECONDS)
    parked, calls = _read_logs(lane)
    return OutageReport(name, len(case.versions), parked, calls, (last - ended).total_seconds())


def _upload_for(lane: Lane, case: Case, seconds: float) -> None:
    over = time.monotonic() + seconds
    due = time.monotonic()
    while time.monotonic() < over:
        lane.upload(case, f"outage/{len(case.versions):04}.txt")
        due += 1 / _UPLOADS_PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))


def _read_logs(lane: Lane) -> tuple[tuple[int, ...], int]:
    """Durations of parking invocations, and how many calls failed."""
    text = "\n".join(log.read_text("utf-8") for log in lane.folder.glob("host-*.log"))
    durations = {invocation: int(ms) for invocation, ms in _EXECUTED.findall(text)}
    put_off = _PUT_OFF.findall(text)
    parked = {invocation for invocation, fields in put_off if _PARKED in fields}
    calls = sum(_PARKED not in fields for _, fields in put_off)
    return tuple(durations[one] for one in parked if one in durations), calls
