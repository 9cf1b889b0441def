"""How following ends, on a clock that can be moved: by status, by time, by what never comes."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from follow_world import Memory

from modzy_relay.lifecycle import Change, Record, State
from modzy_relay.modzy_api import (
    HistoryInconclusiveError,
    Job,
    ModzyError,
    NotFoundError,
    Results,
    StatusError,
    ThrottledError,
    UnavailableError,
    UnreadableAnswerError,
)
from modzy_relay.testing import StorageDownError, Wire, cut_off, scripted

if TYPE_CHECKING:
    from collections.abc import Callable

    from modzy_relay.lifecycle import Submission

SERVER_FAULT = StatusError("broken", request="GET /api/results/x", status=500)
TOO_LARGE = UnreadableAnswerError("the answer is larger than 67108864 bytes", status=200)
HOUR = timedelta(hours=1)


def only(request: str, error: Exception) -> Callable[[str], Exception | None]:
    """A fault of one kind of request to Modzy."""
    return lambda name: error if name == request else None


def followed(memory: Memory, row: Submission) -> timedelta:
    """How long a job was followed."""
    assert row.submitted_at is not None
    assert row.finished_at is not None
    return memory.clock.now() - row.submitted_at


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELED", "TIMEDOUT", "ERROR"])
def test_every_final_status_ends_following(status: str) -> None:
    """A job's final status is recorded and told in Modzy's words; only COMPLETED has results."""
    memory = Memory()
    submitted = memory.submit()
    assert submitted.job_identifier is not None
    memory.modzy.jobs[submitted.job_identifier].final_status = status
    row = memory.run()
    assert (row.state, row.job_status, row.next_attempt_at) == (State.SUBMITTED, status, None)
    assert bool(row.result_location) == bool(memory.results.blobs) == (status == "COMPLETED")
    (event,) = memory.finished_events()
    assert event["data"]["job_status"] == status
    assert event["data"]["result_location"] == row.result_location
    assert row.changes[-1].reason == f"job {status}"
    assert memory.outbox.reminders() == []


def test_looks_grow_apart() -> None:
    """The first look comes after about 10 s, the later ones ever later, none after 12 minutes."""
    memory = Memory()
    memory.modzy.job_life = 6 * HOUR
    memory.submit()
    times = [memory.clock.now()]
    while not memory.row().job_is_final:
        memory.step()
        times.append(memory.clock.now())
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    assert 8 <= gaps[0] <= 14
    # 600 s with 20 % jitter, and the second that the queue's whole seconds add.
    assert all(480 <= gap <= 722 for gap in gaps[-20:])
    assert len(gaps) < 60


def test_404_right_after_the_submit_is_not_an_error() -> None:
    """A job that Modzy does not know yet is looked at again, and followed to its end."""
    memory = Memory()
    row = memory.submit()
    assert row.job_identifier is not None
    job = memory.modzy.jobs.pop(row.job_identifier)
    memory.step()
    assert memory.row().job_status == "SUBMITTED"
    memory.modzy.jobs[row.job_identifier] = job
    ended = memory.run()
    assert (ended.job_status, ended.reason) == ("COMPLETED", None)


def test_vanished_job_ends_after_the_grace() -> None:
    """A job that Modzy has forgotten ends as VANISHED, told and recorded, with a reason."""
    memory = Memory()
    row = memory.submit()
    assert row.job_identifier is not None
    del memory.modzy.jobs[row.job_identifier]
    ended = memory.run()
    assert (ended.job_status, ended.reason) == ("VANISHED", "Modzy no longer knows this job")
    assert timedelta(minutes=30) < followed(memory, ended) < HOUR
    (event,) = memory.finished_events()
    assert event["data"]["job_status"] == "VANISHED"


def test_short_404_of_an_old_job_does_not_end_it() -> None:
    """A job that ran for hours and is unknown for a minute, as during a deployment, goes on."""
    memory = Memory()
    memory.modzy.job_life = 5 * HOUR
    row = memory.submit()
    assert row.job_identifier is not None
    began = memory.clock.now()
    while memory.clock.now() - began < 2 * HOUR:
        memory.step()
    job = memory.modzy.jobs.pop(row.job_identifier)
    memory.step()
    assert memory.row().reason == "Modzy does not know the job (404)"
    memory.modzy.jobs[row.job_identifier] = job
    memory.step()
    assert (memory.row().job_status, memory.row().reason) == ("IN_PROGRESS", None)
    assert memory.run().job_status == "COMPLETED"


def test_job_that_never_ends_is_unfollowed() -> None:
    """After FOLLOW_FOR a job that still runs ends as UNFOLLOWED, told and recorded."""
    memory = Memory(follow_for=3 * HOUR)
    memory.modzy.job_life = timedelta(days=30)
    memory.submit()
    row = memory.run()
    assert (row.job_status, row.reason) == ("UNFOLLOWED", "not final within FOLLOW_FOR")
    assert 3 * HOUR < followed(memory, row) < 4 * HOUR
    assert len(memory.finished_events()) == 1


@pytest.mark.parametrize(
    "error",
    [SERVER_FAULT, UnavailableError("no", status=503), ThrottledError("no", status=429)],
    ids=lambda error: str(error.status),
)
def test_job_that_cannot_be_asked_for_is_unfollowed(error: ModzyError) -> None:
    """An outage of Modzy for all of FOLLOW_FOR, breaker and all, ends visibly with its fault."""
    memory = Memory(follow_for=3 * HOUR)
    memory.submit()
    memory.modzy.fault = lambda _: error
    row = memory.run()
    assert row.job_status == "UNFOLLOWED"
    assert (row.reason or "").startswith("not known to be final within FOLLOW_FOR; last: ")
    assert followed(memory, row) < 4 * HOUR + timedelta(minutes=15)


def test_retry_after_is_obeyed_with_jitter() -> None:
    """After a 429 no job is looked at before the time that Modzy asks for, nor all at once."""
    delays = set()
    for seed in range(5):
        memory = Memory(seed=seed)
        memory.submit()
        memory.modzy.fault = lambda _: ThrottledError("slow", status=429, retry_after=600.0)
        memory.step()
        row = memory.row()
        assert row.next_attempt_at is not None
        delays.add(row.next_attempt_at - memory.clock.now())
    assert min(delays) >= timedelta(seconds=600)
    assert len(delays) == 5


# -- results that are late, broken, or never come ------------------------------------------------


def test_late_results_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A results route that answers 404 for some minutes delays the end, and changes nothing."""
    memory = Memory()
    memory.submit()
    answer = memory.modzy.results
    late_until = memory.clock.now() + timedelta(minutes=20)
    monkeypatch.setattr(
        memory.modzy,
        "results",
        lambda job: answer(job) if memory.clock.now() >= late_until else None,
    )
    row = memory.run()
    assert (row.job_status, row.reason) == ("COMPLETED", None)
    assert row.result_location is not None
    assert memory.clock.now() >= late_until
    assert row.finished_at is not None
    assert row.finished_at < late_until, "the job was final from the first look on"


