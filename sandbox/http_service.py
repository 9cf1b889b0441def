"""Plumbing of the stand-in servers: HTTP/1.1 on loopback that misbehaves to order.

A stand-in is an ``Application`` (what is answered) behind a ``LoopbackService`` (how it
travels). The service keeps evidence of every request, and a list of ``Rule`` objects that says
which requests go wrong and how. Rules are set in process through ``LoopbackService.rules`` or,
from another process, as JSON under ``/_sandbox/``::

    PUT /_sandbox/rules
    [{"match": {"method": "POST", "path_regex": "^/api/jobs$"}, "count": 1,
      "action": {"do": "cut_after"}}]

``count`` is how often the rule fires (null: always), ``after`` how many matching requests it
lets pass first, ``probability`` (with ``seed``) the chance that it fires at all. ``path_regex``
is searched in the percent-encoded path without its query. Actions, by their ``do`` member:

=====================  =====================================================================
``status``             answer ``status`` with ``headers`` and ``body``; nothing is processed
``accept_then_status`` process, then answer like ``status``
``garbage``            process (``processed``), then answer ``status`` (200) with ``body``
                       (text goes out as it is, anything else as JSON)
``redirect``           answer ``status`` (307) to ``location``; nothing is processed
``cut_before``         close the connection unanswered, nothing processed (``reset``: by RST)
``cut_after``          process, then close the connection unanswered (``reset``: by RST)
``hang``               say nothing for ``seconds`` (null: until released), then close the
                       connection; ``processed`` says whether the request took effect
``lose_answer``        process, then behave like ``hang``
``delay``              wait ``before`` processing and ``after`` it, in seconds
``trickle``            send the answer one byte each ``interval`` seconds
``job``                hand ``options`` to the application with this request
=====================  =====================================================================

Delays add up and ``job`` options are merged over all rules that fire for a request; of the
other actions the first rule that fires decides, and later ones are not used up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import random
import re
import signal
import socket
import struct
import sys
import threading
import time
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

LOOPBACK = "127.0.0.1"
ADMIN_PREFIX = "/_sandbox/"
LARGEST_BODY = 16 * 1024 * 1024

_UNRECORDED_HEADERS = frozenset({"authorization", "cookie", "x-identity-header"})
_ACTION_MEMBERS: Mapping[str, frozenset[str]] = {
    "status": frozenset({"status", "headers", "body"}),
    "accept_then_status": frozenset({"status", "headers", "body"}),
    "garbage": frozenset({"status", "body", "processed"}),
    "redirect": frozenset({"status", "location"}),
    "cut_before": frozenset({"reset"}),
    "cut_after": frozenset({"reset"}),
    "hang": frozenset({"seconds", "processed"}),
    "lose_answer": frozenset({"seconds"}),
    "delay": frozenset({"before", "after"}),
    "trickle": frozenset({"interval"}),
    "job": frozenset({"options"}),
}
_PROCESSED = frozenset({"accept_then_status", "garbage", "cut_after", "lose_answer"})
_CUTS = frozenset({"cut_before", "cut_after"})
_SILENCES = frozenset({"hang", "lose_answer"})


class RefusedError(Exception):
    """A request that an application or an admin route answers with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read completely.

    Attributes:
        path: the path as sent, percent-encoded, without the query.
        query: decoded query members; the last one wins where a name is repeated.
        headers: by lower-case name.
        options: what ``job`` rules ask of the application for this request.
    """

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = dataclasses.field(repr=False)
    received: datetime
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def segments(self) -> list[str]:
        """Decoded path segments; an encoded slash stays inside its segment."""
        return [unquote(segment) for segment in self.path.strip("/").split("/")]

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            RefusedError: 400, the body is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer; ``Content-Length`` is added when it is sent."""

    status: int
    body: bytes = dataclasses.field(default=b"", repr=False)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_json(
        cls, content: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
    ) -> Response:
        """An answer with ``content`` as its JSON body."""
        typed = {"Content-Type": "application/json", **(headers or {})}
        return cls(status, json.dumps(content).encode(), typed)


