"""Which model a blob goes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from strategies import HOSTILE_PATHS, blob_paths

from modzy_relay.routing import (
    DIRECTORY,
    DOT_SEGMENTS,
    EMPTY,
    Route,
    choose_route,
    has_dot_segments,
    matches,
    skip_reason,
)

SCANS = Route("scans/*.png", "model-a", "1.0")
LETTERS = Route("letters/**/*.txt", "model-b", "2.0")
DEFAULT = Route("**", "model-c", "3.0")


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "folder/a.txt", True),
        ("*.txt", "a.TXT", False),
        ("*.txt", "a.txt.bak", False),
        ("letters/*.txt", "letters/2026/a.txt", True),
        ("letters/*.txt", "old/letters/a.txt", False),
        ("letters/**/*.txt", "letters/a.txt", True),
        ("letters/**/*.txt", "letters/2026/11/a.txt", True),
        ("**/a.txt", "a.txt", True),
        ("**/a.txt", "x/y/a.txt", True),
        ("**/a.txt", "xa.txt", False),
        ("scan-?.png", "scan-1.png", True),
        ("scan-?.png", "scan-12.png", False),
        ("scan-[0-9].png", "scan-7.png", True),
        ("scan-[!0-9].png", "scan-7.png", False),
        ("a+(b).txt", "a+(b).txt", True),
        ("a.txt", "axtxt", False),
        ("*", "two\nlines", True),
    ],
)
def test_a_glob_matches_whole_paths(glob: str, path: str, expected: bool) -> None:
    """Case-sensitive, ``*`` crosses ``/``, ``**/`` may stand for no folder."""
    assert matches(glob, path) is expected


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_everything_matches_the_default_route(path: str) -> None:
    """No name falls through ``**``."""
    assert choose_route([DEFAULT], path) is DEFAULT


@given(path=blob_paths)
def test_any_path_is_decided_on(path: str) -> None:
    """No name makes a route fail."""
    assert choose_route([SCANS, LETTERS, DEFAULT], path) in {SCANS, LETTERS, DEFAULT}


def test_the_first_match_wins() -> None:
    """Order is precedence."""
    special = Route("scans/special*", "model-d", "1.0")
    assert choose_route([special, SCANS, DEFAULT], "scans/special.png") is special
    assert choose_route([SCANS, special, DEFAULT], "scans/special.png") is SCANS


def test_no_match_is_no_route() -> None:
    """Without a default route a path may go nowhere."""
    assert choose_route([SCANS, LETTERS], "readme.md") is None
    assert choose_route([], "readme.md") is None


@pytest.mark.parametrize(
    ("path", "size", "metadata", "reason"),
    [
        ("a.txt", 1, {}, None),
        ("a.txt", 0, {}, EMPTY),
        ("folder", 0, {"hdi_isfolder": "true"}, DIRECTORY),
        ("folder", 0, {"Hdi_IsFolder": "True"}, DIRECTORY),
        ("folder", 9, {"hdi_isfolder": "false"}, None),
        ("a/../b.txt", 1, {}, DOT_SEGMENTS),
        ("./b.txt", 1, {}, DOT_SEGMENTS),
        ("...", 1, {}, None),
        (".hidden", 1, {}, None),
    ],
)
def test_what_is_not_a_file_is_skipped_with_the_reason(
    path: str, size: int, metadata: dict[str, str], reason: str | None
) -> None:
    """Empty blobs, directory markers, and names that HTTP turns into another blob's."""
    assert skip_reason(path, size, metadata) == reason


@given(path=blob_paths)
def test_dot_segments_are_whole_segments(path: str) -> None:
    """A dot inside a name is an ordinary character."""
    assert has_dot_segments(path) is bool({".", ".."} & set(path.split("/")))
