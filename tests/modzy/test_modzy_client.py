"""What the client refuses before anything is sent, what it shows of itself, and its read routes."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from modzy_servers import (
    API_KEY,
    JOB,
    SOURCES,
    STORAGE_KEY,
    FakeTransport,
    Peer,
    RawServer,
    json_transport,
    response,
)

from modzy_relay.modzy_api import (
    ForeignLinkError,
    HttpTransport,
    ModelRef,
    ModzyClient,
    ModzyError,
    NoAnswerError,
    NotFoundError,
    NotSentError,
    Outcome,
    UnreadableAnswerError,
    api,
)
from modzy_relay.modzy_api.errors import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BLOB = {"container": "uploads", "filePath": "a.txt"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "modzy.test",
        "http://modzy.test",
        "http://10.0.0.1/api",
        "http://localhost.modzy.test",
        "ftp://modzy.test",
        "https://",
        "https:///api",
        "https://user:hunter2@modzy.test",
        "https://modzy.test/?hunter2",
        "https://modzy.test/#hunter2",
        "https://modzy.test:port",
        "https://mod zy.test",
        "https://modzy.test\\api",
        "https://[::1",
    ],
)
def test_unusable_base_url(url: str) -> None:
    """An address that a key must not go to is refused, without repeating a password in it."""
    with pytest.raises(ValueError, match="base_url") as caught:
        ModzyClient(url, API_KEY)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://modzy.test", "https://modzy.test/api"),
        (" https://MODZY.test/api/ ", "https://modzy.test/api"),
        ("https://modzy.test:8443//", "https://modzy.test:8443/api"),
        ("https://gateway.test/modzy/api", "https://gateway.test/modzy/api"),
        ("http://localhost:5000", "http://localhost:5000/api"),
        ("http://[::1]:5000", "http://[::1]:5000/api"),
    ],
)
def test_base_url(url: str, base: str) -> None:
    """The address is brought into one form."""
    with ModzyClient(url, API_KEY) as client:
        assert client.base_url == base


@pytest.mark.parametrize("key", ["", " ", "two words", "line\nbreak", "k\u00fcy", "nul\0"])
def test_unusable_key(key: str) -> None:
    """A key that cannot be in a header is refused, and not shown."""
    with pytest.raises(ValueError, match="API key") as caught:
        ModzyClient("https://modzy.test", key)
    assert not key.strip() or key not in str(caught.value)


def test_unusable_key_later_on() -> None:
    """A key that turns out unusable at a request means that nothing was sent."""
    transport = json_transport(lambda _request: (200, JOB))
    client = ModzyClient("https://modzy.test", lambda: "two words", transport=transport)
    with pytest.raises(NotSentError) as caught:
        client.jobs.get("a-job")
    assert caught.value.outcome is Outcome.NOT_ACCEPTED
    assert transport.requests == []


@pytest.mark.parametrize(
    ("key", "shown"),
    [(API_KEY, "prefix123.***"), ("no-dot-at-all", "***"), (lambda: API_KEY, "***")],
)
def test_repr_masks_the_key(key: str | Callable[[], str], shown: str) -> None:
    """Of a key only the part before its dot is shown, of a request nothing."""
    transport = json_transport(lambda _request: (200, JOB))
    client = ModzyClient("https://modzy.test", key, transport=transport)
    assert repr(client) == f"ModzyClient('https://modzy.test/api', api_key={shown!r})"
    submit(client)
    assert "k3y" not in repr(transport.requests)
    assert STORAGE_KEY not in repr(transport.requests)


def submit(client: ModzyClient, **changes: Any) -> None:
    """Submit a job with some arguments changed."""
    arguments: dict[str, Any] = {
        "model": "a-model",
        "version": "1.0.1",
        "sources": SOURCES,
        "storage_account": "anaccount",
        "storage_account_key": STORAGE_KEY,
    }
    client.jobs.submit_azureblob(**(arguments | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ""},
        {"model": None},
        {"model": ModelRef()},
        {"version": " "},
        {"storage_account": ""},
        {"storage_account": None},
        {"storage_account_key": ""},
        {"storage_account_key": 42},
        {"explain": "yes"},
        {"sources": {}},
        {"sources": None},
        {"sources": [BLOB]},
        {"sources": {"container": "uploads", "filePath": 7}},
        {"sources": {"input.txt": BLOB}},
        {"sources": {"": {"input.txt": BLOB}}},
        {"sources": {7: {"input.txt": BLOB}}},
        {"sources": {"item": {"": BLOB}}},
        {"sources": {"item": {"input.txt": {"container": "uploads"}}}},
        {"sources": {"item": {"input.txt": {"container": "", "filePath": "a"}}}},
        {"sources": {"item": {"input.txt": BLOB}, "other": {}}},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": math.inf},
        {"timeout": math.nan},
        {"timeout": True},
        {"timeout": "60"},
        {"timeout": timedelta(0)},
    ],
)
def test_unusable_arguments(changes: dict[str, Any]) -> None:
    """What Modzy could only refuse is refused here, before anything is sent."""
    transport = json_transport(lambda _request: (200, JOB))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    with pytest.raises(ValueError, match="must") as caught:
        submit(client, **changes)
    assert STORAGE_KEY not in str(caught.value)
    assert transport.requests == []


@pytest.mark.parametrize(
    ("timeout", "milliseconds"), [(3600, 3_600_000), (0.25, 250), (timedelta(minutes=1), 60_000)]
)
def test_timeout_in_milliseconds(timeout: float | timedelta, milliseconds: int) -> None:
    """Seconds here, milliseconds on the wire."""
    transport = json_transport(lambda _request: (200, JOB))
    submit(ModzyClient("https://modzy.test", API_KEY, transport=transport), timeout=timeout)
    body = transport.requests[0].body
    assert body is not None
    assert f'"timeout": {milliseconds}}}'.encode() in body


@pytest.mark.parametrize("identifier", ["", " ", ".", ".."])
def test_identifiers_stay_in_their_route(identifier: str) -> None:
    """An identifier cannot turn a request into one for another route."""
    transport = json_transport(lambda _request: (200, JOB))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    with pytest.raises(ValueError, match="identifier"):
        client.jobs.get(identifier)
    assert transport.requests == []


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, math.inf, math.nan])
def test_unusable_time_outs(name: str, seconds: float) -> None:
    """A request without a time limit cannot be asked for."""
    with pytest.raises(ValueError, match=name):
        HttpTransport(**{name: seconds})


def test_details_and_cancel() -> None:
    """A job is followed and cancelled by itself or by its identifier."""
    answers = iter([(200, {**JOB, "status": "IN_PROGRESS"}), (200, JOB), (202, None), (204, {})])
    transport = json_transport(lambda _request: next(answers))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    job = client.jobs.get(JOB["jobIdentifier"])
    assert job.status == "IN_PROGRESS"
    assert client.jobs.cancel(job) is not None
    assert client.jobs.cancel(job) is None
    assert client.jobs.cancel(job) is None
    path = f"/api/jobs/{JOB['jobIdentifier']}"
    assert [request.label for request in transport.requests] == [f"GET {path}"] + [
        f"DELETE {path}"
    ] * 3


def test_results_that_are_not_there_yet() -> None:
    """Right after a submit the results answer 404, which the caller can tell from other faults."""
    transport = json_transport(lambda _request: (404, {"message": "no results"}))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    with pytest.raises(NotFoundError, match="no results"):
        client.results.get("a-job")


def test_models() -> None:
    """The list names models with their latest versions."""
    listed = [{"modelId": "ed542963de", "latestVersion": "1.0.1", "versions": ["1.0.1"]}]
    transport = json_transport(lambda _request: (200, listed))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    assert client.models.list() == (ModelRef("ed542963de", "1.0.1"),)


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without an end does not fill the memory; what it says stays unknown."""
    monkeypatch.setattr(api, "_LARGEST_ERROR", 1000)
    taken = [0]

    class Endless(FakeTransport):
        def open(self, *_args: Any, **_kwargs: Any) -> Any:
            return _EndlessAnswer(self._status, taken)

        def __init__(self, status: int) -> None:
            self._status = status

    for status, kind in ((200, UnreadableAnswerError), (500, ModzyError)):
        taken[0] = 0
        client = ModzyClient("https://modzy.test", API_KEY, transport=Endless(status))
        with pytest.raises(kind) as caught:
            client.jobs.get("a-job")
        assert caught.value.outcome is Outcome.UNKNOWN
        assert taken[0] <= 17 * 1024 * 1024


