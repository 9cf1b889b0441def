"""Which model a blob goes to, or why it goes to none."""

from __future__ import annotations

import fnmatch
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EMPTY = "the blob is empty"
DIRECTORY = "a directory marker, not a file"
NO_ROUTE = "no route matches this path and there is no default route"
DOT_SEGMENTS = "the path has a '.' or '..' segment, which HTTP clients resolve to another blob"


@dataclass(frozen=True, slots=True)
class Route:
    """A model version and how to call it.

    Attributes:
        match: Glob on the path inside the container; the default route is ``**``.
        model: Modzy's model identifier.
        version: Model version.
        input_name: The model's data input item key; None = look it up, the model has one input.
        explain: Ask for an explanation of the prediction.
        timeout: Seconds until Modzy ends the job as TIMEDOUT; None = never.
    """

    match: str
    model: str
    version: str
    input_name: str | None = None
    explain: bool = False
    timeout: int | None = None


@functools.lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    # "**/" also stands for no folder at all; every other "*" is any text, "/" included, as in
    # the {name} of a blob trigger's path.
    # Python ends a translated glob with \Z, newer ones with \z.
    pieces = [re.sub(r"\\[Zz]$", "", fnmatch.translate(piece)) for piece in glob.split("**/")]
    return re.compile("(?s:(?:.*/)?)".join(pieces))


def matches(glob: str, path: str) -> bool:
    """Whether a route's glob matches a path: case-sensitive, ``*`` crosses ``/``."""
    return _pattern(glob).fullmatch(path) is not None


def choose_route(routes: Sequence[Route], path: str) -> Route | None:
    """The first route that matches, or None."""
    return next((route for route in routes if matches(route.match, path)), None)


def has_dot_segments(path: str) -> bool:
    """Whether a path cannot be addressed over HTTP as it is written."""
    return any(segment in {".", ".."} for segment in path.split("/"))


def skip_reason(path: str, size: int, metadata: Mapping[str, str]) -> str | None:
    """Why a blob is not a file to submit, or None.

    ``hdi_isfolder`` marks the directories of accounts with a hierarchical namespace.
    """
    if any(k.lower() == "hdi_isfolder" and v.lower() == "true" for k, v in metadata.items()):
        return DIRECTORY
    if has_dot_segments(path):
        return DOT_SEGMENTS
    return EMPTY if size == 0 else None
