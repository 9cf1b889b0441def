"""The part of a reverse proxy that asks the service behind it.

A shared-key signature covers the path of a request and not its host, so signed requests of
path-style accounts stay valid behind another port.
"""

from __future__ import annotations

import contextlib
import http.client

from sandbox.http_service import RefusedError, Request, Response

_UPSTREAM_SECONDS = 120.0
# They belong to one connection, not to the message (RFC 9110, 7.6.1).
_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding"})


class Forwarder:
    """Implements ``http_service.Application`` but for ``answer``, which calls ``forward``.

    Args:
        authority: Host and port of the service behind.
    """

    def __init__(self, authority: str) -> None:
        self._authority = authority

    def administer(self, request: Request) -> Response:
        """There is nothing to administer."""
        raise RefusedError(404, f"{request.path} is not served here")

    def error(self, status: int, message: str) -> Response:
        """An answer that a rule ordered."""
        return Response(status, message.encode())

    def forward(self, request: Request) -> Response:
        """Ask the service; the names of the headers that it sent are in lower case.

        Raises:
            OSError: It cannot be reached; the caller's connection then ends without an answer.
        """
        # A connection of its own for each request: the end of an idle one would be a fault that
        # nobody ordered.
        connection = http.client.HTTPConnection(self._authority, timeout=_UPSTREAM_SECONDS)
        with contextlib.closing(connection):
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name not in _HOP_HEADERS:
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders(request.body or None)
            answer = connection.getresponse()
            body = answer.read()
        headers = {
            name.lower(): value
            for name, value in answer.getheaders()
            if name.lower() not in _HOP_HEADERS | {"content-length"}
        }
        if request.method == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")  # the blob's
        return Response(answer.status, body, headers)
