"""The same services twice: in memory, and on Azurite through the real SDKs."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Protocol

from modzy_relay.azure_clients import blob_service, queue_service, table_service
from modzy_relay.blob_results import BlobResults
from modzy_relay.blob_uploads import BlobUploads
from modzy_relay.messages import decode_reminder, encode_reminder
from modzy_relay.queue_outbox import QueueOutbox
from modzy_relay.settings import StorageConnection
from modzy_relay.table_ledger import TableLedger
from modzy_relay.testing import (
    ManualClock,
    MemoryLedger,
    MemoryOutbox,
    MemoryResults,
    MemoryUploads,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from azure.storage.queue import QueueServiceClient

    from modzy_relay.identity import LedgerKey
    from modzy_relay.ports import Ledger, Outbox, ResultStore, Uploads

_DEADLINE_SECONDS = 20.0
_POLL_SECONDS = 0.1


class Stores(Protocol):
    """The services under test, and the other side's view of them."""

    @property
    def ledger(self) -> Ledger:
        """One row per blob version."""

    @property
    def outbox(self) -> Outbox:
        """The two queues."""

    @property
    def uploads(self) -> Uploads:
        """The watched container."""

    @property
    def results(self) -> ResultStore:
        """The results container."""

    def put_blob(self, path: str, size: int = 5, metadata: Mapping[str, str] | None = None) -> None:
        """Somebody uploads a blob."""

    def delete_blob(self, path: str) -> None:
        """Somebody deletes a blob."""

    def bodies(self) -> list[bytes]:
        """What a queue trigger on the jobs queue would get, in any order."""

    def due(self) -> list[LedgerKey]:
        """Takes the reminders that are visible now."""

    def due_within(self, duration: timedelta) -> list[LedgerKey]:
        """Waits for the next visible reminders, for so long at most."""

    def stored_result(self, name: str) -> tuple[bytes, str]:
        """Content and content type of a blob in the results container."""

    def now(self) -> datetime:
        """The storage service's time, from an answer."""

    def close(self) -> None:
        """Give up connections."""


class MemoryStores:
    """The doubles."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ledger = MemoryLedger(self.clock)
        self.outbox = MemoryOutbox(self.clock)
        self.uploads = MemoryUploads(self.clock)
        self.results = MemoryResults(self.clock)

    def put_blob(self, path: str, size: int = 5, metadata: Mapping[str, str] | None = None) -> None:
        """Write to the double."""
        self.uploads.put(path, size, metadata)

    def delete_blob(self, path: str) -> None:
        """Delete from the double."""
        self.uploads.delete(path)

    def bodies(self) -> list[bytes]:
        """Events as they would be encoded."""
        return [event.encode().encode() for event in self.outbox.announcements]

    def due(self) -> list[LedgerKey]:
        """Receive until nothing is visible."""
        keys = []
        while (reminder := self.outbox.receive()) is not None:
            keys.append(decode_reminder(encode_reminder(reminder.key).encode()))
        return keys

    def due_within(self, duration: timedelta) -> list[LedgerKey]:
        """Let the clock run."""
        self.clock.advance(duration)
        return self.due()

    def stored_result(self, name: str) -> tuple[bytes, str]:
        """Read from the double."""
        return self.results.blobs[name]

    def now(self) -> datetime:
        """The clock, as a service tells it."""
        return self.uploads.list_page(None).as_of

    def close(self) -> None:
        """Nothing to give up."""


class AzuriteStores:
    """The edge classes on a fresh table, two fresh queues and two fresh containers.

    Args:
        connection_string: Of an account of a running Azurite.
    """

    def __init__(self, connection_string: str) -> None:
        account = StorageConnection("RelayStorage", "devstoreaccount1", connection_string)
        name = f"t{uuid.uuid4().hex[:20]}"
        self.tables = table_service(account)
        self.queues: QueueServiceClient = queue_service(account)
        self.blobs = blob_service(account)
        self.table = self.tables.create_table(name)
        self._jobs_queue, self.due_queue = f"{name}-jobs", f"{name}-due"
        for queue in (self._jobs_queue, self.due_queue):
            self.queues.create_queue(queue).close()
        self._container = self.blobs.create_container(name)
        self._results = self.blobs.create_container(f"{name}-results")
        self.ledger = TableLedger(self.table)
        self.outbox = QueueOutbox(
            self.queues, self.queues, jobs_queue=self._jobs_queue, due_queue=self.due_queue
        )
        self.uploads = BlobUploads(self.blobs, account.account, name)
        self.results = BlobResults(self.blobs, f"{name}-results")

    def put_blob(self, path: str, size: int = 5, metadata: Mapping[str, str] | None = None) -> None:
        """Upload for real."""
        self._container.upload_blob(
            path, b"x" * size, overwrite=True, metadata=dict(metadata or {})
        )

    def delete_blob(self, path: str) -> None:
        """Delete for real."""
        self._container.delete_blob(path)

    def _raw(self, queue: str) -> list[str]:
        client = self.queues.get_queue_client(queue)
        contents = []
        for message in client.receive_messages(messages_per_page=32):
            contents.append(message.content)
            client.delete_message(message)
        return contents

    def bodies(self) -> list[bytes]:
        """Decode as a queue trigger does: base64, strictly."""
        return [base64.b64decode(text, validate=True) for text in self._raw(self._jobs_queue)]

    def due(self) -> list[LedgerKey]:
        """Receive and delete."""
        return [
            decode_reminder(base64.b64decode(text, validate=True))
            for text in self._raw(self.due_queue)
        ]

    def due_within(self, duration: timedelta) -> list[LedgerKey]:
        """Poll; a slow machine gets more time than asked for."""
        deadline = time.monotonic() + duration.total_seconds() + _DEADLINE_SECONDS
        while not (keys := self.due()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return keys

    def stored_result(self, name: str) -> tuple[bytes, str]:
        """Download."""
        download = self._results.download_blob(name)
        return download.readall(), str(download.properties.content_settings.content_type)

    def now(self) -> datetime:
        """The emulator's clock."""
        return self.uploads.list_page(None).as_of

    def close(self) -> None:
        """Close the pooled connections."""
        with contextlib.ExitStack() as stack:
            for service in (self.tables, self.queues, self.blobs):
                stack.callback(service.close)


def decoded(body: bytes) -> dict[str, Any]:
    """A message's JSON."""
    document: dict[str, Any] = json.loads(body)
    return document