def test_results_that_never_come_end_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A completed job without results counts as finished after half an hour, and says so."""
    memory = Memory()
    memory.submit()
    monkeypatch.setattr(memory.modzy, "results", lambda _: None)
    row = memory.run()
    assert (row.job_status, row.result_location) == ("COMPLETED", None)
    assert row.reason == "completed, but Modzy has no results for it"
    assert followed(memory, row) < HOUR


def test_unfinished_document_is_not_taken_for_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that says finished: false is waited for, as if there was none."""
    memory = Memory()
    memory.submit()
    answer = memory.modzy.results
    ready_at = memory.clock.now() + timedelta(minutes=5)

    def results(job: str) -> Results | None:
        whole = answer(job)
        if whole is None or memory.clock.now() >= ready_at:
            return whole
        return Results.from_document({**whole.document, "finished": False, "results": {}}, job)

    monkeypatch.setattr(memory.modzy, "results", results)
    row = memory.run()
    (stored,) = memory.results.blobs
    assert memory.clock.now() >= ready_at
    assert row.job_status == "COMPLETED"
    assert row.item_key.encode() in memory.results.blobs[stored][0]


def test_document_beyond_the_limit_ends_soon_and_by_name() -> None:
    """A results document above 64 MiB is not fetched for days: COMPLETED, and the reason why."""
    memory = Memory()
    memory.submit()
    memory.modzy.fault = only("results", TOO_LARGE)
    row = memory.run(most_steps=30)
    assert (row.job_status, row.result_location) == ("COMPLETED", None)
    assert (row.reason or "").startswith("results not stored: ")
    assert "67108864 bytes" in (row.reason or "")
    (event,) = memory.finished_events()
    assert event["data"]["reason"] == row.reason
    assert memory.results.blobs == {}


