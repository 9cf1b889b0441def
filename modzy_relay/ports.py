"""What the use cases need of the outside world; ``testing.py`` and the edge files provide it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from modzy_relay.identity import BlobVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import date, datetime, timedelta

    from modzy_relay.identity import LedgerKey
    from modzy_relay.lifecycle import Record, State, Submission
    from modzy_relay.messages import CloudEvent
    from modzy_relay.modzy_api import Job, ResultFile, Results


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """What one HEAD request, or one entry of a listing, tells of a blob.

    Attributes:
        path: Its name in the container.
        etag: Without quotes.
        last_modified: In whole seconds, as the service keeps it.
        size: Bytes.
        as_of: The storage service's clock when it answered, never later than the truth.
        metadata: User-defined.
    """

    path: str
    etag: str
    last_modified: datetime
    size: int
    as_of: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a container's blobs.

    Attributes:
        blobs: In the order of their names.
        marker: Where the next page begins; None at the end.
        as_of: The storage service's clock when it answered.
    """

    blobs: Sequence[BlobFacts]
    marker: str | None
    as_of: datetime


class Uploads(Protocol):
    """The watched container."""

    @property
    def account(self) -> str:
        """Storage account name."""

    @property
    def container(self) -> str:
        """Container name."""

    def head(self, path: str) -> BlobFacts | None:
        """One HEAD request; None if there is no such blob."""

    def list_page(self, marker: str | None) -> Listing:
        """The page of the flat listing that begins at a marker; None = the first."""


class Ledger(Protocol):
    """One row per blob version."""

    def insert(self, row: Submission) -> tuple[Record, bool]:
        """Insert only. Returns the row as it stands, and whether this call made it."""

    def get(self, key: LedgerKey) -> Record | None:
        """One point read."""

    def replace(self, record: Record, row: Submission) -> Record:
        """Change a row. Raises ConflictError unless it still is as ``record`` has it."""

    def index(self, row: Submission) -> None:
        """Make the submission findable by its path and, if it has one, its job. Repeatable."""

    def find_by_path(
        self, container: str, path: str, limit: int, token: str | None = None
    ) -> tuple[Sequence[LedgerKey], str | None]:
        """Keys of a blob's versions, newest first; a page and the token of the next one."""

    def find_by_job(self, job_identifier: str) -> LedgerKey | None:
        """Key of the submission a job belongs to, if it is indexed."""

    def known_rows(self, partition: str) -> Collection[str]:
        """RowKeys of one partition."""

    def overdue(
        self, first: str, last: str, before: datetime, limit: int, token: str | None = None
    ) -> tuple[Sequence[Record], str | None]:
        """Open rows due before a time, in partitions ``first`` <= p < ``last``, some at a time."""

    def unsubmitted(self, first: str, last: str, limit: int) -> Sequence[Record]:
        """Rows whose job is still to be submitted, those of the oldest blobs first."""

    def written_on(
        self, day: date, since: datetime, states: Collection[State], limit: int
    ) -> Sequence[LedgerKey]:
        """Keys, at most so many, of rows in some states whose blobs were written on a day."""

    def load_bookmark(self, name: str) -> dict[str, str]:
        """A small note that a repeated task left for its next run; empty the first time."""

    def save_bookmark(self, name: str, values: Mapping[str, str]) -> None:
        """Leave a note for the next run."""


class Outbox(Protocol):
    """The two queues."""

    def announce(self, event: CloudEvent) -> None:
        """Send an event to downstream systems."""

    def remind(self, key: LedgerKey, delay: timedelta) -> None:
        """Have a submission looked at again after ``delay``."""

    def poison_counts(self) -> Mapping[str, int]:
        """Poison queues that are not empty, and about how many messages each holds."""


class Modzy(Protocol):
    """The inference platform, with its credentials already at hand.

    Every method raises ModzyError; its ``outcome`` says whether the request may have been
    carried out. SecretUnavailableError says that nothing was sent for want of a credential.
    """

    def input_name(self, model: str, version: str) -> str:
        """The name of a model version's only input; InputNameNeededError if it has more."""

    def submit(self, row: Submission, input_name: str, before_send: Callable[[], None]) -> Job:
        """POST the job. ``before_send`` runs before the first byte; if it raises, none is sent."""

    def find(self, item_key: str, since: datetime) -> Sequence[Job]:
        """Every job with this input item key, oldest first."""

    def job(self, job_identifier: str) -> Job | None:
        """Job details; None if Modzy does not know it."""

    def cancel(self, job_identifier: str) -> None:
        """Cancel a job."""

    def results(self, job_identifier: str) -> Results | None:
        """The results document; None while there is none."""

    def open_file(self, url: str) -> AbstractContextManager[ResultFile]:
        """A linked result file, to be read piece by piece; ForeignLinkError for other hosts."""


class ResultStore(Protocol):
    """Where results are kept for the user."""

    @property
    def container(self) -> str:
        """Container name."""

    def put(self, name: str, content: bytes | Iterable[bytes], content_type: str) -> None:
        """Write a blob, replacing what is there."""


def version_of(uploads: Uploads, facts: BlobFacts) -> BlobVersion:
    """The blob version that a HEAD or a listing tells of."""
    return BlobVersion(
        account=uploads.account,
        container=uploads.container,
        path=facts.path,
        etag=facts.etag,
        last_modified=facts.last_modified,
    )
