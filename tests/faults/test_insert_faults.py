"""Inserting a row, through the fault proxy, into the emulator's table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from modzy_relay.azure_clients import table_service
from modzy_relay.identity import BlobVersion
from modzy_relay.lifecycle import State, Submission
from modzy_relay.settings import StorageConnection
from modzy_relay.table_ledger import TableLedger
from sandbox.fault_proxy import TABLE, Effect, Fault, FaultProxy, Journal, Names, When, cut
from sandbox.storage import HOST_ACCOUNT, Azurite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = Names("uploads", "Ledger", "jobs", "due", "results")


@pytest.fixture
def journal() -> Journal:
    """Notes what comes by."""
    return Journal(NAMES)


@pytest.fixture
def ledger(tmp_path: Path, journal: Journal) -> Iterator[TableLedger]:
    """A ledger behind a fault proxy."""
    with (
        Azurite(tmp_path, in_memory=True) as azurite,
        FaultProxy("app", {TABLE: azurite.endpoint(TABLE).rpartition("/")[0]}, journal) as proxy,
        table_service(
            StorageConnection(
                "RelayStorage",
                HOST_ACCOUNT,
                connection_string=proxy.through(azurite.connection_string()),
            )
        ) as service,
    ):
        yield TableLedger(service.create_table(NAMES.table))


def a_submission() -> Submission:
    """A version that nobody has claimed yet."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    return Submission(
        version=BlobVersion("account", "uploads", "a.txt", "e1", now),
        size=1,
        state=State.SUBMITTING,
        created_at=now,
        give_up_at=now + timedelta(days=7),
        item_key="a-txt",
    )


@pytest.mark.parametrize("when", list(When))
def test_a_connection_that_breaks_does_not_fail_the_claim(
    ledger: TableLedger, journal: Journal, when: When
) -> None:
    """The insert is repeated within the call, and a repeat knows its own row when it meets it.

    The host's attempts at a blob event follow one another at once and are soon used up.
    """
    fault = journal.add(Fault(effect=Effect.INSERT, when=when, answer=cut(), count=2))
    _, created = ledger.insert(a_submission())
    assert created
    assert fault.fired == 2


def test_somebody_elses_row_is_not_taken_for_ones_own(
    ledger: TableLedger, journal: Journal
) -> None:
    """A repeated insert that meets the row of another claim has not made it."""
    ledger.insert(a_submission())
    journal.add(Fault(effect=Effect.INSERT, when=When.BEFORE, answer=cut()))
    _, created = ledger.insert(a_submission())
    assert not created
