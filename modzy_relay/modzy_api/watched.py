"""Connections that know whether the first byte of a request has left.

Which error means "certainly not sent"? Exception names do not tell: a reset can come while
connecting, while sending and while reading. So the connections here take three steps apart:
connect (name, TCP, TLS, proxy), then ask the caller a last time (``before_send``), then raise a
flag and write. With the flag down nothing was sent; with the flag up nobody can know.

A pooled connection that was idle for some seconds is not used again: a reset by a server that
was about to close it would leave an unknown outcome.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import socket

BeforeSend = Callable[[], None]

# Node.js closes an idle connection after 5 seconds by default, gateways later.
_LONGEST_IDLE_SECONDS = 4.0


class Exchange:
    """How far one request has come, and how much time it has left."""

    def __init__(
        self,
        connect_timeout: float,
        read_timeout: float,
        read_budget: float | None,
        before_send: BeforeSend | None,
    ) -> None:
        self.sending_began = False
        self.stopped_by: Exception | None = None
        self._before_send = before_send
        self._read_timeout = read_timeout
        self._read_budget = read_budget
        self._deadline = time.monotonic() + connect_timeout

    def begin_sending(self) -> None:
        """Ask the caller a last time; from its return on, the outcome is open."""
        if self._before_send is not None:
            try:
                self._before_send()
            except Exception as error:  # noqa: BLE001 - raised again, unchanged, by the transport
                self.stopped_by = error
                # The libraries in between would translate the caller's own time-out or
                # connection error, and even swallow some of them.
                raise _StoppedError from None
        self.sending_began = True
        self._deadline = time.monotonic() + self._read_timeout

    def headers_received(self) -> None:
        """Grant the time that the body of this answer may take."""
        if self._read_budget is None:
            self._deadline = math.inf
        else:
            self._deadline += self._read_timeout * (self._read_budget - 1)

    def seconds_for_next_step(self) -> float:
        """Longest time that the next read or write may block.

        Raises:
            TimeoutError: no time is left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left for the exchange")
        return min(self._read_timeout, left)


_current: ContextVar[Exchange] = ContextVar("modzy_exchange")


@contextlib.contextmanager
def watching(exchange: Exchange) -> Iterator[None]:
    """Make ``exchange`` the one that connections used in this context report to."""
    token = _current.set(exchange)
    try:
        yield
    finally:
        _current.reset(token)


class _StoppedError(Exception):
    """The caller's ``before_send`` raised; of a kind that no library translates."""


class _BoundedReader(io.RawIOBase):
    """Bytes from a socket; each read may take what the exchange has left."""

    def __init__(self, sock: socket.socket, exchange: Exchange) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(self._exchange.seconds_for_next_step())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedSocket:
    """As much of a socket as an HTTP response asks for."""

    def __init__(self, sock: socket.socket, exchange: Exchange) -> None:
        self._sock = sock
        self._exchange = exchange

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock, self._exchange))


class _BoundedResponse(http.client.HTTPResponse):
    """A response that reads within the time of the exchange it belongs to."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        bounded = cast("socket.socket", _BoundedSocket(sock, _current.get()))
        super().__init__(bounded, debuglevel, method, url)


class _WatchedConnection(HTTPConnection):
    """Connects first, then asks, then marks the exchange as begun, then writes."""

    response_class = _BoundedResponse
    _used_at = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether a pooled connection may be used again; the pool closes it if not."""
        idle = time.monotonic() - self._used_at
        return idle < _LONGEST_IDLE_SECONDS and super().is_connected

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        """Write the head of the request: the first thing that leaves on its behalf."""
        if self.sock is None:
            self.connect()
        _current.get().begin_sending()
        self._used_at = time.monotonic()
        super().endheaders(message_body, encode_chunked=encode_chunked)

    def send(self, data: Any) -> None:
        """Write within the time that is left."""
        if self.sock is not None:
            self.sock.settimeout(_current.get().seconds_for_next_step())
        super().send(data)


class _WatchedTlsConnection(_WatchedConnection, HTTPSConnection):
    """The same over TLS."""


class _WatchedPool(HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTlsConnection


_POOLS: dict[str, Any] = {"http": _WatchedPool, "https": _WatchedTlsPool}


class _UnwatchedConnectionError(OSError):
    """A connection whose sending cannot be watched must not be used."""


class WatchedAdapter(HTTPAdapter):
    """Makes watched connections only, to the server and to proxies."""

    def __init__(self, pool_connections: int, pool_maxsize: int) -> None:
        self._lock = threading.Lock()
        super().__init__(pool_connections, pool_maxsize, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make, or find, the pools for connections through a proxy."""
        # The base class files the manager before this method has fitted it out.
        with self._lock:
            manager = super().proxy_manager_for(proxy, **kwargs)
            manager.pool_classes_by_scheme = _POOLS
            return manager

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """The pool for a request. Raises OSError if it is not one that is watched."""
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        if not isinstance(pool, (_WatchedPool, _WatchedTlsPool)):
            raise _UnwatchedConnectionError("this kind of proxy is not supported")
        return pool
