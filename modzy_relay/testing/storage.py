"""The watched container, the two queues and the results container in memory."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from modzy_relay.ports import BlobFacts, Listing
from modzy_relay.testing.wire import MemoryService

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from modzy_relay.identity import LedgerKey
    from modzy_relay.messages import CloudEvent
    from modzy_relay.testing.clock import ManualClock
    from modzy_relay.testing.wire import Wire

_LONGEST_DELAY = timedelta(days=7)


class MemoryUploads(MemoryService):
    """Implements ``ports.Uploads``. Thread-safe.

    Attributes:
        page_size: Blobs on one page of the listing.
    """

    page_size = 5000

    def __init__(
        self,
        clock: ManualClock,
        wire: Wire | None = None,
        *,
        account: str = "uploadaccount",
        container: str = "uploads",
    ) -> None:
        super().__init__(clock, wire)
        self.account = account
        self.container = container
        self._blobs: dict[str, BlobFacts] = {}
        self._etags = itertools.count(0x8DC0000000000001)

    def put(self, path: str, size: int = 5, metadata: Mapping[str, str] | None = None) -> BlobFacts:
        """Write a blob, new or over another: a new ETag either way."""
        with self._lock:
            now = self._time().replace(microsecond=0)
            facts = BlobFacts(
                path=path,
                etag=f"0x{next(self._etags):X}",
                last_modified=now,
                size=size,
                as_of=now,
                metadata=dict(metadata or {}),
            )
            self._blobs[path] = facts
            return facts

    def delete(self, path: str) -> None:
        """Delete a blob. Raises KeyError if there is none."""
        with self._lock:
            del self._blobs[path]

    def blobs(self) -> list[BlobFacts]:
        """What is in the container, in the order of the names."""
        return [facts for _, facts in sorted(self._blobs.items())]

    def head(self, path: str) -> BlobFacts | None:
        """One HEAD request; None if there is no such blob."""
        with self._exchange("uploads.head") as exchange:
            facts = self._blobs.get(path)
            return None if facts is None else _answered(facts, exchange.as_of)

    def list_page(self, marker: str | None) -> Listing:
        """The page that begins at a marker; None = the first."""
        with self._exchange("uploads.list_page") as exchange:
            paths = sorted(path for path in self._blobs if marker is None or path >= marker)
            page = paths[: self.page_size]
            return Listing(
                blobs=[_answered(self._blobs[path], exchange.as_of) for path in page],
                marker=paths[len(page)] if len(paths) > len(page) else None,
                as_of=exchange.as_of,
            )


def _answered(facts: BlobFacts, as_of: datetime) -> BlobFacts:
    return BlobFacts(
        path=facts.path,
        etag=facts.etag,
        last_modified=facts.last_modified,
        size=facts.size,
        as_of=as_of,
        metadata=dict(facts.metadata),
    )


@dataclass(frozen=True, slots=True, order=True)
class Reminder:
    """A message of the due queue.

    Attributes:
        visible_at: Nobody receives it before this time.
        number: Tells apart messages with the same content.
        key: The submission it names.
    """

    visible_at: datetime
    number: int
    key: LedgerKey = field(compare=False)


class MemoryOutbox(MemoryService):
    """Implements ``ports.Outbox``; the test is the host that delivers. Thread-safe.

    Attributes:
        announcements: Every event that was sent, in order, repeats included.
        poison: What ``poison_counts`` answers; empty queues are left out.
    """

    def __init__(self, clock: ManualClock, wire: Wire | None = None) -> None:
        super().__init__(clock, wire)
        self.announcements: list[CloudEvent] = []
        self.poison: dict[str, int] = {}
        self._reminders: list[Reminder] = []
        self._numbers = itertools.count(1)

    def announce(self, event: CloudEvent) -> None:
        """Send an event to downstream systems."""
        event.encode()  # raises, as sending does, for what is not JSON
        with self._exchange("outbox.announce"):
            self.announcements.append(event)

    def remind(self, key: LedgerKey, delay: timedelta) -> None:
        """Have a submission looked at again after ``delay``, in whole seconds as queues count."""
        seconds = math.ceil(max(delay, timedelta()).total_seconds())
        hidden = min(timedelta(seconds=seconds + 1 if seconds else 0), _LONGEST_DELAY)
        with self._exchange("outbox.remind"):
            reminder = Reminder(self._time() + hidden, next(self._numbers), key)
            heapq.heappush(self._reminders, reminder)

    def poison_counts(self) -> Mapping[str, int]:
        """Poison queues that are not empty."""
        with self._exchange("outbox.poison_counts"):
            return {name: count for name, count in self.poison.items() if count}

    # -- the host's side -------------------------------------------------------------------

    def reminders(self) -> list[Reminder]:
        """All messages in the due queue, visible or not, the next one first."""
        with self._lock:
            return sorted(self._reminders)

    def next_visible_at(self) -> datetime | None:
        """When the next message becomes visible; None if there is none."""
        with self._lock:
            return self._reminders[0].visible_at if self._reminders else None

    def receive(self) -> Reminder | None:
        """Take the message that has been visible longest; None if none is visible now."""
        with self._lock:
            if not self._reminders or self._reminders[0].visible_at > self._time():
                return None
            return heapq.heappop(self._reminders)

    def put_back(self, reminder: Reminder) -> None:
        """A message that was received but not dealt with, or that is to come twice."""
        with self._lock:
            heapq.heappush(self._reminders, reminder)

    def lose(self, reminder: Reminder) -> None:
        """Delete a message unseen. Raises ValueError if it is not there."""
        with self._lock:
            self._reminders.remove(reminder)
            heapq.heapify(self._reminders)


class MemoryResults(MemoryService):
    """Implements ``ports.ResultStore``. Thread-safe.

    Attributes:
        container: Container name.
        blobs: Name to content and content type.
    """

    def __init__(
        self, clock: ManualClock, wire: Wire | None = None, *, container: str = "modzy-results"
    ) -> None:
        super().__init__(clock, wire)
        self.container = container
        self.blobs: dict[str, tuple[bytes, str]] = {}

    def put(self, name: str, content: bytes | Iterable[bytes], content_type: str) -> None:
        """Write a blob, replacing what is there."""
        # Pieces are read while the blob is being written; it appears when all were.
        whole = content if isinstance(content, bytes) else b"".join(content)
        with self._exchange("results.put"):
            self.blobs[name] = whole, content_type