class Application(Protocol):
    """What a stand-in answers, without a thought for sockets."""

    def answer(self, request: Request) -> Response:
        """Answer a request of the imitated service. May raise ``RefusedError``."""

    def administer(self, request: Request) -> Response:
        """Answer a request under ``/_sandbox/``. May raise ``RefusedError``."""

    def error(self, status: int, message: str) -> Response:
        """An error answer in the imitated service's own form."""


@dataclasses.dataclass(slots=True)
class Rule:
    """Which requests go wrong, and how; see the module's docstring.

    Raises:
        TypeError: a count that is no number.
        ValueError: an unknown or missing member, or a pattern that does not compile.
    """

    action: Mapping[str, Any]
    method: str | None = None
    path_regex: str = ""
    count: int | None = None
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    matched: int = dataclasses.field(default=0, init=False)
    fired: int = dataclasses.field(default=0, init=False)
    _chance: random.Random = dataclasses.field(init=False, repr=False)
    _pattern: re.Pattern[str] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 - repeatable faults, no secrecy
        try:
            self._pattern = re.compile(self.path_regex)
        except re.error as error:
            raise ValueError(f"path_regex: {error}") from error
        if not isinstance(self.after, int) or not isinstance(self.count, int | None):
            raise TypeError("count and after are whole numbers")
        allowed = _ACTION_MEMBERS.get(self.do)
        if allowed is None:
            raise ValueError(f"unknown action {self.do!r}; known: {sorted(_ACTION_MEMBERS)}")
        if unknown := set(self.action) - allowed - {"do"}:
            raise ValueError(f"{self.do} does not take {sorted(unknown)}")
        if self.do == "redirect" and "location" not in self.action:
            raise ValueError("redirect needs a location")

    @property
    def do(self) -> str:
        """The action's name."""
        return str(self.action.get("do"))

    @property
    def decides_answer(self) -> bool:
        """Whether this action, if it fires, is what the caller gets."""
        return self.do not in {"delay", "trickle", "job"}

    def fires(self, request: Request) -> bool:
        """Whether the rule applies to this request; counts it if so."""
        if self.method is not None and self.method != request.method:
            return False
        if not self._pattern.search(request.path):
            return False
        self.matched += 1
        if self.matched <= self.after or (self.count is not None and self.fired >= self.count):
            return False
        if self._chance.random() >= self.probability:
            return False
        self.fired += 1
        return True

    @classmethod
    def from_json(cls, content: object) -> Rule:
        """Read a rule as it travels on the admin route.

        Raises:
            TypeError: the rule, its action or a value in it has the wrong type.
            ValueError: an unknown or missing member, or a pattern that does not compile.
        """
        if not isinstance(content, dict) or not isinstance(content.get("action"), dict):
            raise TypeError("a rule is an object with an action")
        match = content.get("match", {})
        if not isinstance(match, dict) or set(match) - {"method", "path_regex"}:
            raise ValueError("match takes method and path_regex")
        members = {name: value for name, value in content.items() if name != "match"}
        if unknown := set(members) - {"action", "count", "after", "probability", "seed"}:
            raise ValueError(f"a rule does not take {sorted(unknown)}")
        return cls(**members, **match)

    def to_json(self) -> dict[str, Any]:
        """The rule with its counters, as the admin route shows it."""
        return {
            "match": {"method": self.method, "path_regex": self.path_regex},
            "count": self.count,
            "after": self.after,
            "probability": self.probability,
            "seed": self.seed,
            "action": dict(self.action),
            "matched": self.matched,
            "fired": self.fired,
        }


@dataclasses.dataclass(slots=True)
class Plan:
    """What the rules together make of one request."""

    fault: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    delay_before: float = 0.0
    delay_after: float = 0.0
    trickle: float = 0.0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def do(self) -> str:
        """Name of the deciding action, empty for a normal answer."""
        return str(self.fault.get("do", ""))

    @property
    def processed(self) -> bool:
        """Whether the request takes effect."""
        return bool(self.fault.get("processed", not self.fault or self.do in _PROCESSED))

    def add(self, action: Mapping[str, Any]) -> None:
        """Take in the action of one rule that fired."""
        match action["do"]:
            case "delay":
                self.delay_before += action.get("before", 0.0)
                self.delay_after += action.get("after", 0.0)
            case "trickle":
                self.trickle = action.get("interval", 0.01)
            case "job":
                self.options.update(action.get("options", {}))
            case _:
                self.fault = action


