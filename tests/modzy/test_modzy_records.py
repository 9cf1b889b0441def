"""JSON of the API as records: every shape that servers use, and none that breaks decoding."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modzy_servers import unhurried

from modzy_relay.modzy_api import (
    AccessKey,
    Job,
    JobStatus,
    ModelRef,
    ModelVersion,
    Results,
    UnreadableRecordError,
)
from modzy_relay.modzy_api.records import parse_job_inputs
from modzy_relay.modzy_api.values import integer, parse_time

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
JOB_FIELDS = [
    "status",
    "accountIdentifier",
    "explain",
    "createdAt",
    "updatedAt",
    "submittedAt",
    "submittedBy",
    "pending",
    "completed",
    "failed",
    "total",
    "model",
    "jobInputs",
    "user",
]
KEYS = st.lists(st.text(min_size=1), unique=True)

# The documentation's example of job details, with what servers add.
DETAILS: dict[str, Any] = {
    "jobIdentifier": "14856eb1-0ad8-49e7-9da3-887acb80fea5",
    "submittedBy": "someone@example.com",
    "accountIdentifier": "an-account",
    "model": {"identifier": "ed542963de", "version": "0.0.27", "name": "Sentiment Analysis"},
    "status": "COMPLETED",
    "createdAt": "2021-08-02T21:19:52.529+00:00",
    "updatedAt": "2021-08-02T21:19:59.1+0000",
    "submittedAt": "2021-08-02T21:19:52Z",
    "total": 2, "pending": 0, "completed": 1, "failed": 1,
    "elapsedTime": 1234, "queueTime": 21,
    "user": {
        "identifier": "u-1", "externalIdentifier": "someone@example.com",
        "firstName": "Some", "lastName": "One", "email": "someone@example.com",
        "status": "active", "title": "Analyst",
        "accessKeys": [{"prefix": "prefix123", "isDefault": True}],
    },
    "jobInputs": [{"identifier": "my-input"}],
    "explain": False,
    "team": {"identifier": "t-1"},
}  # fmt: skip


def test_job_details() -> None:
    """Every documented attribute of a job is there, typed."""
    job = Job.from_document(DETAILS)
    assert job.is_final
    assert (job.total, job.pending, job.completed, job.failed) == (2, 0, 1, 1)
    assert job.created_at == datetime(2021, 8, 2, 21, 19, 52, 529000, UTC)
    assert job.updated_at == datetime(2021, 8, 2, 21, 19, 59, 100000, UTC)
    assert job.submitted_at == datetime(2021, 8, 2, 21, 19, 52, tzinfo=UTC)
    assert job.model == ModelRef("ed542963de", "0.0.27", "Sentiment Analysis")
    assert (job.user.first_name, job.user.last_name) == ("Some", "One")
    assert job.user.access_keys == (AccessKey("prefix123", is_default=True),)
    assert job.job_inputs == ("my-input",)
    assert job.explain is False


@unhurried
@given(st.dictionaries(st.sampled_from(JOB_FIELDS), JSON, max_size=5))
def test_any_job_with_an_identifier_is_readable(fields: dict[str, Any]) -> None:
    """Whatever the other fields hold, a job with an identifier is never taken for none."""
    job = Job.from_document({"jobIdentifier": "a-job", **fields})
    assert job.job_identifier == "a-job"
    for moment in (job.created_at, job.updated_at, job.submitted_at):
        assert moment is None or moment.utcoffset() is not None
    for number in (job.pending, job.completed, job.failed, job.total):
        assert number is None or type(number) is int
    assert all(isinstance(key, str) for key in job.job_inputs)


@unhurried
@given(JSON)
def test_any_document_is_a_job_or_unreadable(document: Any) -> None:
    """Decoding raises its one documented error and no other."""
    try:
        assert Job.from_document(document).job_identifier
    except UnreadableRecordError:
        assert not isinstance(document, dict) or "jobIdentifier" not in document


@pytest.mark.parametrize("identifier", [None, "", "  ", [], {}, True, 1.5, "\ud800"])
def test_unusable_identifier(identifier: object) -> None:
    """A job that cannot be asked for again is not a job."""
    with pytest.raises(UnreadableRecordError):
        Job.from_document({"jobIdentifier": identifier})


@pytest.mark.parametrize(
    ("sent", "status", "is_final"),
    [
        (None, JobStatus.SUBMITTED, False),
        ("", JobStatus.SUBMITTED, False),
        ("OPEN", JobStatus.OPEN, False),
        ("in_progress", JobStatus.IN_PROGRESS, False),
        ("Completed", JobStatus.COMPLETED, True),
        ("CANCELED", JobStatus.CANCELED, True),
        ("TIMEDOUT", JobStatus.TIMEDOUT, True),
        ("ERROR", JobStatus.ERROR, True),
        ("Quarantined", "Quarantined", False),
    ],
)
def test_status(sent: str | None, status: str, *, is_final: bool) -> None:
    """A missing status means SUBMITTED; one that is new stays visible and is not final."""
    job = Job.from_document({"jobIdentifier": "a-job", "status": sent})
    assert (job.status, job.is_final) == (status, is_final)


@unhurried
@given(KEYS)
def test_job_inputs_in_every_shape(keys: list[str]) -> None:
    """A submission is led back to its file by its key, whichever shape a route uses."""
    shapes: list[Any] = [
        keys,
        {"identifier": keys},
        [{"identifier": key} for key in keys],
        {"identifier": [{"identifier": key} for key in keys]},
        [None, *keys, 7, {"other": 1}, ["nested"]],
    ]
    shapes += [{"identifier": keys[0]}, keys[0]] if len(keys) == 1 else []
    for shape in shapes:
        assert parse_job_inputs(shape) == tuple(keys)


@unhurried
@given(JSON)
def test_job_inputs_never_raise(value: Any) -> None:
    """Odd inputs are ignored, not fatal."""
    assert all(isinstance(key, str) for key in parse_job_inputs(value))


@unhurried
@given(
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)),  # noqa: DTZ001 - made aware below
    st.integers(0, 6),
    st.sampled_from(["Z", "+00:00", "+0000", "-00:00", ""]),
)
def test_times(moment: datetime, digits: int, zone: str) -> None:
    """Times are read to the microsecond, with any number of digits and each spelling of UTC."""
    fraction = f"{moment.microsecond:06}"[:digits]
    text = f"{moment:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}{zone}"
    expected = moment.replace(microsecond=int(fraction.ljust(6, "0")), tzinfo=UTC)
    assert parse_time(text) == expected


@unhurried
@given(JSON)
def test_times_never_raise(value: Any) -> None:
    """What is no time is None."""
    moment = parse_time(value)
    assert moment is None or moment.utcoffset() is not None


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_times_beyond_the_calendar(text: str) -> None:
    """A time that UTC cannot hold is None."""
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), ("3", 3), (" 12 ", 12), (3.0, 3), (3.5, None), ("three", None), (True, None),
     (float("nan"), None), (float("inf"), None), ("9" * 5000, None), ("³", None), (None, None)],
)  # fmt: skip
def test_numbers(value: object, number: int | None) -> None:
    """Numbers in the wrong type count where they have one meaning."""
    assert integer(value) == number


RESULTS: dict[str, Any] = {
    "jobIdentifier": "a-job",
    "finished": True,
    "total": 3, "completed": 2, "failed": 1,
    "results": {
        "one": {
            "status": "SUCCESSFUL", "engine": "e", "startTime": "2021-08-02T21:19:52.529+00:00",
            "elapsedTime": 12, "voting": {"up": 0, "down": 0},
            "results.json": {"answer": 42},
            "results.wav": "https://modzy.test/api/results/a-job/one/results.wav\n",
        },
        "two": {"two": {"status": "SUCCESSFUL", "results.json": [1]}},
    },
    "failures": {"three": {"status": "FAILED", "error": "no such blob"}},
}  # fmt: skip


def test_results() -> None:
    """Outputs, links and failures are told apart, and old servers' double nesting is undone."""
    results = Results.from_document(RESULTS, "a-job")
    assert results.finished
    assert (results.total, results.completed, results.failed) == (3, 2, 1)
    one, two = results.outputs["one"], results.outputs["two"]
    assert one.status == "SUCCESSFUL"
    assert set(one.files) == {"results.json", "results.wav"}
    assert one.links == {"results.wav": "https://modzy.test/api/results/a-job/one/results.wav"}
    assert two.files == {"results.json": [1]}
    assert results.failures["three"].error == "no such blob"
    assert results.document is RESULTS


