"""Where is my file: by path, submission and job, without a scan and without a secret."""

from __future__ import annotations

import dataclasses
import json
import uuid
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from follow_calls import counted_calls
from follow_world import until

from modzy_relay import wiring
from modzy_relay.http_api import get_submission

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from follow_calls import Call
    from follow_world import App

    from modzy_relay.lifecycle import Submission


def ask(app: App, **query: str) -> tuple[int, dict[str, Any]]:
    """Status and body of ``GET /api/submissions``."""
    status, body = get_submission(app.services.lookup, query)
    return int(status), json.loads(json.dumps(body))


def point_reads_and_queries(calls: Sequence[Call]) -> tuple[int, int]:
    """How many requests named one row, and how many asked a single partition."""
    tables = [unquote(it.url) for it in calls if "ModzySubmissions" in it.url]
    reads = [url for url in tables if "(PartitionKey='" in url]
    queries = [url for url in tables if "$filter=PartitionKey eq 'path-" in url.replace("+", " ")]
    assert len(reads) + len(queries) == len(tables), f"neither a point read nor bounded: {tables}"
    return len(reads), len(queries)


def test_three_ways_give_the_same_answer(app: App) -> None:
    """By path, id and job: the same submission, with its history and its result's place."""
    row = app.finish("ways.txt")
    _, by_path = ask(app, path="ways.txt")
    status, by_id = ask(app, id=str(row.key))
    _, by_job = ask(app, job=str(row.job_identifier))
    assert status == HTTPStatus.OK
    assert by_path == {"path": "ways.txt", "submissions": [by_id]}
    assert by_job == by_id
    assert by_id["job_status"] == "COMPLETED"
    assert by_id["result_location"] == row.result_location
    assert [it["state"] for it in by_id["history"]] == ["SUBMITTING", "SUBMITTED", "SUBMITTED"]
    assert by_id["history"][-1]["reason"] == "job COMPLETED"
    assert all(it["at"].endswith("+00:00") for it in by_id["history"])


def test_every_version_newest_first(app: App) -> None:
    """An overwritten file shows both versions; the present one comes first, indexed or not."""
    old = app.look(app.submit("versions.txt", b"first", running_seconds=3600.0))
    seconds_later(app, old)
    new = app.submit("versions.txt", b"second")
    assert not new.indexed
    _, found = ask(app, path="versions.txt")
    etags = [it["etag"] for it in found["submissions"]]
    assert etags == [new.version.etag, old.version.etag]


def seconds_later(app: App, row: Submission) -> None:
    """Wait until a new version of the row's blob gets a later time: they are in whole seconds."""
    with app.stack.uploads.get_blob_client("clock") as blob:
        until(
            lambda: blob.upload_blob(b"", overwrite=True)["last_modified"],
            lambda time: time > row.version.last_modified,
        )


def test_more_versions_than_a_page_are_paged(app: App) -> None:
    """Forty-five versions come on pages of at most 21, each version once, newest first."""
    template = app.submit("paged.txt")
    rows = versions_of(app, template, 45)
    seen: list[dict[str, Any]] = []
    query = {"path": "paged.txt"}
    pages = 0
    while True:
        with counted_calls() as calls:
            status, found = ask(app, **query)
        assert status == HTTPStatus.OK
        reads, queries = point_reads_and_queries(calls)
        assert queries == 1
        assert reads <= 21
        assert len(found["submissions"]) <= 21
        seen += found["submissions"]
        pages += 1
        if "next" not in found:
            break
        query = {"path": "paged.txt", "next": found["next"]}
    ids = [it["id"] for it in seen if it["id"] != str(template.key)]
    assert ids == [str(row.key) for row in reversed(rows)]
    assert pages == 3


def versions_of(app: App, template: Submission, count: int) -> list[Submission]:
    """Rows of older versions of a blob, oldest first, indexed as the follower does it."""
    rows = []
    for number in range(count):
        version = dataclasses.replace(
            template.version,
            etag=f"0x{number:X}",
            last_modified=template.version.last_modified - timedelta(hours=count - number),
        )
        row = dataclasses.replace(template, version=version, job_identifier=str(uuid.uuid4()))
        app.ledger.insert(row)
        app.ledger.index(row)
        rows.append(row)
    return rows


def test_a_lookup_costs_point_reads_however_full_the_ledger_is(app: App) -> None:
    """By id one read, by job two, by path one query in the path's own partition; none scans."""
    row = app.finish("cheap.txt")
    versions_of(app, app.submit("crowd.txt"), 30)
    with counted_calls() as by_id:
        ask(app, id=str(row.key))
    with counted_calls() as by_job:
        ask(app, job=str(row.job_identifier))
    with counted_calls() as by_path:
        ask(app, path="cheap.txt")
    assert (len(by_id), *point_reads_and_queries(by_id)) == (1, 1, 0)
    assert (len(by_job), *point_reads_and_queries(by_job)) == (2, 2, 0)
    # HEAD of the blob, the pointers, the row.
    assert (len(by_path), *point_reads_and_queries(by_path)) == (3, 1, 1)


