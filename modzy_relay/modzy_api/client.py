"""The client: ``client.jobs``, ``client.results`` and ``client.models``."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from modzy_relay.modzy_api.api import CHUNK, LARGEST_RESULTS, Api, json_array, raise_for_status
from modzy_relay.modzy_api.arguments import (
    HasIdentifier,
    HasJobIdentifier,
    azureblob_body,
    job_identifier,
    key_prefix,
    usable_key,
    wire_date,
)
from modzy_relay.modzy_api.errors import ForbiddenError, NotFoundError
from modzy_relay.modzy_api.history import walk_history
from modzy_relay.modzy_api.links import normalise_base_url
from modzy_relay.modzy_api.records import (
    Job,
    ModelRef,
    ModelVersion,
    Results,
    UnreadableRecordError,
    model_summary,
)
from modzy_relay.modzy_api.transport import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta
    from types import TracebackType

    from modzy_relay.modzy_api.transport import Answer, Transport
    from modzy_relay.modzy_api.watched import BeforeSend


class ModzyClient:
    """Modzy's API for one account. Nothing is sent on construction.

    Safe to share among threads: one set of pooled connections serves all. Use it as a context
    manager, or call :meth:`close`.

    Once a request's first byte is sent, its outcome is known within ``read_timeout`` seconds.

    Args:
        base_url: ``https://host``, with or without ``/api``. Plain http is for loopback only.
        api_key: The key, or a function that returns the current one, called for each request.
        connect_timeout: Seconds for a connection to one address of the host.
        read_timeout: Seconds from the first byte sent to the last byte of the answer.
        pool_size: Connections to keep open.
        transport: Carries the requests instead of HTTP; the three settings above are then its
            own affair.

    Raises:
        ValueError: ``base_url`` or ``api_key`` cannot be used; the text says why.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | Callable[[], str],
        *,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        pool_size: int = 32,
        transport: Transport | None = None,
    ) -> None:
        self.base_url = normalise_base_url(base_url)
        self._shown_key = "***"
        if isinstance(api_key, str):
            fixed_key = usable_key(api_key)
            self._shown_key = f"{key_prefix(fixed_key)}***"
        self._api = Api(
            self.base_url,
            (lambda: fixed_key) if isinstance(api_key, str) else api_key,
            transport or HttpTransport(connect_timeout, read_timeout, pool_size),
        )
        self.jobs = Jobs(self._api)
        self.results = ResultsRoutes(self._api)
        self.models = Models(self._api)

    def close(self) -> None:
        """Give up all connections."""
        self._api.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ModzyClient({self.base_url!r}, api_key={self._shown_key!r})"


