"""What the client says became of a submission, against real sockets that misbehave."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from modzy_servers import (
    API_KEY,
    JOB,
    SECRETS,
    SOURCES,
    STORAGE_KEY,
    Peer,
    RawServer,
    response,
    tunnel_to,
)

from modzy_relay.modzy_api import (
    AnswerTimeoutError,
    BadRequestError,
    ForbiddenError,
    Job,
    ModzyClient,
    ModzyError,
    NoAnswerError,
    NotFoundError,
    NotSentError,
    Outcome,
    StatusError,
    ThrottledError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnprocessableError,
    UnreadableAnswerError,
    watched,
)

Serve = Callable[..., RawServer]
Connect = Callable[..., ModzyClient]


def submit(client: ModzyClient, **options: Any) -> Job:
    """Submit a job whose arguments hold every secret."""
    return client.jobs.submit_azureblob(
        "a-model", "1.0.1", SOURCES, "anaccount", STORAGE_KEY, **options
    )


def failure_of(client: ModzyClient, **options: Any) -> ModzyError:
    """The error that a submission ends in, after looking for secrets in it."""
    with pytest.raises(ModzyError) as caught:
        submit(client, **options)
    assert_no_secret(caught.value)
    return caught.value


def assert_no_secret(error: BaseException) -> None:
    """Look through everything that logging or telemetry would print of an error."""
    shown = ["".join(traceback.format_exception(error))]
    for link in chained(error):
        shown += [str(link), repr(link), repr(link.args), repr(vars(link))]
    for secret in SECRETS:
        assert not any(secret in text for text in shown), f"{secret} shows in {shown}"


def chained(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it is chained to, shown or not."""
    if error is not None:
        yield error
        yield from chained(error.__cause__)
        yield from chained(error.__context__)


def close_at_once(peer: Peer) -> None:
    """Accept and close."""


def close_after_head(peer: Peer) -> None:
    """Close with the body unread."""
    peer.read_head()


def close_after_request(peer: Peer) -> None:
    """Read a request and close."""
    peer.read_request()


def reset_while_sending(peer: Peer) -> None:
    """Read one byte and reset."""
    peer.sock.recv(1)
    peer.reset()


def reset_after_request(peer: Peer) -> None:
    """Read a request and reset."""
    peer.read_request()
    peer.reset()


def say(data: bytes) -> Callable[[Peer], None]:
    """A script that reads a request, sends some bytes and closes."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(data)

    return script


def trickle(beginning: bytes) -> Callable[[Peer], None]:
    """A script that keeps sending one byte well within the time of a single read."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(beginning)
        pause = threading.Event()
        for _ in range(200):
            peer.send(b"x")
            pause.wait(0.05)

    return script


def say_nothing(peer: Peer) -> None:
    """Read a request and leave the connection open."""
    peer.read_request()
    peer.sock.recv(1)


