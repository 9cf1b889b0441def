"""In-memory doubles of everything the relay talks to, as strict as the real services.

They obey the same rules as the real ones (one contract suite runs against both), keep their state
in plain attributes for a test to read, and run on a clock that only moves when told to::

    clock = ManualClock()
    uploads, ledger, outbox = MemoryUploads(clock), MemoryLedger(clock), MemoryOutbox(clock)
    modzy = MemoryModzy(clock)
    uploads.put("letters/a.txt", size=5)
    ...
    clock.advance(timedelta(minutes=5))
    reminder = outbox.receive()

Every request passes a ``Wire``; a test that replaces its two methods decides between any two
effects what happens: an error, a crash, a pause, somebody else's turn.
"""

from modzy_relay.testing.clock import ManualClock
from modzy_relay.testing.ledger import MemoryLedger
from modzy_relay.testing.modzy import (
    MemoryJob,
    MemoryModzy,
    Reply,
    busy,
    cut_off,
    hanging,
    refusing,
    scripted,
    throttling,
    unreachable,
)
from modzy_relay.testing.storage import MemoryOutbox, MemoryResults, MemoryUploads, Reminder
from modzy_relay.testing.wire import StorageDownError, Wire

__all__ = [
    "ManualClock",
    "MemoryJob",
    "MemoryLedger",
    "MemoryModzy",
    "MemoryOutbox",
    "MemoryResults",
    "MemoryUploads",
    "Reminder",
    "Reply",
    "StorageDownError",
    "Wire",
    "busy",
    "cut_off",
    "hanging",
    "refusing",
    "scripted",
    "throttling",
    "unreachable",
]
