"""Modzy's own SDK, our client and the app see the same jobs at the Modzy stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from modzy_relay.modzy_api import ModzyClient
from sandbox.stack import Stack
from sandbox.storage import ACCOUNT_KEYS, UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.host.child import FunctionsHost

HERE = Path(__file__).parent
SDK_PYTHON = HERE.parent.parent / ".venv-sdk" / "bin" / "python"
A_PATH = "letters/a good letter.txt"
A_CONTENT = b"What a wonderful, helpful letter. Thanks!"
_DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Storage and stand-ins."""
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def relayed(stack: Stack) -> dict[str, Any]:
    """The ledger row of a file that the app has brought to its end."""
    stack.uploads.upload_blob(A_PATH, A_CONTENT)
    with stack.functions_host(["--scan-interval", "0.2"]) as host:
        row = wait_for(lambda: find_row(stack, "job_identifier"))
        wait_for(lambda: stack.modzy.jobs.find(row["job_identifier"]).is_final)
        hint(host, row["job_identifier"])
        finished: dict[str, Any] = wait_for(lambda: find_row(stack, "finished_at"))
    return finished


def find_row(stack: Stack, column: str) -> dict[str, Any] | None:
    """The only submission, once it has a value in a column."""
    rows = [row for row in stack.table.query_entities("PartitionKey lt 'a'") if column in row]
    return dict(rows[0]) if rows else None


def hint(host: FunctionsHost, identifier: str) -> None:
    """Tell the app, as Modzy's webhook does, that a job has ended."""
    requests.post(
        f"{host.url}/api/modzy/job-completed",
        json={"job": {"identifier": identifier}},
        headers={"x-functions-key": host.function_key},
        timeout=10,
    ).raise_for_status()


def wait_for(probe: Callable[[], Any]) -> Any:
    """The first answer that is true; fails when the time is over."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"the last answer was {answer!r}"
        time.sleep(0.05)
    return answer


@pytest.fixture(scope="module")
def seen_by_sdk(stack: Stack, relayed: dict[str, Any]) -> dict[str, Any]:
    """What the SDK says of a job of its own and of the app's."""
    if not SDK_PYTHON.exists():
        reason = "the SDK's environment is missing: make .venv-sdk/.ready"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    sources = {"my-input": {"input.txt": {"container": "uploads", "filePath": A_PATH}}}
    key = ACCOUNT_KEYS[UPLOAD_ACCOUNT]
    spec = {
        "base_url": f"{stack.modzy.url}/api",
        "api_key": stack.api_key,
        "submit": ["ed542963de", "0.0.27", sources, UPLOAD_ACCOUNT, key],
        "known": relayed["job_identifier"],
    }
    run = subprocess.run(
        [SDK_PYTHON, HERE / "sdk_session.py"],
        input=json.dumps(spec),
        text=True,
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
    )
    answers: dict[str, Any] = json.loads(run.stdout)
    return answers


def test_the_sdk_submits_and_reads_results(seen_by_sdk: dict[str, Any]) -> None:
    """The stand-in serves the SDK as Modzy does: submit, details, results."""
    identifier, status = seen_by_sdk["submitted"]
    assert status == "SUBMITTED"
    assert seen_by_sdk["ended"]["jobIdentifier"] == identifier
    assert seen_by_sdk["ended"]["status"] == "COMPLETED"
    assert seen_by_sdk["outputs"]["results.json"]["size"] == len(A_CONTENT)


def test_the_sdk_sees_the_job_that_the_app_submitted(
    relayed: dict[str, Any], seen_by_sdk: dict[str, Any]
) -> None:
    """The identifier in the ledger is Modzy's, in its details and in its history."""
    assert seen_by_sdk["known_job"]["jobIdentifier"] == relayed["job_identifier"]
    assert seen_by_sdk["known_job"]["status"] == relayed["job_status"] == "COMPLETED"
    inputs = [entry["identifier"] for entry in seen_by_sdk["known_job"]["jobInputs"]]
    assert inputs == [relayed["item_key"]]
    identifiers = {relayed["job_identifier"], seen_by_sdk["submitted"][0]}
    assert identifiers <= set(seen_by_sdk["history"])


def test_the_app_has_stored_what_the_sdk_reads(
    stack: Stack, relayed: dict[str, Any], seen_by_sdk: dict[str, Any]
) -> None:
    """The kept results.json is Modzy's own document, nothing left out."""
    name = relayed["result_location"].partition("/")[2] + "/results.json"
    kept = json.loads(stack.results.download_blob(name).readall())
    assert kept == seen_by_sdk["known_result"]


def test_our_client_sees_the_job_that_the_sdk_submitted(
    stack: Stack, seen_by_sdk: dict[str, Any]
) -> None:
    """Both clients speak of the same job in the same words."""
    with ModzyClient(stack.modzy.url, stack.api_key) as client:
        job = client.jobs.get(seen_by_sdk["submitted"][0])
        results = client.results.get(job.job_identifier)
    assert job.status == seen_by_sdk["ended"]["status"]
    assert list(job.job_inputs) == ["my-input"]
    assert results.outputs.keys() == {"my-input"}


def test_the_documented_example_runs_against_the_stand_in(stack: Stack) -> None:
    """As written in Modzy's documentation; there is no such account, which its result says."""
    with ModzyClient(stack.modzy.url, stack.api_key) as client:
        # fmt: off
        sources = {'my-input': {'input.txt': {'container': 'azure-blob-container', 'filePath': 'path/to/some_file.txt'}}}  # noqa: E501 - as documented
        job = client.jobs.submit_azureblob('ed542963de', '0.0.27', sources, 'AZURE_STORAGE_ACCOUNT', 'AZURE_STORAGE_ACCOUNT_KEY')  # noqa: E501 - as documented
        # fmt: on
        assert job.job_identifier in stack.modzy.jobs_by_item()["my-input"]
        assert job.status == "SUBMITTED"
        wait_for(lambda: client.jobs.get(job.job_identifier).is_final)
        failures = client.results.get(job.job_identifier).failures
    assert "AZURE_STORAGE_ACCOUNT cannot be reached" in (failures["my-input"].error or "")
