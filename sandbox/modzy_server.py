"""A stand-in for Modzy: real jobs over real blobs, and every kind of misbehaviour to order.

Serves the routes of Modzy's public API that a relay and the official Python SDK use, under
``/api``. A submitted job is really run: the blob is fetched with the account name and key that
came with it. Model versions are those of ``sandbox.modzy_model.CATALOGUE``.

Admin routes, beside those of ``sandbox.http_service`` (rules, requests, release)::

    GET  /_sandbox/jobs      every accepted job: identifier, itemKeys, sources, status, created
    POST /_sandbox/keys      {"keys": ["prefix.secret", ...]}: from now on only these are valid
    GET  /_sandbox/options   the options in force
    POST /_sandbox/options   members of Options and JobOptions, merged over those in force
    POST /_sandbox/reset     forget jobs, requests, rules and options; the keys stay

The rule action ``job`` sets ``JobOptions`` members for the jobs that its request creates.

Run it with ``python -m sandbox.modzy_server --help``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import heapq
import hmac
import itertools
import json
import logging
import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import BlobClient

from sandbox.http_service import (
    LoopbackService,
    RefusedError,
    Request,
    Response,
    Rule,
    serve_until_signal,
)
from sandbox.modzy_model import CATALOGUE, ModelVersion, analyse, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

PENDING = frozenset({"OPEN", "SUBMITTED", "IN_PROGRESS"})
TERMINATED = frozenset({"COMPLETED", "CANCELED", "TIMEDOUT", "ERROR"})
_Result = TypeVar("_Result")
KEYS_VARIABLE = "SANDBOX_MODZY_API_KEYS"

_ACCOUNT = "sandbox-account"
_TEAM = {"identifier": "b0a3c5d2-5a0e-4a7e-9f0b-6d1f2c3e4a5b"}
_USER = {
    "identifier": "0c1d2e3f-4a5b-4c6d-8e7f-9a0b1c2d3e4f",
    "externalIdentifier": "sandbox-user",
    "firstName": "Sandbox",
    "lastName": "User",
    "email": "user@sandbox.invalid",
    "status": "active",
}
_DIGEST_FILE = "digest.bin"
_SORTED_BY: Mapping[str, Callable[[Job], Any]] = {
    "createdAt": lambda job: job.created,
    "submittedAt": lambda job: job.created,
    "updatedAt": lambda job: job.updated,
    "status": lambda job: job.status,
    "model": lambda job: job.model.name,
}
_ITEM_SHAPES: Mapping[str, Callable[[list[str]], Any]] = {
    "object": lambda keys: {"identifier": keys},
    "list": lambda keys: [{"identifier": key} for key in keys],
    "names": lambda keys: keys,
}


class InputFailedError(Exception):
    """An input of a job could not be used; the message is the reason shown in the results."""


@dataclasses.dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job behaves and what its answers look like.

    Attributes:
        submitted_seconds: how long it stays SUBMITTED.
        running_seconds: how long it stays IN_PROGRESS, at least.
        outcome: final status to force, or ``VANISHED``: unknown to every route from then on.
        failing_inputs: how many of its inputs the model fails on, in the order submitted.
        history_lag: seconds after creation during which the history does not show it.
        results_late: seconds after its end during which the results route answers 404.
        double_nesting: results nest the input item key twice, like old servers.
        binary_result: size in bytes of an extra result file that is given as a URL; 0 for none.
        link_newline: that URL ends in a newline.
        link_base: scheme and authority of that URL instead of this server's.
        big_result: size in bytes of padding in ``results.json``.
        submit_items: shape of ``jobInputs`` after a submit: object, list, names or absent.
        detail_items: the same for job details and history.
        submit_status: status of the answer to an accepted submit.
        submit_minimal: that answer has ``jobIdentifier`` only.
        compact_offsets: dates are written with ``+0000`` instead of ``+00:00``.
    """

    submitted_seconds: float = 0.1
    running_seconds: float = 0.2
    outcome: str | None = None
    failing_inputs: int = 0
    history_lag: float = 0.0
    results_late: float = 0.0
    double_nesting: bool = False
    binary_result: int = 0
    link_newline: bool = False
    link_base: str | None = None
    big_result: int = 0
    submit_items: str = "object"
    detail_items: str = "list"
    submit_status: int = 200
    submit_minimal: bool = False
    compact_offsets: bool = False

    def __post_init__(self) -> None:
        if self.outcome not in TERMINATED | {None, "VANISHED"}:
            raise ValueError(f"unknown outcome {self.outcome!r}")
        for shape in (self.submit_items, self.detail_items):
            if shape not in _ITEM_SHAPES and shape != "absent":
                raise ValueError(f"unknown shape of jobInputs {shape!r}")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How the job history is paged.

    Attributes:
        page_base: number of the first page, 0 or 1.
        default_per_page: page size when the request names none.
        max_per_page: larger page sizes are cut to this.
        link_header: ``accurate``, ``always`` (a next page is claimed on the last one, too) or
            ``never``.
    """

    page_base: int = 1
    default_per_page: int = 10
    max_per_page: int = 1000
    link_header: str = "accurate"

    def __post_init__(self) -> None:
        if self.link_header not in {"accurate", "always", "never"}:
            raise ValueError(f"unknown link_header {self.link_header!r}")


@dataclasses.dataclass(slots=True)
class Job:
    """A submitted job. Guarded by the lock of the ``Jobs`` that holds it.

    Attributes:
        number: position in the order of acceptance.
        timeout: until it becomes TIMEDOUT; None for never.
        account_key: held only until the job has ended.
    """

    number: int
    identifier: str
    model: ModelVersion
    explain: bool
    timeout: timedelta | None
    account: str
    account_key: str = dataclasses.field(repr=False)
    sources: Mapping[str, Mapping[str, Mapping[str, str]]]
    access_key: str
    created: datetime
    options: JobOptions
    status: str = "SUBMITTED"
    started: datetime | None = None
    finished: datetime | None = None
    results: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the status can no longer change."""
        return self.status in TERMINATED

    @property
    def has_vanished(self) -> bool:
        """Whether the server has lost the job, as its options say."""
        return self.is_final and self.options.outcome == "VANISHED"

    @property
    def updated(self) -> datetime:
        """Time of the last change of status."""
        return self.finished or self.started or self.created

    @property
    def evidence(self) -> dict[str, Any]:
        """What was accepted, for tests and operators of the sandbox."""
        return {
            "jobIdentifier": self.identifier,
            "itemKeys": list(self.sources),
            "sources": self.sources,
            "model": self.model.identifier,
            "version": self.model.version,
            "storageAccount": self.account,
            "accessKey": self.access_key,
            "status": self.status,
            "created": self.created.isoformat(),
        }

    def to_journal(self) -> dict[str, Any]:
        """Everything but the account key, as JSON-ready members."""
        return {
            **self.evidence,
            "explain": self.explain,
            "timeout": self.timeout.total_seconds() if self.timeout else None,
            "options": dataclasses.asdict(self.options),
            "started": self.started.isoformat() if self.started else None,
            "finished": self.finished.isoformat() if self.finished else None,
            "results": self.results,
            "failures": self.failures,
        }

    @classmethod
    def from_journal(cls, entry: Mapping[str, Any], number: int) -> Job:
        """Read an entry back; a job that had not ended is in ERROR, for its key is gone."""
        job = cls(
            number=number,
            identifier=entry["jobIdentifier"],
            model=_model_version(entry["model"], entry["version"]),
            explain=entry["explain"],
            timeout=timedelta(seconds=entry["timeout"]) if entry["timeout"] else None,
            account=entry["storageAccount"],
            account_key="",
            sources=entry["sources"],
            access_key=entry["accessKey"],
            created=datetime.fromisoformat(entry["created"]),
            options=JobOptions(**entry["options"]),
            status=entry["status"],
            started=datetime.fromisoformat(entry["started"]) if entry["started"] else None,
            finished=datetime.fromisoformat(entry["finished"]) if entry["finished"] else None,
            results=entry["results"],
            failures=entry["failures"],
        )
        if not job.is_final:
            job.status = "ERROR"
            job.finished = datetime.now(UTC)
        return job


