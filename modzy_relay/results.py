"""Keeps a completed job's results where its user looks for them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from modzy_relay.modzy_api import ForeignLinkError
from modzy_relay.telemetry import Event, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modzy_relay.lifecycle import Submission
    from modzy_relay.modzy_api import Results
    from modzy_relay.ports import Modzy, ResultStore

#: Azure Storage's limit for a blob name, less the room for the names of result files.
_LONGEST_PREFIX = 1024 - 160
_DOCUMENT = "results.json"


class ResultKeeper:
    """Writes results to ``<container>/<path>/<job identifier>/``; safe to repeat.

    The linked files go first and ``results.json`` last: where it is, everything is.

    Args:
        modzy: The platform.
        store: The results container.
    """

    def __init__(self, modzy: Modzy, store: ResultStore) -> None:
        self._modzy = modzy
        self._store = store

    def keep(self, row: Submission, results: Results) -> str:
        """Store a job's results document and the files it links to.

        Returns:
            Where they are: ``<results container>/<prefix>``.

        Raises:
            ModzyError: A linked file could not be had; look again later.
        """
        prefix = result_prefix(row)
        files = size = 0
        for item in (*results.outputs.values(), *results.failures.values()):
            for name, url in item.links.items():
                try:
                    size += self._keep_file(f"{prefix}/{_file_name(name)}", url)
                    files += 1
                except ForeignLinkError as error:
                    # The document keeps the link; the API key does not travel there.
                    tell(
                        Event.RESULTS_STORED,
                        row,
                        job=row.job_identifier,
                        files=0,
                        reason=f"{name}: {error}",
                    )
        document = json.dumps(results.document, ensure_ascii=False).encode("utf-8", "replace")
        self._store.put(f"{prefix}/{_DOCUMENT}", document, "application/json")
        tell(
            Event.RESULTS_STORED,
            row,
            job=row.job_identifier,
            files=files + 1,
            bytes=size + len(document),
        )
        return f"{self._store.container}/{prefix}"

    def _keep_file(self, name: str, url: str) -> int:
        with self._modzy.open_file(url) as file:
            counted = _Counted(file.iter_chunks())
            self._store.put(name, counted, file.content_type or "application/octet-stream")
            return counted.size


class _Counted:
    """Passes pieces on and counts their bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            yield chunk


def result_prefix(row: Submission) -> str:
    """Where a submission's results go inside the results container.

    A path that would make the name too long for a blob is cut and told apart by the row key.
    """
    version = row.version
    ending = f"/{row.job_identifier}"
    prefix = f"{version.container}/{version.path}{ending}"
    if len(prefix) <= _LONGEST_PREFIX:
        return prefix
    ending = f"~{row.key.row}{ending}"
    return f"{version.container}/{version.path}"[: _LONGEST_PREFIX - len(ending)] + ending


def failure_summary(results: Results) -> str | None:
    """Why inputs failed, in one line; None if none did."""
    if not results.failures:
        return None
    total = results.total or len(results.failures) + len(results.outputs)
    errors = sorted({item.error or "no reason given" for item in results.failures.values()})
    text = " ".join("; ".join(errors).split())
    return f"{len(results.failures)} of {total} inputs failed: {text}"


def _file_name(name: str) -> str:
    """A result file's name as one segment of a blob name, not that of the document."""
    safe = re.sub(r"[/\\\x00-\x1f]", "_", name.strip())[-120:].strip(".") or "file"
    return f"output-{safe}" if safe == _DOCUMENT else safe
