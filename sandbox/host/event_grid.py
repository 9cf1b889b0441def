"""The webhook for blob events, and an emulated Event Grid that calls it.

After the Event Grid extension's ``HttpRequestProcessor``. The webhook believes what it is sent:
event type and path are not checked, a wrong function name is answered with 202 and dropped later.
The emulated Event Grid is needed because the storage emulator sends no events: it watches
containers and posts ``BlobCreated`` through real HTTP, at least once. Two writes within one
interval give one event.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError

from sandbox.host.blob_discovery import BlobMessage, InternalQueue
from sandbox.host.connections import HOST_CONNECTION
from sandbox.host.http_messages import HttpRequest, HttpResponse, json_response
from sandbox.host.locks import pause
from sandbox.host.logs import describe, host_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from azure.storage.blob import BlobProperties, ContainerClient

    from sandbox.host.connections import Connections
    from sandbox.host.functions import BlobFunction

WEBHOOK_PATH = "/runtime/webhooks/blobs"

_MARKS_CONTAINER = "emulated-event-grid"
_RETRY_SECONDS = 2
_POST_TIMEOUT_SECONDS = 30


class BlobWebhook:
    """Answers what Event Grid posts, by ``aeg-event-type``."""

    def __init__(self, functions: Iterable[BlobFunction], queue: InternalQueue) -> None:
        # Both spellings of a name are registered.
        self._ids = {function.full_id: function.full_id for function in functions}
        self._ids |= {identifier.rpartition(".")[2]: identifier for identifier in self._ids}
        self._queue = queue

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a request that has passed the key check."""
        if request.method == "OPTIONS":
            origin = request.headers.get("webhook-request-origin", "*")
            return HttpResponse(200, {"webhook-allowed-origin": origin})
        try:
            content = json.loads(request.body or b"null")
            events = content if isinstance(content, list) else [content]
            match request.headers.get("aeg-event-type", "").lower():
                case "subscriptionvalidation":
                    return _validation_response(events)
                case "notification":
                    function_id = request.query.get("functionName", "")
                    messages = [self._message(function_id, event) for event in events]
                case "unsubscribe":
                    return HttpResponse(202)
                case _:
                    return HttpResponse(400)
        except (ValueError, KeyError, TypeError):
            host_log.exception("An event could not be read")
            return HttpResponse(500)
        try:
            for message in messages:
                await asyncio.to_thread(self._queue.send, message)
        except AzureError as error:
            # The events before this one are queued already and come again with it.
            host_log.warning("Cannot enqueue an event: %s", describe(error))
            return HttpResponse(500)
        return HttpResponse(202)

    def _message(self, function_id: str, event: dict[str, Any]) -> BlobMessage:
        data = event["data"]
        container, name = split_blob_url(data["url"])
        return BlobMessage(
            function_id=self._ids.get(function_id, function_id),
            container=container,
            name=name,
            etag=data.get("eTag", ""),
            blob_type=data.get("blobType", "BlockBlob"),
        )


def _validation_response(events: Sequence[dict[str, Any]]) -> HttpResponse:
    data = events[0]["data"]
    if isinstance(data, str):  # a CloudEvent carries it encoded twice
        data = json.loads(data)
    return json_response(200, {"validationResponse": data["validationCode"]})


def split_blob_url(url: str) -> tuple[str, str]:
    """Container and blob name of an address.

    The account is the first label of the host name, but the first path segment when the host is
    an address, as on an emulator.

    Raises:
        ValueError: the address has no container or no blob name.
    """
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path).lstrip("/")
    if _is_address(parts.hostname or ""):
        path = path.partition("/")[2]
    container, _, name = path.partition("/")
    if not container or not name:
        raise ValueError("the event's url does not name a blob")
    return container, name


