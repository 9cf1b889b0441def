"""Hypothesis strategies and awkward samples of the values that the relay handles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from modzy_relay.identity import BlobVersion, input_item_key
from modzy_relay.lifecycle import State, Submission

#: Blob names that break quoting, filters, headers, URLs, JSON or terminals. 1,024 characters is
#: the service's limit.
HOSTILE_PATHS = (
    "it's a 'quoted' \"name\".txt",
    "100% sure%2Fnot%41.txt",
    "#fragment?query=1&more;x=+.txt",
    "two\nlines.txt",
    "emoji 🚢🇩🇪/👩‍👩‍👧.png",
    "עברית/سجل ‮txt.exe",
    "a//b///c.txt",
    " leading and trailing ",
    "日本語/" + "長" * 1020,
    "x" * 1024,
    "{name}$(id)`id`|;.txt",
)

#: No surrogates, which no blob name can hold, and no control characters but those of HOSTILE_PATHS.
_characters = st.characters(exclude_categories=("Cs", "Cc"))
texts = st.text(_characters, max_size=60)
blob_paths = st.text(_characters, min_size=1, max_size=120) | st.sampled_from(HOSTILE_PATHS)
etags = st.integers(0, 16**15 - 1).map(lambda number: f"0x{number:015X}")
moments = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
whole_seconds = moments.map(lambda moment: moment.replace(microsecond=0))
sizes = st.integers(0, 200 * 2**40)


@st.composite
def versions(draw: st.DrawFn) -> BlobVersion:
    """Some blob version."""
    return BlobVersion(
        account=draw(st.from_regex(r"[a-z0-9]{3,24}", fullmatch=True)),
        container=draw(st.from_regex(r"[a-z0-9]{3,20}", fullmatch=True)),
        path=draw(blob_paths),
        etag=draw(etags),
        last_modified=draw(whole_seconds),
        generation=draw(st.integers(0, 9999)),
    )


@st.composite
def submissions(draw: st.DrawFn) -> Submission:
    """A row in some state, with every field set or not; it need not make sense as a whole."""
    version = draw(versions())
    maybe_moment = st.none() | moments
    count = st.integers(0, 2**31 - 1)
    row = Submission(
        version=version,
        size=draw(sizes),
        state=State.SUBMITTING,
        created_at=draw(moments),
        item_key=input_item_key(version.path, version.key),
        model=draw(texts),
        model_version=draw(texts),
        input_name=draw(st.none() | texts),
        explain=draw(st.booleans()),
        timeout=draw(st.none() | count),
        give_up_at=draw(moments),
        lease_until=draw(maybe_moment),
        next_attempt_at=draw(maybe_moment),
        attempts=draw(count),
        deferrals=draw(count),
        doubts=draw(count),
        job_identifier=draw(st.none() | texts),
        job_status=draw(st.none() | texts),
        submitted_at=draw(maybe_moment),
        looks=draw(count),
        finished_at=draw(maybe_moment),
        result_location=draw(st.none() | texts),
        indexed=draw(st.booleans()),
    )
    for state, reason in draw(
        st.lists(st.tuples(st.sampled_from(State), st.none() | texts.filter(bool)), max_size=3)
    ):
        row = row.moved(state, draw(moments), reason)
    return row


def a_version(path: str = "letters/a.txt", **fields: object) -> BlobVersion:
    """A plain blob version of 23 November 2026."""
    plain: dict[str, object] = {
        "account": "uploadaccount",
        "container": "uploads",
        "path": path,
        "etag": "0x8DE2A6B4C0D1E2F",
        "last_modified": datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
    }
    return BlobVersion(**plain | fields)  # type: ignore[arg-type] # checked by the constructor


def a_submission(version: BlobVersion | None = None, **fields: object) -> Submission:
    """A plain row: claimed just now."""
    version = version or a_version()
    now = datetime(2026, 11, 23, 8, 0, 1, tzinfo=UTC)
    plain: dict[str, object] = {
        "version": version,
        "size": 5,
        "state": State.SUBMITTING,
        "created_at": now,
        "item_key": input_item_key(version.path, version.key),
        "model": "ed542963de",
        "model_version": "1.0.1",
        "input_name": "input.txt",
        "give_up_at": now + timedelta(days=7),
        "lease_until": now + timedelta(seconds=95),
        "next_attempt_at": now + timedelta(seconds=95),
        "attempts": 1,
    }
    return Submission(**plain | fields)  # type: ignore[arg-type] # checked by the constructor
