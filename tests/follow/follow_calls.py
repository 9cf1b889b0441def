"""Counts the HTTP requests of this process, storage's and Modzy's alike."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request that was sent."""

    method: str
    url: str


@contextlib.contextmanager
def counted_calls() -> Iterator[Sequence[Call]]:
    """The requests sent by any thread while the context lasts.

    All clients here send through ``requests``, whose adapter is the one place they have in common.
    """
    calls: list[Call] = []
    send = HTTPAdapter.send

    def noting(adapter: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(Call(str(request.method), str(request.url)))
        return send(adapter, request, *args, **kwargs)

    with mock.patch.object(HTTPAdapter, "send", noting):
        yield calls
