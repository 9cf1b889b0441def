"""The functions in Microsoft's worker library: endpoints, memory, and SIGKILL while finishing."""

from __future__ import annotations

import contextlib
import hashlib
import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from follow_world import Events, until

from sandbox.fault_proxy import Effect, Fault, FaultProxy, Journal, Names, When, cut
from sandbox.host.child import FunctionsHost
from sandbox.stack import REPOSITORY, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIB = 1024 * 1024


class Running:
    """The app in a host of its own, on a stack of its own."""

    def __init__(self, stack: Stack, host: FunctionsHost) -> None:
        self.stack = stack
        self.host = host
        self.events = Events(stack)

    def get(self, **query: str) -> requests.Response:
        """``GET /api/submissions`` with the function key."""
        return requests.get(
            f"{self.host.url}/api/submissions",
            query,
            headers={"x-functions-key": self.host.function_key},
            timeout=30,
        )

    def hint(self, body: bytes, *, key: str | None = None) -> requests.Response:
        """Call the webhook."""
        return requests.post(
            f"{self.host.url}/api/modzy/job-completed",
            body,
            headers={"x-functions-key": key} if key is not None else {},
            timeout=30,
        )

    def upload(self, path: str, content: bytes = b"a good day", **options: object) -> None:
        """Upload a file; ``options`` are the stand-in's for its job."""
        if options:
            self.stack.modzy.misbehave({"do": "job", "options": options})
        self.stack.uploads.upload_blob(path, content)

    def submitted(self, path: str) -> dict[str, Any]:
        """Wait until a file's job is known."""

        def newest() -> dict[str, Any]:
            answer = self.get(path=path)
            return dict(answer.json()["submissions"][0]) if answer.ok else {}

        return until(newest, lambda it: it.get("job_identifier"))

    def finished(self, path: str) -> dict[str, Any]:
        """Have a file's job looked at as soon as it has ended; wait until the row says so."""
        job = self.submitted(path)["job_identifier"]
        jobs = {it.identifier: it for it in self.stack.modzy.jobs.all()}
        until(lambda: jobs[job].is_final)
        body = json.dumps({"job": {"identifier": job}}).encode()
        answer = self.hint(body, key=self.host.function_key)
        assert (answer.status_code, answer.json()) == (HTTPStatus.OK, {"known": True})
        return until(lambda: dict(self.get(job=job).json()), lambda it: it.get("result_location"))

    def stored(self, submission: Mapping[str, Any]) -> list[str]:
        """Names of result files below the submission's path."""
        prefix = f"uploads/{submission['path']}/"
        return [
            blob.name.removeprefix(prefix)
            for blob in self.stack.results.list_blobs(name_starts_with=prefix)
        ]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One host for the tests that leave it alive."""
    with Stack(tmp_path_factory.mktemp("host"), job_seconds=0.06) as stack:
        host = stack.functions_host(["--scan-interval", "0.2"])
        with host:
            yield Running(stack, host)


def test_a_file_is_followed_and_found_over_http(running: Running) -> None:
    """Upload, webhook, results, event, lookups by path, id and job, through the real triggers."""
    running.upload("letters/grüße.txt", b"a wonderful day")
    found = running.finished("letters/grüße.txt")
    assert found["job_status"] == "COMPLETED"
    assert running.stored(found) == [f"{found['job_identifier']}/results.json"]
    by_path = running.get(path="letters/grüße.txt")
    assert by_path.headers["Content-Type"] == "application/json"
    assert by_path.json()["submissions"] == [found]
    assert running.get(id=found["id"]).json() == found
    (event,) = running.events.about("letters/grüße.txt")
    assert event["data"]["job_identifier"] == found["job_identifier"]
    assert running.get(path="no.txt").status_code == HTTPStatus.NOT_FOUND
    assert running.get().status_code == HTTPStatus.BAD_REQUEST
    assert "error" in running.get(path="no.txt").json()


@pytest.mark.parametrize("key", [None, "", "wrong"])
def test_without_the_function_key_nothing_runs(running: Running, key: str | None) -> None:
    """Both endpoints answer 401 before any of the app's code sees the call."""
    asked = len(running.stack.modzy.requests)
    body = json.dumps({"job": {"identifier": "14856eb1-0ad8-49e7-9da3-887acb80fea5"}}).encode()
    assert running.hint(body, key=key).status_code == HTTPStatus.UNAUTHORIZED
    lookup = requests.get(
        f"{running.host.url}/api/submissions",
        {"path": "a.txt"},
        headers={"x-functions-key": key} if key is not None else {},
        timeout=30,
    )
    assert lookup.status_code == HTTPStatus.UNAUTHORIZED
    assert len(running.stack.modzy.requests) == asked


