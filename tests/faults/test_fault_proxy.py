"""The fault proxy: what it recognises, and on which side of an effect it strikes."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests

from sandbox.fault_proxy import (
    BLOB,
    MODZY,
    QUEUE,
    TABLE,
    Answer,
    Effect,
    Fault,
    FaultProxy,
    Journal,
    Names,
    Sighting,
    When,
    cut,
    hang,
    hold,
    status,
)
from sandbox.http_service import LoopbackService, RefusedError, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = Names("uploads", "Ledger", "jobs", "due", "results")
ROW = "2026-11-23-a.a123456789abcdef01234567"
ENTITY_PATH = "/acc/Ledger(PartitionKey='2026-11-23-a',RowKey='a123456789abcdef01234567')"


@dataclass
class Service:
    """Stands for the emulator and Modzy: counts what reaches it."""

    reached: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Response:
        """Everything is fine."""
        self.reached.append(f"{request.method} {request.path}")
        return Response(200, b"" if request.method == "HEAD" else b"real", {"ETag": "e1"})

    def administer(self, request: Request) -> Response:
        """Nothing to administer."""
        raise RefusedError(404, request.path)

    def error(self, status: int, message: str) -> Response:
        """An error."""
        return Response(status, message.encode())


@dataclass
class Process:
    """Stands for the app process: notes what had reached the service when it was struck."""

    service: Service
    struck: list[tuple[str, int]] = field(default_factory=list)

    def kill(self) -> None:
        """SIGKILL."""
        self.struck.append(("kill", len(self.service.reached)))

    def pause(self) -> None:
        """SIGSTOP."""
        self.struck.append(("pause", len(self.service.reached)))

    def resume(self) -> None:
        """SIGCONT."""
        self.struck.append(("resume", len(self.service.reached)))


@dataclass
class Bench:
    """A proxy in front of a service, with its journal."""

    service: Service
    proxy: FaultProxy
    journal: Journal
    process: Process
    url: str

    def head(self) -> requests.Response:
        """The relay's first effect."""
        return requests.head(f"{self.url}/acc/uploads/a.txt", timeout=1)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A proxy for blobs."""
    service = Service()
    journal = Journal(NAMES)
    with (
        LoopbackService("upstream", service) as upstream,
        FaultProxy("app", {BLOB: upstream.url}, journal) as proxy,
    ):
        proxy.process = Process(service)
        yield Bench(service, proxy, journal, proxy.process, proxy.through(upstream.url))


def message(content: dict[str, Any]) -> bytes:
    """A queue message as the SDK sends it."""
    text = base64.b64encode(json.dumps(content).encode()).decode()
    return f"<QueueMessage><MessageText>{text}</MessageText></QueueMessage>".encode()


def entity(**members: Any) -> bytes:
    """A row as the SDK sends it."""
    partition, row = ROW.split(".")
    return json.dumps(
        {"PartitionKey": partition, "RowKey": row, "path": "in/a.txt", **members}
    ).encode()


JOB = json.dumps(
    {
        "input": {
            "storageAccountKey": "a2V5",
            "sources": {
                f"a-txt.{ROW}": {"input": {"container": "uploads", "filePath": "in/a.txt"}}
            },
        }
    }
).encode()
EVENT = {
    "subject": "in/a.txt",
    "type": "modzy.job.submitted",
    "data": {"ledger_key": ROW},
}


@pytest.mark.parametrize(
    ("service", "method", "path", "body", "effect", "blob", "row", "detail"),
    [
        (BLOB, "HEAD", "/acc/uploads/in/a%20b.txt", b"", Effect.HEAD, "in/a b.txt", None, None),
        (BLOB, "GET", "/acc/uploads", b"", Effect.LIST, None, None, None),
        (
            BLOB,
            "PUT",
            "/acc/results/x/results.json",
            b"",
            Effect.STORE,
            None,
            None,
            "x/results.json",
        ),
        (
            TABLE,
            "POST",
            "/acc/Ledger",
            entity(state="SUBMITTING"),
            Effect.INSERT,
            "in/a.txt",
            ROW,
            "SUBMITTING",
        ),
        (
            TABLE,
            "PUT",
            ENTITY_PATH,
            entity(state="SUBMITTED"),
            Effect.RECORD,
            "in/a.txt",
            ROW,
            "SUBMITTED",
        ),
        (TABLE, "GET", ENTITY_PATH, b"", Effect.READ, None, ROW, None),
        (
            TABLE,
            "PUT",
            "/acc/Ledger(PartitionKey='job-1',RowKey='submission')",
            b"{}",
            Effect.POINTER,
            None,
            None,
            "job-1",
        ),
        (
            QUEUE,
            "POST",
            "/acc/due/messages",
            message({"ledger_key": ROW}),
            Effect.REMIND,
            None,
            ROW,
            None,
        ),
        (
            QUEUE,
            "POST",
            "/acc/jobs/messages",
            message(EVENT),
            Effect.ANNOUNCE,
            "in/a.txt",
            ROW,
            "modzy.job.submitted",
        ),
        (MODZY, "POST", "/api/jobs", JOB, Effect.POST, "in/a.txt", ROW, "aedbcece"),
        (MODZY, "GET", "/api/jobs/history", b"", Effect.HISTORY, None, None, None),
        (MODZY, "GET", "/api/jobs/1", b"", Effect.JOB, None, None, "1"),
        (MODZY, "DELETE", "/api/jobs/1", b"", Effect.CANCEL, None, None, "1"),
        (MODZY, "GET", "/api/models/m/versions/1", b"", Effect.MODEL, None, None, None),
    ],
)
def test_recognises_the_relays_effects(
    service: str,
    method: str,
    path: str,
    body: bytes,
    effect: Effect,
    blob: str | None,
    row: str | None,
    detail: str | None,
) -> None:
    """Each request is told apart by method, path and body, and led back to its blob and row."""
    request = Request(method, path, path, {}, {}, body, datetime.now(UTC))
    seen, _ = Journal(NAMES).note("app", service, request)
    assert (seen.effect, seen.path, seen.row, seen.detail) == (effect, blob, row, detail)


def test_a_row_is_led_back_to_its_blob_once_it_was_seen_with_it() -> None:
    """A reminder names its row only; the journal knows the blob from the insert before it."""
    journal = Journal(NAMES)
    for service, path, body in (
        (TABLE, "/acc/Ledger", entity(state="SUBMITTING")),
        (QUEUE, "/acc/due/messages", message({"ledger_key": ROW})),
    ):
        journal.note("app", service, Request("POST", path, path, {}, {}, body, datetime.now(UTC)))
    assert [seen.path for seen in journal.sightings] == ["in/a.txt", "in/a.txt"]


def test_passes_requests_on_unchanged(bench: Bench) -> None:
    """Without a fault the app gets the service's own answer, and the journal its status."""
    answer = bench.head()
    assert (answer.status_code, answer.headers["ETag"]) == (200, "e1")
    assert bench.service.reached == ["HEAD /acc/uploads/a.txt"]
    assert [seen.status for seen in bench.journal.sightings] == [200]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (cut(), requests.ConnectionError),
        (cut(reset=True), requests.ConnectionError),
        (hang(30), requests.ReadTimeout),
    ],
)
@pytest.mark.parametrize("when", list(When))
def test_the_service_sees_a_lost_request_only_after(
    bench: Bench, when: When, answer: Answer, error: type[Exception]
) -> None:
    """BEFORE: the service has not seen it. AFTER: it has, and the app does not hear of it."""
    bench.journal.add(Fault(effect=Effect.HEAD, when=when, answer=answer))
    with pytest.raises(error):
        bench.head()
    assert len(bench.service.reached) == (1 if when is When.AFTER else 0)
    assert bench.journal.sightings[0].done is (when is When.AFTER)


