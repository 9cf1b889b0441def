"""Who a blob version is: ledger keys and the input item keys derived from them.

A version is a storage account, container, path, ETag and generation. Its ledger key spreads a
day's versions over sixteen partitions, and a day stays one range query.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

_PARTITION = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]")
_ROW = re.compile(r"[0-9a-f]{24}")
_NOT_URL_SAFE = re.compile(r"[^A-Za-z0-9_-]+")
_FILE_NAME_LENGTH = 60


class LedgerKey(NamedTuple):
    """PartitionKey and RowKey of a submission; its text form is the submission's id."""

    partition: str
    row: str

    def __str__(self) -> str:
        return f"{self.partition}.{self.row}"

    @classmethod
    def parse(cls, text: str) -> LedgerKey | None:
        """Read a submission id, ``2026-11-23-a.0123456789abcdef01234567``; None if it is none."""
        partition, _, row = text.partition(".")
        if _PARTITION.fullmatch(partition) and _ROW.fullmatch(row):
            return cls(partition, row)
        return None


@dataclass(frozen=True, slots=True)
class BlobVersion:
    """One content of one blob: an overwrite is another version, a replay another generation."""

    account: str
    container: str
    path: str
    etag: str
    last_modified: datetime
    generation: int = 0

    @property
    def key(self) -> LedgerKey:
        """Where the ledger keeps this version."""
        # JSON keeps the fields apart whatever characters they hold, and its ASCII form can be
        # hashed even where a name is not valid Unicode.
        identity = json.dumps(
            [self.account, self.container, self.path, plain_etag(self.etag), self.generation]
        )
        row = hashlib.sha256(identity.encode("ascii")).hexdigest()[:24]
        return LedgerKey(f"{self.last_modified:%Y-%m-%d}-{row[0]}", row)


def plain_etag(etag: str) -> str:
    """An ETag without quotes: HEAD answers with them, List Blobs without."""
    return etag.removeprefix("W/").strip('"')


def input_item_key(path: str, key: LedgerKey) -> str:
    """The key of a version's input in its Modzy job: a readable, URL-safe name and the ledger key.

    Modzy keys job inputs and results on it and uses it as a segment of result-file URLs.
    """
    name = _NOT_URL_SAFE.sub("-", path.rpartition("/")[2]).strip("-")
    return f"{name[:_FILE_NAME_LENGTH] or 'file'}.{key.partition}.{key.row}"


def ledger_key_of(item_key: str) -> LedgerKey | None:
    """Lead an input item key back to its ledger row; None for another caller's item key."""
    parts = item_key.rsplit(".", 2)
    return LedgerKey.parse(".".join(parts[1:])) if len(parts) == 3 else None


def path_digest(container: str, path: str) -> str:
    """A key-safe name for a container and path, the same for all versions of the blob."""
    return hashlib.sha256(json.dumps([container, path]).encode("ascii")).hexdigest()[:24]
