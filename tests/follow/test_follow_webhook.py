"""The webhook: a hint, whatever comes, with bounded work for each call."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from follow_calls import counted_calls
from follow_world import Breach, Memory

from modzy_relay.http_api import job_completed
from modzy_relay.modzy_api import UnavailableError
from modzy_relay.testing import StorageDownError

if TYPE_CHECKING:
    from follow_world import App

    from modzy_relay.lifecycle import Submission


def body_for(row: Submission) -> bytes:
    """What Modzy sends when a job has ended."""
    model = {"identifier": row.model, "version": row.model_version, "name": "Sentiment"}
    job = {"identifier": row.job_identifier, "model": model, "team": {"identifier": "a-team"}}
    return json.dumps({"job": job}).encode()


def call(app: App, row: Submission) -> dict[str, Any]:
    """Call the webhook as Modzy does; returns the answer's body."""
    status, answer = job_completed(app.services.follower, body_for(row))
    assert status is HTTPStatus.OK
    return answer


def test_hint_before_the_first_look_finishes_the_job_at_once(app: App) -> None:
    """A job that ends before it was ever looked at does not wait for its first look."""
    row = app.submit("hinted.txt")
    assert not row.indexed, "nothing points from the job to the row yet"
    app.job_ended(row)
    assert call(app, row) == {"known": True}
    app.services.relay.advance(row.key)
    row = app.row("hinted.txt")
    assert row.job_status == "COMPLETED"
    assert len(app.events.about("hinted.txt")) == 1


def test_hint_after_the_end_changes_nothing(app: App) -> None:
    """A webhook that comes after the poll found the end asks Modzy nothing and sends nothing."""
    row = app.finish("polled.txt")
    asked = app.requests_about(row)
    assert call(app, row) == {"known": True}
    app.services.relay.advance(row.key)
    assert app.requests_about(row) == asked
    assert app.by_id(str(row.key)) == row
    assert len(app.events.about("polled.txt")) == 1


def test_repeated_hint_is_one_hint(app: App) -> None:
    """The second of two calls neither changes the row nor sends a reminder."""
    row = app.look(app.submit("twice.txt", running_seconds=3600.0))
    assert call(app, row) == {"known": True}
    hinted = app.by_id(str(row.key))
    with counted_calls() as calls:
        assert call(app, row) == {"known": True}
    assert app.by_id(str(row.key)) == hinted
    assert [it.method for it in calls] == ["GET", "GET"]


def test_forged_hint_is_not_believed(app: App) -> None:
    """A call for a job that still runs has it looked at, and that is all."""
    row = app.look(app.submit("forged.txt", running_seconds=3600.0))
    assert call(app, row) == {"known": True}
    app.services.relay.advance(row.key)
    row = app.row("forged.txt")
    assert row.job_status == "IN_PROGRESS"
    assert app.events.about("forged.txt") == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe",
        b"not json",
        b"[" * 50_000,
        b"{" * 1000,
        b"null",
        b"[]",
        b'"text"',
        b'{"job": null}',
        b'{"job": {"identifier": null}}',
        b'{"job": {"identifier": ["x"]}}',
        b'{"job": {"identifier": ""}}',
        b'{"job": {"identifier": "."}}',
        b'{"job": {"identifier": "../../models"}}',
        b'{"job": {"identifier": "a\\u0000b"}}',
        b'{"job": {"identifier": "\\ud800"}}',
        b'{"job": {"identifier": "' + b"9" * 201 + b'"}}',
        b'{"job": ' + b"9" * 5000 + b"}",
        b'{"job": {"identifier": "' + b"x" * 70_000 + b'"}}',
    ],
    ids=lambda body: repr(body[:32]),
)
def test_garbage_is_refused_without_any_request(app: App, body: bytes) -> None:
    """Whatever is not the documented body is a 4xx with a reason, and costs nothing."""
    with counted_calls() as calls:
        status, answer = job_completed(app.services.follower, body)
    expected = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if len(body) > 65_536 else HTTPStatus.BAD_REQUEST
    assert status is expected
    assert answer["error"]
    assert list(calls) == []


def test_unknown_job_is_answered_like_a_known_one(app: App) -> None:
    """Jobs of other programs of the account cost one point read and one question, no fault."""
    with counted_calls() as calls:
        status, answer = job_completed(
            app.services.follower, json.dumps({"job": {"identifier": str(uuid.uuid4())}}).encode()
        )
    assert (status, answer) == (HTTPStatus.OK, {"known": False})
    assert sum("ModzySubmissions" in it.url for it in calls) == 1
    assert sum("/api/" in it.url for it in calls) == 1


def test_job_that_is_not_the_rows_is_unknown(app: App) -> None:
    """A job with an item key of ours that is not the row's own job moves nothing."""
    row = app.look(app.submit("mine.txt", running_seconds=3600.0))
    other = app.second_job(row)
    status, answer = job_completed(
        app.services.follower, json.dumps({"job": {"identifier": other.identifier}}).encode()
    )
    assert (status, answer) == (HTTPStatus.OK, {"known": False})
    assert app.by_id(str(row.key)) == row


def test_flood_costs_bounded_work_and_one_look(app: App) -> None:
    """A hundred calls at once for one job: at most four requests each, and one look comes of it."""
    row = app.look(app.submit("flood.txt", running_seconds=3600.0))
    with counted_calls() as calls, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(app, row), range(100)))
    assert answers == [{"known": True}] * 100
    # Two point reads for each; whoever wrote, or tried to, needed two more: a write and a
    # message, or a write that was refused and the read that tells why.
    assert len(calls) <= 4 * 100
    reminders = [it for it in calls if it.method == "POST" and "/messages" in it.url]
    assert len(reminders) == 1
    assert not any("/api/" in it.url for it in calls), "Modzy is asked by the look alone"


def test_hint_survives_an_error_between_row_and_reminder() -> None:
    """A reminder that could not be sent: the call fails, the job is followed on schedule."""
    memory = Memory(Breach(operation="outbox.remind", error=StorageDownError))
    row = memory.submit()
    assert row.job_identifier is not None
    with pytest.raises(StorageDownError):
        memory.follower.hint(row.job_identifier)
    assert memory.run().job_status == "COMPLETED"


def test_hint_while_modzy_is_down_is_answered() -> None:
    """A call that cannot be led back to a row while Modzy is down is answered, not a fault."""
    memory = Memory()
    memory.submit()
    memory.modzy.fault = lambda _: UnavailableError("down", status=503)
    assert memory.follower.hint("00000000-0000-4000-8000-000000000001") is False
    memory.modzy.fault = lambda _: None
    assert memory.run().job_status == "COMPLETED"