def test_results_that_fail_for_ever_end_within_follow_for() -> None:
    """500 on every read of the results ends as COMPLETED without them, after FOLLOW_FOR."""
    memory = Memory(follow_for=6 * HOUR)
    memory.submit()
    memory.modzy.fault = only("results", SERVER_FAULT)
    row = memory.run()
    assert (row.job_status, row.result_location) == ("COMPLETED", None)
    assert (row.reason or "").startswith("results not stored: GET /api/results/x: 500")
    assert 6 * HOUR < followed(memory, row) < 7 * HOUR


def test_one_jobs_broken_results_do_not_stop_the_others() -> None:
    """500 for the results of one job alone opens no breaker: uploads are submitted as ever."""
    memory = Memory()
    memory.submit("broken.txt")
    memory.modzy.fault = only("results", SERVER_FAULT)
    for _ in range(12):
        memory.step()
    assert memory.row("broken.txt").looks == 12
    assert memory.submit("fine.txt").state is State.SUBMITTED


@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (NotFoundError("gone", request="GET /file", status=404), HOUR),
        (SERVER_FAULT, 7 * HOUR),
    ],
    ids=["refused", "outage"],
)
def test_linked_file_that_cannot_be_had_is_left_out_in_the_end(
    error: ModzyError, longest: timedelta
) -> None:
    """A linked file that Modzy does not give does not keep the document back for ever."""
    memory = Memory(follow_for=6 * HOUR)
    memory.submit()
    memory.modzy.links = {"sound.wav": "https://modzy.test/api/results/x/y/sound.wav"}
    memory.modzy.fault = only("open_file", error)
    row = memory.run()
    assert row.job_status == "COMPLETED"
    assert [name.rpartition("/")[2] for name in memory.results.blobs] == ["results.json"]
    assert row.result_location is not None
    assert (row.reason or "").startswith("sound.wav not stored: ")
    assert followed(memory, row) < longest


def test_results_container_that_refuses_for_ever_ends_visibly() -> None:
    """A results container that is gone or forbidden is tried for FOLLOW_FOR, then reported."""

    class Refusing(Wire):
        def request(self, operation: str) -> None:
            if operation == "results.put":
                raise StorageDownError("the container does not exist; SharedKey a:b")

    memory = Memory(Refusing(), follow_for=3 * HOUR)
    memory.submit()
    row = memory.run()
    assert (row.job_status, row.result_location) == ("COMPLETED", None)
    assert row.reason == "results not stored within FOLLOW_FOR: StorageDownError"


def test_no_results_container_means_no_results_request() -> None:
    """With RESULTS_CONTAINER empty a completed job costs no request for results at all."""
    memory = Memory(keeps_results=False)
    memory.submit()
    memory.modzy.fault = only("results", AssertionError("asked for results"))
    row = memory.run()
    assert (row.job_status, row.result_location, row.reason) == ("COMPLETED", None, None)
    assert memory.results.blobs == {}


def test_failed_inputs_are_told_without_a_results_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With RESULTS_CONTAINER empty the job's own counts still say that its input failed."""
    memory = Memory(keeps_results=False)
    memory.submit()
    look = memory.modzy.job

    def job(identifier: str) -> Job | None:
        found = look(identifier)
        return dataclasses.replace(found, total=1, failed=1) if found else None

    monkeypatch.setattr(memory.modzy, "job", job)
    assert memory.run().reason == "1 of 1 inputs failed"


