"""The whole product on one machine, and what a test asks of it."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import requests
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContainerClient
from azure.storage.queue import QueueClient
from e2e_leaks import everything_written, findings, secrets_of
from e2e_recorder import Recorder

from modzy_relay.identity import LedgerKey
from modzy_relay.messages import encode_reminder
from sandbox.host.child import FunctionsHost
from sandbox.stack import REPOSITORY, Stack
from sandbox.storage import HOST_ACCOUNT, UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from sandbox.modzy_server import Job

Row = dict[str, Any]
_Result = TypeVar("_Result")
_LOG_LINE = re.compile(
    r"^\S+ (?P<level>[A-Z]+) \[[^\]]*\] modzy_relay: (?P<event>\S+) (?P<data>\{.*\})$", re.MULTILINE
)
_POISON_QUEUE = "webjobs-blobtrigger-poison"
_EVENTS_CONTAINER = "emulated-event-grid"
_HOST_OPTIONS = ("--scan-interval", "0.2")
_ALL_FUNCTIONS = ("submit_upload", "advance_submission", "sweep", "job_completed", "get_submission")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that the app logged."""

    level: str
    event: str
    data: dict[str, Any]
    text: str


def until(probe: Callable[[], _Result], what: str, *, seconds: float = 60) -> _Result:
    """Ask until the answer is true, and return it.

    Raises:
        AssertionError: It is not when the time is over.
    """
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s; last answer: {answer!r}")
        time.sleep(0.1)
    return answer