BODY = b'{"jobIdentifier": "14856eb1"}'


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        pytest.param(close_at_once, NoAnswerError, id="close at once"),
        pytest.param(close_after_head, NoAnswerError, id="close after the headers"),
        pytest.param(close_after_request, NoAnswerError, id="close after the request"),
        pytest.param(reset_while_sending, NoAnswerError, id="reset while sending"),
        pytest.param(reset_after_request, NoAnswerError, id="reset after the request"),
        pytest.param(say(b"HTTP/1.1 20"), NoAnswerError, id="half a status line"),
        pytest.param(
            say(b"HTTP/1.1 200 OK\r\nContent-Le"), UnreadableAnswerError, id="half the headers"
        ),
        pytest.param(say(response(200, BODY)[:-3]), NoAnswerError, id="half the body"),
        pytest.param(
            say(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"job'),
            NoAnswerError,
            id="half a chunk",
        ),
        pytest.param(say(b"220 mail.test ESMTP\r\n"), NoAnswerError, id="not HTTP"),
        pytest.param(
            say(response(200, BODY, Content_Encoding="gzip")), NoAnswerError, id="not gzip"
        ),
        pytest.param(say(response(200, b"<html>")), UnreadableAnswerError, id="not JSON"),
        pytest.param(say(response(200, b"[" * 99_999)), UnreadableAnswerError, id="deep JSON"),
        pytest.param(say(response(200, b"")), UnreadableAnswerError, id="empty"),
        pytest.param(say(response(204, b"")), UnreadableAnswerError, id="no content"),
        pytest.param(say(response(200, b"[]")), UnreadableAnswerError, id="an array"),
        pytest.param(say(response(200, b"{}")), UnreadableAnswerError, id="no jobIdentifier"),
        pytest.param(
            say(response(201, b'{"jobIdentifier": " "}')), UnreadableAnswerError, id="blank"
        ),
    ],
)
def test_broken_answers_leave_the_outcome_unknown(
    script: Callable[[Peer], None], kind: type[ModzyError], serve: Serve, connect: Connect
) -> None:
    """Once a byte was sent, nothing short of a readable answer tells what became of the job."""
    error = failure_of(connect(serve(script).url))
    assert type(error) is kind
    assert error.outcome is Outcome.UNKNOWN
    assert error.request == "POST /api/jobs"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(say_nothing, id="silence"),
        pytest.param(trickle(b"HTTP/1.1 200 OK\r\nX-Slow: "), id="trickling headers"),
        pytest.param(trickle(response(200, b"", Content_Length="99999")), id="trickling body"),
    ],
)
def test_slow_answers_end_in_a_time_out(
    script: Callable[[Peer], None], serve: Serve, connect: Connect
) -> None:
    """A server that sends a byte now and then cannot hold a submission for ever."""
    error = failure_of(connect(serve(script).url, read_timeout=0.4))
    assert type(error) is AnswerTimeoutError
    assert error.outcome is Outcome.UNKNOWN


def test_slow_explanation_of_a_refusal_changes_nothing(serve: Serve, connect: Connect) -> None:
    """The status decides; the server cannot hold the caller, or change its mind, by the body."""
    script = trickle(response(422, b"", Content_Length="99999"))
    error = failure_of(connect(serve(script).url, read_timeout=0.4))
    assert (type(error), error.outcome) == (UnprocessableError, Outcome.REFUSED)


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (300, StatusError, Outcome.UNKNOWN),
        (304, StatusError, Outcome.UNKNOWN),
        (307, StatusError, Outcome.UNKNOWN),
        (400, BadRequestError, Outcome.REFUSED),
        (401, UnauthorizedError, Outcome.NOT_ACCEPTED),
        (402, StatusError, Outcome.UNKNOWN),
        (403, ForbiddenError, Outcome.NOT_ACCEPTED),
        (404, NotFoundError, Outcome.REFUSED),
        (408, StatusError, Outcome.UNKNOWN),
        (409, StatusError, Outcome.UNKNOWN),
        (413, TooLargeError, Outcome.REFUSED),
        (422, UnprocessableError, Outcome.REFUSED),
        (429, ThrottledError, Outcome.NOT_ACCEPTED),
        (499, StatusError, Outcome.UNKNOWN),
        (500, StatusError, Outcome.UNKNOWN),
        (502, StatusError, Outcome.UNKNOWN),
        (503, UnavailableError, Outcome.NOT_ACCEPTED),
        (504, StatusError, Outcome.UNKNOWN),
        (599, StatusError, Outcome.UNKNOWN),
    ],
)
def test_statuses(
    status: int, kind: type[ModzyError], outcome: Outcome, serve: Serve, connect: Connect
) -> None:
    """Each status has a fixed outcome, and the error says what the server said."""
    document = {"statusCode": status, "status": "?", "message": "because\n of it"}
    error = failure_of(connect(serve(lambda peer: answer_once(peer, status, document)).url))
    assert (type(error), error.outcome, error.status) == (kind, outcome, status)
    if status != 304:  # which has no body
        assert error.message == "because of it"


