"""What goes onto the queues."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from strategies import HOSTILE_PATHS, a_submission, a_version, submissions, versions

from modzy_relay.lifecycle import State
from modzy_relay.messages import EventType, decode_reminder, encode_reminder, event_about

if TYPE_CHECKING:
    from modzy_relay.identity import BlobVersion
    from modzy_relay.lifecycle import Submission

NOW = datetime(2026, 11, 23, 8, 0, 2, tzinfo=UTC)
#: A queue message holds 64 KiB (learn.microsoft.com, "Scalability and performance targets for
#: Queue Storage"), of which base64 leaves three quarters.
LARGEST_BODY = 48 * 1024
#: Names that the Functions host would lay over a message's metadata.
RESERVED = {
    "id",
    "dequeuecount",
    "popreceipt",
    "insertiontime",
    "expirationtime",
    "nextvisibletime",
}


@given(row=submissions())
def test_an_event_is_a_cloud_event(row: Submission) -> None:
    """CloudEvents 1.0 in structured JSON form, for any row."""
    document = json.loads(event_about(row, EventType.JOB_SUBMITTED, NOW).encode())
    assert document["specversion"] == "1.0"
    assert document["datacontenttype"] == "application/json"
    assert datetime.fromisoformat(document["time"]) == NOW
    assert document["subject"] == row.version.path
    assert document["source"] == f"/modzy-relay/{row.version.account}/{row.version.container}"
    assert document["data"]["ledger_key"] == str(row.key)
    assert document["data"]["input_item_key"] == row.item_key


def test_repeats_of_an_event_have_one_id() -> None:
    """Consumers drop repeats by it, whenever and by whomever they were sent."""
    row = a_submission(state=State.SUBMITTED, job_identifier="a-job")
    later = a_submission(state=State.SUBMITTED, job_identifier="a-job", attempts=7)
    first = event_about(row, EventType.JOB_SUBMITTED, NOW)
    again = event_about(later, EventType.JOB_SUBMITTED, NOW.replace(hour=23))
    assert first.id == again.id


def test_different_events_have_different_ids() -> None:
    """Another type, version or replay is another event."""
    events = [
        event_about(a_submission(version), event_type, NOW)
        for version in (a_version(), a_version("b.txt"), a_version(generation=1))
        for event_type in EventType
    ]
    assert len({event.id for event in events}) == len(events)


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_the_largest_event_fits_into_a_message(path: str) -> None:
    """Long names and reasons do not make an event that the queue refuses."""
    row = a_submission(a_version(path), result_location=f"modzy-results/uploads/{path}/job")
    row = row.moved(State.REJECTED, NOW, "\x01" * 2000)
    assert len(event_about(row, EventType.SUBMISSION_FAILED, NOW).encode().encode()) < LARGEST_BODY


@given(version=versions())
def test_a_reminder_is_read_back(version: BlobVersion) -> None:
    """It names a row and nothing else."""
    body = encode_reminder(version.key)
    assert decode_reminder(body.encode()) == version.key


def test_a_reminder_avoids_the_hosts_names() -> None:
    """A body with such a name would change the message's metadata."""
    assert not RESERVED & {name.lower() for name in json.loads(encode_reminder(a_version().key))}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"2026-11-23-a.0123456789abcdef01234567"',
        b"{}",
        b'{"ledger_key": null}',
        b'{"ledger_key": 5}',
        b'{"ledger_key": "bookmark.overdue"}',
    ],
)
def test_somebody_elses_message_is_refused(body: bytes) -> None:
    """A ValueError sends it to the poison queue, where it is seen."""
    with pytest.raises(ValueError, match=r".*"):
        decode_reminder(body)
