"""Two worlds to follow jobs in: real services on this machine, and doubles on a manual clock."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

from modzy_relay.identity import LedgerKey
from modzy_relay.lifecycle import Timing
from modzy_relay.routing import Route
from modzy_relay.table_ledger import TableLedger
from modzy_relay.testing import (
    ManualClock,
    MemoryLedger,
    MemoryModzy,
    MemoryOutbox,
    MemoryResults,
    MemoryUploads,
    StorageDownError,
    Wire,
)
from modzy_relay.use_cases import assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from modzy_relay.lifecycle import Submission
    from modzy_relay.wiring import Services
    from sandbox.modzy_server import Job
    from sandbox.stack import Stack

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPOSITORY / "docs/events.schema.json").read_text("utf-8"))
_FORMATS = FormatChecker()
EVENTS = Draft202012Validator(SCHEMA, format_checker=_FORMATS)

FINISHED = "modzy.job.finished"
_Found = TypeVar("_Found")


@_FORMATS.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator]
def _is_aware_time(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text).tzinfo is not None


def until(
    look: Callable[[], _Found], satisfied: Callable[[_Found], object] = bool, *, seconds: float = 30
) -> _Found:
    """Look again and again until what is found satisfies; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not satisfied(found := look()):
        assert time.monotonic() < deadline, f"still waiting; last seen: {found!r}"
        time.sleep(0.02)
    return found


class Events:
    """The events on a stack's jobs queue; each is held against the schema when it is read."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._read: list[dict[str, Any]] = []

    def about(self, path: str, kind: str = FINISHED) -> list[dict[str, Any]]:
        """Events of a type about a file, oldest first, repeats included."""
        for message in self._stack.jobs_queue.receive_messages(
            messages_per_page=32, visibility_timeout=600
        ):
            event = json.loads(message.content)
            EVENTS.validate(event)
            self._read.append(event)
            self._stack.jobs_queue.delete_message(message)
        return [it for it in self._read if (it["subject"], it["type"]) == (path, kind)]


class App:
    """The app's use cases in this process, on real storage and the Modzy stand-in."""

    def __init__(self, stack: Stack, services: Services) -> None:
        self.stack = stack
        self.services = services
        self.ledger = TableLedger(stack.table)
        self.events = Events(stack)

    def submit(self, path: str, content: bytes = b"a good day", **options: object) -> Submission:
        """Upload a file and submit it; ``options`` are the stand-in's for the job."""
        if options:
            self.stack.modzy.misbehave({"do": "job", "options": options})
        self.stack.uploads.upload_blob(path, content, overwrite=True)
        self.services.relay.submit_upload(path)
        return self.row(path)

    def row(self, path: str) -> Submission:
        """The newest row of a path, as the ledger has it."""
        found = self.services.lookup.by_path(path)["submissions"][0]
        return self.by_id(found["id"])

    def by_id(self, identifier: str) -> Submission:
        """The row with a ledger key."""
        key = LedgerKey.parse(identifier)
        assert key is not None
        record = self.ledger.get(key)
        assert record is not None
        return record.row

    def change(self, row: Submission, **fields: Any) -> None:
        """Change a row behind the app's back."""
        record = self.ledger.get(row.key)
        assert record is not None
        self.ledger.replace(record, dataclasses.replace(record.row, **fields))

    def age(self, row: Submission, by: timedelta) -> None:
        """Make everything that a row remembers lie further back."""
        record = self.ledger.get(row.key)
        assert record is not None
        row = record.row
        times = {
            name: value - by
            for name in ("created_at", "submitted_at", "finished_at", "next_attempt_at")
            if (value := getattr(row, name)) is not None
        }
        changes = tuple(dataclasses.replace(it, at=it.at - by) for it in row.changes)
        self.ledger.replace(record, dataclasses.replace(row, changes=changes, **times))

    def look(self, row: Submission) -> Submission:
        """Let the submission's next look be due now, and take it."""
        record = self.ledger.get(row.key)
        assert record is not None
        if record.row.next_attempt_at is not None:
            self.change(row, next_attempt_at=record.as_of)
        self.services.relay.advance(row.key)
        return self.by_id(str(row.key))

    def job_ended(self, row: Submission) -> None:
        """Wait until the stand-in has brought the row's job to its end."""
        assert row.job_identifier is not None
        identifier = row.job_identifier
        jobs = {it.identifier: it for it in self.stack.modzy.jobs.all()}
        until(lambda: jobs[identifier].is_final)

    def second_job(self, row: Submission) -> Job:
        """Let Modzy have another job with the row's item key, as a repeated POST would."""
        (own,) = [it for it in self.stack.modzy.jobs.all() if it.identifier == row.job_identifier]
        return self.stack.modzy.jobs.add(
            model=own.model,
            explain=False,
            timeout=None,
            account=own.account,
            account_key=own.account_key,
            sources=own.sources,
            access_key=own.access_key,
            options=own.options,
        )

    def finish(self, path: str, content: bytes = b"a good day", **options: object) -> Submission:
        """Upload, submit, wait for the job, look once."""
        row = self.submit(path, content, **options)
        self.job_ended(row)
        return self.look(row)

    def stored(self, row: Submission) -> dict[str, bytes]:
        """Result files by their names below the job's prefix."""
        assert row.job_identifier is not None
        prefix = f"{row.version.container}/{row.version.path}/{row.job_identifier}/"
        return {
            blob.name.removeprefix(prefix): self.stack.results.download_blob(blob.name).readall()
            for blob in self.stack.results.list_blobs(name_starts_with=prefix)
        }

    def document(self, row: Submission) -> dict[str, Any]:
        """The stored results document."""
        document: dict[str, Any] = json.loads(self.stored(row)["results.json"])
        return document

    def requests_about(self, row: Submission) -> list[str]:
        """Requests to Modzy that name the row's job, ``GET /api/jobs/...``, oldest first."""
        assert row.job_identifier is not None
        return [
            f"{it.method} {it.target}"
            for it in self.stack.modzy.requests
            if row.job_identifier in it.target
        ]


