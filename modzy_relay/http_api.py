"""The two HTTP endpoints as plain functions: text in, status and JSON out."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modzy_relay.follow import Follower
    from modzy_relay.lookup import Lookup

Answer = tuple[HTTPStatus, dict[str, Any]]

_LONGEST_IDENTIFIER = 200
_LONGEST_PATH = 1024


def job_completed(follower: Follower, body: bytes) -> Answer:
    """Modzy's webhook, ``{"job": {"identifier": ...}}``: a hint to look at that job now.

    Unknown jobs are answered like known ones: Modzy tells of every job of the account.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return _bad("the body is not JSON")
    job = message.get("job") if isinstance(message, dict) else None
    identifier = job.get("identifier") if isinstance(job, dict) else None
    if not isinstance(identifier, str) or not 0 < len(identifier) <= _LONGEST_IDENTIFIER:
        return _bad('the body names no job: expected {"job": {"identifier": "..."}}')
    return HTTPStatus.OK, {"known": follower.hint(identifier)}


def get_submission(lookup: Lookup, query: Mapping[str, str]) -> Answer:
    """Status of a file by ``path`` (in the container), ``id`` or ``job``; one of the three."""
    given = [name for name in ("path", "id", "job") if query.get(name)]
    if len(given) != 1:
        return _bad("give one of path, id and job")
    name = given[0]
    value = query[name]
    if len(value) > (_LONGEST_PATH if name == "path" else _LONGEST_IDENTIFIER):
        return _bad(f"{name} is too long")
    if name == "path":
        try:
            found = lookup.by_path(value, query.get("next") or None)
        except ValueError:
            return _bad("next is not a token that this endpoint gave out")
        if not found["submissions"]:
            return _missing(f"no submission for the path {value}")
        return HTTPStatus.OK, found
    one = lookup.by_id(value) if name == "id" else lookup.by_job(value)
    if one is None:
        return _missing(f"no submission with this {name}")
    return HTTPStatus.OK, one


def _bad(error: str) -> Answer:
    return HTTPStatus.BAD_REQUEST, {"error": error}


def _missing(error: str) -> Answer:
    return HTTPStatus.NOT_FOUND, {"error": error}
