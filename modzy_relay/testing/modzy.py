"""Modzy in memory: jobs, their life, the history with its lag, and answers by script."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from modzy_relay.modzy_api import (
    AnswerTimeoutError,
    BadRequestError,
    ForeignLinkError,
    Job,
    JobStatus,
    NoAnswerError,
    NotSentError,
    ResultFile,
    Results,
    ThrottledError,
    UnavailableError,
)
from modzy_relay.modzy_platform import InputNameNeededError
from modzy_relay.testing.wire import MemoryService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from modzy_relay.lifecycle import Submission
    from modzy_relay.testing.clock import ManualClock
    from modzy_relay.testing.wire import Wire

_POST = "POST /api/jobs"


@dataclass(frozen=True, slots=True)
class Reply:
    """What becomes of one POST.

    Attributes:
        accepted: Whether a job comes of it.
        error: What the caller gets instead of the job.
        takes: How long the caller waits for it.
        history_lag: How much later than that the job shows in the history.
    """

    accepted: bool = True
    error: Exception | None = None
    takes: timedelta = timedelta()
    history_lag: timedelta = timedelta()


def cut_off(*, accepted: bool, history_lag: timedelta = timedelta()) -> Reply:
    """The connection is cut before the answer: the outcome is unknown to the caller."""
    error = NoAnswerError("the connection was cut", request=_POST)
    return Reply(accepted, error, history_lag=history_lag)


def hanging(
    takes: timedelta, *, accepted: bool = False, history_lag: timedelta = timedelta()
) -> Reply:
    """No answer comes until the caller gives up: the outcome is unknown to it."""
    error = AnswerTimeoutError("no answer in time", request=_POST)
    return Reply(accepted, error, takes, history_lag)


def busy(retry_after: float | None = None) -> Reply:
    """503: certainly not accepted."""
    error = UnavailableError("try later", request=_POST, status=503, retry_after=retry_after)
    return Reply(accepted=False, error=error)


def throttling(retry_after: float | None = None) -> Reply:
    """429: certainly not accepted."""
    error = ThrottledError("slow down", request=_POST, status=429, retry_after=retry_after)
    return Reply(accepted=False, error=error)


def unreachable() -> Reply:
    """No connection: certainly not accepted."""
    return Reply(accepted=False, error=NotSentError("connection refused", request=_POST))


def refusing() -> Reply:
    """400: refused for good."""
    return Reply(accepted=False, error=BadRequestError("no such input", request=_POST, status=400))


def scripted(*replies: Reply) -> Callable[[Submission], Reply]:
    """For ``MemoryModzy.reply``: one reply after the other, then every POST is accepted."""
    rest = iter(replies)
    return lambda _: next(rest, Reply())


@dataclass(slots=True)
class MemoryJob:
    """A job that exists.

    Attributes:
        item_key: Its one input item key.
        visible_at: When the history shows it.
        ends_at: When it completes, unless it is cancelled before.
        final_status: How it ends.
    """

    job_identifier: str
    item_key: str
    created_at: datetime
    visible_at: datetime
    ends_at: datetime
    final_status: str = JobStatus.COMPLETED
    cancelled: bool = False

    def seen_at(self, now: datetime) -> Job:
        """The job as Modzy describes it at a time."""
        if self.cancelled:
            status = JobStatus.CANCELED
        else:
            status = self.final_status if now >= self.ends_at else JobStatus.IN_PROGRESS
        return Job(
            job_identifier=self.job_identifier,
            status=status,
            created_at=self.created_at,
            submitted_at=self.created_at,
            job_inputs=(self.item_key,),
        )


class MemoryModzy(MemoryService):
    """Implements ``ports.Modzy``. Thread-safe.

    Attributes:
        reply: Decides what becomes of a POST; see ``scripted``.
        fault: Given the name of any other request (``find``, ``job``, ``cancel``, ``results``,
            ``input_name``, ``open_file``), what it raises; None = nothing.
        posts: Item keys of all requests that were sent, accepted or not, in order.
        jobs: Job identifier to job.
        job_life: How long a job runs.
        input_names: The inputs of every model version.
        files: Contents of linked result files by their URL.
        links: Result files that every document links to: name to URL.
    """

    def __init__(
        self,
        clock: ManualClock,
        wire: Wire | None = None,
        *,
        job_life: timedelta = timedelta(minutes=1),
    ) -> None:
        super().__init__(clock, wire)
        self.reply: Callable[[Submission], Reply] = scripted()
        self.fault: Callable[[str], Exception | None] = lambda _: None
        self.posts: list[str] = []
        self.jobs: dict[str, MemoryJob] = {}
        self.job_life = job_life
        self.input_names: tuple[str, ...] = ("input.txt",)
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self._by_item: dict[str, list[MemoryJob]] = {}
        self._numbers = itertools.count(1)

    def jobs_of(self, item_key: str) -> list[MemoryJob]:
        """Every job with an input item key, oldest first, whether the history shows it or not."""
        return list(self._by_item.get(item_key, ()))

    def input_name(self, model: str, version: str) -> str:
        """The name of the model version's only input."""
        with self._exchange("modzy.input_name"):
            self._fail("input_name")
            if len(self.input_names) != 1:
                raise InputNameNeededError(f"{model} {version} has {len(self.input_names)} inputs")
            return self.input_names[0]

    def submit(
        self,
        row: Submission,
        input_name: str,  # noqa: ARG002 - the port's; a model in memory reads no input
        before_send: Callable[[], None],
    ) -> Job:
        """POST the job; ``before_send`` runs before it can take effect."""
        self._wire.request("modzy.submit")
        before_send()
        # No process can rule out that it stands still right here; what comes of that is cleaned up.
        self._wire.request("modzy.submit.send")
        with self._lock:
            self.posts.append(row.item_key)
            reply = self.reply(row)
            job = self._accept(row, reply) if reply.accepted else None
        self._clock.advance(reply.takes)
        self._wire.response("modzy.submit")
        if reply.error is not None:
            raise reply.error.with_traceback(None)
        if job is None:
            raise ValueError("a reply accepts the job or carries an error")
        return dataclasses.replace(job, status=JobStatus.SUBMITTED)

    def _accept(self, row: Submission, reply: Reply) -> Job:
        now = self._time()
        job = MemoryJob(
            job_identifier=f"00000000-0000-4000-8000-{next(self._numbers):012d}",
            item_key=row.item_key,
            created_at=now,
            visible_at=now + reply.takes + reply.history_lag,
            ends_at=now + self.job_life,
        )
        self.jobs[job.job_identifier] = job
        self._by_item.setdefault(row.item_key, []).append(job)
        return job.seen_at(now)

    def find(self, item_key: str, since: datetime) -> Sequence[Job]:
        """Every job with this input item key that the history shows, oldest first."""
        with self._exchange("modzy.find"):
            self._fail("find")
            now = self._time()
            return [
                job.seen_at(now)
                for job in self.jobs_of(item_key)
                if job.created_at >= since and job.visible_at <= now
            ]

    def job(self, job_identifier: str) -> Job | None:
        """Job details; None if there is no such job."""
        with self._exchange("modzy.job"):
            self._fail("job")
            job = self.jobs.get(job_identifier)
            return job.seen_at(self._time()) if job is not None else None

    def cancel(self, job_identifier: str) -> None:
        """Cancel a job; one that has ended stays as it is."""
        with self._exchange("modzy.cancel"):
            self._fail("cancel")
            job = self.jobs[job_identifier]
            job.cancelled = job.cancelled or self._time() < job.ends_at

    def results(self, job_identifier: str) -> Results | None:
        """The results document; None while there is none."""
        with self._exchange("modzy.results"):
            self._fail("results")
            job = self.jobs[job_identifier]
            if job.seen_at(self._time()).status != JobStatus.COMPLETED:
                return None
            item = {"status": "SUCCESSFUL", "results.json": {"input": job.item_key}, **self.links}
            document = {
                "jobIdentifier": job_identifier,
                "finished": True,
                "total": 1,
                "completed": 1,
                "failed": 0,
                "results": {job.item_key: item},
                "failures": {},
            }
            return Results.from_document(document, job_identifier)

    @contextlib.contextmanager
    def open_file(self, url: str) -> Iterator[ResultFile]:
        """A linked result file; ForeignLinkError for one that is not in ``files``."""
        with self._exchange("modzy.open_file"):
            self._fail("open_file")
            if url not in self.files:
                raise ForeignLinkError("the link leads to another server")
        yield ResultFile(_MemoryAnswer(self.files[url]))

    def _fail(self, request: str) -> None:
        error = self.fault(request)
        if error is not None:
            raise error.with_traceback(None)


@dataclass(frozen=True)
class _MemoryAnswer:
    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        for begin in range(0, len(self.content), size):
            yield self.content[begin : begin + size]
