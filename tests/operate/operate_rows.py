"""Sample rows of the operator's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from modzy_relay.identity import BlobVersion, input_item_key
from modzy_relay.lifecycle import State, Submission, Timing

TIMING = Timing(
    submit=timedelta(seconds=30),
    settle=timedelta(minutes=2),
    give_up=timedelta(days=7),
    follow=timedelta(days=7),
)


def a_row(state: State = State.REJECTED, **fields: object) -> Submission:
    """A submission in a state."""
    at = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    version = BlobVersion("uploads1", "uploads", "letters/a.txt", "0x8DD", at)
    row = Submission(
        version=version,
        size=5,
        state=State.SUBMITTING,
        created_at=at,
        item_key=input_item_key(version.path, version.key),
        model="m1",
        model_version="1.0.0",
        give_up_at=at + timedelta(days=7),
        attempts=2,
        deferrals=4,
        doubts=1,
        indexed=True,
    )
    return row.moved(state, at, "a reason", **fields)