class Jobs:
    """All jobs, and the threads that run them.

    Args:
        blob_endpoints: blob service URL by storage account name.
        journal: JSON-lines file; the last line of a job is what is known about it.
        workers: how many jobs are run at the same time.
    """

    def __init__(
        self, blob_endpoints: Mapping[str, str], journal: Path | None, *, workers: int = 4
    ) -> None:
        self.lock = threading.Condition()
        self._endpoints = dict(blob_endpoints)
        self._journal_path = journal
        self._journal: TextIO | None = None
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._jobs: dict[str, Job] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._stopping = False

    def start(self) -> None:
        """Read the journal and start the workers."""
        if self._journal_path is not None:
            self._read_journal(self._journal_path)
            self._journal = self._journal_path.open("a", encoding="utf-8")
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the workers; jobs under way go on, or begin again, after the next start."""
        with self.lock:
            self._stopping = True
            self.lock.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def add(self, **members: Any) -> Job:
        """Accept a job: it is in the journal when this returns."""
        with self.lock:
            job = Job(
                number=len(self._jobs),
                identifier=str(uuid.uuid4()),
                created=datetime.now(UTC),
                **members,
            )
            self._jobs[job.identifier] = job
            self._write(job)
            self._later(job.options.submitted_seconds, lambda: self._run(job))
            if job.timeout is not None:
                self._later(job.timeout.total_seconds(), lambda: self._end(job, "TIMEDOUT"))
        return job

    def all(self) -> list[Job]:
        """Every accepted job, oldest first, vanished ones included."""
        with self.lock:
            return list(self._jobs.values())

    def find(self, identifier: str) -> Job:
        """A job that the server still admits to know.

        Raises:
            RefusedError: 404, there is none.
        """
        with self.lock:
            job = self._jobs.get(identifier)
            if job is None or job.has_vanished:
                raise RefusedError(HTTPStatus.NOT_FOUND, "The job was not found.")
            return job

    def cancel(self, job: Job) -> None:
        """Cancel a job; one that has ended stays as it is."""
        self._end(job, "CANCELED")

    def forget(self) -> None:
        """Drop every job, and empty the journal."""
        with self.lock:
            for job in self._jobs.values():
                job.status = "CANCELED"  # ends a download that is under way
            self._jobs.clear()
            self._due.clear()
            if self._journal is not None:
                self._journal.truncate(0)

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        with self.lock:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._sequence), step))
            self.lock.notify()

    def _work(self) -> None:
        while (step := self._next_step()) is not None:
            step()

    def _next_step(self) -> Callable[[], None] | None:
        """Wait for the next step that is due; None when the workers are to end."""
        with self.lock:
            while not self._stopping:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self.lock.wait(wait)
            return None

    def _run(self, job: Job) -> None:
        with self.lock:
            if job.is_final:
                return
            job.status = "IN_PROGRESS"
            job.started = datetime.now(UTC)
        due = time.monotonic() + job.options.running_seconds
        results, failures = self._process_all(job)
        with self.lock:
            if self._stopping:  # downloads were cut short: begin again after the next start
                job.status, job.started = "SUBMITTED", None
                self._later(0, lambda: self._run(job))
                return
            if job.is_final:
                return
            job.results = results
            job.failures = failures
        outcome = job.options.outcome
        status = outcome if outcome in TERMINATED else "COMPLETED"
        self._later(due - time.monotonic(), lambda: self._end(job, status))

    def _process_all(self, job: Job) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Results and reasons of failure by input item key."""
        results: dict[str, dict[str, Any]] = {}
        failures: dict[str, str] = {}
        for position, (item_key, inputs) in enumerate(job.sources.items()):
            if position < job.options.failing_inputs:
                failures[item_key] = "the model failed on this input"
                continue
            try:
                results[item_key] = self._process(job, inputs)
            except InputFailedError as failure:
                failures[item_key] = str(failure)
        return results, failures

    def _end(self, job: Job, status: str) -> None:
        with self.lock:
            if job.is_final:
                return
            job.status = status
            job.finished = datetime.now(UTC)
            job.account_key = ""
            if status != "COMPLETED":
                job.results.clear()
                job.failures.clear()
            self._write(job)

    def _process(self, job: Job, inputs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
        """Run the model over one input item.

        Raises:
            InputFailedError: an input has a name that the model does not know, or no blob.
        """
        known = [known.name for known in job.model.inputs]
        for name in inputs:
            if name not in known:
                raise InputFailedError(f"unknown input {name!r}; the model takes {known}")
        findings = {name: analyse(self._chunks(job, place)) for name, place in inputs.items()}
        return next(iter(findings.values())) if len(findings) == 1 else {"inputs": findings}

    def _chunks(self, job: Job, place: Mapping[str, str]) -> Iterator[bytes]:
        """The content of a blob in pieces of a few MiB.

        Raises:
            InputFailedError: the blob cannot be read with the account and key of the job.
        """
        endpoint = self._endpoints.get(job.account)
        if endpoint is None:
            raise InputFailedError(f"storage account {job.account} cannot be reached")
        try:
            with BlobClient(
                endpoint,
                place["container"],
                place["filePath"],
                credential={"account_name": job.account, "account_key": job.account_key},
                retry_total=1,
                connection_timeout=5,
                read_timeout=30,
            ) as blob:
                for chunk in blob.download_blob(max_concurrency=1).chunks():
                    if job.is_final or self._stopping:
                        raise InputFailedError("the job was ended")
                    yield chunk
        except ResourceNotFoundError as error:
            raise InputFailedError(
                f"{place['container']}/{place['filePath']} was not found"
            ) from error
        except (AzureError, ValueError) as error:
            # The message of a signature error repeats what was signed: name the kind only.
            # ValueError: an account key that is not base64, or a name that no URL can hold.
            code = getattr(error, "error_code", None)
            kind = getattr(code, "value", code) or type(error).__name__
            raise InputFailedError(
                f"{place['container']}/{place['filePath']} could not be read ({kind})"
            ) from error

    def _write(self, job: Job) -> None:
        if self._journal is not None:
            self._journal.write(json.dumps(job.to_journal()) + "\n")
            self._journal.flush()

    def _read_journal(self, path: Path) -> None:
        path.touch()
        with path.open(encoding="utf-8") as journal:
            entries = {entry["jobIdentifier"]: entry for entry in map(json.loads, journal)}
        for number, (identifier, entry) in enumerate(entries.items()):
            self._jobs.setdefault(identifier, Job.from_journal(entry, number))


class ModzyServer:
    """The stand-in as a whole; also a context manager.

    Args:
        blob_endpoints: blob service URL by storage account name, for example
            ``{"sandboxuploads": "http://127.0.0.1:10000/sandboxuploads"}``.
        api_keys: valid keys of the form ``prefix.secret``.
        port: to listen on; 0 for a free one.
        journal: JSON-lines file that keeps the jobs over a restart.
        job_options: how jobs behave unless a rule says otherwise.
        options: how the history is paged.
    """

    def __init__(
        self,
        blob_endpoints: Mapping[str, str],
        api_keys: Iterable[str],
        *,
        port: int = 0,
        journal: Path | None = None,
        job_options: JobOptions | None = None,
        options: Options | None = None,
    ) -> None:
        self.jobs = Jobs(blob_endpoints, journal)
        self.job_options = job_options or JobOptions()
        self.options = options or Options()
        self._usual = (self.job_options, self.options)
        self._keys: tuple[str, ...] = ()
        self.set_api_keys(api_keys)
        self.service = LoopbackService(
            "modzy",
            self,
            port=port,
            secret_members=("storageAccountKey",),
            check_options=self._job_options_with,
        )

    @property
    def url(self) -> str:
        """Base URL without ``/api``."""
        return self.service.url

    @property
    def requests(self) -> list[Any]:
        """Evidence of every request, oldest first: ``sandbox.http_service.RecordedRequest``."""
        return self.service.requests

    def start(self) -> Self:
        """Serve; the journal is read first.

        Raises:
            OSError: the port is taken, or the journal cannot be opened.
        """
        self.jobs.start()
        self.service.start()
        return self

    def stop(self) -> None:
        """Stop serving and running jobs; every thread has ended when this returns."""
        self.service.stop()
        self.jobs.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def set_api_keys(self, keys: Iterable[str]) -> None:
        """Replace the valid keys, as a rotation does.

        Raises:
            ValueError: a key has not the form ``prefix.secret``.
        """
        keys = tuple(keys)
        for key in keys:
            if not _is_api_key(key):
                raise ValueError("an API key has the form prefix.secret")
        self._keys = keys

    def misbehave(
        self,
        action: Mapping[str, Any],
        *,
        method: str | None = "POST",
        path_regex: str = "^/api/jobs$",
        count: int | None = 1,
        after: int = 0,
        probability: float = 1.0,
        seed: int = 0,
    ) -> Rule:
        """Add a rule, by default for the next job submission; see ``sandbox.http_service``.

        Raises:
            TypeError: an option of a ``job`` action is unknown.
            ValueError: the rule cannot be carried out.
        """
        rule = Rule(action, method, path_regex, count, after, probability, seed)
        return self.service.rules.add(self.service.check(rule))

    def jobs_by_item(self) -> dict[str, list[str]]:
        """Identifiers of the accepted jobs by input item key, oldest first."""
        found: dict[str, list[str]] = collections.defaultdict(list)
        for job in self.jobs.all():
            for item_key in job.sources:
                found[item_key].append(job.identifier)
        return dict(found)

    def set_options(self, **members: Any) -> None:
        """Change members of ``Options`` and ``JobOptions``; jobs that exist keep theirs.

        Raises:
            TypeError: there is no such member.
            ValueError: a value is unknown.
        """
        paging = {field.name for field in dataclasses.fields(Options)}
        self.options = dataclasses.replace(
            self.options, **{name: value for name, value in members.items() if name in paging}
        )
        self.job_options = dataclasses.replace(
            self.job_options,
            **{name: value for name, value in members.items() if name not in paging},
        )

    def reset(self) -> None:
        """Forget jobs, requests, rules and changed options; the API keys stay."""
        self.service.forget()
        self.jobs.forget()
        self.job_options, self.options = self._usual

    def error(self, status: int, message: str) -> Response:
        """An error in Modzy's form."""
        with contextlib.suppress(ValueError):  # a status without a name keeps its number
            name = HTTPStatus(status).name
            return Response.of_json(self._error_content(status, name, message), status)
        return Response.of_json(self._error_content(status, str(status), message), status)

    def _error_content(self, status: int, name: str, message: str) -> dict[str, Any]:
        report = f"{self.url}/report-error"
        return {"statusCode": status, "status": name, "message": message, "reportErrorUrl": report}

    def administer(self, request: Request) -> Response:
        """Answer the admin routes of this module's docstring."""
        match (request.method, request.segments()[1:]):
            case ("GET", ["jobs"]):
                return Response.of_json([job.evidence for job in self.jobs.all()])
            case ("POST", ["keys"]):
                _usable(lambda: self.set_api_keys(request.json()["keys"]))
            case ("GET", ["options"]):
                pass
            case ("POST", ["options"]):
                _usable(lambda: self.set_options(**request.json()))
            case ("POST", ["reset"]):
                self.reset()
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, "no such admin route")
        return Response.of_json(
            dataclasses.asdict(self.options) | dataclasses.asdict(self.job_options)
        )

    def answer(self, request: Request) -> Response:
        """Answer a request of the Modzy API."""
        segments = request.segments()
        if segments[0] != "api":
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is nothing here.")
        prefix = self._authorize(request)
        match (request.method, segments[1:]):
            case ("POST", ["jobs"]):
                return self._submit(request, prefix)
            case ("GET", ["jobs", "history"]):
                return self._history(request)
            case ("GET", ["jobs", identifier]):
                return self._job_details(self.jobs.find(identifier))
            case ("DELETE", ["jobs", identifier]):
                self.jobs.cancel(self.jobs.find(identifier))
                return self._job_details(self.jobs.find(identifier))
            case ("GET", ["results", identifier]):
                return self._results(self.jobs.find(identifier))
            case ("GET", ["results", identifier, item_key, file]):
                return self._result_file(self.jobs.find(identifier), item_key, file)
            case ("GET", ["models", *rest]):
                return _models(rest)
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, "There is no such route.")

    def _job_options_with(self, changes: Mapping[str, Any]) -> JobOptions:
        return dataclasses.replace(self.job_options, **changes)

    def _authorize(self, request: Request) -> str:
        """Check the API key and return its prefix, which Modzy calls the access key."""
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        known = [key for key in self._keys if hmac.compare_digest(key.encode(), sent.encode())]
        if scheme != "ApiKey" or not known:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "The API key is missing or misspelled.")
        return known[0].partition(".")[0]

    def _submit(self, request: Request, access_key: str) -> Response:
        options = self._job_options_with(request.options)
        job = self.jobs.add(access_key=access_key, options=options, **_read_submission(request))
        if options.submit_minimal:
            return Response.of_json({"jobIdentifier": job.identifier}, options.submit_status)
        # Written from the accepted state: the job may be further by now.
        answer = _common_members(job, options.submit_items) | {
            "status": "SUBMITTED",
            "totalInputs": len(job.sources),
            "jobType": "batch",
            "hoursDeleteInput": 24,
        }
        return Response.of_json(answer, options.submit_status)

    def _job_details(self, job: Job) -> Response:
        with self.jobs.lock:
            return Response.of_json(_details(job))

    def _history(self, request: Request) -> Response:
        query = request.query
        jobs = self._matching_jobs(query)
        order = query.get("sort-by", "createdAt")
        direction = query.get("direction", "DESC").upper()
        if order not in _SORTED_BY or direction not in {"ASC", "DESC"}:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The sort order is not known.")
        jobs.sort(key=lambda job: (_SORTED_BY[order](job), job.number), reverse=direction == "DESC")
        base = self.options.page_base
        page = max(_number(query, "page", base), base)
        asked = _number(query, "per-page", self.options.default_per_page)
        size = max(1, min(asked, self.options.max_per_page))
        first = (page - base) * size
        with self.jobs.lock:
            listed = [_details(job) for job in jobs[first : first + size]]
        has_next = {"accurate": first + size < len(jobs), "always": True, "never": False}
        headers = {}
        if has_next[self.options.link_header]:
            following = urlencode({**query, "page": page + 1, "per-page": size})
            headers["Link"] = f'<{self.url}/api/jobs/history?{following}>; rel="next"'
        return Response.of_json(listed, headers=headers)

    def _matching_jobs(self, query: Mapping[str, str]) -> list[Job]:
        """Jobs that the history shows now and that pass the query's filters."""
        statuses = _statuses(query.get("status", "ALL"))
        start, end = _date(query, "startDate"), _date(query, "endDate")
        now = datetime.now(UTC)
        return [
            job
            for job in self.jobs.all()
            if job.created + timedelta(seconds=job.options.history_lag) <= now
            and not job.has_vanished
            and job.status in statuses
            and (start is None or job.created >= start)
            and (end is None or job.created <= end)
            and query.get("accessKey", job.access_key) == job.access_key
            and query.get("model", job.model.name)
            in {job.model.name, job.model.identifier, job.model.version}
            and query.get("user", _USER["identifier"]) in _USER.values()
        ]

    def _results(self, job: Job) -> Response:
        with self.jobs.lock:
            available = job.finished or job.started
            late = timedelta(seconds=job.options.results_late)
            if available is None or (late and not job.is_final):
                raise RefusedError(HTTPStatus.NOT_FOUND, "The results were not found.")
            if job.is_final and available + late > datetime.now(UTC):
                raise RefusedError(HTTPStatus.NOT_FOUND, "The results were not found.")
            return Response.of_json(self._results_content(job))

    def _results_content(self, job: Job) -> dict[str, Any]:
        done = job.status == "COMPLETED"
        results = {key: self._result(job, key) for key in job.results} if done else {}
        failures = {key: _failure(job, reason) for key, reason in job.failures.items() if done}
        if job.options.double_nesting:
            results = {key: {key: entry} for key, entry in results.items()}
            failures = {key: {key: entry} for key, entry in failures.items()}
        return {
            "jobIdentifier": job.identifier,
            "accountIdentifier": _ACCOUNT,
            "team": _TEAM,
            "total": len(job.sources),
            "completed": len(results),
            "failed": len(failures),
            "finished": job.is_final,
            "submittedByKey": job.access_key,
            "explained": job.explain,
            "submittedAt": _stamp(job, job.created),
            "results": results,
            "failures": failures,
        }

    def _result(self, job: Job, item_key: str) -> dict[str, Any]:
        findings = job.results[item_key]
        entry = {"status": "SUCCESSFUL", **_timings(job), "results.json": findings}
        if job.options.big_result:
            entry["results.json"] = {**findings, "padding": "x" * job.options.big_result}
        if job.explain:
            inputs = findings.get("inputs")
            entry["explanation.json"] = (
                {name: explain(part) for name, part in inputs.items()}
                if inputs
                else explain(findings)
            )
        if job.options.binary_result:
            base = job.options.link_base or self.url
            path = f"/api/results/{job.identifier}/{quote(item_key, safe='')}/{_DIGEST_FILE}"
            entry[_DIGEST_FILE] = base + path + ("\n" if job.options.link_newline else "")
        return entry

    def _result_file(self, job: Job, item_key: str, file: str) -> Response:
        findings = job.results.get(item_key) if job.status == "COMPLETED" else None
        size = job.options.binary_result
        if findings is None or not size or file != _DIGEST_FILE:
            raise RefusedError(HTTPStatus.NOT_FOUND, "The result file was not found.")
        return Response(
            HTTPStatus.OK,
            _digest_file(findings, size),
            {"Content-Type": "application/octet-stream"},
        )