class _EndlessAnswer:
    """An answer that goes on and on; also its own context manager."""

    def __init__(self, status: int, taken: list[int]) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self._taken = taken

    def __enter__(self) -> _EndlessAnswer:
        return self

    def __exit__(self, *_args: object) -> None:
        """There is nothing to close."""

    def iter_chunks(self, size: int) -> Any:
        """Spaces for ever."""
        while True:
            self._taken[0] += size
            yield b" " * size


FILE_PATH = "/api/results/a-job/an%20item/results.wav"


def test_result_file(serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]) -> None:
    """A linked file is streamed, with the key, whatever white space ends the link."""
    content = bytes(range(256)) * 1000

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(200, content, Content_Type="audio/wav"))

    server = serve(script)
    with connect(server.url).results.open_file(f"{server.url}{FILE_PATH}?a=b%2F \n") as file:
        assert (file.content_type, file.length) == ("audio/wav", len(content))
        chunks = list(file.iter_chunks(10_000))
    assert b"".join(chunks) == content
    assert max(map(len, chunks)) <= 10_000
    assert server.requests[0].target == f"{FILE_PATH}?a=b%2F"
    assert server.requests[0].headers["authorization"] == f"ApiKey {API_KEY}"


def test_cut_result_file(
    serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]
) -> None:
    """Half a file is not taken for a whole one."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(200, b"x" * 1000)[:-1])

    server = serve(script)
    with (
        connect(server.url).results.open_file(f"{server.url}{FILE_PATH}") as file,
        pytest.raises(NoAnswerError),
    ):
        list(file.iter_chunks(100))


def test_exceptions_of_the_reader_come_through(
    serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]
) -> None:
    """What goes wrong on the reader's side is not taken for a fault of Modzy."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(200, b"x" * 1000))

    server = serve(script)
    client = connect(server.url)
    reason = OSError("disk full")

    def read() -> None:
        with client.results.open_file(f"{server.url}{FILE_PATH}") as file:
            for _ in file.iter_chunks(100):
                raise reason

    with pytest.raises(OSError, match="disk full") as caught:
        read()
    assert caught.value is reason


