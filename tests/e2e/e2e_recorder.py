"""Notes every request between the app's process and the services that it uses."""

from __future__ import annotations

import base64
import contextlib
import re
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from sandbox.forwarding import Forwarder
from sandbox.http_service import LoopbackService, Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

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


class _Forwarder(Forwarder):
    """Asks the service behind, and notes what it was asked."""

    def __init__(self, service: str, netloc: str, recorder: Recorder) -> None:
        super().__init__(netloc)
        self._service = service
        self._recorder = recorder

    def answer(self, request: Request) -> Response:
        """Pass a request on, and note it."""
        response = self.forward(request)
        headers = dict(response.headers)
        if self._recorder.ahead and "date" in headers:
            told = parsedate_to_datetime(headers["date"]) + self._recorder.ahead
            headers["date"] = format_datetime(told, usegmt=True)
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
        return Response(response.status, response.body, headers)
