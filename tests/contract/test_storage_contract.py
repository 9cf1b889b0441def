"""What the queues, the watched container and the results container promise, doubled or real."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from stores import decoded
from strategies import HOSTILE_PATHS, a_submission, a_version

from modzy_relay.identity import plain_etag
from modzy_relay.messages import EventType, event_about

if TYPE_CHECKING:
    from stores import AzuriteStores, Stores

NOW = datetime(2026, 11, 23, 8, 0, 2, 345678, tzinfo=UTC)
KEY = a_version().key

# -- queues --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_an_event_reaches_a_queue_trigger_as_it_was_sent(stores: Stores, path: str) -> None:
    """Base64 outside, UTF-8 JSON inside, whatever the blob is called."""
    row = a_submission(a_version(path), reason="ünïcödé 🚢")
    event = event_about(row, EventType.JOB_SUBMITTED, NOW)
    stores.outbox.announce(event)
    (body,) = stores.bodies()
    assert decoded(body) == decoded(event.encode().encode())
    assert decoded(body)["subject"] == path


def test_repeated_events_are_all_sent(stores: Stores) -> None:
    """Dropping repeats is the consumer's part."""
    event = event_about(a_submission(), EventType.JOB_SUBMITTED, NOW)
    stores.outbox.announce(event)
    stores.outbox.announce(event)
    assert [decoded(body)["id"] for body in stores.bodies()] == [event.id, event.id]


@pytest.mark.parametrize("delay", [timedelta(), timedelta(seconds=-5)])
def test_a_reminder_without_delay_is_visible_at_once(stores: Stores, delay: timedelta) -> None:
    """Nothing has to pass before it can be received."""
    stores.outbox.remind(KEY, delay)
    assert stores.due() == [KEY]
    assert stores.due() == []


def test_a_reminder_is_not_visible_before_its_time(stores: Stores) -> None:
    """A delay is rounded up to the second, and one more: never early by the ledger's clock."""
    began = stores.now()
    stores.outbox.remind(KEY, timedelta(milliseconds=1100))
    assert stores.due() == []
    assert stores.due_within(timedelta(seconds=3)) == [KEY]
    assert stores.now() - began >= timedelta(seconds=2)


def test_reminders_of_one_row_do_not_replace_each_other(stores: Stores) -> None:
    """Every reminder is a message of its own."""
    stores.outbox.remind(KEY, timedelta())
    stores.outbox.remind(KEY, timedelta())
    assert stores.due() == [KEY, KEY]


def test_a_delay_beyond_the_queues_limit_is_cut_to_it(stores: Stores) -> None:
    """A wish for more than seven days is taken, not refused."""
    stores.outbox.remind(KEY, timedelta(days=400))
    assert stores.due() == []


def test_empty_poison_queues_are_not_reported(stores: Stores) -> None:
    """Neither a poison queue that does not exist yet nor one that is empty."""
    assert stores.outbox.poison_counts() == {}


def test_messages_in_poison_queues_are_counted(azurite_stores: AzuriteStores) -> None:
    """The host's own queues are asked, under the names that it gives them."""
    name = f"{azurite_stores.due_queue}-poison"
    poison = azurite_stores.queues.create_queue(name)
    poison.send_message("unreadable")
    poison.close()
    assert azurite_stores.outbox.poison_counts() == {name: 1}


# -- the watched container -----------------------------------------------------------------


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_awkward_blob_names_are_found_by_head_and_listing(stores: Stores, path: str) -> None:
    """Both tell the same of a blob, whatever it is called."""
    stores.put_blob(path, size=7, metadata={"kind": "letter"})
    facts = stores.uploads.head(path)
    listing = stores.uploads.list_page(None)
    assert facts is not None
    (listed,) = listing.blobs
    assert (facts.path, facts.size, dict(facts.metadata)) == (path, 7, {"kind": "letter"})
    assert (listed.path, listed.size, dict(listed.metadata)) == (path, 7, {"kind": "letter"})
    assert plain_etag(listed.etag) == facts.etag
    assert listed.last_modified == facts.last_modified
    assert listing.marker is None


def test_times_are_whole_seconds_of_the_services_clock(stores: Stores) -> None:
    """``last_modified`` and ``as_of`` are aware, without a fraction, and not in the future."""
    stores.put_blob("a.txt")
    facts = stores.uploads.head("a.txt")
    assert facts is not None
    for time in (facts.last_modified, facts.as_of, stores.uploads.list_page(None).as_of):
        assert time.utcoffset() == timedelta()
        assert time.microsecond == 0
    assert facts.last_modified <= facts.as_of


def test_a_missing_blob_is_none(stores: Stores) -> None:
    """Never written, or deleted: both are an answer."""
    stores.put_blob("a.txt")
    stores.delete_blob("a.txt")
    assert stores.uploads.head("a.txt") is None
    assert stores.uploads.head("b.txt") is None
    assert list(stores.uploads.list_page(None).blobs) == []


def test_an_overwrite_is_another_version(stores: Stores) -> None:
    """The same content written again has another ETag."""
    stores.put_blob("a.txt")
    first = stores.uploads.head("a.txt")
    stores.put_blob("a.txt")
    second = stores.uploads.head("a.txt")
    assert first is not None
    assert second is not None
    assert first.etag != second.etag


def test_an_empty_blob_has_size_zero(stores: Stores) -> None:
    """It is there, and empty."""
    stores.put_blob("empty.txt", size=0)
    facts = stores.uploads.head("empty.txt")
    assert facts is not None
    assert facts.size == 0


def test_a_listing_comes_in_pages_in_the_order_of_names(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages follow one another without a gap or a repeat."""
    monkeypatch.setattr("modzy_relay.testing.MemoryUploads.page_size", 4)
    monkeypatch.setattr("modzy_relay.blob_uploads._PAGE", 4)
    paths = [f"folder-{n % 3}/{n:02d}.txt" for n in range(10)]
    for path in paths:
        stores.put_blob(path)
    found: list[str] = []
    marker = None
    while True:
        listing = stores.uploads.list_page(marker)
        found += [facts.path for facts in listing.blobs]
        marker = listing.marker
        if marker is None:
            break
        assert len(listing.blobs) == 4
    assert found == sorted(paths)


# -- the results container -----------------------------------------------------------------


def test_results_are_stored_and_replaced(stores: Stores) -> None:
    """What was written last is there, with its content type."""
    stores.results.put("uploads/a.txt/job/results.json", b"{}", "text/plain")
    stores.results.put("uploads/a.txt/job/results.json", b'{"a": 1}', "application/json")
    stored = stores.stored_result("uploads/a.txt/job/results.json")
    assert stored == (b'{"a": 1}', "application/json")


def test_results_can_come_in_pieces(stores: Stores) -> None:
    """A result file is stored as it is downloaded."""
    stores.results.put("file.bin", iter([b"ab", b"", b"cd" * 50_000]), "application/octet-stream")
    content, _ = stores.stored_result("file.bin")
    assert content == b"ab" + b"cd" * 50_000