class Rules:
    """The rules of one service; safe to change while requests are served."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, rule: Rule) -> Rule:
        """Put a rule behind those that are there already, and return it."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def replace(self, rules: Iterable[Rule]) -> None:
        """Drop all rules for these."""
        with self._lock:
            self._rules = list(rules)

    def to_json(self) -> list[dict[str, Any]]:
        """All rules with their counters."""
        with self._lock:
            return [rule.to_json() for rule in self._rules]

    def plan(self, request: Request) -> Plan:
        """Decide what becomes of a request; uses up the rules that fire."""
        plan = Plan()
        with self._lock:
            for rule in self._rules:
                if plan.fault and rule.decides_answer:
                    continue
                if rule.fires(request):
                    plan.add(rule.action)
        return plan


@dataclasses.dataclass(slots=True)
class RecordedRequest:
    """Evidence of one request, without its secrets.

    Attributes:
        body: decoded JSON with the secret members removed; None for anything that is not JSON.
        outcome: the status that was answered, or the action that kept the answer back.
    """

    method: str
    target: str
    received: datetime
    headers: Mapping[str, str]
    body: Any
    outcome: str = "pending"

    def to_json(self) -> dict[str, Any]:
        """The record as the admin route shows it."""
        return {**dataclasses.asdict(self), "received": self.received.isoformat()}


def _without(content: Any, secret_members: frozenset[str]) -> Any:
    """A copy of decoded JSON in which the named members are missing at every depth."""
    if isinstance(content, dict):
        return {
            name: _without(value, secret_members)
            for name, value in content.items()
            if name not in secret_members
        }
    if isinstance(content, list):
        return [_without(value, secret_members) for value in content]
    return content


