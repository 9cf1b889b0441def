"""A reverse proxy on loopback that knows the relay's effects and disturbs them at exact points.

It stands between one app process and the services the relay uses: blobs, queues and tables of the
emulator, and Modzy. Each request is recognised as an ``Effect`` from its method, path and body,
noted in a ``Journal``, and passed on byte for byte: a SharedKey signature covers the path but not
the host, so signed requests of path-style accounts stay valid.

A ``Fault`` names an effect and a side of it. ``BEFORE`` means that the service has not seen the
request, ``AFTER`` that it has answered and the app has not heard it. At that point the proxy
calls the fault's ``act`` (kill or freeze the app, step a clock, overwrite the blob) and only then
goes on, so that the point is exact and does not depend on luck; then it gives the fault's
``Answer`` in place of the service's.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import enum
import hashlib
import itertools
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

from sandbox.forwarding import Forwarder
from sandbox.http_service import LoopbackService, Plan, Request, Response, Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

BLOB, QUEUE, TABLE, MODZY = "Blob", "Queue", "Table", "Modzy"

_ENTITY = re.compile(r"\(PartitionKey='([^']*)',RowKey='([^']*)'\)$")
_ROW_PARTITION = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]")


class Effect(enum.StrEnum):
    """What a request of the relay does."""

    HEAD = "HEAD"  # asks for the blob's present version
    INSERT = "insert"  # claims a version
    MODEL = "model"  # asks for the name of the model's input
    POST = "POST"  # submits the job
    ANNOUNCE = "announcement"  # to JOBS_QUEUE
    REMIND = "reminder"  # to DUE_QUEUE
    RECORD = "record"  # changes a row
    READ = "read"  # reads a row
    HISTORY = "history"
    JOB = "job"
    CANCEL = "cancel"
    RESULTS = "results"
    STORE = "store"  # writes a result
    POINTER = "pointer"  # makes a submission findable by path or job
    LIST = "list"
    OTHER = "other"


class When(enum.StrEnum):
    """On which side of the effect a fault strikes."""

    BEFORE = "before"
    AFTER = "after"


class Process(Protocol):
    """The app process behind the proxy."""

    def kill(self) -> None:
        """SIGKILL."""

    def pause(self) -> None:
        """SIGSTOP."""

    def resume(self) -> None:
        """SIGCONT."""


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """What the app calls its containers, table and queues."""

    container: str
    table: str
    jobs_queue: str
    due_queue: str
    results_container: str


@dataclasses.dataclass(slots=True)
class Sighting:
    """One request that came by.

    Attributes:
        number: position in the journal.
        proxy: name of the proxy, and so of the app process.
        service: ``BLOB``, ``QUEUE``, ``TABLE`` or ``MODZY``.
        path: the blob's path, where the request or an earlier one tells it.
        row: the submission's ledger key, likewise.
        detail: the state that is written, the type of the event, which storage key is sent.
        at: monotonic seconds of its arrival.
        fault: the fault that met it.
        status: what the service answered; None if it was not asked, or gave no answer.
        answered: position in the journal when the service had answered.
    """

    number: int
    proxy: str
    service: str
    effect: Effect
    path: str | None
    row: str | None
    detail: str | None
    at: float
    fault: str | None = None
    status: int | None = None
    answered: int | None = None

    @property
    def done(self) -> bool:
        """Whether the service carried it out."""
        return self.status is not None and self.status < 300


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the app gets in place of the service's answer.

    Attributes:
        action: the action of ``sandbox.http_service`` on either side of the effect.
    """

    name: str
    action: Mapping[When, Mapping[str, Any]]


def cut(*, reset: bool = False) -> Answer:
    """The connection ends without an answer, by FIN or by RST."""
    return Answer(
        "reset" if reset else "cut",
        {
            When.BEFORE: {"do": "cut_before", "reset": reset},
            When.AFTER: {"do": "cut_after", "reset": reset},
        },
    )


def hang(seconds: float) -> Answer:
    """Nothing comes for that long, then the connection ends."""
    return Answer(
        "hang",
        {
            When.BEFORE: {"do": "hang", "seconds": seconds},
            When.AFTER: {"do": "lose_answer", "seconds": seconds},
        },
    )


