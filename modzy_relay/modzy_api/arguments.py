"""Arguments of the client's calls, checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol


class HasIdentifier(Protocol):
    """A model object."""

    @property
    def identifier(self) -> str | None:
        """Model identifier."""


class HasJobIdentifier(Protocol):
    """A job, or anything that belongs to one."""

    @property
    def job_identifier(self) -> str:
        """Job identifier."""


def job_identifier(job: str | HasJobIdentifier) -> str:
    """The identifier of a job given by itself or by its identifier."""
    return job if isinstance(job, str) else job.job_identifier


def wire_date(value: datetime | str | None) -> str | None:
    """``2021-08-02T21:19:52.529+00:00``, the form that Modzy's Python SDK sends."""
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise ValueError("a date for the history needs a time zone")
    return value.astimezone(UTC).isoformat(timespec="milliseconds")


def usable_key(key: object) -> str:
    """An API key fit for a header. Secret stores like to add a line end, which is removed.

    Raises:
        ValueError: it is not one. The text leaves it out.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[\x21-\x7e]+", key.strip()):
        raise ValueError("the API key is empty or holds characters that cannot be in a header")
    return key.strip()


def key_prefix(key: str) -> str:
    """The part of an API key that may be shown, with its dot; empty if there is no dot."""
    prefix, dot, _ = key.partition(".")
    return prefix + dot if dot else ""


def azureblob_body(
    model: str | HasIdentifier,
    version: str,
    sources: Mapping[str, Any],
    storage_account: str,
    storage_account_key: str,
    explain: bool,
    timeout: float | timedelta | None,
) -> dict[str, Any]:
    """The body of ``POST /api/jobs``; without a timeout the same as Modzy's Python SDK sends.

    Raises:
        ValueError: an argument cannot be used; the text says which, and never holds the key.
    """
    body: dict[str, Any] = {
        "model": {
            "identifier": _required(getattr(model, "identifier", model), "model"),
            "version": _required(str(version), "version"),
        },
        "explain": _boolean(explain, "explain"),
        "input": {
            "type": "azureblob",
            "storageAccount": _required(storage_account, "storage_account"),
            "storageAccountKey": _required(storage_account_key, "storage_account_key"),
            "sources": _checked_sources(sources),
        },
    }
    if timeout is not None:
        body["timeout"] = _milliseconds(timeout)
    return body


def _required(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not blank")
    return value


def _boolean(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False")  # noqa: TRY004 - one error for all arguments
    return value


def _milliseconds(timeout: float | timedelta) -> int:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0.001 <= seconds < math.inf:
        raise ValueError("timeout must be a positive number of seconds, at least 0.001")
    return round(seconds * 1000)


def _checked_sources(sources: object) -> dict[str, Any]:
    """The sources as they are sent.

    Raises:
        ValueError: they are not ``{input item key: {data input item key: {"container": ...,
            "filePath": ...}}}``.
    """
    if not isinstance(sources, Mapping) or not sources:
        raise ValueError("sources must be a mapping that is not empty")
    if not any(isinstance(value, Mapping) and value for value in sources.values()):
        return {"job": _texts(sources, "sources")}
    return {key: _checked_inputs(key, inputs) for key, inputs in sources.items()}


def _checked_inputs(item_key: object, inputs: object) -> dict[str, dict[str, str]]:
    if not isinstance(item_key, str) or not item_key:
        raise ValueError("each input item key in sources must be a text that is not empty")
    if not isinstance(inputs, Mapping) or not inputs:
        raise ValueError(f"sources[{item_key!r}] must map data input item keys to blobs")
    return {name: _checked_blob(blob, item_key, name) for name, blob in inputs.items()}


def _checked_blob(blob: object, item_key: str, name: object) -> dict[str, str]:
    if not isinstance(name, str) or not name:
        raise ValueError(f"each data input item key in sources[{item_key!r}] must be a text")
    where = f"sources[{item_key!r}][{name!r}]"
    if not isinstance(blob, Mapping) or not {"container", "filePath"} <= blob.keys():
        raise ValueError(f"{where} must have a container and a filePath")
    return _texts(blob, where)


def _texts(values: Mapping[Any, Any], where: str) -> dict[str, str]:
    """A copy. Blanks are allowed, since a blob's name may consist of them."""
    if not all(isinstance(text, str) and text for pair in values.items() for text in pair):
        raise ValueError(f"{where} must hold texts that are not empty")
    return dict(values)