def test_job_is_found_before_it_is_indexed(app: App) -> None:
    """Who takes a job from the queue at once can look it up at once: one question to Modzy."""
    row = app.submit("quick.txt", running_seconds=3600.0)
    assert not row.indexed
    with counted_calls() as calls:
        status, found = ask(app, job=str(row.job_identifier))
    assert (status, found["id"]) == (HTTPStatus.OK, str(row.key))
    assert sum("/api/jobs/" in it.url for it in calls) == 1


def test_parked_upload_is_found_by_path(app: App) -> None:
    """A file that Modzy could not take yet is found, with state, reason and next attempt."""
    app.stack.modzy.misbehave({"do": "status", "status": 503, "headers": {"Retry-After": "1"}})
    app.stack.uploads.upload_blob("parked.txt", b"later")
    # Services of their own: the pause that follows is not for the tests that come after.
    wiring.build(app.stack.settings).relay.submit_upload("parked.txt")
    status, found = ask(app, path="parked.txt")
    assert status == HTTPStatus.OK
    (submission,) = found["submissions"]
    assert submission["state"] == "DEFERRED"
    assert "503" in submission["reason"]
    assert submission["next_attempt_at"] is not None
    assert submission["job_identifier"] is None


@pytest.mark.parametrize(
    "query",
    [
        {"path": "there/is/no.txt"},
        {"id": "2026-11-23-a.0123456789abcdef01234567"},
        {"id": "garbage"},
        {"id": "path-0123.submission"},
        {"job": "14856eb1-0ad8-49e7-9da3-887acb80fea5"},
    ],
)
def test_unknown_is_404_with_a_reason(app: App, query: Mapping[str, str]) -> None:
    """What is not there is a 404 that says what was looked for."""
    status, body = ask(app, **query)
    assert status == HTTPStatus.NOT_FOUND
    assert body["error"].startswith("no submission ")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"path": ""},
        {"path": "a", "job": "b"},
        {"path": "x" * 1025},
        {"path": "a\x00b"},
        {"path": "a\x1bb"},
        {"path": "\ud800"},
        {"id": "x" * 201},
        {"job": "."},
        {"job": "../models"},
        {"job": "x" * 201},
        {"job": "a b"},
        {"path": "a", "next": "garbage"},
        {"path": "a", "next": "[" * 3000},
        {"path": "a", "next": "{}"},
        {"path": "a", "next": '["PartitionKey", "RowKey"]'},
        {"path": "a", "next": "x" * 5000},
    ],
    ids=lambda query: repr(query)[:60],
)
def test_wrong_question_is_400_with_a_reason(app: App, query: Mapping[str, str]) -> None:
    """A question that cannot be answered is a 400 that says why, whatever is in it."""
    status, body = ask(app, **query)
    assert status == HTTPStatus.BAD_REQUEST
    assert body["error"]


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "a/../b", ".", "a/./b", "../../modzy-results/x", "%2e%2e/x", "//", "a\\b"),
        *("a?b#c&d", "' or PartitionKey ne '", "<script>", "é" * 1024, "\u202e.txt", "*", "%00"),
    ],
)
def test_hostile_path_finds_nothing_else(app: App, path: str) -> None:
    """A path is data: it never leads to another blob, another partition, or a fault."""
    app.submit("x")
    status, body = ask(app, path=path)
    assert status == HTTPStatus.NOT_FOUND
    assert body == {"error": f"no submission for the path {path}"}


def test_token_of_another_partition_leads_nowhere(app: App) -> None:
    """A made-up token cannot show rows of other files."""
    row = app.look(app.submit("secret.txt"))
    token = json.dumps({"PartitionKey": row.key.partition, "RowKey": row.key.row})
    status, _ = ask(app, path="other.txt", next=token)
    assert status == HTTPStatus.NOT_FOUND


def test_empty_page_before_more_is_not_the_end(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Table storage may answer a query with no row and a token: that is 200, with the token."""
    page = {"path": "a", "submissions": [], "next": "a-token"}
    monkeypatch.setattr(app.services.lookup, "by_path", lambda *_: page)
    assert ask(app, path="a") == (HTTPStatus.OK, page)


def test_double_job_is_not_shown_as_the_files(app: App) -> None:
    """A job that leads to a row by its item key, but is not the row's, is not found."""
    row = app.submit("single.txt", running_seconds=3600.0)
    other = app.second_job(row)
    assert ask(app, job=other.identifier)[0] == HTTPStatus.NOT_FOUND


def test_no_secret_is_ever_in_an_answer(app: App) -> None:
    """Neither the API key nor an account key is in any answer, nor in the row or its events."""
    row = app.finish("clean.txt")
    texts = [json.dumps(ask(app, path="clean.txt")), json.dumps(ask(app, job="."))]
    texts += [str(dict(app.stack.table.get_entity(*row.key)))]
    texts += [json.dumps(app.events.about("clean.txt"))]
    for secret in app.stack.known_secrets:
        assert not any(secret in text for text in texts)