def status(code: int, body: object = "", headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with this status."""
    given = {"status": code, "body": body, "headers": headers or {}}
    return Answer(
        str(code),
        {
            When.BEFORE: {"do": "status", **given},
            When.AFTER: {"do": "accept_then_status", **given},
        },
    )


def hold(seconds: float) -> Answer:
    """The request stays in the network for that long and is carried out then."""
    return Answer("hold", {When.BEFORE: {"do": "delay", "before": seconds}})


@dataclasses.dataclass(slots=True, kw_only=True)
class Fault:
    """Where a fault strikes, and what happens there.

    Attributes:
        act: is called at the point, before anything goes on.
        answer: given in place of the service's; None: the service's own.
        path, detail: only for effects of this blob, with this detail.
        nth: the first matching effect that it strikes, counted from 1.
        count: how many it strikes; None for all from there on.
        fired: how many it has struck.
    """

    effect: Effect
    when: When
    act: Callable[[FaultProxy, Sighting], object] | None = None
    answer: Answer | None = None
    path: str | None = None
    detail: str | None = None
    nth: int = 1
    count: int | None = 1
    matched: int = 0
    fired: int = 0

    def strikes(self, seen: Sighting) -> bool:
        """Whether it strikes this effect; counts it if so."""
        wanted = (self.effect, self.path or seen.path, self.detail or seen.detail)
        if wanted != (seen.effect, seen.path, seen.detail):
            return False
        self.matched += 1
        if self.matched < self.nth or (self.count is not None and self.fired >= self.count):
            return False
        self.fired += 1
        return True

    def __str__(self) -> str:
        return f"{self.when} {self.effect}: {self.answer.name if self.answer else 'act'}"


class Journal:
    """What came by, in order, and the faults that wait; shared by the proxies of one app."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._sightings: list[Sighting] = []
        self._faults: list[Fault] = []
        self._paths: dict[str, str] = {}

    def add(self, fault: Fault) -> Fault:
        """Let a fault wait for its effect."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        """From now on nothing goes wrong any more."""
        with self._lock:
            self._faults.clear()

    @property
    def sightings(self) -> Sequence[Sighting]:
        """Everything so far, oldest first."""
        with self._lock:
            return list(self._sightings)

    def note(self, proxy: str, service: str, request: Request) -> tuple[Sighting, Fault | None]:
        """Recognise a request; returns it with the fault that strikes it."""
        effect, path, row, detail = _recognise(service, request, self._names)
        with self._lock:
            if path is not None and row is not None:
                self._paths[row] = path
            path = path or self._paths.get(row or "")
            seen = Sighting(
                next(self._numbers), proxy, service, effect, path, row, detail, time.monotonic()
            )
            self._sightings.append(seen)
            struck = next((fault for fault in self._faults if fault.strikes(seen)), None)
        if struck is not None:
            seen.fault = str(struck)
        return seen, struck

    def answered(self, seen: Sighting, code: int) -> None:
        """The service has answered."""
        with self._lock:
            seen.status = code
            seen.answered = next(self._numbers)


class FaultProxy:
    """The proxy of one app process; also a context manager.

    Args:
        name: of the app process, for the journal.
        upstreams: address of each service, ``http://127.0.0.1:<port>``.
        journal: notes what comes by.

    Attributes:
        process: the app process, for faults that kill or freeze it.
    """

    def __init__(self, name: str, upstreams: Mapping[str, str], journal: Journal) -> None:
        self.name = name
        self.process: Process | None = None
        self._authorities = {service: urlsplit(url).netloc for service, url in upstreams.items()}
        self._services: dict[str, LoopbackService] = {}
        for service, authority in self._authorities.items():
            loopback = LoopbackService(
                f"fault-proxy.{name}",
                _Forwarder(authority, journal),
                secret_members=("storageAccountKey",),
            )
            loopback.rules = _FaultRules(self, service, journal)
            self._services[service] = loopback
        self._timers: list[threading.Timer] = []
        self._outage_lock = threading.Lock()
        self._refused_until: dict[str, float] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            for loopback in self._services.values():
                starting.enter_context(loopback)
            starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()
        for loopback in self._services.values():
            loopback.stop()

    def through(self, text: str) -> str:
        """A connection string or URL that leads through this proxy instead."""
        for service, authority in self._authorities.items():
            text = text.replace(authority, self._services[service].authority)
        return text

    def kill_app(self) -> None:
        """End the app process at once; it has ended when this returns."""
        self._app().kill()

    def freeze_app(self, seconds: float | None = None) -> None:
        """Stop the app process now, and let it go on after a while; None: somebody else does."""
        process = self._app()
        process.pause()
        if seconds is not None:
            self._later(seconds, process.resume)

    def refuse(self, service: str, seconds: float) -> None:
        """From now on connections to a service are refused, and open ones end, for a while."""
        with self._outage_lock:
            until = time.monotonic() + seconds
            self._refused_until[service] = max(until, self._refused_until.get(service, 0.0))
        # Not in this thread: it may be one that serves a connection, and those are waited for.
        self._later(0, lambda: self._refuse_now(service))
        self._later(seconds, lambda: self._accept_when_over(service))

    def _refuse_now(self, service: str) -> None:
        with self._outage_lock:
            self._services[service].refuse_connections()

    def _accept_when_over(self, service: str) -> None:
        with self._outage_lock:
            if time.monotonic() >= self._refused_until[service]:
                self._services[service].accept_connections()

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _app(self) -> Process:
        if self.process is None:
            raise RuntimeError(f"proxy {self.name} does not know its app process")
        return self.process


class _FaultRules(Rules):
    """Makes the plan of one request from the journal's faults."""

    def __init__(self, proxy: FaultProxy, service: str, journal: Journal) -> None:
        super().__init__()
        self._proxy = proxy
        self._service = service
        self._journal = journal

    def plan(self, request: Request) -> Plan:
        """Note the request; carry out what a fault wants before the service sees it."""
        seen, fault = self._journal.note(self._proxy.name, self._service, request)
        plan = Plan(options={"seen": seen})
        if fault is None:
            return plan
        if fault.answer is not None:
            plan.add(fault.answer.action[fault.when])
        if fault.act is not None:
            if fault.when is When.BEFORE:
                fault.act(self._proxy, seen)
            else:
                act = fault.act
                plan.options["act"] = lambda: act(self._proxy, seen)
        return plan


class _Forwarder(Forwarder):
    """Asks the service behind the proxy, and acts on its answer."""

    def __init__(self, authority: str, journal: Journal) -> None:
        super().__init__(authority)
        self._journal = journal

    def answer(self, request: Request) -> Response:
        """Pass a request on. Raises OSError, which ends the connection without an answer."""
        response = self.forward(request)
        self._journal.answered(request.options["seen"], response.status)
        if "act" in request.options:
            request.options["act"]()
        return response


_Recognised = tuple[Effect, str | None, str | None, str | None]


def _recognise(service: str, request: Request, names: Names) -> _Recognised:
    """Effect, path of the blob, ledger key of the row, and detail of a request."""
    return _RECOGNISERS[service](request, request.segments(), names)


def _blob_effect(request: Request, segments: Sequence[str], names: Names) -> _Recognised:
    container = segments[1] if len(segments) > 1 else ""
    name = "/".join(segments[2:]) or None
    if container == names.container and name is None:
        return Effect.LIST, None, None, None
    if container == names.container and request.method == "HEAD":
        return Effect.HEAD, name, None, None
    if container == names.results_container:
        return Effect.STORE, None, None, name
    return Effect.OTHER, name, None, None


def _queue_effect(request: Request, segments: Sequence[str], names: Names) -> _Recognised:
    # A message as it is sent: <QueueMessage><MessageText>eyJsZWRnZXJfa2V5...</MessageText>...
    if request.method != "POST" or segments[2:] != ["messages"]:
        return Effect.OTHER, None, None, None
    # The relay's own request, from this machine.
    text = ET.fromstring(request.body).findtext("MessageText") or ""  # noqa: S314
    content = json.loads(base64.b64decode(text))
    if segments[1] == names.due_queue:
        return Effect.REMIND, None, content["ledger_key"], None
    if segments[1] == names.jobs_queue:
        return Effect.ANNOUNCE, content["subject"], content["data"]["ledger_key"], content["type"]
    return Effect.OTHER, None, None, None


def _table_effect(request: Request, segments: Sequence[str], names: Names) -> _Recognised:
    # /devstoreaccount1/ModzySubmissions(PartitionKey='2026-11-23-a',RowKey='a0123...')
    place = unquote("/".join(segments[1:]))
    if not place.startswith(names.table):
        return Effect.OTHER, None, None, None
    if request.method == "POST":
        entity = request.json()
        key = f"{entity['PartitionKey']}.{entity['RowKey']}"
        return Effect.INSERT, entity["path"], key, entity["state"]
    found = _ENTITY.search(place)
    if found is None:
        return Effect.OTHER, None, None, None
    if not _ROW_PARTITION.fullmatch(found[1]):
        return (Effect.OTHER if request.method == "GET" else Effect.POINTER), None, None, found[1]
    key = f"{found[1]}.{found[2]}"
    if request.method == "GET":
        return Effect.READ, None, key, None
    entity = request.json()
    return Effect.RECORD, entity["path"], key, entity["state"]


def _modzy_effect(request: Request, segments: Sequence[str], _names: Names) -> _Recognised:
    match (request.method, segments[1:]):
        case ("POST", ["jobs"]):
            return next(_submitted(request))
        case ("GET", ["jobs", "history"]):
            return Effect.HISTORY, None, None, None
        case ("GET", ["jobs", identifier]):
            return Effect.JOB, None, None, identifier
        case ("DELETE", ["jobs", identifier]):
            return Effect.CANCEL, None, None, identifier
        case ("GET", ["results", *_]):
            return Effect.RESULTS, None, None, None
        case ("GET", ["models", *_]):
            return Effect.MODEL, None, None, None
        case _:
            return Effect.OTHER, None, None, None


def _submitted(request: Request) -> Iterator[_Recognised]:
    # sources, as sent: {"<item key>": {"<input name>": {"container": ..., "filePath": ...}}}
    for item_key, inputs in request.json()["input"]["sources"].items():
        row = ".".join(item_key.rsplit(".", 2)[1:])
        for blob in inputs.values():
            yield Effect.POST, blob["filePath"], row, _fingerprint(request)


def _fingerprint(request: Request) -> str:
    """Tells storage keys apart without showing them."""
    key: str = request.json()["input"]["storageAccountKey"]
    return hashlib.sha256(key.encode()).hexdigest()[:8]


_RECOGNISERS: Mapping[str, Callable[[Request, Sequence[str], Names], _Recognised]] = {
    BLOB: _blob_effect,
    QUEUE: _queue_effect,
    TABLE: _table_effect,
    MODZY: _modzy_effect,
}
