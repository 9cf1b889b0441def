"""Crashes and errors around every effect of finishing: nothing is lost, nothing comes double."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from follow_world import Breach, CrashError, Memory

from modzy_relay.testing import StorageDownError

if TYPE_CHECKING:
    from collections.abc import Callable

LINK = "https://modzy.test/api/results/x/y/sound.wav"
OPERATIONS = [
    "ledger.index",
    "modzy.job",
    "modzy.results",
    "modzy.open_file",
    "results.put",
    "outbox.announce",
    "outbox.remind",
    "ledger.replace",
]


@pytest.mark.parametrize("count", [1, 3], ids=["once", "thrice"])
@pytest.mark.parametrize("error", [CrashError, StorageDownError])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_finishing_survives_a_fault_around_each_effect(
    operation: str, after: bool, error: Callable[[], BaseException], count: int
) -> None:
    """One result set, at least one event with one id, a right row; results before the event."""
    breach = Breach(operation=operation, after=after, error=error, count=count)
    memory = Memory(breach)
    memory.modzy.links = {"sound.wav": LINK}
    memory.modzy.files = {LINK: b"RIFF"}
    memory.submit()
    row = memory.run()
    assert breach.count == 0, "the fault struck"

    prefix = f"uploads/a.txt/{row.job_identifier}"
    assert sorted(memory.results.blobs) == [f"{prefix}/results.json", f"{prefix}/sound.wav"]
    assert memory.results.blobs[f"{prefix}/sound.wav"][0] == b"RIFF"
    assert (row.job_status, row.reason) == ("COMPLETED", None)
    assert row.result_location == f"modzy-results/{prefix}"
    events = memory.finished_events()
    assert len({event["id"] for event in events}) == 1
    assert events[-1]["data"]["result_location"] == row.result_location
    puts = [place for place, name in enumerate(breach.log) if name == "results.put"]
    assert puts[1] < breach.log.index("outbox.announce"), "both files are there before the event"
    assert len(memory.modzy.jobs) == 1


def test_document_is_written_after_the_files_that_it_links_to() -> None:
    """Where results.json is, every file beside it is too."""
    memory = Memory(Breach(operation="results.put", after=True))
    memory.modzy.links = {"sound.wav": LINK}
    memory.modzy.files = {LINK: b"RIFF"}
    memory.submit()
    while not memory.results.blobs:
        memory.step()
    assert [name.rpartition("/")[2] for name in memory.results.blobs] == ["sound.wav"]


def test_colleague_who_finished_first_is_left_alone() -> None:
    """Two looks at once: the row is finished once, the events have the same id."""
    memory = Memory()
    row = memory.submit()
    memory.clock.advance(memory.modzy.job_life * 2)
    stale = memory.ledger.get(row.key)
    assert stale is not None
    memory.follower.look(stale)
    finished = memory.ledger.get(row.key)
    memory.follower.look(stale)
    again = memory.ledger.get(row.key)
    assert finished is not None
    assert again is not None
    assert again.etag == finished.etag
    first, second = memory.finished_events()
    assert first["id"] == second["id"]
