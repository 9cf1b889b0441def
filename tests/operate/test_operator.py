"""The operator's moves among others who act at the same time; on doubles, for what is rare."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from operate_rows import TIMING

from modzy_relay.lifecycle import State, Submission
from modzy_relay.modzy_api import HistoryInconclusiveError
from modzy_relay.operate import Operator, RefusedError
from modzy_relay.routing import Route
from modzy_relay.testing import (
    ManualClock,
    MemoryLedger,
    MemoryModzy,
    MemoryOutbox,
    MemoryUploads,
    StorageDownError,
    Wire,
    refusing,
    scripted,
)
from modzy_relay.use_cases import assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from modzy_relay.identity import LedgerKey

PATH = "letters/a.txt"


class Interruptions(Wire):
    """Lets somebody else act, or fail, right before a request."""

    def __init__(self) -> None:
        self.before: dict[str, Callable[[], None]] = {}

    def request(self, name: str) -> None:
        """Do what was asked for before this request, once."""
        self.before.pop(name, lambda: None)()


class World:
    """The relay, an operator, and everything around them in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.wire = Interruptions()
        self.uploads = MemoryUploads(self.clock)
        self.ledger = MemoryLedger(self.clock, self.wire)
        self.outbox = MemoryOutbox(self.clock, self.wire)
        self.modzy = MemoryModzy(self.clock, self.wire)
        self.relay = assemble(
            uploads=self.uploads,
            ledger=self.ledger,
            outbox=self.outbox,
            modzy=self.modzy,
            results=None,
            routes=(Route("**", "m1", "1.0.0", "input.txt"),),
            timing=TIMING,
            lookback=timedelta(days=2),
            ticks=self.clock.ticks,
        ).relay
        self.operator = Operator(
            uploads=self.uploads,
            ledger=self.ledger,
            outbox=self.outbox,
            modzy=self.modzy,
            relay=self.relay,
            timing=TIMING,
        )

    def upload(self) -> LedgerKey:
        """Upload a file and submit it."""
        self.uploads.put(PATH, size=5)
        self.relay.submit_upload(PATH)
        return self.ledger.rows()[0].key

    def row(self, key: LedgerKey) -> Submission:
        """A submission as it stands."""
        record = self.ledger.get(key)
        assert record is not None
        return record.row

    def change(self, key: LedgerKey, **fields: object) -> None:
        """Change a row as somebody else would."""
        record = self.ledger.get(key)
        assert record is not None
        self.ledger.replace(record, dataclasses.replace(record.row, **fields))

    def uncertain(self) -> LedgerKey:
        """A submission that has just become UNCERTAIN."""
        self.modzy.reply = scripted(refusing())
        key = self.upload()
        record = self.ledger.get(key)
        assert record is not None
        self.ledger.replace(
            record, record.row.moved(State.UNCERTAIN, record.now(), "history unreadable")
        )
        return key


@pytest.fixture
def world() -> World:
    """A world in which nothing has happened yet."""
    return World()


def test_a_retry_does_not_overwrite_a_change_made_meanwhile(world: World) -> None:
    """Two operators, one row: the second is told, and the first one's change stands."""
    world.modzy.reply = scripted(refusing())
    key = world.upload()
    world.wire.before["ledger.replace"] = lambda: world.change(key, reason="changed meanwhile")
    with pytest.raises(RefusedError, match="changed by somebody else"):
        world.operator.retry(key)
    assert world.row(key).state is State.REJECTED
    assert world.row(key).reason == "changed meanwhile"


def test_a_resend_is_off_if_the_row_changed_while_history_was_asked(world: World) -> None:
    """What was found out about a row holds only for the row that was read."""
    key = world.uncertain()
    world.clock.advance(timedelta(hours=1))
    world.wire.before["modzy.find"] = lambda: world.change(key, doubts=7)
    with pytest.raises(RefusedError, match="changed by somebody else"):
        world.operator.resend(key)
    assert world.row(key).state is State.UNCERTAIN


def test_a_resend_waits_until_history_can_be_trusted(world: World) -> None:
    """Before HISTORY_SETTLE is over, a job that is not in the history may still appear there."""
    key = world.uncertain()
    with pytest.raises(RefusedError, match="try again then"):
        world.operator.resend(key)
    world.clock.advance(TIMING.settle)
    assert world.operator.resend(key).after.state is State.DEFERRED


def test_a_resend_is_refused_while_history_cannot_be_read(world: World) -> None:
    """An operator's word alone never sends a second job: the history has to agree."""
    key = world.uncertain()
    world.clock.advance(timedelta(hours=1))
    world.modzy.fault = lambda request: HistoryInconclusiveError(f"{request}: too many pages")
    with pytest.raises(RefusedError, match=r"cannot be asked.*too many pages"):
        world.operator.resend(key)
    assert world.row(key).state is State.UNCERTAIN


def test_of_two_replays_at_once_one_wins(world: World) -> None:
    """Two operators who replay the same version pay for one job."""
    key = world.upload()
    world.change(key, job_status="COMPLETED", next_attempt_at=None)
    world.wire.before["ledger.insert"] = lambda: world.operator.replay(key) and None
    with pytest.raises(RefusedError, match="just replayed"):
        world.operator.replay(key)
    assert len(world.ledger.rows()) == 2


def test_a_change_without_a_reminder_is_found_by_the_sweep(world: World) -> None:
    """An operator who may not write to the queue still changes the row, and is told."""
    world.modzy.reply = scripted(refusing())
    key = world.upload()

    def fail() -> None:
        raise StorageDownError("403")

    world.wire.before["outbox.remind"] = fail
    assert not world.operator.retry(key).reminded
    row = world.row(key)
    assert row.state is State.DEFERRED
    assert row.next_attempt_at is not None
    assert row.next_attempt_at <= world.clock.now()


def test_the_reminder_comes_after_the_row(world: World) -> None:
    """A reminder that is handled before its row has changed would be dropped as an early one."""
    world.modzy.reply = scripted(refusing())
    key = world.upload()
    states: list[State] = []
    world.wire.before["outbox.remind"] = lambda: states.append(world.row(key).state)
    world.operator.retry(key)
    assert states == [State.DEFERRED]
