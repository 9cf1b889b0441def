"""Keeps a completed job's results where its user looks for them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modzy_relay.errors import SecretUnavailableError
from modzy_relay.modzy_api import ForeignLinkError, ModzyError
from modzy_relay.telemetry import Event, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modzy_relay.lifecycle import Submission
    from modzy_relay.modzy_api import Results
    from modzy_relay.ports import Modzy, ResultStore

#: Azure Storage's limits for a blob name (learn.microsoft.com, "Naming and Referencing
#: Containers, Blobs, and Metadata"), 1,024 characters and 254 path segments, less the room for the
#: job identifier and the names of result files.
_LONGEST_PREFIX = 1024 - 160
_MOST_SEGMENTS = 254 - 2
_LONGEST_FILE_NAME = 120
_DOCUMENT = "results.json"
_ANY_CONTENT = "application/octet-stream"
#: What must not be in one segment of a blob name: separators, control characters, and code points
#: that UTF-8 or the XML of a listing cannot carry.
_NOT_IN_A_NAME = re.compile("[/\\\\\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
#: type/subtype and parameters in printable ASCII; other header values break a request's signature.
_CONTENT_TYPE = re.compile(r"[!-~]+/[ -~]+")


@dataclass(frozen=True, slots=True)
class Kept:
    """What was stored.

    Attributes:
        location: ``<results container>/<prefix>``.
        left_out: Linked files that are not there: name to reason. The document has their links.
    """

    location: str
    left_out: dict[str, str] = field(default_factory=dict)


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

    def keep(
        self,
        row: Submission,
        results: Results,
        do_without: Callable[[Exception], bool] = lambda _: False,
    ) -> Kept:
        """Store a job's results document and the files it links to.

        Links to other hosts are not followed: the API key does not travel there.

        Args:
            row: Whose results they are.
            results: The document.
            do_without: Whether to leave out a linked file that could not be had for this error.

        Raises:
            ModzyError: A linked file could not be had; look again later.
            SecretUnavailableError: Likewise, for want of the API key.
        """
        prefix = result_prefix(row)
        left_out: dict[str, str] = {}
        size = files = 0
        for name, (label, url) in _linked_files(results).items():
            try:
                size += self._keep_file(f"{prefix}/{name}", url)
                files += 1
            except ForeignLinkError as error:
                left_out[label] = str(error)
            except (ModzyError, SecretUnavailableError) as error:
                if not do_without(error):
                    raise
                left_out[label] = str(error)
        document = _encoded(results.document)
        self._store.put(f"{prefix}/{_DOCUMENT}", document, "application/json")
        tell(
            Event.RESULTS_STORED,
            row,
            job=row.job_identifier,
            files=files + 1,
            bytes=size + len(document),
        )
        return Kept(f"{self._store.container}/{prefix}", left_out)

    def _keep_file(self, name: str, url: str) -> int:
        with self._modzy.open_file(url) as file:
            counted = _Counted(file.iter_chunks())
            self._store.put(name, counted, _usable_content_type(file.content_type))
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
    place = f"{version.container}/{version.path}"
    ending = f"/{row.job_identifier}"
    if _utf16_units(place + ending) <= _LONGEST_PREFIX and place.count("/") < _MOST_SEGMENTS:
        return place + ending
    ending = f"~{row.key.row}{ending}"
    shorter = "/".join(place.split("/")[: _MOST_SEGMENTS - 1])
    units = shorter.encode("utf-16-le")[: 2 * (_LONGEST_PREFIX - len(ending))]
    return units.decode("utf-16-le", "ignore") + ending


def failure_summary(results: Results) -> str | None:
    """Why inputs failed, in one line; None if none did."""
    if not results.failures:
        return None
    total = results.total or len(results.failures) + len(results.outputs)
    errors = sorted({item.error or "no reason given" for item in results.failures.values()})
    return one_line(f"{len(results.failures)} of {total} inputs failed: {'; '.join(errors)}")


def one_line(text: str) -> str:
    """Somebody else's text, fit for a row and a queue message: one line of valid Unicode."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _linked_files(results: Results) -> dict[str, tuple[str, str]]:
    """Blob name to name and URL of each linked file; names that repeat are numbered."""
    files: dict[str, tuple[str, str]] = {}
    for item in (*results.outputs.values(), *results.failures.values()):
        for label, url in item.links.items():
            name = plain = _file_name(label)
            number = 1
            while name in files:
                number += 1
                name = f"{number}-{plain}"
            files[name] = label, url
    return files


def _file_name(name: str) -> str:
    """A result file's name as one segment of a blob name, not that of the document."""
    safe = _NOT_IN_A_NAME.sub("_", name.strip())[-_LONGEST_FILE_NAME:].strip(". ") or "file"
    return f"output-{safe}" if safe == _DOCUMENT else safe


def _usable_content_type(text: str | None) -> str:
    return text if text and _CONTENT_TYPE.fullmatch(text) else _ANY_CONTENT


def _encoded(document: object) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can spell but UTF-8 cannot.
        return json.dumps(document).encode("ascii")


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
