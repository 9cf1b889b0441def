"""The socket side of HTTP: a thread a connection, answers made on the event loop."""

from __future__ import annotations

import asyncio
import http.server
import sys
import threading
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING

from sandbox.host.http_messages import HttpRequest, HttpResponse
from sandbox.host.logs import host_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_MAX_BODY_BYTES = 100 * 1024 * 1024  # the Functions host's cap
_IDLE_SECONDS = 60


class HttpServer:
    """Serves one application on a loopback port.

    Args:
        port: 0 for a free one.
        application: answers requests on the running event loop.
    """

    def __init__(
        self, port: int, application: Callable[[HttpRequest], Awaitable[HttpResponse]]
    ) -> None:
        self._server = _Server(port, asyncio.get_running_loop(), application)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to accept connections; requests that run go on."""
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        loop: asyncio.AbstractEventLoop,
        application: Callable[[HttpRequest], Awaitable[HttpResponse]],
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._loop = loop
        self._application = application

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base's signature
        """Log a failed connection; one that the client broke is no error."""
        if isinstance(sys.exception(), ConnectionError | TimeoutError):
            host_log.debug("A client left", exc_info=True)
        else:
            host_log.exception("A request could not be answered")

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Run the application on the event loop and wait for its answer."""

        async def run() -> HttpResponse:
            return await self._application(request)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "FunctionsHostStandIn"
    sys_version = ""
    timeout = _IDLE_SECONDS
    wbufsize = -1  # head and body in one packet: two would wait for each other's acknowledgement
    server: _Server

    def serve(self) -> None:
        """Read one request, answer it."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit():
            self._send(HttpResponse(HTTPStatus.BAD_REQUEST))
        elif int(length) > _MAX_BODY_BYTES:
            self._send(HttpResponse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE), close=True)
        else:
            # A chunked body is not read, and the function sees an empty one as with the host.
            chunked = "Transfer-Encoding" in self.headers
            self._send(self.server.answer(self._request(int(length))), close=chunked)

    # The base class finds methods by these names.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve  # noqa: N815

    def _request(self, length: int) -> HttpRequest:
        parts = urllib.parse.urlsplit(self.path)
        query: dict[str, str] = {}
        for name, value in urllib.parse.parse_qsl(parts.query):
            query.setdefault(name, value)
        host = self.headers.get("Host", "127.0.0.1")
        return HttpRequest(
            method=self.command,
            url=f"http://{host}{self.path}",
            path=urllib.parse.unquote(parts.path),
            query=query,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length),
        )

    def _send(self, response: HttpResponse, *, close: bool = False) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        for cookie in response.cookies:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", str(len(response.body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base's signature
        """Log without the address, which can hold a key in its query."""
        host_log.debug("%s %s", self.command, self.path.partition("?")[0])