def test_garbage_does_not_disturb_the_webhook(running: Running) -> None:
    """Nonsense and huge bodies are 4xx, and the next call is served."""
    key = running.host.function_key
    assert running.hint(b"\x00\xff", key=key).status_code == HTTPStatus.BAD_REQUEST
    huge = running.hint(b"[" * (5 * MIB), key=key)
    assert huge.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    unknown = json.dumps({"job": {"identifier": "14856eb1-0ad8-49e7-9da3-887acb80fea5"}}).encode()
    assert running.hint(unknown, key=key).json() == {"known": False}


def _peak_memory(pid: int) -> int:
    """The most memory that a process has held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_large_result_file_does_not_go_through_memory(running: Running) -> None:
    """50 MiB behind a link are stored byte for byte; the process grows by a fraction of that."""
    running.upload("small.bin", b"\x00\x01", binary_result=5 * MIB)
    running.finished("small.bin")
    before = _peak_memory(running.host.pid)
    running.upload("large.bin", b"\x00\x02", binary_result=50 * MIB)
    found = running.finished("large.bin")
    grown = _peak_memory(running.host.pid) - before
    digest = hashlib.sha256(b"\x00\x02").digest()
    name = f"uploads/large.bin/{found['job_identifier']}/digest.bin"
    content = running.stack.results.download_blob(name).readall()
    assert hashlib.sha256(content).digest() == _digest_of_repeated(digest, 50 * MIB)
    assert grown < 20 * MIB


def _digest_of_repeated(piece: bytes, size: int) -> bytes:
    return hashlib.sha256(piece * (size // len(piece))).digest()


def test_large_document_in_place_is_stored(running: Running) -> None:
    """A results document of 50 MiB, below the client's limit of 64, is stored whole."""
    running.upload("wide.txt", b"good", big_result=50 * MIB)
    found = running.finished("wide.txt")
    name = f"uploads/wide.txt/{found['job_identifier']}/results.json"
    with running.stack.results.get_blob_client(name) as blob:
        assert blob.get_blob_properties().size > 50 * MIB


# -- killed while finishing ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Journal]]:
    """A host behind a proxy that can kill it at exact points."""
    with contextlib.ExitStack() as closing:
        stack = closing.enter_context(Stack(tmp_path_factory.mktemp("kill"), job_seconds=0.06))
        names = Names(
            "uploads", "ModzySubmissions", "modzy-jobs", "modzy-relay-due", "modzy-results"
        )
        journal = Journal(names)
        addresses = {kind: stack.azurite.endpoint(kind) for kind in ("Blob", "Queue", "Table")}
        proxy = closing.enter_context(
            FaultProxy("app", {**addresses, "Modzy": stack.modzy.url}, journal)
        )
        settings = {name: proxy.through(value) for name, value in stack.settings.items()}
        options = ["--scan-interval", "0.2", "--queue-lease-seconds", "2"]
        host = FunctionsHost(REPOSITORY, settings, stack.folder / "functions.log", options)
        proxy.process = host
        closing.enter_context(host)
        yield Running(stack, host), journal


def _kill(proxy: FaultProxy, _: object) -> None:
    proxy.kill_app()


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize(
    ("effect", "detail", "nth"),
    [
        (Effect.STORE, None, 1),
        (Effect.ANNOUNCE, "modzy.job.finished", 1),
        # The first one is the webhook's own change.
        (Effect.RECORD, "SUBMITTED", 2),
    ],
    ids=["results", "event", "row"],
)
def test_killed_while_finishing(
    proxied: tuple[Running, Journal], when: When, effect: Effect, detail: str | None, nth: int
) -> None:
    """SIGKILL on either side of each effect: one result set, an event, a right row, one job."""
    running, journal = proxied
    path = f"killed-{when}-{effect.value}.txt"
    running.upload(path)
    submission = running.submitted(path)
    job = submission["job_identifier"]
    jobs = {it.identifier: it for it in running.stack.modzy.jobs.all()}
    until(lambda: jobs[job].is_final)
    # Killed before an effect, its request must not reach the service either.
    answer = cut() if when is When.BEFORE else None
    fault = journal.add(
        Fault(effect=effect, when=when, act=_kill, answer=answer, detail=detail, nth=nth)
    )
    body = json.dumps({"job": {"identifier": job}}).encode()
    running.hint(body, key=running.host.function_key)
    until(lambda: not running.host.running)
    assert fault.fired == 1

    running.host.start()
    running.host.wait_ready()
    found = until(lambda: dict(running.get(job=job).json()), lambda it: it.get("result_location"))
    assert (found["job_status"], found["reason"]) == ("COMPLETED", None)
    assert running.stored(found) == [f"{job}/results.json"]
    events = until(lambda: running.events.about(path))
    assert len({event["id"] for event in events}) == 1
    assert events[-1]["data"]["result_location"] == found["result_location"]
    assert running.stack.modzy.jobs_by_item()[found["input_item_key"]] == [job]