class Jobs:
    """Submitting, following and finding jobs."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def submit_azureblob(
        self,
        model: str | HasIdentifier,
        version: str,
        sources: Mapping[str, Any],
        storage_account: str,
        storage_account_key: str,
        explain: bool = False,
        *,
        timeout: float | timedelta | None = None,
        before_send: BeforeSend | None = None,
    ) -> Job:
        """Submit a job whose inputs are blobs in an Azure Storage account. Sent at most once.

        Args:
            model: Model identifier, or an object with an ``identifier``.
            version: Model version, such as ``1.0.1``.
            sources: Input item key (yours) to data input item key (the model's) to
                ``{"container": ..., "filePath": ...}``. As in Modzy's Python SDK, a mapping of
                one level is put below the key ``job``.
            storage_account: Name of the account.
            storage_account_key: Key of the account; Modzy takes no other credential.
            explain: Ask for an explanation of the predictions, if the model can give one.
            timeout: Seconds after which Modzy ends the job as TIMEDOUT; None for never.
            before_send: Called right before the first byte is sent, with the connection already
                established. If it raises, nothing is sent and the exception comes through.

        Raises:
            ValueError: an argument cannot be used. Nothing was sent.
            ModzyError: its ``outcome`` says whether the job may exist.
        """
        body = azureblob_body(
            model, version, sources, storage_account, storage_account_key, explain, timeout
        )
        request = self._api.request("POST", "jobs", body=body, secrets=(storage_account_key,))
        return self._api.fetch(request, Job.from_document, before_send=before_send)

    def get(self, job: str | HasJobIdentifier) -> Job:
        """Job details. Raises NotFoundError for a job that this key's account does not have."""
        request = self._api.request("GET", "jobs", job_identifier(job))
        return self._api.fetch(request, Job.from_document)

    def cancel(self, job: str | HasJobIdentifier) -> Job | None:
        """Cancel a job. Returns its new state if the server describes it."""
        request = self._api.request("DELETE", "jobs", job_identifier(job))
        return self._api.fetch(request, _job_or_none)

    def history(
        self,
        start_date: datetime | str | None = None,
        end_date: datetime | str | None = None,
        status: str | None = None,
        model: str | None = None,
        access_key: str | None = None,
        user: str | None = None,
        sort_by: str = "createdAt",
        direction: str = "DESC",
        per_page: int = 100,
        max_pages: int = 1000,
    ) -> Iterator[Job]:
        """Every job that fits, each once, page by page as the iterator advances.

        How pages are counted: :mod:`modzy_relay.modzy_api.history`.

        Args:
            start_date: Earliest creation; aware, or ISO 8601 text as the server takes it.
            end_date: Latest creation, likewise.
            status: ``ALL`` (also when None), ``PENDING``, ``TERMINATED`` or one status.
            model: Model identifier or name.
            access_key: Prefix of the API key that submitted the job.
            user: Name of the user who submitted the job.
            sort_by: Field of the job.
            direction: ``ASC`` or ``DESC``. With ASC new jobs cannot shift the pages.
            per_page: Jobs to ask for at once.
            max_pages: Pages to read before giving up, beside page 0.

        Raises:
            ValueError: a date has no time zone, or a number is not positive.
            HistoryInconclusiveError: there are more than ``max_pages`` pages.
            UnreadableAnswerError: a page or an entry cannot be read.
            ModzyError: a page cannot be had.
        """
        if per_page < 1 or max_pages < 1:
            raise ValueError("per_page and max_pages must be positive")
        filters = {
            "startDate": wire_date(start_date),
            "endDate": wire_date(end_date),
            "status": status or "ALL",
            "model": model,
            "user": user,
            "accessKey": access_key,
            "sort-by": sort_by,
            "direction": direction,
            "per-page": str(per_page),
        }
        query = tuple((name, value) for name, value in filters.items() if value is not None)
        return walk_history(self._api, query, per_page, max_pages)

    def find_by_input(
        self,
        item_key: str,
        start_date: datetime | str | None,
        end_date: datetime | str | None = None,
    ) -> list[Job]:
        """Every job with this input item key, oldest first.

        Jobs that the history lists without their inputs are looked at one by one.

        Raises:
            ModzyError: the history or the details could not be read; an answer that lacks a job
                proves nothing then.
        """
        listed = self.history(start_date, end_date, direction="ASC")
        found = [job for job in listed if item_key in self._input_keys(job)]
        return sorted(found, key=_creation_time)

    def _input_keys(self, job: Job) -> tuple[str, ...]:
        if job.job_inputs:
            return job.job_inputs
        try:
            return self.get(job).job_inputs
        except (ForbiddenError, NotFoundError):
            # Details are refused for jobs of other accounts, which are not this program's.
            return ()


class ResultsRoutes:
    """Results of jobs."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def get(self, job: str | HasJobIdentifier) -> Results:
        """The results document.

        Raises:
            NotFoundError: there is none; right after a submit also for a job that exists.
        """
        identifier = job_identifier(job)
        # Up to 64 MiB: four read time-outs in all, each read still within one.
        request = self._api.request("GET", "results", identifier, read_budget=4.0)
        return self._api.fetch(
            request,
            lambda document: Results.from_document(document, identifier),
            limit=LARGEST_RESULTS,
        )

    @contextlib.contextmanager
    def open_file(self, url: str) -> Iterator[ResultFile]:
        """Open a result file that a results document links to.

        Args:
            url: The link, as the document has it.

        Raises:
            ForeignLinkError: the link leads to another server, or out of the API.
            ModzyError: the file cannot be had.
        """
        request = self._api.link_request(url)
        with self._api.transport.open(request) as answer:
            raise_for_status(answer, request)
            yield ResultFile(answer)


class ResultFile:
    """A result file that is being downloaded.

    Attributes:
        content_type: As the server says, if it does.
        length: In bytes, if the server says.
    """

    def __init__(self, answer: Answer) -> None:
        self.content_type = answer.headers.get("Content-Type")
        self.length = _content_length(answer.headers)
        self._answer = answer

    def iter_chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The content in pieces of at most ``size`` bytes, read as the iterator advances.

        Raises:
            NoAnswerError: the connection broke, or nothing came for the read time-out.
        """
        return self._answer.iter_chunks(size)


class Models:
    """What models there are and what they take."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def get_version(self, identifier: str, version: str) -> ModelVersion:
        """A model version with its inputs."""
        request = self._api.request("GET", "models", identifier, "versions", version)
        return self._api.fetch(
            request, lambda document: ModelVersion.from_document(document, identifier, version)
        )

    def list(self) -> tuple[ModelRef, ...]:
        """The models that the server lists, with their latest versions."""
        request = self._api.request("GET", "models")
        return self._api.fetch(
            request, lambda document: tuple(map(model_summary, json_array(document)))
        )


def _creation_time(job: Job) -> datetime:
    return job.created_at or job.submitted_at or datetime.max.replace(tzinfo=UTC)


def _job_or_none(document: object) -> Job | None:
    try:
        return Job.from_document(document)
    except UnreadableRecordError:
        return None


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    # The length of an encoded body is not the length of the file.
    if headers.get("Content-Encoding", "identity") != "identity":
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
