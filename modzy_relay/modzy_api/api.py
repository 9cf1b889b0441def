"""Turns a route into a request, and an answer into a record or an error."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from modzy_relay.modzy_api.arguments import usable_key
from modzy_relay.modzy_api.errors import (
    NoAnswerError,
    NotSentError,
    UnreadableAnswerError,
    parse_retry_after,
    status_error,
)
from modzy_relay.modzy_api.links import path_below, url_segment
from modzy_relay.modzy_api.records import UnreadableRecordError
from modzy_relay.modzy_api.transport import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modzy_relay.modzy_api.transport import Answer, Transport
    from modzy_relay.modzy_api.watched import BeforeSend

_MIB: Final = 1024 * 1024
_LARGEST_ERROR: Final = 1 * _MIB
_LARGEST_ANSWER: Final = 16 * _MIB
LARGEST_RESULTS: Final = 64 * _MIB
CHUNK: Final = 64 * 1024
_LONGEST_MESSAGE: Final = 500
_TELLTALE: Final = 8  # characters in a row that a text shares with a secret by chance no more

_Record = TypeVar("_Record")


class Api:
    """Turns a route into a request, and an answer into a record or an error."""

    def __init__(self, base_url: str, api_key: Callable[[], str], transport: Transport) -> None:
        self.transport = transport
        self._base_url = base_url
        self._base = urlsplit(base_url)
        self._api_key = api_key

    def request(
        self,
        method: str,
        *segments: str,
        query: tuple[tuple[str, str], ...] = (),
        body: Mapping[str, Any] | None = None,
        secrets: tuple[str, ...] = (),
        read_budget: float = 1.0,
    ) -> Request:
        """A request for a route, with the API key of this moment.

        Args:
            method: HTTP method.
            segments: Path below the API, unquoted.
            query: Names and values, unquoted.
            body: Sent as JSON.
            secrets: Texts in the body that must not appear in an error.
            read_budget: See :class:`~modzy_relay.modzy_api.transport.Request`.
        """
        path = "/".join(map(url_segment, segments))
        key = self._current_key(f"{method} {self._base.path}/{path}")
        return Request(
            method=method,
            url=f"{self._base_url}/{path}",
            path=f"{self._base.path}/{path}",
            api_key=key,
            query=query,
            body=None if body is None else json.dumps(body).encode("ascii"),
            read_budget=read_budget,
            secrets=(key, key.partition(".")[2], *secrets),
        )

    def link_request(self, url: str) -> Request:
        """A request for a link below the API; its host is the configured one by construction."""
        path, query = path_below(self._base, url)
        key = self._current_key(f"GET {path}")
        return Request(
            method="GET",
            url=urlunsplit((self._base.scheme, self._base.netloc, path, query, "")),
            path=path,
            api_key=key,
            accept="*/*",
            read_budget=None,
            secrets=(key, key.partition(".")[2]),
        )

    def fetch(
        self,
        request: Request,
        decode: Callable[[object], _Record],
        *,
        limit: int = _LARGEST_ANSWER,
        before_send: BeforeSend | None = None,
    ) -> _Record:
        """Send a request and decode the JSON of its answer.

        Raises:
            UnreadableAnswerError: the answer is 2xx, but too large, not JSON, or not a record.
        """
        with self.transport.open(request, before_send) as answer:
            raise_for_status(answer, request)
            status = answer.status
            content = _read_at_most(answer, limit)
        if content is None:
            reason = f"the answer is larger than {limit} bytes"
        else:
            try:
                return decode(_decoded_json(content))
            except UnreadableRecordError as error:
                reason = str(error)
        raise UnreadableAnswerError(reason, request=request.label, status=status)

    def _current_key(self, label: str) -> str:
        key = self._api_key()
        try:
            return usable_key(key)
        except ValueError as error:
            raise NotSentError(str(error), request=label) from None


def raise_for_status(answer: Answer, request: Request) -> None:
    """Raise the StatusError of an answer outside 2xx."""
    if 200 <= answer.status < 300:
        return
    raise status_error(
        answer.status,
        _server_message(answer, request),
        request=request.label,
        retry_after=parse_retry_after(answer.headers.get("Retry-After"), datetime.now(UTC)),
    )


def _server_message(answer: Answer, request: Request) -> str | None:
    """The explanation in ``{"statusCode", "status", "message", "reportErrorUrl"}``, if any.

    The status alone decides what the answer means, so a body that breaks off changes nothing.
    """
    try:
        document = _decoded_json(_read_at_most(answer, _LARGEST_ERROR) or b"")
    except (NoAnswerError, UnreadableRecordError):
        return None
    message = document.get("message") if isinstance(document, dict) else None
    if not isinstance(message, str):
        return None
    beginning = " ".join(message[: 8 * _LONGEST_MESSAGE].split())
    return _without(beginning, request.secrets)[:_LONGEST_MESSAGE]


def _without(text: str, secrets: tuple[str, ...]) -> str:
    """The text with all that it shares with a secret blotted out.

    Servers quote the beginning of a body that they cannot read, so a secret may be cut off.
    """
    secret_positions: set[int] = set()
    for secret in {spelling for plain in secrets for spelling in (plain, quote(plain, safe=""))}:
        width = min(_TELLTALE, len(secret))
        fragments = {secret[i : i + width] for i in range(len(secret) - width + 1)} - {""}
        for i in range(len(text) - width + 1):
            if text[i : i + width] in fragments:
                secret_positions.update(range(i, i + width))
    blotted = "".join("\0" if i in secret_positions else text[i] for i in range(len(text)))
    return re.sub("\0+", "***", blotted)


def _read_at_most(answer: Answer, limit: int) -> bytes | None:
    """The whole body; None if it is larger than ``limit`` bytes."""
    content = bytearray()
    for chunk in answer.iter_chunks(CHUNK):
        content += chunk
        if len(content) > limit:
            return None
    return bytes(content)


def _decoded_json(content: bytes) -> object:
    """JSON, or None for an empty body. Raises UnreadableRecordError."""
    if not content:
        return None
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        # Not chained: the decoder's error holds the whole document.
        raise UnreadableRecordError("the answer is not JSON") from None
    return document


def json_array(document: object) -> list[Any]:
    """The document, if it is an array; else raises UnreadableRecordError."""
    if not isinstance(document, list):
        raise UnreadableRecordError("expected a JSON array")
    return document