class LoopbackService:
    """Serves an application on ``127.0.0.1``, on threads that end with the process.

    Nothing listens before ``start``. The port, once known, stays the same through ``stop`` and
    ``start``, and through ``refuse_connections`` and ``accept_connections``.

    Args:
        name: of the service; its log is the logger ``sandbox.<name>``, one line a request.
        application: what answers.
        port: to listen on; 0 for a free one.
        tls: serve HTTPS with this context.
        secret_members: names of JSON members that are kept out of the recorded bodies.
        check_options: raises TypeError or ValueError for ``options`` of a ``job`` rule that the
            application cannot use; None when it has no use for such rules.
    """

    def __init__(
        self,
        name: str,
        application: Application,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        secret_members: Iterable[str] = (),
        check_options: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> None:
        self.application = application
        self.rules = Rules()
        self.log = logging.getLogger(f"sandbox.{name}")
        self.tls = tls
        self.stopping = threading.Event()
        self._port = port
        self._secret_members = frozenset(secret_members)
        self._check_options = check_options
        self._requests: list[RecordedRequest] = []
        self._release = threading.Event()
        self._server: _Server | None = None
        self._accepting: threading.Thread | None = None
        self._held_port: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port, 0 as long as it is not known."""
        return self._port

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def url(self) -> str:
        """Scheme and authority, without a trailing slash."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far in order of arrival, admin requests excepted."""
        return list(self._requests)

    def start(self) -> Self:
        """Listen and serve; does nothing when already serving.

        Raises:
            OSError: the port is taken.
        """
        if self._server is None:
            self._drop_held_port()
            self.stopping.clear()
            self._server = _Server(self)
            self._port = self._server.server_address[1]
            self._accepting = threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
            )
            self._accepting.start()
        return self

    def stop(self) -> None:
        """Close the listening socket and every connection, and wait for their threads."""
        self._drop_held_port()
        if self._server is None or self._accepting is None:
            return
        self.stopping.set()
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._accepting.join()
        self._server.close_connections()
        self._server = None

    def refuse_connections(self) -> None:
        """Stop, but keep the port: connecting is refused until ``accept_connections``."""
        self.stop()
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, self._port))
        self._held_port = held

    def accept_connections(self) -> None:
        """End ``refuse_connections``."""
        self.start()

    def check(self, rule: Rule) -> Rule:
        """Return a rule that this service can carry out.

        Raises:
            TypeError: the rule has options that the application does not know.
            ValueError: the application takes no options, or not these values.
        """
        if rule.do == "job":
            if self._check_options is None:
                raise ValueError("this service takes no job rules")
            self._check_options(rule.action.get("options", {}))
        return rule

    def release(self) -> None:
        """End every hanging request now."""
        self._release.set()
        self._release = threading.Event()

    def forget(self) -> None:
        """Drop the rules and the recorded requests, and release what hangs."""
        self.rules.replace([])
        self._requests.clear()
        self.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def serve(self, request: Request, connection: _Connection) -> None:
        """Answer one request on its connection, or misbehave as the rules say."""
        if request.path.startswith(ADMIN_PREFIX):
            connection.send(self._administer(request))
            return
        started = time.monotonic()
        plan = self.rules.plan(request)
        record = self._record(request)
        response = self._response(plan, dataclasses.replace(request, options=plan.options))
        record.outcome = plan.do if response is None else str(response.status)
        elapsed = (time.monotonic() - started) * 1000
        self.log.info("%s %s %s %.0f ms", request.method, request.target, record.outcome, elapsed)
        if response is not None:
            connection.send(response, trickle=plan.trickle)
            return
        if plan.do in _SILENCES:
            self._keep_silent(plan.fault.get("seconds"))
        connection.cut(reset=bool(plan.fault.get("reset", False)))

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the service."""
        if seconds > 0:
            self.stopping.wait(seconds)

    def _response(self, plan: Plan, request: Request) -> Response | None:
        """Process the request as far as the plan lets it; None: nothing is to be sent."""
        self.pause(plan.delay_before)
        response = self._answer(request) if plan.processed else None
        self.pause(plan.delay_after)
        if not plan.fault:
            return response
        if plan.do in _CUTS | _SILENCES:
            return None
        return self._ordered_answer(plan)

    def _keep_silent(self, seconds: float | None) -> None:
        release = self._release  # taken before looking at `stopping`, which `stop` sets first
        if not self.stopping.is_set():
            release.wait(seconds)

    def _answer(self, request: Request) -> Response:
        try:
            return self.application.answer(request)
        except RefusedError as refusal:
            return self.application.error(refusal.status, refusal.message)

    def _ordered_answer(self, plan: Plan) -> Response:
        fault = plan.fault
        headers = fault.get("headers", {})
        if plan.do == "redirect":
            return Response(fault.get("status", 307), headers={"Location": fault["location"]})
        status = fault.get("status", HTTPStatus.OK if plan.do == "garbage" else 500)
        if "body" not in fault:
            usual = self.application.error(status, "ordered by a sandbox rule")
            return dataclasses.replace(usual, headers={**usual.headers, **headers})
        if isinstance(fault["body"], str):
            typed = {"Content-Type": "text/html", **headers}
            return Response(status, fault["body"].encode(), typed)
        return Response.of_json(fault["body"], status, headers)

    def _administer(self, request: Request) -> Response:
        try:
            match (request.method, request.path.removeprefix(ADMIN_PREFIX)):
                case ("GET", "rules"):
                    return Response.of_json(self.rules.to_json())
                case ("PUT", "rules"):
                    self.rules.replace(self._read_rules(request))
                    return Response.of_json(self.rules.to_json())
                case ("DELETE", "rules"):
                    self.rules.replace([])
                    return Response.of_json([])
                case ("GET", "requests"):
                    return Response.of_json([record.to_json() for record in self.requests])
                case ("POST", "release"):
                    self.release()
                    return Response.of_json({})
                case _:
                    return self.application.administer(request)
        except RefusedError as refusal:
            return Response.of_json({"message": refusal.message}, refusal.status)

    def _read_rules(self, request: Request) -> list[Rule]:
        content = request.json()
        if not isinstance(content, list):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "rules are a list")
        try:
            return [self.check(Rule.from_json(rule)) for rule in content]
        except (TypeError, ValueError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _record(self, request: Request) -> RecordedRequest:
        try:
            body = _without(json.loads(request.body), self._secret_members)
        except ValueError:
            body = None
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in _UNRECORDED_HEADERS
        }
        record = RecordedRequest(request.method, request.target, request.received, headers, body)
        self._requests.append(record)
        return record

    def _drop_held_port(self) -> None:
        if self._held_port is not None:
            self._held_port.close()
            self._held_port = None


class _Server(ThreadingHTTPServer):
    """A threading server that can end its open keep-alive connections."""

    daemon_threads = True
    request_queue_size = 128  # bursts of connecting clients are part of the tests

    def __init__(self, service: LoopbackService) -> None:
        self.service = service
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__((LOOPBACK, service.port), _Connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; the TLS handshake is here so that it blocks no other client."""
        tls = self.service.tls
        connection = self._shake_hands(tls, request) if tls else request
        with self._lock:
            self._open[connection] = threading.current_thread()
        try:
            if not self.service.stopping.is_set():
                _Connection(connection, client_address, self)
        finally:
            with self._lock:
                del self._open[connection]
            connection.close()

    @staticmethod
    def _shake_hands(tls: ssl.SSLContext, request: socket.socket) -> ssl.SSLSocket:
        request.settimeout(5)  # a client that never speaks must not hold its thread for ever
        connection = tls.wrap_socket(request, server_side=True)
        connection.settimeout(None)
        return connection

    def close_connections(self) -> None:
        """Shut every open connection and wait for the threads that serve them."""
        with self._lock:
            still_open = dict(self._open)
        for connection in still_open:
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
        for thread in still_open.values():
            thread.join(timeout=10)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - signature
        """Log a defect of the stand-in; a client that went away or distrusts us is none."""
        error = sys.exception()
        if isinstance(error, OSError):
            self.service.log.debug("connection ended: %s", error)
        else:
            self.service.log.error("request failed", exc_info=error)


