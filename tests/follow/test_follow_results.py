"""Results on real storage, from a Modzy stand-in that misbehaves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from follow_world import App, Memory, content_type, until
from hypothesis import given
from hypothesis import strategies as st

from modzy_relay import wiring
from modzy_relay.modzy_api import Results
from modzy_relay.results import failure_summary, one_line, result_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modzy_relay.lifecycle import Submission


def test_results_depend_on_the_content_and_lie_under_the_path(app: App) -> None:
    """results.json is what Modzy answers for this file, below container, path and job."""
    row = app.finish("letters/für dich.txt", b"a wonderful day")
    assert row.job_status == "COMPLETED"
    assert row.result_location == f"modzy-results/uploads/letters/für dich.txt/{row.job_identifier}"
    found = app.document(row)["results"][row.item_key]["results.json"]
    assert found["sha256"] == hashlib.sha256(b"a wonderful day").hexdigest()
    assert found["sentiment"]["label"] == "positive"
    name = row.result_location.partition("/")[2] + "/results.json"
    assert content_type(app.stack, name) == "application/json"
    (event,) = app.events.about("letters/für dich.txt")
    assert event["data"]["result_location"] == row.result_location
    assert event["data"]["ledger_key"] == str(row.key)


def test_late_results_are_fetched_by_a_later_look(app: App) -> None:
    """While the results route answers 404 the row stays open, without an event."""
    row = app.submit("late.txt", results_late=3600.0)
    app.job_ended(row)
    row = app.look(row)
    assert not row.job_is_final
    assert row.finished_at is not None
    assert app.events.about("late.txt") == []
    (job,) = [it for it in app.stack.modzy.jobs.all() if it.identifier == row.job_identifier]
    job.options = dataclasses.replace(job.options, results_late=0.0)
    row = app.look(row)
    assert row.job_status == "COMPLETED"
    assert list(app.stored(row)) == ["results.json"]
    assert len(app.events.about("late.txt")) == 1


def test_failed_input_is_completed_with_the_models_reason(app: App) -> None:
    """A job whose every input failed is COMPLETED in Modzy's words; the reason is told."""
    row = app.finish("failing.txt", failing_inputs=1)
    assert row.job_status == "COMPLETED"
    assert row.reason == "1 of 1 inputs failed: the model failed on this input"
    assert app.document(row)["failures"][row.item_key]["status"] == "FAILED"
    (event,) = app.events.about("failing.txt")
    assert event["data"]["reason"] == row.reason


def test_partial_failure_keeps_what_succeeded(app: App) -> None:
    """With one of two inputs failed, results of the other are stored and the reason counts both."""
    row = app.submit("partial.txt", running_seconds=3600.0)
    (own,) = [it for it in app.stack.modzy.jobs.all() if it.identifier == row.job_identifier]
    (inputs,) = own.sources.values()
    two = app.stack.modzy.jobs.add(
        model=own.model,
        explain=False,
        timeout=None,
        account=own.account,
        account_key=own.account_key,
        sources={"fails": inputs, row.item_key: inputs},
        access_key=own.access_key,
        options=dataclasses.replace(own.options, running_seconds=0.0, failing_inputs=1),
    )
    app.change(row, job_identifier=two.identifier)
    row = app.by_id(str(row.key))
    app.job_ended(row)
    row = app.look(row)
    assert row.job_status == "COMPLETED"
    assert row.reason == "1 of 2 inputs failed: the model failed on this input"
    document = app.document(row)
    assert list(document["results"]) == [row.item_key]
    assert list(document["failures"]) == ["fails"]