class CrashError(BaseException):
    """The process dies here; no handler of the program sees it coming."""


@dataclass(slots=True)
class Breach(Wire):
    """Lets the n-th request of an operation, or its answer, fail.

    Attributes:
        operation: Such as ``outbox.announce``.
        error: What comes of it.
        after: The request took effect and the answer is lost.
        count: How often.
        log: Every operation that took effect.
    """

    operation: str = ""
    error: Callable[[], BaseException] = CrashError
    after: bool = False
    count: int = 1
    log: list[str] = field(default_factory=list)

    def request(self, operation: str) -> None:
        """Fail before the effect, if that is what was ordered."""
        if not self.after:
            self._strike(operation)

    def response(self, operation: str) -> None:
        """Note the effect, and fail after it if that is what was ordered."""
        self.log.append(operation)
        if self.after:
            self._strike(operation)

    def _strike(self, operation: str) -> None:
        if operation == self.operation and self.count:
            self.count -= 1
            raise self.error()


class Memory:
    """The use cases on strict doubles and a clock that moves from one reminder to the next."""

    #: How long the host keeps a message back whose run failed.
    RETRY = timedelta(seconds=10)

    def __init__(
        self,
        wire: Wire | None = None,
        *,
        follow_for: timedelta = timedelta(days=7),
        keeps_results: bool = True,
        seed: int = 0,
    ) -> None:
        # Faults of a test are for the end of a job: the wire is cut only when the test says so.
        self.wire = Switch()
        self.clock = ManualClock()
        self.uploads = MemoryUploads(self.clock, self.wire)
        self.ledger = MemoryLedger(self.clock, self.wire)
        self.outbox = MemoryOutbox(self.clock, self.wire)
        self.modzy = MemoryModzy(self.clock, self.wire)
        self.results = MemoryResults(self.clock, self.wire)
        self._fault = wire
        chance = random.Random(seed).random  # noqa: S311 - jitter that repeats, no secrecy
        timing = Timing(
            submit=timedelta(seconds=30),
            settle=timedelta(minutes=2),
            give_up=timedelta(days=7),
            follow=follow_for,
        )
        use_cases = assemble(
            uploads=self.uploads,
            ledger=self.ledger,
            outbox=self.outbox,
            modzy=self.modzy,
            results=self.results if keeps_results else None,
            routes=[Route("**", "ed542963de", "0.0.27", "input.txt")],
            timing=timing,
            lookback=timedelta(days=2),
            ticks=self.clock.ticks,
            chance=chance,
        )
        self.relay, self.follower = use_cases.relay, use_cases.follower
        self.lookup = use_cases.lookup

    def submit(self, path: str = "a.txt") -> Submission:
        """Upload a file and submit it; from here on the test's wire is in place."""
        self.uploads.put(path)
        self.relay.submit_upload(path)
        if self._fault is not None:
            self.wire.current = self._fault
        return self.row(path)

    def row(self, path: str = "a.txt") -> Submission:
        """The row of a path."""
        (row,) = (row for row in self.ledger.rows() if row.version.path == path)
        return row

    def step(self) -> None:
        """Let time pass until the next reminder, and deliver it as the host does."""
        reminder = self.outbox.receive()
        if reminder is None:
            visible = self.outbox.next_visible_at()
            assert visible is not None, "nobody will look at this again"
            self.clock.advance(visible - self.clock.now())
            reminder = self.outbox.receive()
            assert reminder is not None
        try:
            self.relay.advance(reminder.key)
        except (CrashError, StorageDownError):
            again = dataclasses.replace(reminder, visible_at=self.clock.now() + self.RETRY)
            self.outbox.put_back(again)

    def run(self, path: str = "a.txt", *, most_steps: int = 3000) -> Submission:
        """Deliver reminders until the job counts as ended; fails if it never does."""
        for _ in range(most_steps):
            if self.row(path).job_is_final:
                return self.row(path)
            self.step()
        raise AssertionError(f"no end after {most_steps} looks: {self.row(path)}")

    def finished_events(self) -> list[dict[str, Any]]:
        """Every ``modzy.job.finished``, held against the schema."""
        events = [json.loads(it.encode()) for it in self.outbox.announcements]
        for event in events:
            EVENTS.validate(event)
        return [event for event in events if event["type"] == FINISHED]


class Switch(Wire):
    """A wire that can be exchanged while everything is connected to it."""

    def __init__(self) -> None:
        self.current: Wire = Wire()

    def request(self, operation: str) -> None:
        """Pass it on."""
        self.current.request(operation)

    def response(self, operation: str) -> None:
        """Pass it on."""
        self.current.response(operation)


def content_type(stack: Stack, name: str) -> str | None:
    """Content type of a stored result."""
    with stack.results.get_blob_client(name) as blob:
        return blob.get_blob_properties().content_settings.content_type