def answer_once(peer: Peer, status: int, document: object, **headers: str) -> None:
    """Answer one request and close."""
    peer.read_request()
    peer.answer(status, document, **headers)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_accepted(status: int, serve: Serve, connect: Connect) -> None:
    """Every 2xx with a job identifier means that the job exists."""
    server = serve(lambda peer: answer_once(peer, status, JOB))
    assert submit(connect(server.url)).job_identifier == JOB["jobIdentifier"]


def test_interim_answer(serve: Serve, connect: Connect) -> None:
    """100 Continue is not the answer; the one that follows is."""
    script = say(b"HTTP/1.1 100 Continue\r\n\r\n" + response(200, BODY))
    assert submit(connect(serve(script).url)).job_identifier == "14856eb1"


def test_redirects_are_not_followed(serve: Serve, connect: Connect) -> None:
    """The API key goes to no other address, whatever the server says."""
    other = serve(lambda peer: answer_once(peer, 200, JOB))
    location = f"{other.url}/api/jobs"
    first = serve(lambda peer: answer_once(peer, 307, {}, Location=location))
    assert failure_of(connect(first.url)).status == 307
    assert (len(first.requests), other.connections) == (1, 0)


def test_status_without_a_name(serve: Serve, connect: Connect) -> None:
    """A status that no standard knows, without an explanation, is still told."""
    error = failure_of(connect(serve(lambda peer: answer_once(peer, 599, None)).url))
    assert str(error) == "POST /api/jobs: 599 unknown status"


def test_retry_after(serve: Serve, connect: Connect) -> None:
    """The pause that a server asks for reaches the caller, in seconds."""
    server = serve(lambda peer: answer_once(peer, 429, None, Retry_After="17"))
    error = failure_of(connect(server.url))
    assert error.retry_after == 17.0
    assert str(error) == "POST /api/jobs: 429 Too Many Requests (retry after 17 s)"


@pytest.mark.parametrize(
    "echo",
    [
        f"bad body: {STORAGE_KEY}",
        f'cannot parse {{"storageAccountKey": "{STORAGE_KEY[:20]}',
        f"no such key {API_KEY}",
        f"no such key {API_KEY.partition('.')[2][:-2]}...",
    ],
)
def test_echoed_secrets_are_blotted_out(echo: str, serve: Serve, connect: Connect) -> None:
    """A server that quotes the request, whole or cut off, does not get a secret into an error."""
    error = failure_of(connect(serve(lambda peer: answer_once(peer, 400, {"message": echo})).url))
    assert "***" in error.message
    shared = (s[i : i + 8] for s in (API_KEY, STORAGE_KEY) for i in range(len(s) - 7))
    assert not any(fragment in error.message for fragment in shared)


def test_nothing_is_logged_that_is_secret(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Log lines of the libraries in between, down to DEBUG, hold no secret."""
    with caplog.at_level(logging.DEBUG):
        failure_of(connect(serve(close_after_request).url))
        failure_of(connect(serve(lambda peer: answer_once(peer, 500, {"message": "x"})).url))
    assert "urllib3" in {record.name.partition(".")[0] for record in caplog.records}
    assert not any(secret in caplog.text for secret in SECRETS)


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """A port whose queue of connections is full, so that further ones get no answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield address[1]


def assert_not_sent(client: ModzyClient) -> NotSentError:
    """A submission fails for certain, and its caller is not asked for leave to send."""
    asked: list[bool] = []
    error = failure_of(client, before_send=lambda: asked.append(True))
    assert isinstance(error, NotSentError)
    assert error.outcome is Outcome.NOT_ACCEPTED
    assert not asked
    return error


def test_connection_refused(connect: Connect) -> None:
    """A port that nobody listens on accepts no job, and the text says what happened."""
    error = assert_not_sent(connect(f"http://127.0.0.1:{refused_port()}"))
    assert "refused" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_connection_times_out(connect: Connect) -> None:
    """A time-out while connecting is certain, unlike one while waiting for the answer."""
    with full_listener() as port:
        assert_not_sent(connect(f"http://127.0.0.1:{port}", connect_timeout=0.3))


def test_unknown_host(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be resolved accepts no job."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert "Name or service not known" in str(assert_not_sent(connect("https://modzy.test")))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="no TLS"),
        pytest.param(close_at_once, id="close"),
        pytest.param(lambda peer: peer.sock.recv(1 << 20) and peer.reset(), id="reset"),
    ],
)
def test_failed_handshake(script: Callable[[Peer], None], serve: Serve, connect: Connect) -> None:
    """Whatever goes wrong before TLS stands, the request stayed here."""
    assert_not_sent(connect(f"https://127.0.0.1:{serve(script).port}"))