def test_explanations_are_stored(app: App) -> None:
    """With explain, the explanation is part of the stored document."""
    row = app.submit("explained.txt", b"good good bad")
    app.job_ended(row)
    (job,) = [it for it in app.stack.modzy.jobs.all() if it.identifier == row.job_identifier]
    job.explain = True
    row = app.look(row)
    entry = app.document(row)["results"][row.item_key]
    assert entry["explanation.json"]["evidence"] == {"good": 2, "bad": 1}


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested twice"])
@pytest.mark.parametrize("newline", [False, True], ids=["clean", "newline"])
def test_linked_file_is_stored_beside_the_document(app: App, nested: bool, newline: bool) -> None:
    """Byte for byte, with its content type, whatever stands around its link."""
    path = f"linked-{nested}-{newline}.bin"
    row = app.finish(
        path,
        b"\x00\x01",
        binary_result=100_000,
        link_newline=newline,
        double_nesting=nested,
    )
    assert (row.job_status, row.reason) == ("COMPLETED", None)
    digest = hashlib.sha256(b"\x00\x01").digest()
    stored = app.stored(row)
    assert sorted(stored) == ["digest.bin", "results.json"]
    assert stored["digest.bin"] == (digest * 4000)[:100_000]
    name = f"uploads/{path}/{row.job_identifier}/digest.bin"
    assert content_type(app.stack, name) == "application/octet-stream"
    assert row.item_key in json.dumps(app.document(row)["results"])


def test_failures_that_are_nested_twice_are_read(app: App) -> None:
    """The reason of a failure is found below a doubled item key, too."""
    row = app.finish("nested-failure.txt", failing_inputs=1, double_nesting=True)
    assert row.reason == "1 of 1 inputs failed: the model failed on this input"


