"""Takes messages from one storage queue and runs something for each.

Used by queue triggers and, for the internal queue, by blob triggers. After the storage extension's
``QueueListener`` and ``QueueProcessor``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError

from sandbox.host.locks import pause
from sandbox.host.logs import describe, host_log
from sandbox.host.protos import TypedData

if TYPE_CHECKING:
    from datetime import datetime

    from azure.storage.queue import QueueClient, QueueMessage, QueueServiceClient

    from sandbox.host.functions import QueueFunction
    from sandbox.host.invoker import Invoker

POISON_SUFFIX = "-poison"

_MIN_POLLING_SECONDS = 0.1
_MAX_QUEUE_NAME = 63


@dataclass(frozen=True)
class QueuePolicy:
    """How one queue is worked off.

    Attributes:
        batch_size: messages asked for at once.
        new_batch_threshold: running messages at which the next batch is asked for.
        max_dequeue_count: attempts before a message is poison.
        max_polling_seconds: longest pause between two looks at an empty queue.
        lease_seconds: how long a received message is hidden; extended while it runs.
        release_seconds: how long a failed message stays hidden.
        base64: whether bodies are base64.
    """

    batch_size: int
    new_batch_threshold: int
    max_dequeue_count: int
    max_polling_seconds: float
    lease_seconds: int
    release_seconds: int
    base64: bool


class MessageHandler(Protocol):
    """What a listener does with messages."""

    async def run(self, message: QueueMessage, body: bytes) -> bool:
        """Run one message; False for failure. ``body`` is decoded."""

    def poison_queue(self, body: bytes) -> QueueClient | None:
        """Where the message goes when it is poison; None when there is no such place."""


class QueueListener:
    """Polls one queue and hands its messages to a handler, several at once."""

    def __init__(self, queue: QueueClient, policy: QueuePolicy, handler: MessageHandler) -> None:
        self._queue = queue
        self._policy = policy
        self._handler = handler
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at the queue now, because this host has just put a message there."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping``; then wait for the messages that are running."""
        stop_wait = asyncio.ensure_future(stopping.wait())
        empty_polls = 0
        while not stopping.is_set():
            self._wake.clear()
            messages = await self._receive()
            for message in messages:
                task = asyncio.create_task(self._process(message))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            if messages:
                empty_polls = 0
                await self._wait_for_room(stop_wait)
            else:
                await self._wait_for_poll(empty_polls, stop_wait)
                empty_polls += 1
        if self._running:
            await asyncio.wait(self._running)

    async def _receive(self) -> list[QueueMessage]:
        try:
            return await asyncio.to_thread(self._receive_batch)
        except ResourceNotFoundError:
            return []  # a queue that does not exist is polled until it does
        except AzureError as error:
            host_log.warning(
                "Cannot poll the queue %s: %s", self._queue.queue_name, describe(error)
            )
            return []

    def _receive_batch(self) -> list[QueueMessage]:
        # One page is one request; more would take messages that nobody has room for.
        size = self._policy.batch_size
        pages = self._queue.receive_messages(
            messages_per_page=size, visibility_timeout=self._policy.lease_seconds
        ).by_page()
        return list(next(pages, ()))

    async def _wait_for_room(self, stop_wait: asyncio.Future[Any]) -> None:
        while len(self._running) > self._policy.new_batch_threshold and not stop_wait.done():
            await asyncio.wait({*self._running, stop_wait}, return_when=asyncio.FIRST_COMPLETED)

    async def _wait_for_poll(self, empty_polls: int, stop_wait: asyncio.Future[Any]) -> None:
        doublings = min(empty_polls, 16)  # beyond any maximum, and far from overflow
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - spreads polls, guards nothing
        seconds = min(
            _MIN_POLLING_SECONDS * 2**doublings * jitter, self._policy.max_polling_seconds
        )
        wake_wait = asyncio.ensure_future(self._wake.wait())
        await asyncio.wait(
            {wake_wait, stop_wait}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        wake_wait.cancel()

    async def _process(self, message: QueueMessage) -> None:
        lease = _MessageLease(self._queue, message, self._policy.lease_seconds)
        try:
            await self._settle(message, lease)
        except AzureError as error:
            # It becomes visible again when its lease ends.
            host_log.warning(
                "Cannot settle message %s of %s: %s",
                message.id,
                self._queue.queue_name,
                describe(error),
            )

    async def _settle(self, message: QueueMessage, lease: _MessageLease) -> None:
        try:
            body = self._decode(message.content)
        except ValueError:
            host_log.error(
                "Message %s of %s is not base64: it goes to the poison queue without running",
                message.id,
                self._queue.queue_name,
            )
            await self._discard(message, self._handler.poison_queue(b""))
            return
        poison = self._handler.poison_queue(body)
        attempts = message.dequeue_count or 0
        if attempts > self._policy.max_dequeue_count:
            await self._discard(message, poison)
            return
        async with lease:
            succeeded = await self._handler.run(message, body)
        if succeeded:
            await asyncio.to_thread(self._queue.delete_message, message)
        elif poison is not None and attempts >= self._policy.max_dequeue_count:
            await self._discard(message, poison)
        elif poison is not None:
            await asyncio.to_thread(
                self._queue.update_message,
                message,
                visibility_timeout=self._policy.release_seconds,
            )
        # Without a poison queue the host does not release a failed message: it returns when its
        # lease ends, and is skipped without running once its attempts are used up.

    def _decode(self, content: str) -> bytes:
        if not self._policy.base64:
            return content.encode()
        return base64.b64decode(content, validate=True)

    async def _discard(self, message: QueueMessage, poison: QueueClient | None) -> None:
        if poison is None:
            host_log.error(
                "Message %s of %s is skipped: that queue has no poison queue",
                message.id,
                self._queue.queue_name,
            )
            return
        host_log.error(
            "Message %s of %s reached %s attempts and moves to %s",
            message.id,
            self._queue.queue_name,
            message.dequeue_count,
            poison.queue_name,
        )
        await asyncio.to_thread(_send_creating, poison, message.content)
        await asyncio.to_thread(self._queue.delete_message, message)


class _MessageLease:
    """Keeps a message hidden while it runs, by extending its lease at half-time."""

    def __init__(self, queue: QueueClient, message: QueueMessage, seconds: int) -> None:
        self._queue = queue
        self._message = message
        self._seconds = seconds
        self._ended = asyncio.Event()

    async def __aenter__(self) -> None:
        self._extender = asyncio.create_task(self._extend())

    async def __aexit__(self, *_error: object) -> None:
        # Awaited, not cancelled: an extension on its way changes the pop receipt.
        self._ended.set()
        await self._extender

    async def _extend(self) -> None:
        while True:
            await pause(self._ended, self._seconds / 2)
            if self._ended.is_set():
                return
            try:
                updated = await asyncio.to_thread(
                    self._queue.update_message, self._message, visibility_timeout=self._seconds
                )
                self._message.pop_receipt = updated.pop_receipt
            except AzureError as error:
                host_log.warning(
                    "Cannot keep message %s hidden: %s", self._message.id, describe(error)
                )


def _send_creating(queue: QueueClient, content: str) -> None:
    try:
        queue.send_message(content)
    except ResourceNotFoundError:
        with suppress(ResourceExistsError):
            queue.create_queue()
        queue.send_message(content)


class QueueTriggerHandler:
    """Runs one queue-triggered function."""

    def __init__(
        self, function: QueueFunction, service: QueueServiceClient, invoker: Invoker
    ) -> None:
        self._function = function
        self._invoker = invoker
        self._poison: QueueClient | None = None
        name = function.queue_name + POISON_SUFFIX
        if not function.queue_name.endswith(POISON_SUFFIX) and len(name) <= _MAX_QUEUE_NAME:
            self._poison = service.get_queue_client(name)

    async def run(self, message: QueueMessage, body: bytes) -> bool:
        """Run the function for a message."""
        result = await self._invoker.invoke(
            self._function,
            f"message {message.id} of {self._function.queue_name}",
            *queue_input(message, body),
        )
        return result.error is None

    def poison_queue(self, body: bytes) -> QueueClient | None:  # noqa: ARG002 - of MessageHandler
        """The queue's own poison queue; none for poison queues and names that grow too long."""
        return self._poison


def queue_input(message: QueueMessage, body: bytes) -> tuple[TypedData, dict[str, TypedData]]:
    """The trigger value and the metadata of a message, as the host sends them.

    Top-level fields of a JSON body overwrite metadata of the same name, whatever the case.
    """
    metadata: dict[str, TypedData] = {
        "DequeueCount": TypedData(json=str(message.dequeue_count or 0)),
        "Id": TypedData(string=message.id),
        "PopReceipt": TypedData(string=message.pop_receipt),
        "InsertionTime": _json_date(message.inserted_on),
        "ExpirationTime": _json_date(message.expires_on),
        "NextVisibleTime": _json_date(message.next_visible_on),
    }
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return TypedData(bytes=body), metadata
    metadata["QueueTrigger"] = TypedData(string=text)
    by_lower_name = {name.lower(): name for name in metadata}
    for name, value in _json_fields(text).items():
        metadata[by_lower_name.get(name.lower(), name)] = _as_typed_data(value)
    return TypedData(string=text), metadata


def _json_fields(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _as_typed_data(value: object) -> TypedData:
    # The library refuses numbers as such, also in metadata.
    return TypedData(string=value) if isinstance(value, str) else TypedData(json=json.dumps(value))


def _json_date(moment: datetime | None) -> TypedData:
    return TypedData(json=json.dumps(moment.isoformat() if moment is not None else None))