def test_untrusted_certificate(serve: Serve, connect: Connect, tls: Any) -> None:
    """A server that cannot prove who it is gets no request."""
    server = serve(close_after_request, tls)
    assert "certificate" in str(assert_not_sent(connect(server.url)))
    assert server.requests == []


def test_cut_over_tls(serve: Serve, connect: Connect, tls: Any, ca_bundle: str) -> None:
    """Over TLS too, a cut after the first byte leaves the outcome unknown."""
    server = serve(close_after_request, tls)
    assert failure_of(connect(server.url, verify=ca_bundle)).outcome is Outcome.UNKNOWN
    assert len(server.requests) == 1


def test_accepted_over_tls(serve: Serve, connect: Connect, tls: Any, ca_bundle: str) -> None:
    """The watched connection does TLS."""
    server = serve(lambda peer: answer_once(peer, 200, JOB), tls)
    assert submit(connect(server.url, verify=ca_bundle)).job_identifier == JOB["jobIdentifier"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda peer: answer_once(peer, 407, None), id="407"),
        pytest.param(lambda peer: answer_once(peer, 502, None), id="502"),
        pytest.param(close_at_once, id="close"),
        pytest.param(close_after_request, id="close after CONNECT"),
        pytest.param(trickle(b"HTTP/1.1 "), id="trickle"),
    ],
)
def test_failed_proxy(
    script: Callable[[Peer], None],
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy that makes no tunnel accepts no job, and sees no key."""
    proxy = serve(script)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert_not_sent(connect("https://modzy.test", connect_timeout=0.4))
    assert proxy.connections == 1
    assert API_KEY not in str(proxy.requests)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{port}", "socks5://127.0.0.1:{port}"])
def test_unusable_proxy(proxy: str, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is down, or of a kind that cannot be watched, is used for nothing."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(port=refused_port()))
    assert_not_sent(connect("https://modzy.test"))


def test_through_a_proxy(
    serve: Serve, connect: Connect, tls: Any, ca_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a tunnel, too: accepted is accepted, and a cut leaves the outcome unknown."""

    def script(peer: Peer) -> None:
        answer_once(peer, 200, JOB)
        close_after_request(peer)

    server = serve(script, tls)
    proxy = serve(tunnel_to(server.port))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    client = connect("https://modzy.test", verify=ca_bundle)
    assert submit(client).job_identifier == JOB["jobIdentifier"]
    assert failure_of(client).outcome is Outcome.UNKNOWN
    assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert [request.method for request in server.requests] == ["POST", "POST"]


def test_plain_http_takes_no_proxy(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that may travel in the clear on this machine does not go to a proxy that way."""
    proxy = serve(close_after_request)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    server = serve(lambda peer: answer_once(peer, 200, JOB))
    submit(connect(server.url))
    assert proxy.connections == 0


class CallerError(Exception):
    """Stands for whatever the caller of a submission may raise."""


@pytest.mark.parametrize(
    "reason",
    [
        CallerError(),
        TimeoutError(),
        BrokenPipeError(errno.EPIPE, "broken"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        http.client.HTTPException(),
    ],
    ids=lambda reason: type(reason).__name__,
)
def test_before_send_stops_the_request(reason: Exception, serve: Serve, connect: Connect) -> None:
    """The caller's exception comes through as it is, and no byte was sent."""
    connected = threading.Event()

    def script(peer: Peer) -> None:
        connected.set()
        peer.read_request()

    server = serve(script)

    def refuse() -> None:
        assert connected.wait(5), "the connection must stand before the caller is asked"
        raise reason

    with pytest.raises(type(reason)) as caught:
        submit(connect(server.url), before_send=refuse)
    assert caught.value is reason
    assert reason.__context__ is None
    server.close()
    assert server.bytes_received == 0


def test_before_send_comes_once_and_first(serve: Serve, connect: Connect) -> None:
    """The caller is asked once a request, when the server has seen nothing of it."""
    server = serve(lambda peer: answer_once(peer, 200, JOB))
    seen: list[int] = []
    submit(connect(server.url), before_send=lambda: seen.append(server.bytes_received))
    assert seen == [0]


def test_answer_to_a_request_that_could_not_be_sent_whole(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may answer and stop reading: its answer counts, not the broken pipe."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.answer(413, {"message": "too much"})

    send = http.client.HTTPConnection.send

    def send_head_only(connection: http.client.HTTPConnection, data: Any) -> None:
        if not data.startswith(b"POST "):
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        send(connection, data)

    server = serve(script)
    monkeypatch.setattr(http.client.HTTPConnection, "send", send_head_only)
    assert type(failure_of(connect(server.url))) is TooLargeError


def answer_twice(peer: Peer) -> None:
    """Answer two requests on one connection."""
    answer_once(peer, 200, JOB)
    answer_once(peer, 200, JOB)


def test_connections_are_kept(serve: Serve, connect: Connect) -> None:
    """Two submissions in a row take one connection."""
    server = serve(answer_twice)
    client = connect(server.url)
    submit(client)
    submit(client)
    assert (server.connections, len(server.requests)) == (1, 2)


def test_idle_connections_are_not_used(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that the server may be about to close is not trusted with a submission."""
    monkeypatch.setattr(watched, "_LONGEST_IDLE_SECONDS", 0.0)
    server = serve(answer_twice)
    client = connect(server.url)
    submit(client)
    submit(client)
    assert (server.connections, len(server.requests)) == (2, 2)


def test_connection_closed_between_requests(serve: Serve, connect: Connect) -> None:
    """A server that closes kept connections costs a new connection, not a submission."""
    closed = threading.Event()

    def script(peer: Peer) -> None:
        answer_once(peer, 200, JOB)
        peer.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = serve(script)
    client = connect(server.url)
    submit(client)
    assert closed.wait(5)
    submit(client)
    assert (server.connections, len(server.requests)) == (2, 2)


def test_errors_ignore_what_the_caller_is_handling(serve: Serve, connect: Connect) -> None:
    """A time-out of the caller's own is not taken for one of the request, and stays intact."""
    client = connect(serve(say(b"220 mail.test ESMTP\r\n")).url)

    def fail_while_handling() -> None:
        try:
            Future[None]().result(timeout=0)
        except TimeoutError:
            submit(client)

    with pytest.raises(NoAnswerError) as caught:
        fail_while_handling()
    assert type(caught.value) is NoAnswerError
    assert isinstance(caught.value.__context__, TimeoutError)
    assert caught.value.__context__.__traceback__ is not None


def test_threads_share_a_client(serve: Serve, connect: Connect) -> None:
    """Requests of many threads do not get mixed up, and each is asked about by itself."""

    def script(peer: Peer) -> None:
        while True:
            body = peer.read_request().json
            peer.answer(200, {"jobIdentifier": body["model"]["identifier"]})

    client = connect(serve(script).url)
    found: dict[str, tuple[str, int]] = {}

    def work(name: str) -> None:
        asked: list[int] = []
        job = client.jobs.submit_azureblob(
            name,
            "1",
            SOURCES,
            "anaccount",
            STORAGE_KEY,
            before_send=lambda: asked.append(threading.get_ident()),
        )
        found[name] = (job.job_identifier, asked.count(threading.get_ident()))

    names = [f"model-{number}" for number in range(16)]
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: (name, 1) for name in names}