@pytest.mark.parametrize("when", list(When))
def test_answers_with_a_status_on_either_side(bench: Bench, when: When) -> None:
    """The app gets the ordered status, whether or not the service has carried the request out."""
    bench.journal.add(
        Fault(effect=Effect.HEAD, when=when, answer=status(503, headers={"Retry-After": "7"}))
    )
    answer = bench.head()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert len(bench.service.reached) == (1 if when is When.AFTER else 0)


@pytest.mark.parametrize("when", list(When))
def test_kills_exactly_at_the_point(bench: Bench, when: When) -> None:
    """The process is killed before the service sees the request, or once it has answered."""
    bench.journal.add(
        Fault(
            effect=Effect.HEAD,
            when=when,
            act=lambda proxy, _seen: proxy.kill_app(),
            answer=cut(reset=True),
        )
    )
    with pytest.raises(requests.ConnectionError):
        bench.head()
    assert bench.process.struck == [("kill", 1 if when is When.AFTER else 0)]


def test_strikes_the_wanted_occurrences_only(bench: Bench) -> None:
    """``nth`` and ``count`` choose which effects are struck; other blobs are left alone."""
    fault = Fault(
        effect=Effect.HEAD, when=When.BEFORE, answer=status(500), path="a.txt", nth=2, count=2
    )
    bench.journal.add(fault)
    other = requests.head(f"{bench.url}/acc/uploads/b.txt", timeout=5)
    answers = [bench.head().status_code for _ in range(4)]
    assert (other.status_code, answers, fault.fired) == (200, [200, 500, 500, 200], 2)


def test_holds_a_request_in_the_network(bench: Bench) -> None:
    """The app has given up waiting when the service gets the request."""
    bench.journal.add(Fault(effect=Effect.HEAD, when=When.BEFORE, answer=hold(1.5)))
    with pytest.raises(requests.ReadTimeout):
        bench.head()
    assert bench.service.reached == []
    assert _eventually(lambda: bench.service.reached == ["HEAD /acc/uploads/a.txt"])


def test_refuses_connections_for_a_while(bench: Bench) -> None:
    """An outage begins at the point of the fault and ends by itself."""

    def refuse(proxy: FaultProxy, seen: Sighting) -> None:
        proxy.refuse(seen.service, 0.5)

    bench.journal.add(Fault(effect=Effect.HEAD, when=When.BEFORE, act=refuse, answer=cut()))
    with pytest.raises(requests.ConnectionError):
        bench.head()
    assert _eventually(lambda: _answers(bench))


def test_freezes_and_lets_go_on(bench: Bench) -> None:
    """A frozen process is resumed by the proxy, not by the one who set the fault."""
    bench.journal.add(
        Fault(
            effect=Effect.HEAD,
            when=When.BEFORE,
            act=lambda proxy, _seen: proxy.freeze_app(0.2),
        )
    )
    bench.head()
    assert _eventually(lambda: [name for name, _ in bench.process.struck] == ["pause", "resume"])


def _eventually(met: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _answers(bench: Bench) -> bool:
    try:
        return bench.head().ok
    except requests.ConnectionError:
        return False
