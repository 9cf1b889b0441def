"""Notes every request between the app's process and the services that it uses.

A shared-key signature covers the path of a request and not its host, so signed requests of
path-style accounts stay valid behind another port.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from sandbox.http_service import LoopbackService, RefusedError, Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

_UPSTREAM_SECONDS = 60.0
# They belong to one connection, not to the message (RFC 9110, 7.6.1), or are written anew.
_NOT_PASSED_ON = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_MESSAGE = re.compile(rb"<MessageText>(.*)</MessageText>")


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its answer.

    Attributes:
        service: The name of its upstream.
        path: Decoded, without the query.
        body: As sent.
        status: Of the answer.
        answered: Bytes in the answer's body.
    """

    service: str
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    status: int
    answered: int

    @property
    def text(self) -> str:
        """The body in clear; of a queue message, ``<MessageText>eyJ...</MessageText>``, its."""
        found = _MESSAGE.search(self.body) if self.service == "Queue" else None
        body = base64.b64decode(found[1]) if found else self.body
        return body.decode("utf-8", "replace")

    @property
    def is_poll(self) -> bool:
        """Whether the host looked for, kept or removed a message, or listed a container."""
        on_messages = "/messages" in self.path and self.method != "POST"
        return on_messages or self.query.get("comp") == "list"


class Recorder:
    """Stands in front of services; also a context manager.

    Args:
        upstreams: Address of each service by a name, ``http://127.0.0.1:<port>``.

    Attributes:
        ahead: By how much the services' clocks, as told in ``Date`` headers, are ahead. The app
            goes by that clock, so this is how a test lets hours pass.
    """

    def __init__(self, upstreams: Mapping[str, str]) -> None:
        self.ahead = timedelta()
        self._calls: list[Call] = []
        self._upstreams = {name: urlsplit(url).netloc for name, url in upstreams.items()}
        self._services = {
            name: LoopbackService(f"recorder.{name}", _Forwarder(name, netloc, self))
            for name, netloc in self._upstreams.items()
        }

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            for service in self._services.values():
                starting.enter_context(service)
            starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for service in self._services.values():
            service.stop()

    def through(self, text: str) -> str:
        """A connection string or URL that leads through here instead."""
        for name, netloc in self._upstreams.items():
            text = text.replace(netloc, self._services[name].authority)
        return text

    @property
    def calls(self) -> list[Call]:
        """Everything so far, in the order of the answers."""
        return list(self._calls)

    def note(self, call: Call) -> None:
        """A request was answered."""
        self._calls.append(call)


class _Forwarder:
    """Implements ``http_service.Application``: asks the service behind."""

    def __init__(self, service: str, netloc: str, recorder: Recorder) -> None:
        self._service = service
        self._netloc = netloc
        self._recorder = recorder

    def answer(self, request: Request) -> Response:
        """Pass a request on, and note it."""
        response = self._forward(request)
        self._recorder.note(
            Call(
                service=self._service,
                method=request.method,
                path=unquote(request.path),
                query=request.query,
                body=request.body,
                status=response.status,
                answered=len(response.body),
            )
        )
        return response

    def administer(self, request: Request) -> Response:
        """There is nothing to administer."""
        raise RefusedError(404, f"{request.path} is not served here")

    def error(self, status: int, message: str) -> Response:
        """An error of the proxy's own."""
        return Response(status, message.encode())

    def _forward(self, request: Request) -> Response:
        connection = http.client.HTTPConnection(self._netloc, timeout=_UPSTREAM_SECONDS)
        with contextlib.closing(connection):
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name not in _NOT_PASSED_ON - {"content-length"}:
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders(request.body or None)
            answer = connection.getresponse()
            body = answer.read()
        headers = {
            name.lower(): value
            for name, value in answer.getheaders()
            if name.lower() not in _NOT_PASSED_ON
        }
        if request.method == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")  # the blob's
        if self._recorder.ahead and "date" in headers:
            told = parsedate_to_datetime(headers["date"]) + self._recorder.ahead
            headers["date"] = format_datetime(told, usegmt=True)
        return Response(answer.status, body, headers)