def _is_address(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class EmulatedEventGrid:
    """One event subscription: posts an event for each new blob version of a function's container.

    Blobs older than the subscription are never sent. What was delivered is marked in the host's
    account, so events of blobs that arrive while no host runs are delivered later.

    Args:
        function: the subscriber.
        connections: the accounts.
        host_id: part of the subscription's identity.
        webhook_url: where events go, key included; never logged.
        copies: how often each event is posted: Event Grid delivers at least once.
        interval_seconds: pause between two looks at the container.
    """

    def __init__(
        self,
        function: BlobFunction,
        connections: Connections,
        host_id: str,
        webhook_url: str,
        *,
        copies: int,
        interval_seconds: float,
    ) -> None:
        self.name = function.name
        self._function = function
        self._service = connections.blob_service(function.connection)
        self._marks = connections.blob_service(HOST_CONNECTION).get_container_client(
            _MARKS_CONTAINER
        )
        self._folder = f"{host_id}/{function.full_id}/"
        self._webhook_url = webhook_url
        self._copies = copies
        self._interval_seconds = interval_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver events until ``stop``."""
        created: datetime | None = None
        delivered: set[str] = set()
        while not stop.is_set():
            try:
                if created is None:
                    created = await asyncio.to_thread(self._subscription_start)
                    delivered = await asyncio.to_thread(self._read_marks)
                for blob in await asyncio.to_thread(self._new_blobs, created, delivered):
                    await self._deliver(blob)
                    delivered.add(_mark_name(blob))
                await pause(stop, self._interval_seconds)
            except (AzureError, OSError) as error:
                reason = describe(error) if isinstance(error, AzureError) else type(error).__name__
                host_log.warning("Emulated Event Grid tries again: %s", reason)
                await pause(stop, _RETRY_SECONDS)

    def _subscription_start(self) -> datetime:
        with suppress(ResourceExistsError):
            self._marks.create_container()
        blob = self._marks.get_blob_client(f"{self._folder}subscription")
        with suppress(ResourceExistsError):
            blob.upload_blob(b"", overwrite=False)
        start = blob.get_blob_properties().creation_time
        return start.replace(microsecond=0)  # storage times have whole seconds

    def _read_marks(self) -> set[str]:
        names = self._marks.list_blob_names(name_starts_with=f"{self._folder}delivered/")
        return {name.removeprefix(f"{self._folder}delivered/") for name in names}

    def _new_blobs(self, since: datetime, delivered: set[str]) -> list[BlobProperties]:
        path = self._function.path
        container: ContainerClient = self._service.get_container_client(path.container)
        try:
            return [
                blob
                for blob in container.list_blobs(name_starts_with=path.prefix or None)
                if blob.last_modified >= since and _mark_name(blob) not in delivered
            ]
        except ResourceNotFoundError:
            return []

    async def _deliver(self, blob: BlobProperties) -> None:
        event = self._event(blob)
        for _ in range(self._copies):
            await asyncio.to_thread(self._post, event)
        mark = self._marks.get_blob_client(f"{self._folder}delivered/{_mark_name(blob)}")
        await asyncio.to_thread(mark.upload_blob, b"", overwrite=True)

    def _event(self, blob: BlobProperties) -> dict[str, Any]:
        container = self._function.path.container
        url = self._service.get_blob_client(container, blob.name).url
        return {
            "topic": f"/emulated/storageAccounts/{self._service.account_name}",
            "subject": f"/blobServices/default/containers/{container}/blobs/{blob.name}",
            "eventType": "Microsoft.Storage.BlobCreated",
            "eventTime": datetime.now(UTC).isoformat(),
            "id": str(uuid.uuid4()),
            "data": {
                "api": "PutBlob",
                "eTag": str(blob.etag).strip('"'),
                "contentType": blob.content_settings.content_type,
                "contentLength": blob.size,
                "blobType": str(blob.blob_type.value),
                "url": url.partition("?")[0],
            },
            "dataVersion": "",
            "metadataVersion": "1",
        }

    def _post(self, event: dict[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310 - an http address made by this host
            self._webhook_url,
            data=json.dumps([event]).encode(),
            headers={"aeg-event-type": "Notification", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_POST_TIMEOUT_SECONDS):  # noqa: S310 - same
            return


def _mark_name(blob: BlobProperties) -> str:
    return f"{str(blob.etag).strip(chr(34))}/{blob.name}"
