"""Requests look on the wire as those of Modzy's own Python SDK do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from modzy_servers import API_KEY, JOB, Peer, RawServer, Received, serve_forever

from modzy_relay.modzy_api import ModelRef, ModzyClient

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
SDK_PYTHON = HERE.parent.parent / ".venv-sdk" / "bin" / "python"

ACCOUNT = ["anaccount", "YW4gYWNjb3VudCBrZXk/+w=="]
ONE = {"my-input": {"input.txt": {"container": "uploads", "filePath": "path/to/some_file.txt"}}}
UNUSUAL = {
    "Übersicht 2026/ä\u2028.pdf.2026-11-23-a.0123": {
        "image": {"container": "uploads", "filePath": "Ordner/Übersicht \U0001f4c4 'a' \"b\".pdf"}
    }
}
SEVERAL = {
    "one": {
        "image": {"container": "uploads", "filePath": "1.png"},
        "config.json": {"container": "settings", "filePath": "c.json"},
    },
    "two": {"image": {"container": "uploads", "filePath": " "}},
}
ONE_LEVEL = {"container": "uploads", "filePath": "path/to/some_file.txt"}

# Arguments as they are written in JSON; a model of {"modelId": ...} stands for a model object.
CALLS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "documented": (["ed542963de", "0.0.27", ONE, *ACCOUNT], {}),
    "model object": ([{"modelId": "ed542963de"}, "0.0.27", ONE, *ACCOUNT], {}),
    "explain": (["ed542963de", "0.0.27", ONE, *ACCOUNT], {"explain": True}),
    "explain by position": (["ed542963de", "0.0.27", ONE, *ACCOUNT, True], {}),
    "unusual names": (["ed542963de", "0.0.27", UNUSUAL, *ACCOUNT], {}),
    "several items": (["ed542963de", "0.0.27", SEVERAL, *ACCOUNT], {}),
    "one level": (["ed542963de", "0.0.27", ONE_LEVEL, *ACCOUNT], {}),
    "names": (
        ["ed542963de"],
        {
            "version": "0.0.27",
            "sources": ONE,
            "storage_account": ACCOUNT[0],
            "storage_account_key": ACCOUNT[1],
        },
    ),
}


def answer(received: Received) -> tuple[int, object]:
    """A job, and lists for what the SDK asks while it is made."""
    lists = ("/api/models", "/api/models/requirements/account")
    return 200, [] if received.target in lists else JOB


def submitted_by_sdk(server: RawServer) -> list[Received]:
    """What the SDK sends for all calls."""
    spec = {"base_url": f"{server.url}/api", "api_key": API_KEY, "calls": list(CALLS.values())}
    subprocess.run(
        [SDK_PYTHON, HERE / "sdk_wire.py"],
        input=json.dumps(spec),
        text=True,
        check=True,
        timeout=60,
    )
    return [request for request in server.requests if request.method == "POST"]


def test_submissions_equal_those_of_the_sdk(
    serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]
) -> None:
    """Method, path, headers that matter and body are the same for the same arguments."""
    if not SDK_PYTHON.exists():
        reason = "the SDK's environment is missing: make .venv-sdk/.ready"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    expected = submitted_by_sdk(serve(serve_forever(answer)))
    server = serve(serve_forever(answer))
    client = connect(server.url)
    for (model, *args), kwargs in CALLS.values():
        ours = ModelRef(model["modelId"]) if isinstance(model, dict) else model
        client.jobs.submit_azureblob(ours, *args, **kwargs)
    assert len(expected) == len(server.requests) == len(CALLS)
    for name, theirs, own in zip(CALLS, expected, server.requests, strict=True):
        assert what_matters(own) == what_matters(theirs), name
        assert own.body == theirs.body, name


def what_matters(request: Received) -> dict[str, Any]:
    """The parts of a request that Modzy looks at."""
    headers = {name: request.headers[name] for name in ("authorization", "accept", "content-type")}
    return {
        "method": request.method,
        "target": request.target,
        "body": request.json,
        **headers,
    }


def test_documented_example(
    serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]
) -> None:
    """The example in Modzy's documentation runs as it is written there."""
    server = serve(serve_forever(answer))
    client = connect(server.url)
    # fmt: off
    sources = {'my-input': {'input.txt': {'container': 'azure-blob-container', 'filePath': 'path/to/some_file.txt'}}}  # noqa: E501 - as documented
    job = client.jobs.submit_azureblob('ed542963de', '0.0.27', sources, 'AZURE_STORAGE_ACCOUNT', 'AZURE_STORAGE_ACCOUNT_KEY')  # noqa: E501 - as documented
    # fmt: on
    assert job.job_identifier == "14856eb1-0ad8-49e7-9da3-887acb80fea5"
    assert job.status == "SUBMITTED"
    assert server.requests[0].json == {
        "model": {"identifier": "ed542963de", "version": "0.0.27"},
        "explain": False,
        "input": {
            "type": "azureblob",
            "storageAccount": "AZURE_STORAGE_ACCOUNT",
            "storageAccountKey": "AZURE_STORAGE_ACCOUNT_KEY",
            "sources": sources,
        },
    }


@pytest.mark.parametrize("suffix", ["", "/", "/api", "/api/"])
def test_base_url_in_every_form(
    suffix: str, serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]
) -> None:
    """People configure the host with and without /api; all of it leads to the same routes."""
    server = serve(serve_forever(answer))
    client = connect(server.url + suffix)
    client.jobs.get("a job/1?")
    client.models.get_version("a-model", "1.0.0")
    assert [request.target for request in server.requests] == [
        "/api/jobs/a%20job%2F1%3F",
        "/api/models/a-model/versions/1.0.0",
    ]


def test_netrc_does_not_replace_the_key(
    serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]
) -> None:
    """Credentials in ~/.netrc for the same host do not take the API key's place."""
    netrc = Path.home() / ".netrc"
    netrc.write_text("default login someone password something\n")
    netrc.chmod(0o600)
    server = serve(serve_forever(answer))
    connect(server.url).jobs.get("a-job")
    assert server.requests[0].headers["authorization"] == f"ApiKey {API_KEY}"


def test_cookies_are_not_kept(
    serve: Callable[..., RawServer], connect: Callable[..., ModzyClient]
) -> None:
    """One answer does not change the next request."""

    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.answer(200, JOB, Set_Cookie="session=1; Path=/")

    server = serve(script)
    client = connect(server.url)
    client.jobs.get("a-job")
    client.jobs.get("a-job")
    assert ["cookie" in request.headers for request in server.requests] == [False, False]


def test_key_is_read_for_each_request(serve: Callable[..., RawServer]) -> None:
    """A key that was rotated is used from the next request on."""
    keys = iter(["one.1", "two.2\n"])
    server = serve(serve_forever(answer))
    with ModzyClient(server.url, lambda: next(keys)) as client:
        client.jobs.get("a-job")
        client.jobs.get("a-job")
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["ApiKey one.1", "ApiKey two.2"]
