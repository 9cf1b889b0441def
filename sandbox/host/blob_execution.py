"""Blob triggers, second half: from a message of the internal queue to a run of the function.

After the storage extension's ``BlobQueueTriggerExecutor`` and ``SharedBlobQueueListenerFactory``,
and ``BlobsExtensionConfigProvider`` for what an SDK type is sent.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, ResourceNotFoundError

from sandbox.host.blob_discovery import BlobMessage, quoted
from sandbox.host.connections import HOST_CONNECTION
from sandbox.host.functions import SCAN
from sandbox.host.logs import describe, host_log
from sandbox.host.protos import TypedData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azure.storage.queue import QueueClient, QueueMessage

    from sandbox.host.blob_discovery import BlobDiscovery
    from sandbox.host.connections import Connections
    from sandbox.host.functions import BlobFunction
    from sandbox.host.invoker import Invoker

POISON_QUEUE = "webjobs-blobtrigger-poison"


class BlobTriggerHandler:
    """Executes the messages of the internal queue; one for all blob functions of the app."""

    def __init__(
        self,
        functions: Sequence[BlobFunction],
        connections: Connections,
        discovery: BlobDiscovery,
        invoker: Invoker,
    ) -> None:
        self._functions = {function.full_id: function for function in functions}
        self._connections = connections
        self._discovery = discovery
        self._invoker = invoker
        # One listener serves all functions, with the ETag rule of whichever was created first.
        self._checks_etag = bool(functions) and functions[0].source == SCAN
        if len({function.source for function in functions}) > 1:
            host_log.warning("Blob functions of both sources: the first one's ETag rule serves all")

    async def run(self, message: QueueMessage, body: bytes) -> bool:
        """Run the function that a message names, if the blob is still what the message says."""
        try:
            return await self._execute(message, BlobMessage.decode(body))
        except ValueError:
            host_log.error("Message %s is not the host's", message.id)
        except AzureError as error:
            host_log.warning("Cannot look at the blob of %s: %s", message.id, describe(error))
        return False

    async def _execute(self, message: QueueMessage, blob: BlobMessage) -> bool:
        function = self._functions.get(blob.function_id)
        if function is None:
            host_log.debug("Dropped a message for %s, which is not here", blob.function_id)
            return True
        etag = await asyncio.to_thread(self._current_etag, function, blob)
        if etag is None:
            host_log.debug("Dropped a message for a blob that is gone")
            return True
        if self._checks_etag and etag != quoted(blob.etag):
            await asyncio.to_thread(self._discovery.offer, function, blob.name)
            return True
        result = await self._invoker.invoke(
            function,
            f"blob {blob.container}/{blob.name}, attempt {message.dequeue_count}",
            *blob_input(function, blob.container, blob.name),
        )
        return result.error is None

    def poison_queue(self, body: bytes) -> QueueClient:
        """The poison queue in the watched account, the host's account when nobody knows which."""
        try:
            function = self._functions.get(BlobMessage.decode(body).function_id)
        except ValueError:
            function = None
        connection = function.connection if function is not None else HOST_CONNECTION
        return self._connections.queue_service(connection).get_queue_client(POISON_QUEUE)

    def _current_etag(self, function: BlobFunction, blob: BlobMessage) -> str | None:
        service = self._connections.blob_service(function.connection)
        client = service.get_blob_client(blob.container, blob.name)
        try:
            return quoted(client.get_blob_properties().etag)
        except ResourceNotFoundError:
            return None


def blob_input(
    function: BlobFunction, container: str, name: str
) -> tuple[TypedData, dict[str, TypedData]]:
    """The trigger value (a reference, never content) and the metadata of a blob."""
    reference = {
        "Connection": function.connection,
        "ContainerName": container,
        "BlobName": name,
    }
    value = TypedData(model_binding_data=ModelBindingData(content=json.dumps(reference).encode()))
    values = {"BlobTrigger": f"{container}/{name}", **(function.path.match(name) or {})}
    return value, {key: TypedData(string=text) for key, text in values.items()}


@dataclass(frozen=True)
class ModelBindingData:
    """What the host sends for a parameter of an SDK type."""

    content: bytes
    version: str = "1.0"
    source: str = "AzureStorageBlobs"
    content_type: str = "application/json"
