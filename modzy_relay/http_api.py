"""The two HTTP endpoints as plain functions: text in, status and JSON out."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modzy_relay.follow import Follower
    from modzy_relay.lookup import Lookup

Answer = tuple[HTTPStatus, dict[str, Any]]

#: Modzy's job identifiers are UUIDs; what it might use instead must be one segment of a URL.
_JOB_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~-]{0,199}")
_LARGEST_HINT = 64 * 1024
_LONGEST_ID = 200
_LONGEST_PATH = 1024
#: Tokens of Azure Table Storage are the two keys of an entity, JSON around them.
_LONGEST_TOKEN = 4096
#: What the XML of a listing cannot carry is in no blob's name; half a surrogate pair has no UTF-8.
_NOT_IN_A_PATH = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def job_completed(follower: Follower, body: bytes) -> Answer:
    """Modzy's webhook, ``{"job": {"identifier": ...}}``: a hint to look at that job now.

    Unknown jobs are answered like known ones: Modzy tells of every job of the account.
    """
    if len(body) > _LARGEST_HINT:
        error = f"the body has more than {_LARGEST_HINT} bytes"
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": error}
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return _bad("the body is not JSON")
    job = message.get("job") if isinstance(message, dict) else None
    identifier = job.get("identifier") if isinstance(job, dict) else None
    if not isinstance(identifier, str) or not _JOB_IDENTIFIER.fullmatch(identifier):
        return _bad('the body names no job: expected {"job": {"identifier": "..."}}')
    return HTTPStatus.OK, {"known": follower.hint(identifier)}


def get_submission(lookup: Lookup, query: Mapping[str, str]) -> Answer:
    """Status of a file by ``path`` (in the container), ``id`` or ``job``; one of the three."""
    given = [name for name in ("path", "id", "job") if query.get(name)]
    if len(given) != 1:
        return _bad("give one of path, id and job")
    name = given[0]
    value = query[name]
    if name == "path":
        return _by_path(lookup, value, query.get("next") or None)
    if name == "id":
        if len(value) > _LONGEST_ID:
            return _bad("id is too long")
        one = lookup.by_id(value)
    else:
        if not _JOB_IDENTIFIER.fullmatch(value):
            return _bad("job is not a job identifier")
        one = lookup.by_job(value)
    return (HTTPStatus.OK, one) if one is not None else _missing(f"no submission with this {name}")


def _by_path(lookup: Lookup, path: str, token: str | None) -> Answer:
    if len(path) > _LONGEST_PATH or _NOT_IN_A_PATH.search(path):
        return _bad("path is not a blob name: at most 1,024 characters, no control characters")
    wrong_token = _bad("next is not a token that this endpoint gave out")
    if token is not None and len(token) > _LONGEST_TOKEN:
        return wrong_token
    try:
        found = lookup.by_path(path, token)
    except (ValueError, RecursionError):
        if token is None:
            raise
        return wrong_token
    if not found["submissions"] and "next" not in found:
        return _missing(f"no submission for the path {path}")
    return HTTPStatus.OK, found


def _bad(error: str) -> Answer:
    return HTTPStatus.BAD_REQUEST, {"error": error}


def _missing(error: str) -> Answer:
    return HTTPStatus.NOT_FOUND, {"error": error}