@pytest.mark.parametrize(
    "link",
    [
        "",
        "results.wav",
        "/api/results/a-job/results.wav",
        "//modzy.test/api/results/r.wav",
        "http://modzy.test/api/results/r.wav",
        "https://evil.test/api/results/r.wav",
        "https://modzy.test.evil.test/api/results/r.wav",
        "https://modzy.test:444/api/results/r.wav",
        "https://modzy.test:x/api/results/r.wav",
        "https://modzy.test@evil.test/api/results/r.wav",
        "https://user@modzy.test/api/results/r.wav",
        "https://evil.test\\@modzy.test/api/results/r.wav",
        "https://modzy.test\\.evil.test/api/results/r.wav",
        "https://modzy.test/results/r.wav",
        "https://modzy.test/api",
        "https://modzy.test/apis/r.wav",
        "https://modzy.test/api/../admin",
        "https://modzy.test/api/%2e%2E/admin",
        "https://modzy.test/api/results%2f..%2f../admin",
        "https://modzy.test/api/re\nsults/r.wav",
        "https://[modzy.test/api/results/r.wav",
        "file:///api/results/r.wav",
    ],
)
def test_foreign_links(link: str) -> None:
    """A result document cannot make the client take its key to another place."""
    transport = json_transport(lambda _request: (200, {}))
    client = ModzyClient("https://modzy.test", API_KEY, transport=transport)
    with pytest.raises(ForeignLinkError), client.results.open_file(link):
        pass
    assert transport.requests == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 13:00:30 +0100", 30.0),
        ("Mon, 23 Nov 2026 12:00:30 -0000", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("9" * 5000, None),
        ("\u0661\u0662", None),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_parse_retry_after(value: str | None, seconds: float | None) -> None:
    """Both forms of the header count; nonsense is no pause, never a fault."""
    assert parse_retry_after(value, NOW) == seconds
