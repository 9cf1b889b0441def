"""The search for secrets that ends every module of these tests finds them when they are there."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from e2e_leaks import everything_written, findings, secrets_of

from sandbox.stack import Stack
from sandbox.storage import ACCOUNT_KEYS, UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Iterator

A_SECRET = ACCOUNT_KEYS[UPLOAD_ACCOUNT]
BEFORE = (b"", b"x", b"xy")  # base64 of a text depends on where in three bytes it begins


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Storage and stand-ins, without the app."""
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.mark.parametrize(
    "text",
    [
        f"the key is {A_SECRET}",
        f"?key={quote(A_SECRET, safe='')}&x",
        *(base64.b64encode(before + A_SECRET.encode() + b"yz").decode() for before in BEFORE),
        base64.urlsafe_b64encode(b"x" + A_SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_disguise(text: str) -> None:
    """In clear, in a URL, and in base64 wherever in the text it begins."""
    assert findings([("here", text), ("there", "nothing")], [A_SECRET]) == ["here"]


def test_a_secret_is_found_wherever_a_run_writes(stack: Stack) -> None:
    """A planted secret is found in a file, a row, a message and a result, and nowhere else."""
    secrets = secrets_of(stack)
    assert stack.api_key in secrets
    assert findings(everything_written(stack), secrets) == []

    (stack.folder / "some.log").write_text(f"Authorization: ApiKey {stack.api_key}\n")
    stack.table.create_entity({"PartitionKey": "p", "RowKey": "r", "reason": A_SECRET})
    hidden = base64.b64encode(f'{{"key": "{A_SECRET}"}}'.encode()).decode()
    stack.jobs_queue.send_message(hidden)
    stack.results.upload_blob("results.json", stack.api_key.partition(".")[2])

    found = findings(everything_written(stack), secrets)
    assert {place.split(".")[0] for place in found} == {
        "some",
        "row p",
        "message in modzy-jobs",
        "blob modzy-results/results",
    }
