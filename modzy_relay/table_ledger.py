"""The ledger on Azure Table Storage.

One table holds, by partition:

- ``2026-11-23-a``: submissions, one row per blob version (see ``identity.py``);
- ``path-<digest>``, ``job-<digest>``: pointers to submissions, so that a lookup by path or by job
  is one range or point query;
- ``bookmark``: where the sweep left off.

Rows are never deleted. Every write carries a random ``write_id``: where an SDK retry meets its own
first attempt as a conflict, the id tells that the write was ours.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.data.tables import EdmType, EntityProperty, TableErrorCode, UpdateMode

from modzy_relay.azure_clients import ServiceTime, ticks
from modzy_relay.errors import ConflictError
from modzy_relay.identity import BlobVersion, LedgerKey, path_digest
from modzy_relay.lifecycle import Change, Record, State, Submission

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date

    from azure.data.tables import TableClient, TableEntity

_BOOKMARKS = "bookmark"
_TIMES = (
    "created_at",
    "give_up_at",
    "lease_until",
    "next_attempt_at",
    "submitted_at",
    "finished_at",
)
_PLAIN = (
    "item_key",
    "model",
    "model_version",
    "input_name",
    "explain",
    "timeout",
    "attempts",
    "deferrals",
    "doubts",
    "job_identifier",
    "job_status",
    "looks",
    "result_location",
    "reason",
    "indexed",
)
# Table Storage refuses key values with control characters, "/", "\", "#" and "?"; ours have none.
_LATEST_MS = 10**14 - 1


class TableLedger:
    """Implements ``ports.Ledger`` on one table. Thread-safe."""

    def __init__(self, table: TableClient) -> None:
        self._table = table

    def insert(self, row: Submission) -> tuple[Record, bool]:
        """Insert only; if the row exists, return it as it stands."""
        time = ServiceTime()
        write_id = secrets.token_hex(8)
        try:
            # The SDK does not repeat a POST after a connection failure, and the Functions host
            # gives a blob event up after five attempts without a pause between them. The write
            # id makes a repeated insert safe.
            answer = self._table.create_entity(
                _entity(row, write_id), raw_response_hook=time, retry_on_methods=["POST"]
            )
        except ResourceExistsError:
            record, stored_write_id = self._read(row.key)
            return record, stored_write_id == write_id
        return _record(row, answer["etag"], time), True

    def get(self, key: LedgerKey) -> Record | None:
        """One point read."""
        try:
            return self._read(key)[0]
        except ResourceNotFoundError as error:
            _raise_if_table_is_missing(error)
            return None

    def replace(self, record: Record, row: Submission) -> Record:
        """Change a row if nobody else has; raises ConflictError otherwise."""
        time = ServiceTime()
        write_id = secrets.token_hex(8)
        try:
            answer = self._table.update_entity(
                _entity(row, write_id),
                mode=UpdateMode.REPLACE,
                etag=record.etag,
                match_condition=MatchConditions.IfNotModified,
                raw_response_hook=time,
            )
        except HttpResponseError as error:
            if error.status_code not in {HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED}:
                raise
            return self._own_write(row.key, write_id, error)
        return _record(row, answer["etag"], time)

    def _own_write(self, key: LedgerKey, write_id: str, error: HttpResponseError) -> Record:
        record, stored_write_id = self._read(key)
        if stored_write_id != write_id:
            raise ConflictError(f"submission {key} has changed since it was read") from error
        return record

    def _read(self, key: LedgerKey) -> tuple[Record, str]:
        time = ServiceTime()
        entity = self._table.get_entity(key.partition, key.row, raw_response_hook=time)
        return (
            _record(_submission(entity), entity.metadata["etag"], time),
            entity.get("write_id", ""),
        )

    # -- lookups ---------------------------------------------------------------------------

    def index(self, row: Submission) -> None:
        """Point to the submission from its path and its job."""
        version = row.version
        pointer = {"ledger_key": str(row.key), "path": version.path}
        self._table.upsert_entity(
            {
                "PartitionKey": f"path-{path_digest(version.container, version.path)}",
                # Newest first: rows of a partition come in the order of their keys.
                "RowKey": (
                    f"{_LATEST_MS - round(version.last_modified.timestamp() * 1000):014d}-"
                    f"{9999 - version.generation:04d}-{row.key}"
                ),
                **pointer,
            },
            mode=UpdateMode.REPLACE,
        )
        if row.job_identifier is not None:
            self._table.upsert_entity(
                {
                    "PartitionKey": _job_partition(row.job_identifier),
                    "RowKey": "submission",
                    **pointer,
                },
                mode=UpdateMode.REPLACE,
            )

    def find_by_path(
        self, container: str, path: str, limit: int, token: str | None = None
    ) -> tuple[Sequence[LedgerKey], str | None]:
        """Keys of a blob's versions, newest first; ValueError for a token of somebody else's."""
        try:
            entities, next_token = self._page(
                "PartitionKey eq @partition",
                {"partition": f"path-{path_digest(container, path)}"},
                limit,
                token,
                ["ledger_key"],
            )
        except HttpResponseError as error:
            if token is not None and error.status_code == 400:
                raise ValueError("the table service does not know this token") from error
            raise
        keys = [LedgerKey.parse(entity["ledger_key"]) for entity in entities]
        return [key for key in keys if key is not None], next_token

    def find_by_job(self, job_identifier: str) -> LedgerKey | None:
        """Key of the submission of an indexed job."""
        try:
            entity = self._table.get_entity(_job_partition(job_identifier), "submission")
        except ResourceNotFoundError as error:
            _raise_if_table_is_missing(error)
            return None
        return LedgerKey.parse(entity["ledger_key"])

    # -- the sweep -------------------------------------------------------------------------

    def known_rows(self, partition: str) -> Collection[str]:
        """RowKeys of one partition."""
        entities = self._table.query_entities(
            "PartitionKey eq @partition", parameters={"partition": partition}, select=["RowKey"]
        )
        return {entity["RowKey"] for entity in entities}

    def overdue(
        self, first: str, last: str, before: datetime, limit: int, token: str | None = None
    ) -> tuple[Sequence[Record], str | None]:
        """Open rows due before a time; only open rows have a ``next_attempt_at``."""
        time = ServiceTime()
        entities, next_token = self._page(
            "PartitionKey ge @first and PartitionKey lt @last and next_attempt_at lt @before",
            {"first": first, "last": last, "before": before},
            limit,
            token,
            None,
        )
        return [_listed(entity, time) for entity in entities], next_token

    def unsubmitted(self, first: str, last: str, limit: int) -> Sequence[Record]:
        """Rows whose job is still to be submitted, those of the oldest blobs first."""
        time = ServiceTime()
        entities = self._table.query_entities(
            "PartitionKey ge @first and PartitionKey lt @last "
            "and (state eq 'SUBMITTING' or state eq 'DEFERRED')",
            parameters={"first": first, "last": last},
            results_per_page=limit,
        )
        return [_listed(entity, time) for entity in itertools.islice(entities, limit)]

    def written_on(
        self, day: date, since: datetime, states: Collection[State], limit: int
    ) -> Sequence[LedgerKey]:
        """Keys, at most so many, of rows in some states whose blobs were written on a day."""
        entities = self._table.query_entities(
            "PartitionKey ge @first and PartitionKey lt @last and last_modified ge @since and ("
            + " or ".join(f"state eq '{state}'" for state in states)
            + ")",
            parameters={"first": f"{day}-", "last": f"{day}-~", "since": since},
            select=["PartitionKey", "RowKey"],
            results_per_page=limit,
        )
        return [
            LedgerKey(entity["PartitionKey"], entity["RowKey"])
            for entity in itertools.islice(entities, limit)
        ]

    def _page(
        self,
        where: str,
        values: Mapping[str, Any],
        limit: int,
        token: str | None,
        select: list[str] | None,
    ) -> tuple[list[Any], str | None]:
        pages = self._table.query_entities(
            where, parameters=dict(values), results_per_page=limit, select=select
        ).by_page(continuation_token=_continuation(token))  # type: ignore[arg-type] # a dict here
        entities = list(next(pages, []))
        following = pages.continuation_token  # type: ignore[attr-defined] # of PageIterator
        return entities, json.dumps(following) if following else None

    def load_bookmark(self, name: str) -> dict[str, str]:
        """What ``save_bookmark`` kept; empty the first time."""
        try:
            entity = self._table.get_entity(_BOOKMARKS, name)
        except ResourceNotFoundError as error:
            _raise_if_table_is_missing(error)
            return {}
        values: dict[str, str] = json.loads(entity["values"])
        return values

    def save_bookmark(self, name: str, values: Mapping[str, str]) -> None:
        """Keep a note for the next run."""
        self._table.upsert_entity(
            {"PartitionKey": _BOOKMARKS, "RowKey": name, "values": json.dumps(dict(values))},
            mode=UpdateMode.REPLACE,
        )


def _raise_if_table_is_missing(error: ResourceNotFoundError) -> None:
    """A missing row is an answer, a missing table is a fault of the deployment."""
    if getattr(error, "error_code", None) == TableErrorCode.TABLE_NOT_FOUND:
        raise error


def _continuation(token: str | None) -> dict[str, str] | None:
    """Read a token; raises ValueError for one that this ledger did not make."""
    if token is None:
        return None
    following = json.loads(token)
    if not isinstance(following, dict) or set(following) != {"PartitionKey", "RowKey"}:
        raise ValueError("not a continuation token")
    return {name: str(value) for name, value in following.items()}


def _job_partition(job_identifier: str) -> str:
    return f"job-{hashlib.sha256(job_identifier.encode('utf-8', 'replace')).hexdigest()[:24]}"


def _listed(entity: TableEntity, time: ServiceTime) -> Record:
    # A query's pages take no hook of ours, so the local clock stands in: it only chooses which
    # rows are looked at again, never what becomes of them.
    return _record(_submission(entity), entity.metadata["etag"], time)


def _record(row: Submission, etag: str | None, time: ServiceTime) -> Record:
    if not etag:
        raise ValueError(f"the table service answered for {row.key} without an ETag")
    return Record(row=row, etag=etag, as_of=time.as_of, read_at=time.read_at, ticks=ticks)


def _entity(row: Submission, write_id: str) -> dict[str, Any]:
    version = row.version
    entity: dict[str, Any] = {
        "PartitionKey": row.key.partition,
        "RowKey": row.key.row,
        "write_id": write_id,
        "state": row.state.value,
        "account": version.account,
        "container": version.container,
        "path": version.path,
        "etag": version.etag,
        "last_modified": version.last_modified,
        "generation": version.generation,
        # Plain Python integers become Edm.Int32, and a blob may be larger than 2 GiB.
        "size": EntityProperty(row.size, EdmType.INT64),
        "changes": json.dumps(
            [[change.at.isoformat(), change.state, change.reason] for change in row.changes],
            ensure_ascii=False,
        ),
    }
    for name in (*_PLAIN, *_TIMES):
        value = getattr(row, name)
        if value is not None:
            entity[name] = value
    return entity


def _submission(entity: Mapping[str, Any]) -> Submission:
    def time(name: str) -> datetime | None:
        value = entity.get(name)
        return None if value is None else datetime.fromtimestamp(value.timestamp(), UTC)

    last_modified, created_at, give_up_at = (
        time(name) for name in ("last_modified", "created_at", "give_up_at")
    )
    if last_modified is None or created_at is None or give_up_at is None:
        raise ValueError(
            f"ledger row {entity['PartitionKey']}.{entity['RowKey']} was not written by the relay"
        )
    times = {name: time(name) for name in _TIMES}
    times.update(created_at=created_at, give_up_at=give_up_at)
    size = entity["size"]
    return Submission(
        version=BlobVersion(
            account=entity["account"],
            container=entity["container"],
            path=entity["path"],
            etag=entity["etag"],
            last_modified=last_modified,
            generation=entity["generation"],
        ),
        size=size.value if isinstance(size, EntityProperty) else size,
        state=State(entity["state"]),
        changes=tuple(
            Change(datetime.fromisoformat(at), state, reason)
            for at, state, reason in json.loads(entity.get("changes", "[]"))
        ),
        **{name: entity[name] for name in _PLAIN if name in entity},
        **times,  # type: ignore[arg-type] # the required two were checked above
    )
