"""Modzy's JSON documents as typed, frozen records.

The documentation and the servers in the field disagree on shapes, so decoding accepts every
shape that has one clear meaning, ignores what it does not know, and turns what makes no sense
into None. Only what a record cannot do without raises :class:`UnreadableRecordError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from modzy_relay.modzy_api.values import boolean, integer, parse_time, text

if TYPE_CHECKING:
    from datetime import datetime


class UnreadableRecordError(ValueError):
    """A document lacks what the record cannot do without. The text says what, never its data."""


class JobStatus:
    """Modzy's own words for the state of a job (docs.modzy.com, "Jobs")."""

    OPEN: Final = "OPEN"  # inputs are still being uploaded
    SUBMITTED: Final = "SUBMITTED"
    IN_PROGRESS: Final = "IN_PROGRESS"
    COMPLETED: Final = "COMPLETED"  # ran to its end, even if every input failed
    CANCELED: Final = "CANCELED"
    TIMEDOUT: Final = "TIMEDOUT"
    ERROR: Final = "ERROR"

    FINAL: Final = frozenset({COMPLETED, CANCELED, TIMEDOUT, ERROR})
    ALL: Final = FINAL | {OPEN, SUBMITTED, IN_PROGRESS}


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model version a job runs on."""

    identifier: str | None = None
    version: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class AccessKey:
    """The public part of an API key."""

    prefix: str | None = None
    is_default: bool | None = None


@dataclass(frozen=True, slots=True)
class User:
    """Who submitted a job."""

    identifier: str | None = None
    external_identifier: str | None = None
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    status: str | None = None
    title: str | None = None
    access_keys: tuple[AccessKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the server described it.

    Attributes:
        job_identifier: Never blank.
        status: One of :class:`JobStatus`, or the server's text if it is none of them;
            SUBMITTED if the server did not say.
        created_at: Aware, in UTC; likewise the other times.
        pending: Number of inputs that wait; ``completed``, ``failed`` and ``total`` likewise.
        job_inputs: Input item keys; empty if the server named none.
    """

    job_identifier: str
    status: str = JobStatus.SUBMITTED
    account_identifier: str | None = None
    explain: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    submitted_at: datetime | None = None
    submitted_by: str | None = None
    pending: int | None = None
    completed: int | None = None
    failed: int | None = None
    total: int | None = None
    model: ModelRef = field(default_factory=ModelRef)
    job_inputs: tuple[str, ...] = ()
    user: User = field(default_factory=User)

    @property
    def is_final(self) -> bool:
        """Whether the status will not change any more."""
        return self.status in JobStatus.FINAL

    @classmethod
    def from_document(cls, document: object) -> Job:
        """Decode a job object of any route.

        Raises:
            UnreadableRecordError: it is not an object, or has no usable ``jobIdentifier``.
        """
        data = _object(document, "a job")
        return cls(
            job_identifier=_identifier(data.get("jobIdentifier")),
            status=_status(data.get("status")),
            account_identifier=text(data.get("accountIdentifier")),
            explain=boolean(data.get("explain")),
            created_at=parse_time(data.get("createdAt")),
            updated_at=parse_time(data.get("updatedAt")),
            submitted_at=parse_time(data.get("submittedAt")),
            submitted_by=text(data.get("submittedBy")),
            pending=integer(data.get("pending")),
            completed=integer(data.get("completed")),
            failed=integer(data.get("failed")),
            total=integer(data.get("total")),
            model=_model_ref(data.get("model")),
            job_inputs=parse_job_inputs(data.get("jobInputs")),
            user=_user(data.get("user")),
        )


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one input item.

    Attributes:
        item_key: The input item key.
        status: ``SUCCESSFUL`` or ``FAILED``, or the server's text.
        error: Why it failed, in the server's words.
        files: Result file name to content: decoded JSON in place, or the text of a link.
    """

    item_key: str
    status: str | None = None
    error: str | None = None
    files: Mapping[str, Any] = field(default_factory=dict)

    @property
    def links(self) -> dict[str, str]:
        """Result files that are to be fetched with ``results.open_file``: name to URL."""
        return {name: value.strip() for name, value in self.files.items() if _is_result_link(value)}


@dataclass(frozen=True, slots=True)
class Results:
    """The results document of a job.

    Attributes:
        outputs: Input item key to result, of items that succeeded.
        failures: Input item key to result, of items that failed.
        document: The whole document as the server sent it.
    """

    job_identifier: str
    finished: bool
    total: int | None
    completed: int | None
    failed: int | None
    outputs: Mapping[str, ItemResult]
    failures: Mapping[str, ItemResult]
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def from_document(cls, document: object, job_identifier: str) -> Results:
        """Decode a results document.

        Args:
            document: The decoded JSON.
            job_identifier: The job asked for, for servers that do not repeat it.

        Raises:
            UnreadableRecordError: it is not an object.
        """
        data = _object(document, "results")
        return cls(
            job_identifier=text(data.get("jobIdentifier")) or job_identifier,
            finished=boolean(data.get("finished")) is True,
            total=integer(data.get("total")),
            completed=integer(data.get("completed")),
            failed=integer(data.get("failed")),
            outputs=_item_results(data.get("results")),
            failures=_item_results(data.get("failures")),
            document=data,
        )


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input that a model version takes.

    Attributes:
        name: The data input item key that sources must use.
        maximum_size: In bytes.
    """

    name: str
    accepted_media_types: tuple[str, ...] = ()
    maximum_size: int | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a model."""

    identifier: str
    version: str
    inputs: tuple[ModelInput, ...] = ()
    is_active: bool | None = None
    status: str | None = None

    @classmethod
    def from_document(cls, document: object, identifier: str, version: str) -> ModelVersion:
        """Decode a model version; ``identifier`` and ``version`` are those asked for.

        Raises:
            UnreadableRecordError: it is not an object, or an input has no name: leaving one out
                could make a model with two inputs look like a model with one.
        """
        data = _object(document, "a model version")
        inputs = data.get("inputs")
        return cls(
            identifier=identifier,
            version=version,
            inputs=tuple(map(_model_input, inputs)) if isinstance(inputs, list) else (),
            is_active=boolean(data.get("isActive")),
            status=text(data.get("status")),
        )


def model_summary(document: object) -> ModelRef:
    """Decode an entry of the model list; ``version`` is the latest one.

    Raises:
        UnreadableRecordError: it is not an object.
    """
    data = _object(document, "a model")
    return ModelRef(
        identifier=text(data.get("modelId")) or text(data.get("identifier")),
        version=text(data.get("latestVersion")),
        name=text(data.get("name")),
    )


def parse_job_inputs(value: object) -> tuple[str, ...]:
    """Input item keys in any shape that servers use, in their order; never raises.

    Seen: ``{"identifier": ["a", "b"]}`` after a submit, ``[{"identifier": "a"}]`` in details and
    history, ``["a", "b"]`` in the documentation.
    """
    if isinstance(value, Mapping):
        value = value.get("identifier")
    entries = value if isinstance(value, list) else [value]
    keys = (entry.get("identifier") if isinstance(entry, Mapping) else entry for entry in entries)
    return tuple(dict.fromkeys(key for key in keys if isinstance(key, str)))


def _object(document: object, what: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise UnreadableRecordError(f"expected {what} as a JSON object")
    return document


def _identifier(value: object) -> str:
    identifier = (text(value) or "").strip()
    # Identifiers travel in URLs: half a surrogate pair, which JSON can spell, cannot.
    if not identifier or any("\ud800" <= character <= "\udfff" for character in identifier):
        raise UnreadableRecordError("there is no usable jobIdentifier")
    return identifier


def _status(value: object) -> str:
    status = value.strip() if isinstance(value, str) else ""
    if not status:
        # So does Modzy's own Python SDK when a submit answers without a status.
        return JobStatus.SUBMITTED
    return status.upper() if status.upper() in JobStatus.ALL else status


def _model_ref(value: object) -> ModelRef:
    if not isinstance(value, Mapping):
        return ModelRef()
    return ModelRef(
        identifier=text(value.get("identifier")),
        version=text(value.get("version")),
        name=text(value.get("name")),
    )


def _user(value: object) -> User:
    if not isinstance(value, Mapping):
        return User()
    access_keys = value.get("accessKeys")
    return User(
        identifier=text(value.get("identifier")),
        external_identifier=text(value.get("externalIdentifier")),
        email=text(value.get("email")),
        first_name=text(value.get("firstName")),
        last_name=text(value.get("lastName")),
        status=text(value.get("status")),
        title=text(value.get("title")),
        access_keys=tuple(
            AccessKey(text(entry.get("prefix")), boolean(entry.get("isDefault")))
            for entry in (access_keys if isinstance(access_keys, list) else ())
            if isinstance(entry, Mapping)
        ),
    )


def _item_results(value: object) -> dict[str, ItemResult]:
    if not isinstance(value, Mapping):
        return {}
    return {key: _item_result(key, entry) for key, entry in value.items()}


def _item_result(item_key: str, entry: object) -> ItemResult:
    if isinstance(entry, Mapping) and isinstance(entry.get(item_key), Mapping):
        # Old servers nest the input item key twice.
        entry = entry[item_key]
    if not isinstance(entry, Mapping):
        return ItemResult(item_key)
    return ItemResult(
        item_key=item_key,
        status=text(entry.get("status")),
        error=text(entry.get("error")),
        files={name: value for name, value in entry.items() if _is_result_file(name, value)},
    )


def _is_result_file(name: str, value: object) -> bool:
    """Whether a member is a result file, not a time or a duration.

    Modzy puts both side by side; result files have a file name (``results.json``) or a link.
    """
    return "." in name or _is_result_link(value)


def _is_result_link(value: object) -> bool:
    # A trailing newline has been seen: "https://<host>/api/results/<job>/<key>/results.wav\n"
    if not isinstance(value, str):
        return False
    link = value.strip()
    return link.startswith(("https://", "http://")) and "/results/" in link


def _model_input(value: object) -> ModelInput:
    data = _object(value, "a model input")
    name = text(data.get("name"))
    if not name:
        raise UnreadableRecordError("a model input has no name")
    return ModelInput(
        name=name,
        accepted_media_types=_media_types(data.get("acceptedMediaTypes")),
        maximum_size=integer(data.get("maximumSize")),
    )


def _media_types(value: object) -> tuple[str, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list):
        return ()
    return tuple(entry.strip() for entry in entries if isinstance(entry, str) and entry.strip())
