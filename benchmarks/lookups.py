"""Asking for one submission, by how many rows the ledger has."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import cost_of, tell
from modzy_relay.identity import BlobVersion, input_item_key
from modzy_relay.lifecycle import State, Submission
from modzy_relay.table_ledger import TableLedger, _entity
from modzy_relay.wiring import build
from sandbox.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from azure.data.tables import TableClient

_SIZES = (10, 1_000, 20_000)
_ROUNDS = 60
_LARGEST_TRANSACTION = 100
_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def a_submission(number: int) -> Submission:
    """A submitted row, one of thousands of one day."""
    version = BlobVersion("sandboxuploads", "uploads", f"file {number}.txt", f"0x{number:X}", _NOON)
    return Submission(
        version=version,
        size=5,
        state=State.SUBMITTED,
        created_at=_NOON,
        give_up_at=_NOON + timedelta(days=7),
        item_key=input_item_key(version.path, version.key),
        job_identifier=f"job-{number}",
        job_status="COMPLETED",
    )


def insert(table: TableClient, rows: Iterable[Submission]) -> None:
    """Insert rows in as few requests as the service allows."""
    entities = sorted((_entity(row, "") for row in rows), key=lambda row: row["PartitionKey"])
    for _, partition in itertools.groupby(entities, key=lambda row: row["PartitionKey"]):
        for batch in _batches(partition):
            table.submit_transaction([("create", entity) for entity in batch])


def _batches(entities: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rest = iter(entities)
    while batch := list(itertools.islice(rest, _LARGEST_TRANSACTION)):
        yield batch


def main() -> None:
    """Fill the ledger step by step, and measure after each step."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        ledger = TableLedger(stack.table)
        lookup = build(stack.settings).lookup
        wanted = dataclasses.replace(a_submission(0), indexed=True)
        ledger.index(wanted)
        identifier = str(wanted.key)
        filled = 0
        tell("rows       by id      by job     by path   (median ms)")
        for size in _SIZES:
            insert(stack.table, map(a_submission, range(filled, size)))
            filled = size
            assert lookup.by_id(identifier) == lookup.by_job("job-0")  # noqa: S101 - or no result
            costs = cost_of(
                [
                    lambda: lookup.by_id(identifier),
                    lambda: lookup.by_job("job-0"),
                    lambda: lookup.by_path("file 0.txt"),
                ],
                _ROUNDS,
            )
            tell(f"{size:<8}" + "".join(f"{cost.wall:10.2f} " for cost in costs))
    tell(
        "not measured: Azure Table Storage, which has an index of its keys. The emulator has none "
        "for queries and looks through all rows, so that its share of by path grows. Only the row "
        "that is asked for has pointers"
    )


if __name__ == "__main__":
    main()
