"""Servers and a transport that these tests script."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.policy import HTTP
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import ssl

    from modzy_relay.modzy_api import Answer, Request

# For property tests: a busy machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

API_KEY = "prefix123.k3y-of-the-account-4711"
STORAGE_KEY = "c3RvcmFnZS1rZXktb2YtdGhlLWFjY291bnQ/+8472=="
SOURCES = {"an-item": {"input.txt": {"container": "uploads", "filePath": "a/secret-name.txt"}}}
SECRETS = (API_KEY, API_KEY.partition(".")[2], STORAGE_KEY, "secret-name")
JOB = {"jobIdentifier": "14856eb1-0ad8-49e7-9da3-887acb80fea5"}


@dataclass(frozen=True)
class Received:
    """A request as a server saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, server: RawServer) -> None:
        self.sock = sock
        self._server = server
        self._buffer = b""

    def read_head(self) -> bytes:
        """Everything up to the empty line; raises ConnectionError if the client goes away."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the client went away")
            self._server.bytes_received += len(data)
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def read_request(self) -> Received:
        """A whole request, which the server remembers."""
        line, _, fields = self.read_head().partition(b"\r\n")
        method, target, _ = line.decode().split(" ")
        message = BytesHeaderParser(policy=HTTP).parsebytes(fields + b"\r\n\r\n")
        headers = {name.lower(): str(value) for name, value in message.items()}
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            self._buffer += self.sock.recv(65536)
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        received = Received(method, target, headers, body)
        self._server.requests.append(received)
        return received

    def answer(self, status: int, document: object = None, **headers: str) -> None:
        """A whole answer with a JSON body."""
        body = b"" if document is None else json.dumps(document).encode()
        self.send(response(status, body, **headers))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def response(status: int, body: bytes, **headers: str) -> bytes:
    """An answer as bytes; underscores in header names stand for hyphens."""
    fields = {"Content_Length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body


Script = Callable[[Peer], None]


class RawServer:
    """Runs a script for each connection, on a thread of its own."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.bytes_received = 0
        self._script = script
        self._tls = tls
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closing:
                    sock.close()
                    return
                self.connections += 1
                self._open.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        # The client leaving in the middle is what many of these tests are about.
        with contextlib.suppress(OSError), sock:
            if self._tls is None:
                self._script(Peer(sock, self))
            else:
                with self._tls.wrap_socket(sock, server_side=True) as wrapped:
                    self._open.append(wrapped)
                    self._script(Peer(wrapped, self))

    def close(self) -> None:
        """Cut all connections and wait for the threads."""
        with self._lock:
            self._closing = True
        # shutdown() wakes threads that are blocked in accept() or recv(); close() alone does not.
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()


def serve_forever(answer: Callable[[Received], tuple[int, object]]) -> Script:
    """A script that answers every request of a connection with JSON."""

    def script(peer: Peer) -> None:
        while True:
            peer.answer(*answer(peer.read_request()))

    return script


def tunnel_to(port: int) -> Script:
    """A script of a proxy that connects every tunnel to one local port."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def script(peer: Peer) -> None:
        peer.read_request()
        with socket.create_connection(("127.0.0.1", port)) as onward:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(onward, peer.sock))
            back.start()
            pump(peer.sock, onward)
            back.join()

    return script


class FakeTransport:
    """A transport whose server is a function from request to status, headers and body."""

    def __init__(self, handle: Callable[[Request], tuple[int, dict[str, str], bytes]]) -> None:
        self.requests: list[Request] = []
        self._handle = handle

    @contextlib.contextmanager
    def open(
        self, request: Request, before_send: Callable[[], None] | None = None
    ) -> Iterator[Answer]:
        """See the client's Transport."""
        if before_send is not None:
            before_send()
        self.requests.append(request)
        yield FakeAnswer(*self._handle(request))

    def close(self) -> None:
        """There is nothing to close."""


class FakeAnswer:
    """A whole answer in memory."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        """See the client's Answer."""
        for start in range(0, len(self._body), size):
            yield self._body[start : start + size]


def json_transport(answer: Callable[[Request], tuple[int, object]]) -> FakeTransport:
    """A fake transport that answers with JSON."""

    def handle(request: Request) -> tuple[int, dict[str, str], bytes]:
        status, document = answer(request)
        return status, {}, json.dumps(document).encode()

    return FakeTransport(handle)
