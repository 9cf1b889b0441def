"""Fixtures of the operator's tests: the commands on real stand-ins."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from modzy_relay.azure_clients import credential
from modzy_relay.cli import main
from modzy_relay.identity import LedgerKey
from modzy_relay.lifecycle import State
from modzy_relay.wiring import Services, build
from sandbox.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its data."""
        return json.loads(self.out)


class Desk:
    """An operator's desk: the commands, and ways to bring submissions into trouble.

    Attributes:
        stack: The stand-ins.
        services: The app's own use cases.
    """

    def __init__(self, stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        self.stack = stack
        self.services: Services = build(os.environ)
        self._capsys = capsys

    def run(self, *argv: str) -> Ran:
        """Run a command in this process; it may print no secret."""
        self._capsys.readouterr()
        code = main(argv)
        out, err = self._capsys.readouterr()
        for secret in self.stack.known_secrets:
            assert secret not in out + err
        return Ran(code, out, err)

    def show(self, key: LedgerKey | str) -> Any:
        """A submission as ``show --json`` tells of it."""
        return self.run("show", str(key), "--json").json

    def upload(self, path: str, content: bytes = b"a good day") -> LedgerKey:
        """Upload a file and have it submitted; returns its submission's key."""
        self.stack.uploads.upload_blob(path, content, overwrite=True)
        self.services.relay.submit_upload(path)
        found = self.services.lookup.by_path(path)["submissions"][0]
        key = LedgerKey.parse(found["id"])
        assert key is not None
        return key

    def follow(self, key: LedgerKey) -> None:
        """Look at a submission's job until it has ended."""
        for _ in range(200):
            record = self._record(key)
            if not record.row.is_open:
                return
            due = dataclasses.replace(record.row, next_attempt_at=record.as_of)
            self.services.ledger.replace(record, due)
            self.services.relay.advance(key)
        raise AssertionError(f"{key} has not come to an end")

    def force(self, key: LedgerKey, state: State, reason: str, **fields: object) -> None:
        """Put a submission into a state, as of an hour ago."""
        record = self._record(key)
        before = datetime.now(UTC) - timedelta(hours=1)
        usual = {"lease_until": None, "next_attempt_at": None, "indexed": True}
        row = record.row.moved(state, before, reason, **usual | fields)
        self.services.ledger.replace(record, row)

    def uncertain(self, path: str, *, accepted: bool) -> tuple[LedgerKey, str | None]:
        """An UNCERTAIN submission, and the job that it has in truth, if it has one."""
        if not accepted:
            self.stack.modzy.misbehave({"do": "status", "status": 503})
        key = self.upload(path)
        job = self._record(key).row.job_identifier
        self.force(key, State.UNCERTAIN, "not found out", job_identifier=None, job_status=None)
        return key, job

    def jobs(self, key: LedgerKey) -> list[str]:
        """The jobs that Modzy has for a submission."""
        return self.stack.modzy.jobs_by_item().get(self._record(key).row.item_key, [])

    def reminders(self) -> list[str]:
        """Takes the messages that wait in the due queue; returns the rows that they name."""
        found: list[str] = []
        while page := list(self.stack.due_queue.receive_messages(max_messages=32)):
            found += [json.loads(message.content)["ledger_key"] for message in page]
            for message in page:
                self.stack.due_queue.delete_message(message)
        return found

    def _record(self, key: LedgerKey) -> Any:
        record = self.services.ledger.get(key)
        assert record is not None
        return record


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Storage, Modzy and Key Vault on this machine."""
    with Stack(tmp_path_factory.mktemp("stack"), job_seconds=0.0) as running:
        yield running


@pytest.fixture
def desk(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    """The commands on the stand-ins, with nothing of this machine's environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in stack.settings.items():
        monkeypatch.setenv(name, value)
    # One for the process, made for the endpoints of the stand-ins that were there first.
    credential.cache_clear()
    yield Desk(stack, capsys)
    credential.cache_clear()
    stack.modzy.service.rules.replace([])
    stack.vault.set_fault(None)
