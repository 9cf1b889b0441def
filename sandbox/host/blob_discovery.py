"""Blob triggers, first half: from a blob to a message of the internal queue.

After the storage extension's ``ScanContainersStrategy``, ``BlobTriggerExecutor`` and
``BlobReceiptManager``. Discovery relists every watched container, as the host does on an emulator.
The host's own rule there (only blobs modified *later* than the newest one seen) loses a blob
written in the same second as another; it is followed only on request. Otherwise a blob is a
candidate when its ETag has not been seen by this process, and receipts suppress the repeats of a
restart.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azure.core.exceptions import (
    AzureError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.queue import TextBase64EncodePolicy

from sandbox.host.connections import HOST_CONNECTION
from sandbox.host.locks import pause
from sandbox.host.logs import describe, host_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from azure.storage.blob import BlobClient, ContainerClient

    from sandbox.host.connections import Connections
    from sandbox.host.functions import BlobFunction

HOSTS_CONTAINER = "azure-webjobs-hosts"
INTERNAL_QUEUE_PREFIX = "azure-webjobs-blobtrigger-"

_RECEIPT_LEASE_SECONDS = 30
_OFFERS_AT_ONCE = 8


@dataclass(frozen=True)
class BlobMessage:
    """A message of the internal queue: this function, this blob, this version."""

    function_id: str
    container: str
    name: str
    etag: str
    blob_type: str = "BlockBlob"

    def encode(self) -> str:
        """The JSON text that the host puts into its queue."""
        return json.dumps(
            {
                "Type": "BlobTrigger",
                "FunctionId": self.function_id,
                "BlobType": self.blob_type,
                "ContainerName": self.container,
                "BlobName": self.name,
                "ETag": self.etag,
            }
        )

    @classmethod
    def decode(cls, body: bytes) -> BlobMessage:
        """Read a message.

        Raises:
            ValueError: it is not one of the host's.
        """
        content = json.loads(body)
        try:
            return cls(
                function_id=content["FunctionId"],
                container=content["ContainerName"],
                name=content["BlobName"],
                etag=content["ETag"],
                blob_type=content["BlobType"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError("not a blob trigger message") from error


class InternalQueue:
    """The queue between discovery and execution, in the host's account.

    Args:
        connections: gives the host's queue service.
        host_id: part of the name; hosts with one id share the queue.
    """

    def __init__(self, connections: Connections, host_id: str) -> None:
        service = connections.queue_service(HOST_CONNECTION)
        name = INTERNAL_QUEUE_PREFIX + host_id
        self.client = service.get_queue_client(name)
        # Always base64, whatever host.json says about queue triggers.
        self._sender = service.get_queue_client(
            name, message_encode_policy=TextBase64EncodePolicy()
        )
        self.on_message: Callable[[], object] = lambda: None

    def create(self) -> None:
        """Create the queue unless it exists."""
        with suppress(ResourceExistsError):
            self.client.create_queue()

    def send(self, message: BlobMessage) -> None:
        """Enqueue a message."""
        self._sender.send_message(message.encode())
        self.on_message()


class BlobDiscovery:
    """Turns a candidate into at most one queue message a function and version, by receipts.

    Enqueuing and marking the receipt are two steps: a crash between them repeats the message.
    """

    def __init__(self, connections: Connections, host_id: str, queue: InternalQueue) -> None:
        self._connections = connections
        self._host_id = host_id
        self._queue = queue
        self._hosts = connections.blob_service(HOST_CONNECTION).get_container_client(
            HOSTS_CONTAINER
        )

    def offer(self, function: BlobFunction, name: str) -> bool:
        """Enqueue the current version of a blob unless that was done before.

        Returns:
            False when another host is about to enqueue it and the outcome is still open.
        """
        if function.path.match(name) is None:
            return True
        service = self._connections.blob_service(function.connection)
        try:
            blob = service.get_blob_client(function.path.container, name).get_blob_properties()
        except ResourceNotFoundError:
            return True
        etag = quoted(blob.etag)
        path = f"{self._host_id}/{function.full_id}/{etag}/{function.path.container}/{name}"
        receipt = self._hosts.get_blob_client(f"blobreceipts/{path}")
        message = BlobMessage(
            function.full_id, function.path.container, name, etag, str(blob.blob_type.value)
        )
        return self._enqueue_once(receipt, message)

    def _enqueue_once(self, receipt: BlobClient, message: BlobMessage) -> bool:
        if _is_complete(receipt):
            return True
        with suppress(ResourceExistsError, ResourceModifiedError):
            receipt.upload_blob(b"", overwrite=False)
        try:
            lease = receipt.acquire_lease(_RECEIPT_LEASE_SECONDS)
        except ResourceExistsError:  # 409: somebody else holds the lease
            return False
        try:
            if not _is_complete(receipt):
                self._queue.send(message)
                receipt.set_blob_metadata({"complete": "true"}, lease=lease)
        finally:
            lease.release()
        return True


def _is_complete(receipt: BlobClient) -> bool:
    try:
        return "complete" in receipt.get_blob_properties().metadata
    except ResourceNotFoundError:
        return False


def quoted(etag: str) -> str:
    """An ETag with its quotes, which listings leave out."""
    return '"' + etag.strip('"') + '"'


@dataclass
class _Watch:
    """One watched container and what has been seen in it."""

    client: ContainerClient
    functions: list[BlobFunction] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    newest: datetime | None = None


@dataclass(frozen=True)
class _Candidate:
    name: str
    etag: str
    last_modified: datetime


class ContainerScanner:
    """Relists the containers of all functions with the scan source.

    Args:
        functions: the functions.
        connections: their accounts.
        discovery: takes the candidates.
        interval_seconds: pause between two listings.
        strict_last_modified: follow the emulator rule of the real host, with its losses.
    """

    def __init__(
        self,
        functions: Iterable[BlobFunction],
        connections: Connections,
        discovery: BlobDiscovery,
        *,
        interval_seconds: float,
        strict_last_modified: bool,
    ) -> None:
        self._discovery = discovery
        self._interval_seconds = interval_seconds
        self._strict = strict_last_modified
        self._offers = asyncio.Semaphore(_OFFERS_AT_ONCE)
        watches: dict[tuple[str, str], _Watch] = {}
        for function in functions:
            key = (function.connection, function.path.container)
            if key not in watches:
                service = connections.blob_service(function.connection)
                watches[key] = _Watch(service.get_container_client(function.path.container))
            watches[key].functions.append(function)
        self._watches = list(watches.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Scan until ``stop``; starts from nothing each time, as receipts know what was done."""
        for watch in self._watches:
            watch.seen.clear()
            watch.newest = None
        while not stop.is_set():
            for watch in self._watches:
                try:
                    await self._scan(watch)
                except ResourceNotFoundError:
                    continue  # a container that does not exist is not an error to the host
                except AzureError as error:
                    host_log.warning(
                        "Cannot scan %s: %s", watch.client.container_name, describe(error)
                    )
            await pause(stop, self._interval_seconds)

    async def _scan(self, watch: _Watch) -> None:
        listing = await asyncio.to_thread(_list_container, watch.client)
        if self._strict:
            candidates = [
                blob for blob in listing if not watch.newest or blob.last_modified > watch.newest
            ]
            watch.newest = max((blob.last_modified for blob in listing), default=watch.newest)
        else:
            candidates = [blob for blob in listing if watch.seen.get(blob.name) != blob.etag]
        await asyncio.gather(*(self._offer(watch, blob) for blob in candidates))

    async def _offer(self, watch: _Watch, blob: _Candidate) -> None:
        async with self._offers:
            settled = True
            for function in watch.functions:
                try:
                    settled &= await asyncio.to_thread(self._discovery.offer, function, blob.name)
                except AzureError as error:
                    host_log.warning("Cannot enqueue %s: %s", blob.name, describe(error))
                    settled = False
            if settled:
                watch.seen[blob.name] = blob.etag


def _list_container(client: ContainerClient) -> list[_Candidate]:
    return [
        _Candidate(blob.name, str(blob.etag), blob.last_modified) for blob in client.list_blobs()
    ]