def _usable(action: Callable[[], _Result]) -> _Result:
    """Do what an admin asked for.

    Raises:
        RefusedError: 400, what was sent cannot be used.
    """
    try:
        return action()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"cannot be used: {error}") from error


def _is_api_key(text: str) -> bool:
    prefix, _, secret = text.partition(".")
    return bool(prefix and secret)


def _model_version(identifier: str, version: str) -> ModelVersion:
    for known in CATALOGUE:
        if (known.identifier, known.version) == (identifier, version):
            return known
    raise RefusedError(HTTPStatus.NOT_FOUND, "The model or its version was not found.")


def _read_submission(request: Request) -> dict[str, Any]:
    """Members of the job that a request body describes.

    Raises:
        RefusedError: 400, something is missing or malformed; 404, the model is unknown.
    """
    body = request.json()
    try:
        model, data = body["model"], body["input"]
        return {
            "model": _model_version(model["identifier"], model["version"]),
            "explain": bool(body.get("explain", False)),
            "timeout": _read_timeout(body.get("timeout")),
            "sources": _read_sources(data),
            "account": _text(data["storageAccount"]),
            "account_key": _text(data["storageAccountKey"]),
        }
    except KeyError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{error.args[0]} is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"malformed: {error}") from error


def _read_timeout(milliseconds: object) -> timedelta | None:
    if milliseconds is None:
        return None
    if not isinstance(milliseconds, int) or milliseconds <= 0:
        raise ValueError("timeout is a positive number of milliseconds")
    return timedelta(milliseconds=milliseconds)