@contextmanager
def recording_server() -> Iterator[tuple[str, list[str]]]:
    """A foreign host: its address, and what it was asked for."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_link_to_a_foreign_host_is_not_followed(app: App) -> None:
    """No request reaches another host; the document is stored, and the row says what is missing."""
    with recording_server() as (foreign, seen):
        row = app.finish("foreign.bin", binary_result=10, link_base=foreign)
        assert row.job_status == "COMPLETED"
        assert seen == []
        assert list(app.stored(row)) == ["results.json"]
        assert foreign in app.document(row)["results"][row.item_key]["digest.bin"]
    assert row.reason == "digest.bin not stored: the link leads to another server"


def test_document_beyond_the_limit_is_a_visible_end(app: App) -> None:
    """A results document above 64 MiB: COMPLETED with the reason, half an hour after its end."""
    row = app.finish("oversize.txt", big_result=65 * 1024 * 1024)
    assert not row.job_is_final
    app.age(row, timedelta(minutes=31))
    row = app.look(row)
    assert (row.job_status, row.result_location) == ("COMPLETED", None)
    assert row.reason == (
        f"results not stored: GET /api/results/{row.job_identifier}: "
        "200 the answer is larger than 67108864 bytes"
    )
    assert app.stored(row) == {}
    (event,) = app.events.about("oversize.txt")
    assert event["data"]["reason"] == row.reason


def test_redirected_link_takes_the_key_nowhere(app: App) -> None:
    """A redirect of a result file to another host is not followed either."""
    with recording_server() as (foreign, seen):
        app.stack.modzy.misbehave(
            {"do": "redirect", "location": f"{foreign}/api/results/x/y/digest.bin"},
            method="GET",
            path_regex="digest.bin$",
            count=None,
        )
        row = app.finish("redirected.bin", binary_result=10)
        assert seen == []
    assert not row.job_is_final, "what the link would give may still come"
    assert app.stored(row) == {}


def test_cut_download_leaves_no_partial_file(app: App) -> None:
    """A result file whose download breaks off is not there at all; the next look gets it whole."""
    row = app.submit("cut.bin", b"\x00", binary_result=3_000_000)
    app.job_ended(row)
    app.stack.modzy.misbehave({"do": "cut_after"}, method="GET", path_regex="digest.bin$")
    row = app.look(row)
    assert not row.job_is_final
    assert app.stored(row) == {}
    row = app.look(row)
    assert len(app.stored(row)["digest.bin"]) == 3_000_000
    assert len(app.events.about("cut.bin")) == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("CANCELED", "CANCELED"), ("TIMEDOUT", "TIMEDOUT"), ("ERROR", "ERROR")],
)
def test_jobs_that_did_not_complete_have_no_results(app: App, outcome: str, status: str) -> None:
    """The end is recorded and told; no results are asked for."""
    row = app.finish(f"{outcome}.txt", outcome=outcome)
    assert (row.job_status, row.result_location) == (status, None)
    assert app.stored(row) == {}
    (event,) = app.events.about(f"{outcome}.txt")
    assert event["data"]["job_status"] == status
    assert not any("/api/results/" in request for request in app.requests_about(row))


def test_vanished_job(app: App) -> None:
    """A job that Modzy has lost is looked at again, and is VANISHED when the grace is over."""
    row = app.submit("vanished.txt", outcome="VANISHED", running_seconds=0.0)
    job = row.job_identifier
    jobs = {it.identifier: it for it in app.stack.modzy.jobs.all()}
    until(lambda: jobs[str(job)].has_vanished)
    row = app.look(row)
    assert not row.job_is_final
    app.age(row, timedelta(minutes=31))
    row = app.look(row)
    assert (row.job_status, row.reason) == ("VANISHED", "Modzy no longer knows this job")
    (event,) = app.events.about("vanished.txt")
    assert event["data"]["job_status"] == "VANISHED"


def test_empty_setting_keeps_no_results(app: App) -> None:
    """RESULTS_CONTAINER empty: the job ends, nothing is stored, nothing is asked for."""
    services = wiring.build({**app.stack.settings, "RESULTS_CONTAINER": ""})
    row = app.submit("unkept.txt")
    app.job_ended(row)
    record = app.ledger.get(row.key)
    assert record is not None
    services.follower.look(record)
    row = app.row("unkept.txt")
    assert (row.job_status, row.result_location) == ("COMPLETED", None)
    assert not any("/api/results/" in request for request in app.requests_about(row))


def test_each_look_costs_one_request(app: App) -> None:
    """A look at a running job is one GET; the last one adds one for the results."""
    row = app.submit("costs.txt", submitted_seconds=0.0, running_seconds=3600.0)
    for _ in range(3):
        row = app.look(row)
    details = f"GET /api/jobs/{row.job_identifier}"
    assert app.requests_about(row) == [details] * 3
    app.stack.modzy.jobs.cancel(app.stack.modzy.jobs.find(str(row.job_identifier)))
    app.look(row)
    assert app.requests_about(row) == [details] * 4


def test_nobody_looks_before_the_time_set_by_a_colleague(app: App) -> None:
    """A reminder that comes while the next look is in the future asks Modzy nothing."""
    row = app.look(app.submit("early.txt", running_seconds=3600.0))
    asked = len(app.requests_about(row))
    app.services.relay.advance(row.key)
    assert len(app.requests_about(row)) == asked


def test_path_too_long_for_a_blob_below_it_is_cut(app: App) -> None:
    """A file whose path fills a blob name has its results under a shortened path."""
    path = "långt/" + "x" * 1000
    row = app.finish(path)
    assert row.job_status == "COMPLETED"
    assert row.result_location is not None
    prefix = row.result_location.partition("/")[2]
    assert prefix.endswith(f"~{row.key.row}/{row.job_identifier}")
    assert app.stack.results.download_blob(f"{prefix}/results.json").readall()


# -- pure parts ----------------------------------------------------------------------------------


def finished_row(path: str = "a.txt") -> Submission:
    """A row with a job."""
    memory = Memory()
    return memory.submit(path)


def results_of(document: dict[str, Any]) -> Results:
    """A decoded results document."""
    return Results.from_document(document, "a-job")


def test_partial_failure_tells_how_many_and_why() -> None:
    """Failed inputs are counted among all, each reason told once."""
    fine = {"status": "SUCCESSFUL", "results.json": {}}
    document = {
        "results": {"a": fine, "b": fine},
        "failures": {
            "c": {"status": "FAILED", "error": "too\nlarge"},
            "d": {"status": "FAILED", "error": "too\nlarge"},
            "e": {"status": "FAILED"},
        },
    }
    summary = failure_summary(results_of(document))
    assert summary == "3 of 5 inputs failed: no reason given; too large"


def test_hostile_file_names_stay_below_the_prefix() -> None:
    """Names of result files cannot leave the job's folder, hide the document or each other."""
    memory = Memory()
    base = "https://modzy.test/api/results/x/y/"
    names = ["../../evil.bin", "..", "results.json", "a/b\\c.bin", " .hidden ", "\ud800.bin"]
    names += ["\x00\x1f.bin", "x" * 500 + ".bin", "a_b_c.bin"]
    memory.modzy.links = {name: f"{base}{number}" for number, name in enumerate(names)}
    memory.modzy.files = {url: url.encode() for url in memory.modzy.links.values()}
    memory.submit()
    row = memory.run()
    prefix = f"uploads/a.txt/{row.job_identifier}/"
    stored = {name.removeprefix(prefix): it for name, it in memory.results.blobs.items()}
    # The document's own "results.json" of this double's item gives way to the link of that name.
    assert set(stored) == {
        ".._.._evil.bin".strip("."),
        "file",
        "output-results.json",
        "a_b_c.bin",
        "2-a_b_c.bin",
        "hidden",
        "_.bin",
        "__.bin",
        ("x" * 500 + ".bin")[-120:],
        "results.json",
    }
    assert json.loads(stored["results.json"][0])["jobIdentifier"] == row.job_identifier
    assert stored["2-a_b_c.bin"][0] == f"{base}8".encode()


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("image/png", "image/png"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("nonsense", "application/octet-stream"),
        ("text/plain; title=\xfc", "application/octet-stream"),
        ("", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_content_type_is_kept_if_it_is_one(
    monkeypatch: pytest.MonkeyPatch, told: str | None, kept: str
) -> None:
    """A file keeps its content type; a header that storage would refuse does not keep it back."""

    @contextmanager
    def open_file(_: str) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(content_type=told, iter_chunks=lambda: iter([b"ab", b"c"]))

    memory = Memory()
    memory.modzy.links = {"file": "https://modzy.test/api/results/x/y/file"}
    monkeypatch.setattr(memory.modzy, "open_file", open_file)
    memory.submit()
    row = memory.run()
    assert memory.results.blobs[f"uploads/a.txt/{row.job_identifier}/file"] == (b"abc", kept)


def test_document_survives_what_utf8_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a surrogate pair in a document, legal in JSON, is stored and read back as it was."""
    memory = Memory()
    memory.submit()
    answer = memory.modzy.results

    def results(job: str) -> Results | None:
        whole = answer(job)
        if whole is None:
            return None
        return Results.from_document({**whole.document, "odd": "\ud800 語"}, job)

    monkeypatch.setattr(memory.modzy, "results", results)
    memory.run()
    ((content, _),) = memory.results.blobs.values()
    assert json.loads(content)["odd"] == "\ud800 語"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1024))
def test_prefix_leaves_room_for_file_names(path: str) -> None:
    """Whatever the path, a result file's name fits into a blob name, and names its job."""
    row = finished_row()
    row = dataclasses.replace(row, version=dataclasses.replace(row.version, path=path))
    prefix = result_prefix(row)
    assert len(prefix.encode("utf-16-le")) // 2 + 1 + 140 <= 1024
    assert prefix.endswith(f"/{row.job_identifier}")
    assert prefix.startswith("uploads/")


def test_many_segments_are_cut() -> None:
    """A path at Azure's limit of segments leaves room for those that the results add."""
    row = finished_row("/".join(["d"] * 254))
    assert (result_prefix(row) + "/results.json").count("/") + 1 <= 254


@given(st.text())
def test_one_line_is_one_line_of_unicode(text: str) -> None:
    """Whatever the text, the result can be encoded and has no line break."""
    line = one_line(text)
    assert line.encode("utf-8").decode() == line
    assert len(line.splitlines()) <= 1
