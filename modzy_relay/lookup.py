"""Where is my file? Answers from the ledger, without a scan.

By id: one point read. By job: the pointer and the row, two point reads; a job that is not indexed
yet costs a question to Modzy in between. By path: one query in the pointers' partition and a point
read for each version on the page, ``PAGE`` at most; on the first page a HEAD of the blob as well,
and a point read if its present version is not indexed yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modzy_relay.identity import LedgerKey
from modzy_relay.ports import version_of
from modzy_relay.routing import has_dot_segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from modzy_relay.lifecycle import Submission
    from modzy_relay.ports import Ledger, Uploads

PAGE = 20


class Lookup:
    """Finds submissions.

    Args:
        uploads: The watched container.
        ledger: One row per blob version.
        submission_of: From a job identifier to a ledger key.
    """

    def __init__(
        self,
        uploads: Uploads,
        ledger: Ledger,
        submission_of: Callable[[str], LedgerKey | None],
    ) -> None:
        self._uploads = uploads
        self._ledger = ledger
        self._submission_of = submission_of

    def by_id(self, text: str) -> dict[str, Any] | None:
        """One submission by its ledger key."""
        key = LedgerKey.parse(text)
        record = self._ledger.get(key) if key is not None else None
        return describe(record.row) if record is not None else None

    def by_job(self, job_identifier: str) -> dict[str, Any] | None:
        """The submission that a job belongs to."""
        key = self._submission_of(job_identifier)
        record = self._ledger.get(key) if key is not None else None
        if record is None or record.row.job_identifier != job_identifier:
            return None
        return describe(record.row)

    def by_path(self, path: str, token: str | None = None) -> dict[str, Any]:
        """A blob's submissions, newest first: ``submissions`` and, if there are more, ``next``."""
        keys, following = self._ledger.find_by_path(self._uploads.container, path, PAGE, token)
        rows = [record.row for key in keys if (record := self._ledger.get(key)) is not None]
        if token is None:
            # The newest version may not be indexed yet. A path with dot segments would be that of
            # another blob by the time it is a URL, and such blobs are indexed at once.
            facts = None if has_dot_segments(path) else self._uploads.head(path)
            key = version_of(self._uploads, facts).key if facts is not None else None
            record = self._ledger.get(key) if key is not None and key not in keys else None
            if record is not None:
                rows.insert(0, record.row)
        found: dict[str, Any] = {"path": path, "submissions": [describe(row) for row in rows]}
        return found | ({"next": following} if following else {})


def describe(row: Submission) -> dict[str, Any]:
    """A submission as JSON; it holds no secret because its row holds none."""
    version = row.version
    return {
        "id": str(row.key),
        "account": version.account,
        "container": version.container,
        "path": version.path,
        "etag": version.etag,
        "generation": version.generation,
        "size": row.size,
        "last_modified": _text(version.last_modified),
        "state": row.state.value,
        "reason": row.reason,
        "model": {"identifier": row.model, "version": row.model_version} if row.model else None,
        "input_item_key": row.item_key,
        "job_identifier": row.job_identifier,
        "job_status": row.job_status,
        "result_location": row.result_location,
        "attempts": row.attempts,
        "created_at": _text(row.created_at),
        "submitted_at": _text(row.submitted_at),
        "finished_at": _text(row.finished_at),
        "next_attempt_at": _text(row.next_attempt_at),
        "history": [
            {"at": _text(change.at), "state": change.state, "reason": change.reason}
            for change in row.changes
        ],
    }


def _text(time: datetime | None) -> str | None:
    return time.isoformat() if time is not None else None
