"""Ledger keys and input item keys: stable, safe, and able to lead back."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import HOSTILE_PATHS, a_version, blob_paths, versions

from modzy_relay.identity import (
    BlobVersion,
    LedgerKey,
    input_item_key,
    ledger_key_of,
    path_digest,
    plain_etag,
)

#: Table Storage refuses these in key values (learn.microsoft.com, "Understanding the Table service
#: data model").
REFUSED_IN_KEYS = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f]")


def test_a_key_is_stable() -> None:
    """The key of a version is the same in every release: rows are found by it."""
    assert str(a_version().key) == "2026-11-23-b.bab0cbf97eb2c5d349e1c794"


@given(version=versions())
def test_a_key_is_accepted_by_the_table_and_read_back(version: BlobVersion) -> None:
    """Whatever the blob is called."""
    key = version.key
    assert not REFUSED_IN_KEYS.search(key.partition + key.row)
    assert key.partition.startswith(f"{version.last_modified:%Y-%m-%d}-")
    assert LedgerKey.parse(str(key)) == key


@given(version=versions())
def test_quotes_around_an_etag_do_not_matter(version: BlobVersion) -> None:
    """HEAD answers with quotes, a listing without: it is one version."""
    quoted = dataclasses.replace(version, etag=f'"{version.etag}"')
    assert quoted.key == version.key
    assert plain_etag(f'W/"{version.etag}"') == version.etag


@pytest.mark.parametrize(
    "change",
    [
        {"account": "other"},
        {"container": "other"},
        {"path": "letters/b.txt"},
        {"etag": "0x8DE2A6B4C0D1E30"},
        {"generation": 1},
    ],
)
def test_each_part_of_the_identity_counts(change: dict[str, object]) -> None:
    """Another content, place or replay is another submission."""
    assert a_version(**change).key != a_version().key  # type: ignore[arg-type] # field by field


def test_parts_of_the_identity_do_not_run_together() -> None:
    """A container "a" with "b/c" is not a container "a/b" with "c"."""
    first = a_version("b/c", container="a")
    second = a_version("c", container="a/b")
    assert first.key != second.key
    assert path_digest("a", "b/c") != path_digest("a/b", "c")


def test_a_day_is_spread_over_sixteen_partitions() -> None:
    """The load of a day does not fall on one partition."""
    keys = [a_version(f"{number}.txt").key for number in range(500)]
    assert {key.partition for key in keys} == {f"2026-11-23-{digit:x}" for digit in range(16)}


def test_the_day_is_that_of_utc() -> None:
    """Around midnight the service's own day counts."""
    late = datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)
    assert a_version(last_modified=late).key.partition.startswith("2026-11-23-")
    later = late + timedelta(seconds=1)
    assert a_version(last_modified=later).key.partition.startswith("2026-11-24-")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "2026-11-23-a",
        "2026-11-23-a.0123456789ABCDEF01234567",
        "2026-11-23-a.0123456789abcdef0123456",
        "2026-11-23-g.0123456789abcdef01234567",
        "2026-11-23-a.0123456789abcdef01234567\n",
        "' or true.0123456789abcdef01234567",
        "bookmark.overdue",
        "٢٠٢٦-11-23-a.0123456789abcdef01234567x",
    ],
)
def test_what_is_not_a_submission_id_is_not_read_as_one(text: str) -> None:
    """Ids come from web requests and messages."""
    assert LedgerKey.parse(text) is None


@given(version=versions())
def test_an_item_key_leads_back_to_its_row(version: BlobVersion) -> None:
    """It is a safe URL segment, of bounded length, and ends in the ledger key."""
    item_key = input_item_key(version.path, version.key)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}\.[0-9a-f-]{12}\.[0-9a-f]{24}", item_key)
    assert ledger_key_of(item_key) == version.key


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("letters/a.txt", "a-txt"),
        ("Grüße aus Köln.pdf", "Gr-e-aus-K-ln-pdf"),
        ("日本語", "file"),
        ("folder/", "file"),
        ("x" * 1024, "x" * 60),
    ],
)
def test_an_item_key_shows_the_files_name(path: str, name: str) -> None:
    """People recognise their file in Modzy's list of jobs."""
    assert input_item_key(path, a_version(path).key).split(".")[0] == name


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_awkward_names_make_safe_item_keys(path: str) -> None:
    """Nothing of an awkward name gets into a URL."""
    key = a_version(path).key
    assert ledger_key_of(input_item_key(path, key)) == key


@pytest.mark.parametrize(
    "item_key", ["", "input", "my.input", "a.b.c", "a..b", "job.2026-11-23-a."]
)
def test_other_callers_item_keys_lead_nowhere(item_key: str) -> None:
    """Modzy's history has jobs of other programs too."""
    assert ledger_key_of(item_key) is None


@given(first=blob_paths, second=blob_paths, container=st.sampled_from(["uploads", "archive"]))
def test_paths_have_digests_of_their_own(first: str, second: str, container: str) -> None:
    """Two paths share a pointer partition only if they are one path."""
    same = path_digest(container, first) == path_digest(container, second)
    assert same is (first == second)
