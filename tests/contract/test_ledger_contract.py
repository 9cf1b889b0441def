"""What every ledger promises: the double and Table Storage alike."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from hypothesis import HealthCheck, given, settings
from stores import AzuriteStores
from strategies import HOSTILE_PATHS, a_submission, a_version, submissions

from modzy_relay import azure_clients
from modzy_relay.errors import ConflictError
from modzy_relay.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stores import Stores

    from modzy_relay.identity import LedgerKey
    from modzy_relay.lifecycle import Record, Submission
    from modzy_relay.ports import Ledger
    from sandbox.storage import Azurite

DAY = datetime(2026, 11, 23, tzinfo=UTC)


def _stored(ledger: Ledger, row: Submission) -> Submission:
    record = ledger.get(row.key)
    assert record is not None
    return record.row


# -- rows ----------------------------------------------------------------------------------


def test_the_first_insert_makes_the_row(stores: Stores) -> None:
    """Whoever inserts first is told so and gets the row back."""
    row = a_submission()
    record, created = stores.ledger.insert(row)
    assert created
    assert record.row == row
    assert _stored(stores.ledger, row) == row


def test_a_second_insert_is_answered_with_the_row_as_it_stands(stores: Stores) -> None:
    """That it exists is an answer, and nothing of the second row is kept."""
    first = a_submission()
    stores.ledger.insert(first)
    record, created = stores.ledger.insert(a_submission(size=77, model="another"))
    assert not created
    assert record.row == first
    assert _stored(stores.ledger, first) == first


def test_of_simultaneous_inserts_one_wins(stores: Stores) -> None:
    """Eight threads, one key: one is told that it made the row, all see the winner's."""
    rows = [a_submission(size=size) for size in range(1, 9)]
    answers: list[tuple[Record, bool]] = []
    ready = threading.Barrier(len(rows))

    def insert(row: Submission) -> None:
        ready.wait()
        answers.append(stores.ledger.insert(row))

    threads = [threading.Thread(target=insert, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [record.row for record, created in answers if created]
    assert len(winners) == 1
    assert {record.row.size for record, _ in answers} == {winners[0].size}


def test_a_missing_row_is_none(stores: Stores) -> None:
    """A point read of a row that was never inserted is an answer."""
    assert stores.ledger.get(a_version().key) is None


def test_a_change_is_made_and_can_be_followed_by_another(stores: Stores) -> None:
    """The record that ``replace`` returns guards the next change."""
    record, _ = stores.ledger.insert(a_submission())
    record = stores.ledger.replace(record, dataclasses.replace(record.row, looks=1))
    record = stores.ledger.replace(record, dataclasses.replace(record.row, looks=2))
    assert _stored(stores.ledger, record.row).looks == 2


def test_a_stale_record_changes_nothing(stores: Stores) -> None:
    """Of two who read the same row, the second to write gets a conflict."""
    stale, _ = stores.ledger.insert(a_submission())
    stores.ledger.replace(stale, dataclasses.replace(stale.row, looks=1))
    with pytest.raises(ConflictError):
        stores.ledger.replace(stale, dataclasses.replace(stale.row, looks=5))
    assert _stored(stores.ledger, stale.row).looks == 1


def test_an_insert_that_met_an_existing_row_can_change_it(stores: Stores) -> None:
    """The record of a lost insert is as good as one that was read."""
    stores.ledger.insert(a_submission())
    record, _ = stores.ledger.insert(a_submission())
    stores.ledger.replace(record, dataclasses.replace(record.row, looks=3))
    assert _stored(stores.ledger, record.row).looks == 3


def test_a_field_that_is_cleared_stays_cleared(stores: Stores) -> None:
    """A change replaces the whole row: what is None now is not what it was."""
    record, _ = stores.ledger.insert(a_submission(reason="a reason", job_identifier="a-job"))
    cleared = dataclasses.replace(
        record.row, reason=None, job_identifier=None, next_attempt_at=None, lease_until=None
    )
    stores.ledger.replace(record, cleared)
    assert _stored(stores.ledger, cleared) == cleared


def test_a_record_tells_the_services_time(stores: Stores) -> None:
    """``as_of`` is the service's clock in whole seconds, and ``now`` is never before it."""
    record, _ = stores.ledger.insert(a_submission())
    assert record.as_of.microsecond == 0
    assert abs(record.as_of - stores.now()) < timedelta(minutes=1)
    assert record.now() >= record.as_of


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_awkward_names_survive(stores: Stores, path: str) -> None:
    """A row comes back as it was written, whatever the blob is called."""
    row = a_submission(a_version(path))
    stores.ledger.insert(row)
    assert _stored(stores.ledger, row) == row


def test_large_sizes_and_exact_times_survive(stores: Stores) -> None:
    """Sizes beyond 32 bits and times with microseconds are kept exactly."""
    row = a_submission(
        size=190_700 * 2**30,
        created_at=DAY.replace(hour=7, microsecond=123456),
        next_attempt_at=DAY.replace(hour=9, microsecond=1),
        finished_at=DAY.replace(hour=23, minute=59, second=59, microsecond=999999),
    )
    stores.ledger.insert(row)
    assert _stored(stores.ledger, row) == row


@pytest.mark.parametrize("character", ["x", '"', "\\", "長", "🚢", "\x01"])
def test_the_longest_history_fits(stores: Stores, character: str) -> None:
    """A row that was put off a hundred times for long reasons can still be changed."""
    record, _ = stores.ledger.insert(a_submission(a_version("長" * 1024)))
    for number in range(100):
        moved = record.row.moved(
            State.DEFERRED, DAY + timedelta(minutes=number), f"{number} {character * 2000}"
        )
        record = dataclasses.replace(record, row=moved)
    record = stores.ledger.replace(record, record.row)
    assert _stored(stores.ledger, record.row) == record.row


def test_any_row_survives(stores: Stores) -> None:
    """Every field comes back as it was written, for any values."""

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(row=submissions())
    def check(row: Submission) -> None:
        record, created = stores.ledger.insert(row)
        if created:
            assert record.row == row
            assert _stored(stores.ledger, row) == row

    check()


# -- lookups -------------------------------------------------------------------------------


def _indexed_versions(ledger: Ledger, path: str, count: int) -> list[LedgerKey]:
    """Index so many versions of a blob; returns their keys, newest first."""
    rows = [
        a_submission(a_version(path, etag=f"0x{n}", last_modified=DAY + timedelta(hours=n)))
        for n in range(count)
    ]
    for row in rows:
        ledger.index(row)
    return [row.key for row in reversed(rows)]


def test_versions_of_a_path_come_newest_first_and_in_pages(stores: Stores) -> None:
    """Pages follow one another without a gap, and end with no token."""
    keys = _indexed_versions(stores.ledger, "letters/a.txt", 7)
    _indexed_versions(stores.ledger, "letters/b.txt", 2)
    found: list[LedgerKey] = []
    token = None
    while True:
        page, token = stores.ledger.find_by_path("uploads", "letters/a.txt", 3, token)
        assert len(page) <= 3
        found += page
        if token is None:
            break
    assert found == keys


def test_generations_come_newest_first(stores: Stores) -> None:
    """A replay of a version stands before it."""
    rows = [a_submission(a_version(generation=generation)) for generation in (0, 1, 2)]
    for row in rows:
        stores.ledger.index(row)
    page, _ = stores.ledger.find_by_path("uploads", "letters/a.txt", 10)
    assert list(page) == [row.key for row in reversed(rows)]


def test_indexing_can_be_repeated(stores: Stores) -> None:
    """A submission that is indexed twice is found once."""
    row = a_submission(job_identifier="a-job")
    stores.ledger.index(row)
    stores.ledger.index(row)
    assert stores.ledger.find_by_path("uploads", "letters/a.txt", 10) == ([row.key], None)
    assert stores.ledger.find_by_job("a-job") == row.key


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_awkward_paths_are_found(stores: Stores, path: str) -> None:
    """A lookup by path works whatever the blob is called, and mixes up no containers."""
    row = a_submission(a_version(path))
    stores.ledger.index(row)
    assert stores.ledger.find_by_path("uploads", path, 10) == ([row.key], None)
    assert stores.ledger.find_by_path("upload", f"s{path}", 10) == ([], None)


def test_unknown_paths_and_jobs_are_not_found(stores: Stores) -> None:
    """Nothing is an answer too."""
    assert stores.ledger.find_by_path("uploads", "nobody.txt", 10) == ([], None)
    assert stores.ledger.find_by_job("it's nobody's / job? #1") is None


@pytest.mark.parametrize("token", ["", "nonsense", "{}", "[]", '{"PartitionKey": "a"}'])
def test_a_token_that_the_ledger_did_not_make_is_refused(stores: Stores, token: str) -> None:
    """A token comes from a web request: a wrong one is a ValueError, nothing worse."""
    with pytest.raises(ValueError, match=r".*"):
        stores.ledger.find_by_path("uploads", "letters/a.txt", 10, token)


# -- the sweep's questions -----------------------------------------------------------------


def _rows_of_days(ledger: Ledger, count: int, **fields: Any) -> list[Submission]:
    """Insert so many rows, one blob a day from DAY on."""
    rows = [
        a_submission(a_version(f"{n}.txt", last_modified=DAY + timedelta(days=n)), **fields)
        for n in range(count)
    ]
    for row in rows:
        ledger.insert(row)
    return rows


def test_known_rows_are_those_of_one_partition(stores: Stores) -> None:
    """Rows, not pointers, of this partition and no other."""
    rows = _rows_of_days(stores.ledger, 3)
    for row in rows:
        stores.ledger.index(row)
    assert set(stores.ledger.known_rows(rows[1].key.partition)) == {rows[1].key.row}
    assert set(stores.ledger.known_rows("2026-01-01-0")) == set()


def test_overdue_rows_are_found_in_pages(stores: Stores) -> None:
    """Each overdue row of the range once, in bounded pages, the oldest partition first."""
    rows = _rows_of_days(stores.ledger, 7, next_attempt_at=DAY)
    found: list[LedgerKey] = []
    token = None
    while True:
        page, token = stores.ledger.overdue(
            "2026-11-23", "2026-11-29~", DAY + timedelta(hours=1), 2, token
        )
        assert len(page) <= 2
        found += [record.row.key for record in page]
        if token is None:
            break
    assert found == [row.key for row in rows]


@pytest.mark.parametrize(
    ("next_attempt_at", "overdue"),
    [
        (DAY - timedelta(microseconds=1), True),
        (DAY, False),
        (DAY + timedelta(microseconds=1), False),
        (DAY - timedelta(days=400), True),
        (None, False),
    ],
)
def test_overdue_is_what_was_due_before(
    stores: Stores, next_attempt_at: datetime | None, overdue: bool
) -> None:
    """The bound is exact, and a row that waits for nothing is never overdue."""
    stores.ledger.insert(a_submission(next_attempt_at=next_attempt_at))
    page, token = stores.ledger.overdue("2026-11-23", "2026-11-24", DAY, 10)
    assert bool(page) is overdue
    assert token is None


def test_ranges_include_their_first_partition_and_not_their_last(stores: Stores) -> None:
    """``first`` <= partition < ``last``, compared as text; pointers and bookmarks are not rows."""
    rows = _rows_of_days(stores.ledger, 3, next_attempt_at=DAY)
    stores.ledger.index(dataclasses.replace(rows[0], job_identifier="a-job"))
    stores.ledger.save_bookmark("overdue", {"token": "x"})
    last = rows[2].key.partition
    page, _ = stores.ledger.overdue(rows[1].key.partition, last, DAY + timedelta(days=9), 10)
    assert [record.row.key for record in page] == [rows[1].key]
    everything, _ = stores.ledger.overdue("0", "~", DAY + timedelta(days=9), 10)
    assert [record.row.key for record in everything] == [row.key for row in rows]


def test_an_overdue_record_guards_its_change(stores: Stores) -> None:
    """What a range query found can be changed, unless somebody else was faster."""
    stores.ledger.insert(a_submission(next_attempt_at=DAY))
    (record,), _ = stores.ledger.overdue("2026-11-23", "2026-11-24", DAY + timedelta(days=1), 10)
    changed = stores.ledger.replace(record, dataclasses.replace(record.row, looks=9))
    assert _stored(stores.ledger, changed.row).looks == 9
    with pytest.raises(ConflictError):
        stores.ledger.replace(record, record.row)


def test_unsubmitted_are_the_open_ones_without_a_job_oldest_first(stores: Stores) -> None:
    """SUBMITTING and DEFERRED, by the blobs' days, so many at most."""
    for number, state in enumerate(State):
        version = a_version(f"{state}.txt", last_modified=DAY + timedelta(days=number))
        stores.ledger.insert(a_submission(version, state=state))
    found = stores.ledger.unsubmitted("2026-11-01", "2026-12-31", 10)
    assert [record.row.state for record in found] == [State.SUBMITTING, State.DEFERRED]
    assert len(stores.ledger.unsubmitted("2026-11-01", "2026-12-31", 1)) == 1


def test_bookmarks_are_kept_by_name(stores: Stores) -> None:
    """Empty at first; what was saved last is what is loaded."""
    assert stores.ledger.load_bookmark("uploads-a-b") == {}
    stores.ledger.save_bookmark("uploads-a-b", {"marker": "2!92!é'\"\n", "since": "x"})
    stores.ledger.save_bookmark("uploads-a-b", {"until": "y"})
    stores.ledger.save_bookmark("overdue", {})
    assert stores.ledger.load_bookmark("uploads-a-b") == {"until": "y"}
    assert stores.ledger.load_bookmark("overdue") == {}


# -- answers that are lost on the way ------------------------------------------------------


class LossyTransport(RequestsTransport):  # type: ignore[misc] # untyped in azure.core
    """Lets the service do what it is asked, and loses the first answer to a write.

    Attributes:
        armed: The next write's answer is lost.
        before_retry: Runs once after that write took effect, before the SDK's next attempt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.before_retry: Callable[[], None] = lambda: None

    def send(self, request: Any, **options: Any) -> Any:
        """Send, and perhaps lose the answer."""
        answer = super().send(request, **options)
        if self.armed and request.method in {"POST", "PUT", "PATCH", "MERGE"}:
            self.armed = False
            self.before_retry()
            raise ServiceResponseError("the connection was cut")
        return answer


@pytest.fixture
def lossy(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[AzuriteStores, LossyTransport]]:
    """Stores whose table client can be made to lose an answer."""
    transport = LossyTransport()
    with monkeypatch.context() as patch:
        patch.setattr(azure_clients, "_transport", lambda: transport)
        stores = AzuriteStores(azurite.connection_string())
    yield stores, transport
    stores.close()


def test_an_insert_whose_answer_was_lost_is_recognised(
    lossy: tuple[AzuriteStores, LossyTransport],
) -> None:
    """The SDK's own retry meets the row it made itself: that is a win, not somebody else's row."""
    stores, transport = lossy
    transport.armed = True
    record, created = stores.ledger.insert(a_submission())
    assert not transport.armed
    assert created
    stores.ledger.replace(record, dataclasses.replace(record.row, looks=1))


def test_a_change_whose_answer_was_lost_is_recognised(
    lossy: tuple[AzuriteStores, LossyTransport],
) -> None:
    """The SDK's own retry fails on the new ETag: the write was ours and counts."""
    stores, transport = lossy
    record, _ = stores.ledger.insert(a_submission())
    transport.armed = True
    record = stores.ledger.replace(record, dataclasses.replace(record.row, looks=1))
    assert not transport.armed
    stores.ledger.replace(record, dataclasses.replace(record.row, looks=2))


def test_a_lost_change_that_somebody_changed_again_is_a_conflict(
    lossy: tuple[AzuriteStores, LossyTransport],
) -> None:
    """If another write came in between, the row is no longer the one this caller made."""
    stores, transport = lossy
    mine, _ = stores.ledger.insert(a_submission())

    def somebody_else() -> None:
        current = stores.ledger.get(mine.row.key)
        assert current is not None
        stores.ledger.replace(current, dataclasses.replace(current.row, looks=50))

    transport.before_retry = somebody_else
    transport.armed = True
    with pytest.raises(ConflictError):
        stores.ledger.replace(mine, dataclasses.replace(mine.row, looks=1))
    assert _stored(stores.ledger, mine.row).looks == 50