def _read_sources(data: Mapping[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    if data["type"] != "azureblob":
        raise ValueError("this stand-in takes inputs of type azureblob only")
    sources = {
        item_key: {name: _read_place(place) for name, place in inputs.items()}
        for item_key, inputs in data["sources"].items()
    }
    if not sources or not all(sources.values()):
        raise ValueError("sources is empty")
    return sources


def _read_place(place: object) -> dict[str, str]:
    if not isinstance(place, dict):
        raise TypeError("sources is not {item key: {input name: {container, filePath}}}")
    return {name: _text(place[name]) for name in ("container", "filePath")}


def _text(value: object) -> str:
    """A non-empty string of a submission; never repeats the value, which may be a key."""
    if not isinstance(value, str) or not value:
        raise ValueError("a name is empty or no text")
    return value


def _statuses(wanted: str) -> frozenset[str]:
    known = PENDING | TERMINATED
    groups = {"ALL": known, "PENDING": PENDING, "TERMINATED": TERMINATED}
    statuses = groups.get(wanted.upper(), frozenset({wanted.upper()}))
    if not statuses <= known:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The status is not known.")
    return statuses


def _date(query: Mapping[str, str], name: str) -> datetime | None:
    """An ISO 8601 date of a query; UTC when it names no offset."""
    if name not in query:
        return None
    try:
        date = datetime.fromisoformat(query[name])
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is not a date") from error
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is not a number") from error


def _stamp(job: Job, date: datetime | None) -> str | None:
    """A date as Modzy writes it: 2021-08-02T21:19:52.529+00:00."""
    if date is None:
        return None
    text = date.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "+0000") if job.options.compact_offsets else text


def _milliseconds(start: datetime | None, end: datetime | None) -> int:
    """Time between two moments; 0 when one of them has not come."""
    return int((end - start) / timedelta(milliseconds=1)) if start and end else 0


def _common_members(job: Job, item_shape: str) -> dict[str, Any]:
    """What the answer to a submit, job details and history have in common."""
    members = {
        "jobIdentifier": job.identifier,
        "accountIdentifier": _ACCOUNT,
        "accessKey": job.access_key,
        "model": {
            "identifier": job.model.identifier,
            "version": job.model.version,
            "name": job.model.name,
        },
        "explain": job.explain,
        "submittedAt": _stamp(job, job.created),
        "team": _TEAM,
        "user": _USER,
    }
    if item_shape != "absent":
        members["jobInputs"] = _ITEM_SHAPES[item_shape](list(job.sources))
    return members


def _details(job: Job) -> dict[str, Any]:
    ended = job.is_final
    return _common_members(job, job.options.detail_items) | {
        "status": job.status,
        "submittedBy": _USER["email"],
        "createdAt": _stamp(job, job.created),
        "updatedAt": _stamp(job, job.updated),
        "total": len(job.sources),
        "pending": 0 if ended else len(job.sources),
        "completed": len(job.results) if ended else 0,
        "failed": len(job.failures) if ended else 0,
        "elapsedTime": _milliseconds(job.created, job.finished),
        "queueTime": _milliseconds(job.created, job.started),
    }


def _timings(job: Job) -> dict[str, Any]:
    """Members that every result entry has; times in milliseconds."""
    return {
        "engine": "sandbox-engine-1",
        "startTime": _stamp(job, job.started),
        "updateTime": _stamp(job, job.finished),
        "endTime": _stamp(job, job.finished),
        "elapsedTime": _milliseconds(job.started, job.finished),
        "queueTime": _milliseconds(job.created, job.started),
    }


def _failure(job: Job, reason: str) -> dict[str, Any]:
    return {"status": "FAILED", "error": reason, **_timings(job)}


def _digest_file(findings: Mapping[str, Any], size: int) -> bytes:
    """A result that is not text: the content's raw digest, repeated up to ``size`` bytes."""
    first = next(iter(findings.get("inputs", {"": findings}).values()))
    digest = bytes.fromhex(first["sha256"])
    return (digest * (size // len(digest) + 1))[:size]


def _models(segments: list[str]) -> Response:
    versions = collections.defaultdict(list)
    for known in CATALOGUE:
        versions[known.identifier].append(known)
    match segments:
        case []:
            return Response.of_json([_model(of_model) for of_model in versions.values()])
        case ["requirements", "account"]:
            return Response.of_json([])
        case [identifier] if identifier in versions:
            return Response.of_json(_model(versions[identifier]))
        case [identifier, "versions"] if identifier in versions:
            return Response.of_json([{"version": known.version} for known in versions[identifier]])
        case [identifier, "versions", version]:
            return Response.of_json(_version(_model_version(identifier, version)))
        case _:
            raise RefusedError(HTTPStatus.NOT_FOUND, "The model was not found.")


def _model(versions: Sequence[ModelVersion]) -> dict[str, Any]:
    latest = versions[-1]
    return {
        "modelId": latest.identifier,
        "name": latest.name,
        "latestVersion": latest.version,
        "latestActiveVersion": latest.version,
        "versions": [known.version for known in versions],
        "isActive": True,
    }


def _version(known: ModelVersion) -> dict[str, Any]:
    return {
        "version": known.version,
        "model": {"modelId": known.identifier, "name": known.name},
        "isActive": True,
        "isAvailable": True,
        "status": "active",
        "inputs": [
            {
                "name": described.name,
                "acceptedMediaTypes": ",".join(described.accepted_media_types),
                "maximumSize": described.maximum_size,
                "description": described.description,
            }
            for described in known.inputs
        ],
    }


def _endpoint(text: str) -> tuple[str, str]:
    """Read ``[ACCOUNT=]URL``; without a name the account is the last segment of the URL's path."""
    account, separator, url = text.partition("=")
    if not separator:
        url = text
        account = urlsplit(text).path.strip("/").rpartition("/")[2]
    if not account or not urlsplit(url).netloc:
        raise argparse.ArgumentTypeError(f"{text!r} is not [ACCOUNT=]URL")
    return account, url


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.modzy_server",
        description="A stand-in for Modzy. Prints its URL, then serves until SIGTERM or SIGINT.",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--blob-endpoint",
        type=_endpoint,
        action="append",
        required=True,
        metavar="[ACCOUNT=]URL",
        help="where the blobs of an account are, as http://127.0.0.1:10000/sandboxuploads; repeat",
    )
    parser.add_argument(
        "--api-key",
        action="append",
        help=f"valid key, prefix.secret; repeat. Default: {KEYS_VARIABLE}, separated by commas",
    )
    parser.add_argument("--journal", type=Path, help="JSON-lines file that keeps the jobs")
    parser.add_argument("--log", type=Path, help="file for one line a request; default: stderr")
    parser.add_argument(
        "--job-seconds", type=float, default=0.3, help="how long a job takes at least (0.3)"
    )
    parsed = parser.parse_args(arguments)
    parsed.api_key = parsed.api_key or os.environ.get(KEYS_VARIABLE, "").split(",")
    if not all(map(_is_api_key, parsed.api_key)):
        parser.error(f"give --api-key PREFIX.SECRET, or set {KEYS_VARIABLE}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stand-in as a process."""
    parsed = _arguments(arguments)
    logging.basicConfig(
        filename=parsed.log, format="%(asctime)s %(message)s", level=logging.WARNING
    )
    logging.getLogger("sandbox").setLevel(logging.INFO)
    server = ModzyServer(
        dict(parsed.blob_endpoint),
        parsed.api_key,
        port=parsed.port,
        journal=parsed.journal,
        job_options=JobOptions(
            submitted_seconds=parsed.job_seconds / 3, running_seconds=parsed.job_seconds * 2 / 3
        ),
    )

    def start() -> None:
        server.start()
        print(server.url, flush=True)

    serve_until_signal(start, server.stop)


if __name__ == "__main__":
    main()
