"""HTTP requests and responses as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HttpRequest:
    """A request as it came in.

    Attributes:
        method: upper-case.
        url: complete, with scheme and host.
        path: decoded, with its leading slash.
        query: the first value of each parameter; parameters without a value are left out.
        headers: names in lower case.
        body: empty unless the request has a Content-Length.
    """

    method: str
    url: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpResponse:
    """A response to send; ``cookies`` are complete Set-Cookie values."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cookies: tuple[str, ...] = ()


def json_response(status: int, content: object) -> HttpResponse:
    """A response with a JSON body."""
    headers = {"content-type": "application/json; charset=utf-8"}
    return HttpResponse(status, headers, json.dumps(content).encode())