class _Connection(BaseHTTPRequestHandler):
    """Reads requests off one connection and hands them to the service."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle_one_request(self) -> None:
        """Serve the next request of a keep-alive connection, whatever its method."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if self.parse_request():
            self._serve()

    def _serve(self) -> None:
        service = self.server.service
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length", "0"))
        if "Transfer-Encoding" in self.headers or length > LARGEST_BODY:
            self.close_connection = True
            too_large = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            status = too_large if length else HTTPStatus.LENGTH_REQUIRED
            self.send(service.application.error(status, status.phrase))
            return
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True  # the client gave up in the middle of its request
            return
        members = parse_qs(query, keep_blank_values=True)
        request = Request(
            method=self.command,
            target=self.path,
            path=path,
            query={name: values[-1] for name, values in members.items()},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            received=datetime.now(UTC),
        )
        service.serve(request, self)

    def send(self, response: Response, *, trickle: float = 0.0) -> None:
        """Send an answer in one piece, or a byte each ``trickle`` seconds."""
        head = f"HTTP/1.1 {response.status} {_phrase(response.status)}\r\n"
        headers = {"Content-Length": str(len(response.body)), **response.headers}
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if self.close_connection:
            head += "Connection: close\r\n"
        message = head.encode("latin-1") + b"\r\n" + response.body
        if not trickle:
            self.wfile.write(message)
            return
        for position in range(len(message)):
            self.wfile.write(message[position : position + 1])
            if self.server.service.stopping.wait(trickle):
                return

    def cut(self, *, reset: bool) -> None:
        """Close the connection without another byte."""
        self.close_connection = True
        if reset:
            # Lingering for zero seconds makes close() send RST instead of FIN (socket(7)).
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def serve_until_signal(start: Callable[[], None], stop: Callable[[], None]) -> None:
    """Start, wait for SIGTERM or SIGINT, and stop."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    start()
    ended.wait()
    stop()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unassigned"
