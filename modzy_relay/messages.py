"""What goes onto queues: CloudEvents for downstream systems, and the relay's own reminders.

Events follow CloudEvents 1.0 (https://github.com/cloudevents/spec), structured JSON form;
``docs/events.schema.json`` is their schema.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modzy_relay.identity import LedgerKey

if TYPE_CHECKING:
    from datetime import datetime

    from modzy_relay.lifecycle import Submission


class EventType(enum.StrEnum):
    """Types of the events on ``JOBS_QUEUE``."""

    JOB_SUBMITTED = "modzy.job.submitted"
    JOB_FINISHED = "modzy.job.finished"
    SUBMISSION_FAILED = "modzy.submission.failed"


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event; ``id`` is the same however often it is sent, so consumers can drop repeats."""

    id: str
    source: str
    subject: str
    time: datetime
    type: EventType
    data: dict[str, Any]

    def encode(self) -> str:
        """The event as JSON text."""
        return json.dumps(
            {
                "specversion": "1.0",
                "id": self.id,
                "source": self.source,
                "subject": self.subject,
                "time": self.time.isoformat(),
                "type": self.type.value,
                "datacontenttype": "application/json",
                "data": self.data,
            },
            ensure_ascii=False,
        )


def event_about(row: Submission, event_type: EventType, at: datetime) -> CloudEvent:
    """The event that tells downstream systems of a submission's present state."""
    version = row.version
    return CloudEvent(
        id=f"{row.key.row}.{version.generation}.{event_type.value}",
        source=f"/modzy-relay/{version.account}/{version.container}",
        subject=version.path,
        time=at,
        type=event_type,
        data={
            "ledger_key": str(row.key),
            "account": version.account,
            "container": version.container,
            "file_path": version.path,
            "etag": version.etag,
            "generation": version.generation,
            "state": row.state.value,
            "job_identifier": row.job_identifier,
            "job_status": row.job_status,
            "input_item_key": row.item_key,
            "model": {"identifier": row.model, "version": row.model_version},
            "reason": row.reason,
            "result_location": row.result_location,
        },
    )


def encode_reminder(key: LedgerKey) -> str:
    """A message of ``DUE_QUEUE``: the name of a row and nothing else.

    The Functions host lays a JSON body's top-level fields over the message's metadata, so the
    body must not use ``id``, ``dequeueCount`` and their like as names.
    """
    return json.dumps({"ledger_key": str(key)})


def decode_reminder(body: bytes) -> LedgerKey:
    """Read a message of ``DUE_QUEUE``.

    Raises:
        ValueError: It is not one of the relay's; the host moves it to the poison queue.
    """
    message = json.loads(body)
    named = message.get("ledger_key") if isinstance(message, dict) else None
    key = LedgerKey.parse(named) if isinstance(named, str) else None
    if key is None:
        raise ValueError("a message in the due queue names no submission")
    return key
