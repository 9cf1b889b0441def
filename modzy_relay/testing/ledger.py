"""The ledger in memory."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, TypeVar

from modzy_relay.errors import ConflictError
from modzy_relay.identity import path_digest
from modzy_relay.lifecycle import Record, State, Submission
from modzy_relay.testing.wire import MemoryService

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import date, datetime

    from modzy_relay.identity import LedgerKey
    from modzy_relay.testing.clock import ManualClock
    from modzy_relay.testing.wire import Exchange, Wire

_Item = TypeVar("_Item")
_UNSUBMITTED = frozenset({State.SUBMITTING, State.DEFERRED})
_LATEST_MS = 10**14 - 1


class MemoryLedger(MemoryService):
    """Implements ``ports.Ledger``. Thread-safe."""

    def __init__(self, clock: ManualClock, wire: Wire | None = None) -> None:
        super().__init__(clock, wire)
        self._rows: dict[LedgerKey, tuple[Submission, str]] = {}
        self._by_path: dict[str, dict[str, LedgerKey]] = {}
        self._by_job: dict[str, LedgerKey] = {}
        self._bookmarks: dict[str, dict[str, str]] = {}
        self._writes = 0

    def rows(self) -> list[Submission]:
        """All submissions, in the order of their keys."""
        return [row for _, (row, _) in sorted(self._rows.items())]

    def insert(self, row: Submission) -> tuple[Record, bool]:
        """Insert only; if the row exists, return it as it stands."""
        with self._exchange("ledger.insert") as exchange:
            if row.key not in self._rows:
                return self._write(row, exchange), True
        record = self.get(row.key)
        if record is None:
            raise LookupError(f"ledger row {row.key} has disappeared")
        return record, False

    def get(self, key: LedgerKey) -> Record | None:
        """One point read."""
        with self._exchange("ledger.get") as exchange:
            found = self._rows.get(key)
            return None if found is None else self._record(*found, exchange)

    def replace(self, record: Record, row: Submission) -> Record:
        """Change a row if nobody else has; raises ConflictError otherwise."""
        with self._exchange("ledger.replace") as exchange:
            _, etag = self._rows[row.key]
            if etag != record.etag:
                raise ConflictError(f"submission {row.key} has changed since it was read")
            return self._write(row, exchange)

    def _write(self, row: Submission, exchange: Exchange) -> Record:
        self._writes += 1
        etag = f'W/"{self._writes}"'
        self._rows[row.key] = row, etag
        return self._record(row, etag, exchange)

    def _record(self, row: Submission, etag: str, exchange: Exchange) -> Record:
        return Record(
            row=row,
            etag=etag,
            as_of=exchange.as_of,
            read_at=exchange.read_at,
            ticks=self._clock.ticks,
        )

    # -- lookups ---------------------------------------------------------------------------

    def index(self, row: Submission) -> None:
        """Point to the submission from its path and its job."""
        version = row.version
        milliseconds = round(version.last_modified.timestamp() * 1000)
        # Newest first: pointers come in the order of their names.
        name = f"{_LATEST_MS - milliseconds:014d}-{9999 - version.generation:04d}-{row.key}"
        with self._exchange("ledger.index"):
            digest = path_digest(version.container, version.path)
            self._by_path.setdefault(digest, {})[name] = row.key
            if row.job_identifier is not None:
                self._by_job[row.job_identifier] = row.key

    def find_by_path(
        self, container: str, path: str, limit: int, token: str | None = None
    ) -> tuple[Sequence[LedgerKey], str | None]:
        """Keys of a blob's versions, newest first."""
        with self._exchange("ledger.find_by_path"):
            digest = path_digest(container, path)
            pointers = self._by_path.get(digest, {})
            page, following = _page(sorted(pointers), limit, token, lambda name: (digest, name))
            return [pointers[name] for name in page], following

    def find_by_job(self, job_identifier: str) -> LedgerKey | None:
        """Key of the submission of an indexed job."""
        with self._exchange("ledger.find_by_job"):
            return self._by_job.get(job_identifier)

    # -- the sweep -------------------------------------------------------------------------

    def known_rows(self, partition: str) -> Collection[str]:
        """RowKeys of one partition."""
        with self._exchange("ledger.known_rows"):
            return {key.row for key in self._rows if key.partition == partition}

    def overdue(
        self, first: str, last: str, before: datetime, limit: int, token: str | None = None
    ) -> tuple[Sequence[Record], str | None]:
        """Rows due before a time; a row without ``next_attempt_at`` never is."""
        with self._exchange("ledger.overdue") as exchange:
            records = (
                record
                for record in self._range(first, last, exchange)
                if record.row.next_attempt_at is not None and record.row.next_attempt_at < before
            )
            return _page(records, limit, token, lambda record: record.row.key)

    def unsubmitted(self, first: str, last: str, limit: int) -> Sequence[Record]:
        """Rows whose job is still to be submitted, those of the oldest blobs first."""
        with self._exchange("ledger.unsubmitted") as exchange:
            records = (
                record
                for record in self._range(first, last, exchange)
                if record.row.state in _UNSUBMITTED
            )
            return _page(records, limit, None, lambda record: record.row.key)[0]

    def _range(self, first: str, last: str, exchange: Exchange) -> Iterable[Record]:
        for key in sorted(self._rows):
            if first <= key.partition < last:
                yield self._record(*self._rows[key], exchange)

    def written_on(
        self, day: date, since: datetime, states: Collection[State], limit: int
    ) -> Sequence[LedgerKey]:
        """Keys, at most so many, of rows in some states whose blobs were written on a day."""
        with self._exchange("ledger.written_on") as exchange:
            found = (
                record.row.key
                for record in self._range(f"{day}-", f"{day}-~", exchange)
                if record.row.state in states and record.row.version.last_modified >= since
            )
            return list(itertools.islice(found, limit))

    def load_bookmark(self, name: str) -> dict[str, str]:
        """What ``save_bookmark`` kept; empty the first time."""
        with self._exchange("ledger.load_bookmark"):
            return dict(self._bookmarks.get(name, {}))

    def save_bookmark(self, name: str, values: Mapping[str, str]) -> None:
        """Keep a note for the next run."""
        with self._exchange("ledger.save_bookmark"):
            self._bookmarks[name] = dict(values)


def _page(
    items: Iterable[_Item],
    limit: int,
    token: str | None,
    position: Callable[[_Item], tuple[str, str]],
) -> tuple[Sequence[_Item], str | None]:
    """A page of items in the order of their positions, and the token of the next one."""
    begin = _position(token)
    rest = (item for item in items if position(item) >= begin)
    page = list(itertools.islice(rest, limit))
    following = next(rest, None)
    if following is None:
        return page, None
    partition, row = position(following)
    return page, json.dumps({"PartitionKey": partition, "RowKey": row})


def _position(token: str | None) -> tuple[str, str]:
    """Read a token; raises ValueError for one that this ledger did not make."""
    if token is None:
        return "", ""
    position = json.loads(token)
    if not isinstance(position, dict) or set(position) != {"PartitionKey", "RowKey"}:
        raise ValueError("not a continuation token")
    return position["PartitionKey"], position["RowKey"]