@unhurried
@given(
    st.dictionaries(
        st.sampled_from(["jobIdentifier", "finished", "total", "results", "failures"]), JSON
    )
)
def test_any_results_object_is_readable(document: dict[str, Any]) -> None:
    """Odd results are kept as they came."""
    results = Results.from_document(document, "a-job")
    assert results.document is document
    assert all(isinstance(item.links, dict) for item in results.outputs.values())


def test_model_version() -> None:
    """The inputs of a model version are read with their types and sizes."""
    document = {
        "isActive": True,
        "status": "active",
        "inputs": [
            {
                "name": "image",
                "acceptedMediaTypes": "image/png, image/jpeg",
                "maximumSize": 5_000_000,
                "description": "What to look at",
            },
            {"name": "config.json", "acceptedMediaTypes": ["application/json"]},
        ],
    }
    version = ModelVersion.from_document(document, "ed542963de", "0.0.27")
    assert [given.name for given in version.inputs] == ["image", "config.json"]
    assert version.inputs[0].accepted_media_types == ("image/png", "image/jpeg")
    assert version.inputs[0].maximum_size == 5_000_000
    assert version.is_active is True


def test_model_input_without_a_name() -> None:
    """An unreadable input is not left out: the model would seem to have one fewer."""
    with pytest.raises(UnreadableRecordError):
        ModelVersion.from_document({"inputs": [{"name": "a"}, {}]}, "m", "1")