def test_reason_fits_row_and_message_whatever_modzy_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error texts of any length, with newlines and half characters, become one short line."""
    memory = Memory()
    submitted = memory.submit()
    answer = memory.modzy.results
    failures: dict[str, Any] = {
        f"item {number}": {"status": "FAILED", "error": f"line {number}\n\ud800 " + "語" * 4000}
        for number in range(200)
    }

    def results(job: str) -> Results | None:
        whole = answer(job)
        if whole is None:
            return None
        return Results.from_document({**whole.document, "failures": failures, "total": 201}, job)

    monkeypatch.setattr(memory.modzy, "results", results)
    row = memory.run()
    assert row.job_identifier == submitted.job_identifier
    assert row.reason is not None
    assert row.reason.startswith("200 of 201 inputs failed: line 0 ? 語")
    assert len(row.reason) == 500
    assert memory.finished_events()[0]["data"]["reason"] == row.reason
    assert memory.results.blobs, "the document is stored all the same"


def test_fault_in_a_reason_is_one_line_of_unicode() -> None:
    """What Modzy writes into an error that ends up in row and event can be written there."""
    memory = Memory()
    memory.submit()
    memory.modzy.fault = only("results", UnreadableAnswerError("half \ud800\r\na line", status=200))
    row = memory.run()
    assert row.reason == "results not stored: 200 half ? a line"
    assert memory.finished_events()[0]["data"]["reason"] == row.reason


# -- more than one job ---------------------------------------------------------------------------


def test_double_is_cancelled_and_the_rows_own_job_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A job that a doubtful POST left behind, and history showed late, is cancelled early."""
    memory = Memory()
    memory.modzy.reply = scripted(cut_off(accepted=True, history_lag=timedelta(minutes=9)))
    memory.modzy.job_life = timedelta(minutes=40)
    memory.submit()
    while memory.row().state is not State.SUBMITTED:
        memory.step()
    first, second = memory.modzy.jobs_of(memory.row().item_key)
    first.visible_at = memory.clock.now()
    row = memory.run()
    assert row.job_identifier == second.job_identifier
    assert (first.cancelled, second.cancelled) == (True, False)
    assert row.job_status == "COMPLETED"
    alarms = [it for it in caplog.messages if it.startswith("submission.duplicate_jobs ")]
    assert len(alarms) == 1, "what was cancelled is not reported again at the end"


def test_broken_history_does_not_withhold_results() -> None:
    """A history that cannot be read delays the end by half an hour at most."""
    memory = Memory()
    memory.modzy.reply = scripted(cut_off(accepted=False))
    memory.submit()
    while memory.row().state is not State.SUBMITTED:
        memory.step()
    memory.modzy.fault = only("find", HistoryInconclusiveError("no end"))
    row = memory.run()
    assert (row.job_status, row.reason) == ("COMPLETED", None)
    assert followed(memory, row) < HOUR


def test_submission_with_one_post_asks_for_no_history() -> None:
    """The happy path costs no history request, nor does an upload that was only parked."""
    memory = Memory()
    row = memory.submit()
    record = memory.ledger.get(row.key)
    assert isinstance(record, Record)
    parked = (Change(memory.clock.now(), "DEFERRED", "parked"), *row.changes)
    memory.ledger.replace(record, dataclasses.replace(row, deferrals=3, changes=parked))
    memory.modzy.fault = only("find", AssertionError("asked history"))
    assert memory.run().job_status == "COMPLETED"


def test_second_post_makes_history_be_asked_even_after_a_refusal() -> None:
    """A gateway may say 503 to a request that it has passed on: an extra job is looked for."""
    memory = Memory()
    row = memory.submit()
    record = memory.ledger.get(row.key)
    assert isinstance(record, Record)
    memory.ledger.replace(record, dataclasses.replace(row, attempts=2, deferrals=1))
    asked: list[str] = []
    memory.modzy.fault = asked.append
    memory.run()
    assert asked.count("find") == 2


def test_claim_that_ended_without_word_makes_history_be_asked() -> None:
    """A process that stood still through its claim may have left a job: it is looked for."""
    memory = Memory()
    row = memory.submit()
    record = memory.ledger.get(row.key)
    assert isinstance(record, Record)
    memory.ledger.replace(record, dataclasses.replace(row, attempts=2))
    asked: list[str] = []
    memory.modzy.fault = asked.append
    memory.run()
    assert asked.count("find") == 2
