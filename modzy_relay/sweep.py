"""Repairs what hints lost: uploads without a row, and rows that nobody looks at any more.

Uploads are found by listing the container, which Azure Storage can only do whole: 10 million
blobs are 2,000 requests a pass. A pass is cut into slices, one a run, whose marker is kept in the
ledger. A pass that began at S has seen every blob written before S, so the next pass looks up
only those written since (less a grace time): each version is looked up once or twice in its life,
by reading the keys of its ledger partition, however many passes come after.

Overdue rows are found by range queries over the ledger's dates; partitions older than those in
question are visited in slices too.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from modzy_relay.errors import ConflictError
from modzy_relay.ports import version_of
from modzy_relay.telemetry import Event, emit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from modzy_relay.lifecycle import Record, Timing
    from modzy_relay.ports import BlobFacts, Ledger, Outbox, Uploads
    from modzy_relay.relay import Relay

#: An upload is given this long to arrive by its own event.
GRACE = timedelta(minutes=10)
#: A row is overdue when what it waits for should have happened this long ago.
OVERDUE = timedelta(minutes=10)
#: Passes overlap by this much, for clocks of the storage service's front ends that differ.
_OVERLAP = timedelta(minutes=2)
#: What was lost is taken up again over this time, not at once.
_SPREAD = timedelta(minutes=5)
_PARKED_PER_RUN = 5000
_OVERDUE_PER_RUN = 1000
_OVERDUE_PAGE = 200
_SECONDS_PER_RUN = 180.0
_BEFORE_ALL = "0"


@dataclass(slots=True)
class SweepReport:
    """What one run of the sweep found.

    Attributes:
        blobs_listed: Blobs seen in the listing.
        uploads_without_row: Uploads that had to be taken on.
        rows_overdue: Rows that had to be reminded of.
        pass_complete: Whether the listing came to its end.
        oldest_unfinished_minutes: Age of the oldest upload whose job is not submitted yet.
    """

    blobs_listed: int = 0
    uploads_without_row: int = 0
    rows_overdue: int = 0
    pass_complete: bool = False
    oldest_unfinished_minutes: int = 0


class Sweeper:
    """Compares the container and the ledger.

    Args:
        uploads: The watched container.
        ledger: One row per blob version.
        outbox: Reminders, and the poison queues' lengths.
        relay: Takes uploads on.
        timing: The durations in force.
        lookback: How far back the very first pass looks.
        ticks: Monotonic seconds.
        chance: Uniform in [0, 1).
    """

    def __init__(
        self,
        *,
        uploads: Uploads,
        ledger: Ledger,
        outbox: Outbox,
        relay: Relay,
        timing: Timing,
        lookback: timedelta,
        ticks: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._uploads = uploads
        self._ledger = ledger
        self._outbox = outbox
        self._relay = relay
        self._timing = timing
        self._lookback = lookback
        self._ticks = ticks
        self._chance = chance

    def run(self) -> SweepReport:
        """One slice of everything; what is left over is taken up by the next run."""
        began = self._ticks()
        report = SweepReport()
        now = self._list_uploads(report, began)
        self._remind_overdue(report, now, began)
        for queue, messages in self._outbox.poison_counts().items():
            emit(Event.POISON, queue=queue, messages=messages)
        emit(
            Event.SWEEP,
            **dataclasses.asdict(report),
            seconds=round(self._ticks() - began, 1),
        )
        return report

    def _time_left(self, began: float) -> bool:
        return self._ticks() - began < _SECONDS_PER_RUN

    # -- uploads without a row -------------------------------------------------------------

    def _list_uploads(self, report: SweepReport, began: float) -> datetime:
        name = f"uploads-{self._uploads.account}-{self._uploads.container}"
        note = self._ledger.load_bookmark(name)
        marker = note.get("marker") or None
        known: dict[str, Collection[str]] = {}
        while True:
            listing = self._uploads.list_page(marker)
            if marker is None:
                note = self._new_pass(note, listing.as_of)
            report.blobs_listed += len(listing.blobs)
            self._take_on(listing.blobs, note, known, report)
            marker = listing.marker
            if marker is None:
                report.pass_complete = True
                self._ledger.save_bookmark(name, {"covered_until": note["until"]})
                return listing.as_of
            if report.uploads_without_row >= _PARKED_PER_RUN or not self._time_left(began):
                self._ledger.save_bookmark(name, note | {"marker": marker})
                return listing.as_of

    def _new_pass(self, note: dict[str, str], as_of: datetime) -> dict[str, str]:
        covered = note.get("covered_until")
        since = datetime.fromisoformat(covered) - _OVERLAP if covered else as_of - self._lookback
        until = max(since, as_of - GRACE)
        return {
            "covered_until": covered or since.isoformat(),
            "since": since.isoformat(),
            "until": until.isoformat(),
        }

    def _take_on(
        self,
        blobs: Sequence[BlobFacts],
        note: dict[str, str],
        known: dict[str, Collection[str]],
        report: SweepReport,
    ) -> None:
        since, until = (datetime.fromisoformat(note[name]) for name in ("since", "until"))
        by_partition: dict[str, list[tuple[str, BlobFacts]]] = defaultdict(list)
        for facts in blobs:
            if since <= facts.last_modified <= until:
                key = version_of(self._uploads, facts).key
                by_partition[key.partition].append((key.row, facts))
        for partition, candidates in by_partition.items():
            if partition not in known:
                known[partition] = self._ledger.known_rows(partition)
            for row_key, facts in candidates:
                if row_key not in known[partition] and self._relay.park_upload(
                    facts, _SPREAD * self._chance()
                ):
                    report.uploads_without_row += 1

    # -- rows that nobody looks at ---------------------------------------------------------

    def _remind_overdue(self, report: SweepReport, now: datetime, began: float) -> None:
        recent = f"{now - self._timing.give_up - self._lookback:%Y-%m-%d}"
        tomorrow = f"{now + timedelta(days=1):%Y-%m-%d}~"
        unsubmitted = self._ledger.unsubmitted(recent, tomorrow, _OVERDUE_PAGE)
        if unsubmitted:
            oldest = min(record.row.created_at for record in unsubmitted)
            report.oldest_unfinished_minutes = max(0, int((now - oldest).total_seconds() // 60))
        token = None
        while True:
            token = self._remind_page(report, recent, tomorrow, now, token)
            if token is None or not self._may_go_on(report, began):
                break
        # Older partitions hold the rows of files that were old when they were taken on.
        note = self._ledger.load_bookmark("overdue")
        token = self._remind_page(report, _BEFORE_ALL, recent, now, note.get("token"))
        if token != note.get("token"):
            self._ledger.save_bookmark("overdue", {"token": token} if token else {})

    def _may_go_on(self, report: SweepReport, began: float) -> bool:
        return report.rows_overdue < _OVERDUE_PER_RUN and self._time_left(began)

    def _remind_page(
        self, report: SweepReport, first: str, last: str, now: datetime, token: str | None
    ) -> str | None:
        records, following = self._ledger.overdue(first, last, now - OVERDUE, _OVERDUE_PAGE, token)
        for record in records:
            if self._remind(record, now):
                report.rows_overdue += 1
        return following

    def _remind(self, record: Record, now: datetime) -> bool:
        if not record.row.is_open:
            return False
        # Row first, so that the next run finds it due, not overdue: one reminder a run at most.
        row = dataclasses.replace(record.row, next_attempt_at=now)
        try:
            self._ledger.replace(record, row)
        except ConflictError:
            return False  # somebody does look at it
        self._outbox.remind(row.key, timedelta())
        return True
