"""Carries requests to Modzy over HTTP, each at most once, and in bounded time.

Time. Connecting may take ``connect_timeout`` for each of the host's addresses (name resolution
has the operating system's own limits). From the first byte on, sending, waiting and reading
together may take ``read_timeout``: every read gets only what is left of it, so a server that
trickles bytes gains nothing. Answers that may be large say so in ``Request.read_budget``.

How it is known whether anything was sent: :mod:`modzy_relay.modzy_api.watched`.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Protocol, Self

import requests
from requests.auth import AuthBase

import modzy_relay
from modzy_relay.modzy_api.errors import (
    AnswerTimeoutError,
    ModzyError,
    NoAnswerError,
    NotSentError,
)
from modzy_relay.modzy_api.watched import Exchange, WatchedAdapter, watching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from modzy_relay.modzy_api.watched import BeforeSend

# Plain http stays on this machine (see ``links``); a proxy would carry the key away in the clear.
_NO_PROXY = {"http": None, "all": None}


@dataclass(frozen=True, slots=True)
class Request:
    """A request, ready to be sent. Its ``repr`` holds no secret.

    Attributes:
        path: Path of the URL, for error texts.
        read_budget: How many read time-outs the whole answer may take. None: one until its
            headers are there, then one for each read, without an end.
        secrets: Texts that must not appear in an error.
    """

    method: str
    url: str
    path: str
    api_key: str = field(repr=False)
    query: tuple[tuple[str, str], ...] = ()
    accept: str = "application/json"
    body: bytes | None = field(default=None, repr=False)
    read_budget: float | None = 1.0
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def label(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"


class Answer(Protocol):
    """An answer whose body has yet to be read."""

    @property
    def status(self) -> int:
        """HTTP status, whatever it is."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header names in any case to their values."""

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        """Read the body in pieces of at most ``size`` bytes; raises NoAnswerError."""


class Transport(Protocol):
    """Carries requests. Tests may give the client one of their own."""

    def open(
        self, request: Request, before_send: BeforeSend | None = None
    ) -> AbstractContextManager[Answer]:
        """Send a request, once, and wait for the headers of its answer.

        Args:
            request: What to send.
            before_send: Called right before the first byte. If it raises, nothing is sent and
                the exception comes through unchanged.

        Raises:
            NotSentError: no byte was sent.
            NoAnswerError: a byte may have been sent, and no answer came back.
        """

    def close(self) -> None:
        """Give up all connections."""


class HttpTransport:
    """Sends over HTTP, through one set of pooled connections. Safe to share among threads.

    Proxies and certificates come from the environment as usual (``HTTPS_PROXY``, ``NO_PROXY``,
    ``REQUESTS_CA_BUNDLE``). SOCKS proxies are refused: their connections cannot be watched.

    Args:
        connect_timeout: Seconds for a connection to one address.
        read_timeout: Seconds from the first byte sent to the last byte read.
        pool_size: Connections to keep; more than that many threads open new ones each time.
        verify: Whether to check certificates, or the path of a CA bundle.
    """

    def __init__(
        self,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        pool_size: int = 32,
        *,
        verify: bool | str = True,
    ) -> None:
        for name, seconds in (("connect", connect_timeout), ("read", read_timeout)):
            if not 0 < seconds < math.inf:
                raise ValueError(f"{name}_timeout must be a positive number of seconds")
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._verify = verify
        self._session = _Session()
        self._session.headers["User-Agent"] = f"modzy-blob-relay/{modzy_relay.__version__}"
        # Cookies would make one request's answer change another request.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = WatchedAdapter(pool_connections=4, pool_maxsize=pool_size)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    @contextlib.contextmanager
    def open(self, request: Request, before_send: BeforeSend | None = None) -> Iterator[Answer]:
        """See :meth:`Transport.open`."""
        exchange = Exchange(
            self._connect_timeout, self._read_timeout, request.read_budget, before_send
        )
        response = self._send(request, exchange)
        try:
            exchange.headers_received()
            yield _HttpAnswer(response, exchange, request)
        finally:
            response.close()

    def _send(self, request: Request, exchange: Exchange) -> requests.Response:
        headers = {"Accept": request.accept}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        try:
            with watching(exchange):
                return self._session.request(
                    request.method,
                    request.url,
                    params=request.query,
                    data=request.body,
                    headers=headers,
                    auth=_ApiKeyAuth(request.api_key),
                    timeout=(self._connect_timeout, self._read_timeout),
                    # The stubs leave out that None takes a proxy of the environment away.
                    proxies=_NO_PROXY if request.url.startswith("http:") else None,  # type: ignore[arg-type]
                    verify=self._verify,
                    allow_redirects=False,
                    stream=True,
                )
        except Exception as error:  # noqa: BLE001 - only whether a byte left counts
            fault = _Fault.of(error)
        if exchange.stopped_by is not None:
            raise exchange.stopped_by
        raise fault.error_for(request, exchange) from fault.cause

    def close(self) -> None:
        """Give up all connections."""
        self._session.close()


class _HttpAnswer:
    """An answer on the wire."""

    def __init__(self, response: requests.Response, exchange: Exchange, request: Request) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._exchange = exchange
        self._request = request

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        """Read the body in pieces of at most ``size`` bytes; raises NoAnswerError."""
        chunks = self._response.iter_content(size)
        while True:
            try:
                chunk = next(chunks, None)
            except Exception as error:  # noqa: BLE001 - the answer is incomplete, whatever broke it
                fault = _Fault.of(error)
                break
            if chunk is None:
                return
            yield chunk
        raise fault.error_for(self._request, self._exchange) from fault.cause


class _ApiKeyAuth(AuthBase):
    """Sets the Authorization header, and by being there keeps ~/.netrc from replacing it."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = f"ApiKey {self._api_key}"
        return r


class _Session(requests.Session):
    """A session without redirects.

    With ``allow_redirects=False`` alone, requests still reads the whole body of a redirect and
    prepares the next request with the credentials of this one.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """There is none."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is kept of a library's exception.

    Those exceptions hold the prepared request, and their tracebacks hold frames with headers
    and body, so only an operating system error without its history is passed on.
    """

    kind: str
    cause: OSError | None

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Look for the operating system's own error below a library's."""
        cause = next(
            (
                found
                for found in _chain(error)
                if isinstance(found, OSError) and not isinstance(found, requests.RequestException)
            ),
            None,
        )
        if cause is not None:
            cause = cause.with_traceback(None)
            cause.__cause__ = cause.__context__ = None
        return cls(type(error).__name__, cause)

    def error_for(self, request: Request, exchange: Exchange) -> ModzyError:
        """The client's own error for this fault."""
        text = str(self.cause) if self.cause is not None else self.kind
        if not exchange.sending_began:
            return NotSentError(f"not sent: {text}", request=request.label)
        if isinstance(self.cause, TimeoutError):
            return AnswerTimeoutError("no complete answer in time", request=request.label)
        return NoAnswerError(
            f"the connection broke before the answer was complete: {text}", request=request.label
        )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it was made of, outermost first, each once."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        # Not __context__: it may lead to an exception that the caller is handling.
        waiting += [found.__cause__, getattr(found, "reason", None), *found.args]
