"""The events' schema and the example consumers."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from azure.data.tables import TableClient
from azure.storage.queue import QueueClient, TextBase64DecodePolicy, TextBase64EncodePolicy
from follow_world import EVENTS, REPOSITORY, SCHEMA, Memory, until
from jsonschema import ValidationError  # type: ignore[import-untyped]

from modzy_relay.lifecycle import State
from modzy_relay.messages import EventType, event_about
from modzy_relay.testing import refusing, scripted
from sandbox.host.child import FunctionsHost
from sandbox.storage import HOST_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from modzy_relay.lifecycle import Submission
    from sandbox.stack import Stack


def encoded(memory: Memory) -> list[dict[str, Any]]:
    """The events of a world as consumers see them."""
    return [json.loads(it.encode()) for it in memory.outbox.announcements]


@pytest.fixture(scope="module")
def lives() -> list[dict[str, Any]]:
    """Every event of a file that was finished and of one that was refused."""
    memory = Memory()
    memory.submit()
    memory.run()
    memory.modzy.reply = scripted(refusing())
    memory.submit("refused.txt")
    return encoded(memory)


def test_every_kind_of_event_is_valid(lives: list[dict[str, Any]]) -> None:
    """Each of the three types, as the app sends it, satisfies the published schema."""
    assert [event["type"] for event in lives] == [it.value for it in EventType]
    for event in lives:
        EVENTS.validate(event)


def test_schema_names_every_member(lives: list[dict[str, Any]]) -> None:
    """Members of events and members of the schema are the same, none undocumented."""
    for event in lives:
        assert set(event) == set(SCHEMA["properties"])
        assert set(event["data"]) == set(SCHEMA["$defs"]["submission"]["properties"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda event: event.pop("id"),
        lambda event: event.update(id="x"),
        lambda event: event.update(id=event["id"].replace("finished", "submitted")),
        lambda event: event.update(type="modzy.job.started"),
        lambda event: event.update(time="2026-11-23T13:00:00"),
        lambda event: event["data"].update(job_status="IN_PROGRESS"),
        lambda event: event["data"].update(job_identifier=None),
        lambda event: event["data"].update(state="REJECTED"),
        lambda event: event["data"].update(job_status="ERROR"),
        lambda event: event["data"].pop("reason"),
        lambda event: event["data"]["model"].pop("version"),
    ],
)
def test_schema_refuses_what_is_not_an_event(
    lives: list[dict[str, Any]], spoil: Callable[[dict[str, Any]], object]
) -> None:
    """The schema says no to a finished event that contradicts itself or lacks a member."""
    event = json.loads(json.dumps(next(it for it in lives if it["type"] == "modzy.job.finished")))
    spoil(event)
    with pytest.raises(ValidationError):
        EVENTS.validate(event)


def test_ids_are_stable_and_differ_by_type_and_generation() -> None:
    """The id is that of version, generation and type, whenever the event is made."""
    memory = Memory()
    row = memory.submit()
    replayed = dataclasses.replace(row, version=dataclasses.replace(row.version, generation=1))
    now = memory.clock.now()
    ids = [event_about(it, kind, now).id for it in (row, replayed) for kind in EventType]
    assert len(set(ids)) == 6
    assert event_about(row, EventType.JOB_FINISHED, row.created_at).id == ids[1]


# -- the examples --------------------------------------------------------------------------------


def finished_event(path: str) -> dict[str, Any]:
    """An event about a file of its own."""
    memory = Memory()
    memory.submit(path)
    memory.run(path)
    return encoded(memory)[-1]


@dataclasses.dataclass
class Sent:
    """A queue of a test's own, filled as the relay fills it."""

    connection: str
    name: str
    queue: QueueClient

    def send(self, *texts: str) -> None:
        """Send messages."""
        for text in texts:
            self.queue.send_message(text)

    def length(self) -> int:
        """Messages that are there, hidden ones included."""
        return self.queue.get_queue_properties().approximate_message_count or 0


@pytest.fixture
def sent(stack: Stack) -> Iterator[Sent]:
    """An empty queue."""
    connection = stack.azurite.connection_string(HOST_ACCOUNT)
    name = f"jobs-{uuid.uuid4().hex}"
    with QueueClient.from_connection_string(
        connection,
        name,
        message_encode_policy=TextBase64EncodePolicy(),
        message_decode_policy=TextBase64DecodePolicy(),
    ) as queue:
        queue.create_queue()
        yield Sent(connection, name, queue)


def run_consumer(sent: Sent, database: Path) -> subprocess.CompletedProcess[str]:
    """Run the plain consumer until its queue is empty."""
    return subprocess.run(
        [
            *(sys.executable, REPOSITORY / "examples/consume_jobs.py", "--once"),
            *("--queue", sent.name, "--database", database),
        ],
        env={"AzureWebJobsStorage": sent.connection},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_plain_consumer_counts_each_event_once(sent: Sent, tmp_path: Path) -> None:
    """Repeats within a run and over runs are dropped; the queue is empty in the end."""
    first, second = (json.dumps(finished_event(path)) for path in ("a.txt", "ü b.txt"))
    sent.send(first, second, first)
    database = tmp_path / "jobs.sqlite"
    printed = run_consumer(sent, database).stdout.splitlines()
    assert [json.loads(line)["subject"] for line in printed] == ["a.txt", "ü b.txt"]
    sent.send(second)
    assert run_consumer(sent, database).stdout == ""
    assert sent.length() == 0
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT path, job_status FROM events ORDER BY path").fetchall()
    connection.close()
    assert rows == [("a.txt", "COMPLETED"), ("ü b.txt", "COMPLETED")]


def test_plain_consumer_is_not_stopped_by_garbage(sent: Sent, tmp_path: Path) -> None:
    """What is not an event stays in the queue for another try, and the rest is dealt with."""
    sent.send("garbage", '{"id": 1}', json.dumps(finished_event("a.txt")))
    run = run_consumer(sent, tmp_path / "jobs.sqlite")
    assert len(run.stdout.splitlines()) == 1
    assert run.stderr.count("not an event of the relay") == 2
    assert sent.length() == 2


def test_consumer_function_counts_each_event_once(sent: Sent, tmp_path: Path) -> None:
    """In the worker library: one row for each event, however often it came; only finished ones."""
    event = finished_event(f"{uuid.uuid4()}.txt")
    row: Submission = Memory().submit("other.txt")
    other = event_about(row, EventType.JOB_SUBMITTED, row.created_at)
    assert row.state is State.SUBMITTED
    sent.send(json.dumps(event), other.encode(), json.dumps(event))
    settings = {
        "AzureWebJobsStorage": sent.connection,
        "JOBS_QUEUE": sent.name,
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AzureFunctionsWebHost__hostid": f"h{uuid.uuid4().hex[:20]}",
    }
    app = REPOSITORY / "examples/consumer_function"
    with FunctionsHost(app, settings, tmp_path / "host.log") as host:
        until(sent.length, lambda count: count == 0)
        output = host.output()
    with TableClient.from_connection_string(sent.connection, "FinishedJobs") as table:
        rows = list(table.query_entities("path eq @path", parameters={"path": event["subject"]}))
        others = list(table.query_entities("path eq 'other.txt'"))
    assert [(it["RowKey"], it["job_status"]) for it in rows] == [(event["id"], "COMPLETED")]
    assert others == []
    assert "repeat of" in output