class Scene:
    """A stack with the app beside it; also a context manager.

    Between the app's process and storage (and Modzy) stands a recorder. The Functions host keeps
    its own blobs and queues without one, through ``AzureWebJobsStorage``.

    Args:
        folder: For logs.
        settings: App settings that differ from the sample's, from the start.
        job_seconds: How long a job takes at least.
    """

    function_names = _ALL_FUNCTIONS

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, *, job_seconds: float = 0.05
    ) -> None:
        self.stack = Stack(folder, settings, job_seconds=job_seconds)
        self.recorder: Recorder
        self.host: FunctionsHost
        self.secrets: set[str] = set()
        self._closing = contextlib.ExitStack()
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            starting.enter_context(self.stack)
            upstreams = {
                name: self.stack.azurite.endpoint(name) for name in ("Blob", "Queue", "Table")
            }
            upstreams["Modzy"] = self.stack.modzy.url
            self.recorder = starting.enter_context(Recorder(upstreams))
            starting.callback(self.stop)
            self._closing = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def settings(self) -> dict[str, str]:
        """App settings that lead through the recorder."""
        azurite = self.stack.azurite
        through = self.recorder.through
        return self.stack.settings | {
            "RelayStorage": through(azurite.connection_string(HOST_ACCOUNT)),
            "UploadStorage": through(azurite.connection_string(UPLOAD_ACCOUNT)),
            "MODZY_URL": through(self.stack.modzy.url),
        }

    def start(
        self,
        changes: Mapping[str, str] | None = None,
        *,
        without: Collection[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        """Start the app, anew if it runs.

        Args:
            changes: Settings that differ.
            without: Names of settings that are left out.
            options: More of the host's command line.
        """
        self.stop()
        values = self.settings | dict(changes or {})
        values = {name: value for name, value in values.items() if name not in without}
        self.host = FunctionsHost(
            REPOSITORY, values, self.stack.folder / "functions.log", [*_HOST_OPTIONS, *options]
        )
        self.host.start()
        self.host.wait_ready()
        if "--emit-events" in options:
            # Event Grid sends nothing for blobs that are older than the subscription.
            until(self._has_event_subscription, "the emulated event subscription")

    def _has_event_subscription(self) -> bool:
        connection = self.stack.azurite.connection_string(HOST_ACCOUNT)
        with ContainerClient.from_connection_string(connection, _EVENTS_CONTAINER) as marks:
            try:
                return any(name.endswith("/subscription") for name in marks.list_blob_names())
            except ResourceNotFoundError:
                return False

    def stop(self) -> None:
        """Stop the app."""
        if hasattr(self, "host"):
            self.host.stop()

    # -- doing -----------------------------------------------------------------------------

    def upload(self, path: str, content: bytes = b"a good file") -> None:
        """Drop a file into the container."""
        self.stack.uploads.upload_blob(path, content, overwrite=True)

    def run_function(self, name: str, value: str = "") -> None:
        """Have the host run a function now, as an administrator does."""
        answer = requests.post(
            f"{self.host.url}/admin/functions/{name}",
            json={"input": value},
            headers={"x-functions-key": self.host.master_key},
            timeout=10,
        )
        assert answer.status_code == 202, answer.text

    def sweep(self) -> dict[str, Any]:
        """Run the sweep, and return what it says of itself."""
        before = len(self.log_of("sweep.completed"))
        self.run_function("sweep")
        until(lambda: len(self.log_of("sweep.completed")) > before, "the sweep has run")
        return self.log_of("sweep.completed")[-1].data

    def remind(self, row: Row) -> None:
        """Have the app look at a submission now, without waiting for its own reminder."""
        key = LedgerKey(row["PartitionKey"], row["RowKey"])
        body = base64.b64encode(encode_reminder(key).encode()).decode()
        self.stack.due_queue.send_message(body)

    def call(self, route: str, method: str = "GET", **arguments: Any) -> requests.Response:
        """Call an HTTP function with a good key."""
        headers = {"x-functions-key": self.host.function_key}
        url = f"{self.host.url}/api/{route}"
        return requests.request(method, url, headers=headers, timeout=20, **arguments)

    def finish(self, path: str) -> Row:
        """Have a submitted job followed at once, by Modzy's webhook; returns the finished row."""
        identifier = self.submitted(path)["job_identifier"]
        job = self.stack.modzy.jobs.find(identifier)
        until(lambda: job.is_final, f"the job of {path} has ended")
        message = {"job": {"identifier": identifier}}
        assert self.call("modzy/job-completed", "POST", json=message).json() == {"known": True}
        return self.wait_for_row(path, lambda row: "finished_at" in row)

    # -- looking ---------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Every submission; pointers and bookmarks are filed under words, not dates."""
        return [dict(entity) for entity in self.stack.table.query_entities("PartitionKey lt 'a'")]

    def row(self, path: str) -> Row | None:
        """The newest submission of a path."""
        rows = [row for row in self.rows() if row["path"] == path]
        return max(rows, key=lambda row: row["created_at"], default=None)

    def wait_for_row(self, path: str, good: Callable[[Row], object]) -> Row:
        """The newest row of a path, once it is good."""
        last: list[Row | None] = []

        def probe() -> Row | None:
            last[:] = [self.row(path)]
            return last[0] if last[0] is not None and good(last[0]) else None

        try:
            return until(probe, f"the row of {path}") or {}
        except AssertionError as error:
            raise AssertionError(f"{error}; the row: {last}") from None

    def submitted(self, path: str) -> Row:
        """The row of a path, once its job is submitted."""
        return self.wait_for_row(path, lambda row: row["state"] == "SUBMITTED")

    def jobs_for(self, path: str) -> list[Job]:
        """The jobs that Modzy accepted for a path."""
        return [
            job
            for job in self.stack.modzy.jobs.all()
            for inputs in job.sources.values()
            for place in inputs.values()
            if place["filePath"] == path
        ]

    def only_job(self, path: str) -> Job:
        """The one job of a path, once it has ended."""
        until(lambda: self.jobs_for(path), f"a job for {path}")
        (job,) = self.jobs_for(path)
        until(lambda: job.is_final, f"the end of the job for {path}")
        return job

    def events(self) -> list[dict[str, Any]]:
        """All announcements so far, in the order in which they were found."""
        queue = self.stack.jobs_queue
        for message in queue.receive_messages(messages_per_page=32, visibility_timeout=3600):
            self._events.append(json.loads(message.content))
        return self._events

    def poisoned_uploads(self) -> list[str]:
        """Names of blobs whose events have used up their attempts."""
        connection = self.stack.azurite.connection_string(UPLOAD_ACCOUNT)
        with QueueClient.from_connection_string(connection, _POISON_QUEUE) as queue:
            try:
                messages = queue.peek_messages(max_messages=32)
            except ResourceNotFoundError:
                return []  # the host makes the queue when it first needs it
        return [json.loads(base64.b64decode(one.content))["BlobName"] for one in messages]

    def log(self) -> list[LogLine]:
        """What the app has logged since its latest start."""
        return [
            LogLine(found["level"], found["event"], json.loads(found["data"]), found[0])
            for found in _LOG_LINE.finditer(self.host.output())
        ]

    def log_of(self, event: str) -> list[LogLine]:
        """Its lines about one kind of event."""
        return [line for line in self.log() if line.event == event]

    def wait_for_log(self, event: str) -> LogLine:
        """The first line about an event, once it is there."""
        return until(lambda: self.log_of(event), f"{event} in the log")[0]

    def leaks(self) -> list[str]:
        """Stop the app, and name every place in which a secret can be read."""
        self.stop()
        recorded = [
            (f"{call.method} {call.path}", call.text)
            for call in self.recorder.calls
            if call.service != "Modzy"  # which is given both keys, on purpose
        ]
        texts = [*everything_written(self.stack), *recorded]
        texts += [("an announcement", json.dumps(event)) for event in self._events]
        return findings(texts, {*secrets_of(self.stack), *self.secrets})
