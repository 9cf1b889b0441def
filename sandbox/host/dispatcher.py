"""Wires one host together, starts it, and stops it."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import os
import platform
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, ResourceExistsError

from sandbox.host.blob_discovery import (
    HOSTS_CONTAINER,
    BlobDiscovery,
    ContainerScanner,
    InternalQueue,
)
from sandbox.host.blob_execution import BlobTriggerHandler
from sandbox.host.connections import HOST_CONNECTION, IO_THREADS, Connections
from sandbox.host.event_grid import WEBHOOK_PATH, BlobWebhook, EmulatedEventGrid
from sandbox.host.functions import EVENT_GRID, SCAN, FunctionIndex, index_functions
from sandbox.host.host_json import HostJson, load_host_json
from sandbox.host.http_app import HttpApp
from sandbox.host.http_server import HttpServer
from sandbox.host.invoker import Invoker
from sandbox.host.keys import SECRETS_CONTAINER, AppKeys, load_keys
from sandbox.host.locks import SingletonLock, pause
from sandbox.host.logs import configure_logging, describe, host_log
from sandbox.host.queues import QueueListener, QueuePolicy, QueueTriggerHandler
from sandbox.host.settings import SettingsError, load_into_environment
from sandbox.host.timers import TimerListener
from sandbox.host.worker import load_app

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from azure.storage.blob import ContainerClient

    from sandbox.host.options import HostOptions

READY_LINE = "host ready: "

_SHUTDOWN_GRACE_SECONDS = 10  # what the host gives running invocations at SIGTERM
_TIMEOUT_GRACE_SECONDS = 2  # between an invocation's timeout and the end of its worker
_STORAGE_RETRY_SECONDS = 1
_MAX_BATCH = 32
_HOST_ID_LENGTH = 32


async def run_host(options: HostOptions) -> int | None:
    """Run a dispatcher until SIGTERM or SIGINT.

    Returns:
        None, or the port to come back on when the worker has to be replaced, because an
        invocation was over its time limit.

    Raises:
        SettingsError: settings or host.json cannot be used.
        AppFailed: the app cannot be imported.
        UnsupportedBinding: the app needs what this host does not serve.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(IO_THREADS, "host-io"))
    configure_logging(options.log.resolve() if options.log else None, options.log_level)
    settings_file = options.settings or options.app / "local.settings.json"
    if options.settings is not None or settings_file.exists():
        load_into_environment(settings_file)
    host_json = load_host_json(options.app / "host.json", os.environ, cores=options.cores)
    os.chdir(options.app)
    indexed = await load_app(options.app)
    connections = Connections(os.environ)
    index = index_functions(indexed, os.environ, connections, host_json.route_prefix)
    for name, error in index.errors.items():
        host_log.error("The function %s could not be indexed: %s", name, error)
    try:
        return await _Host(options, host_json, connections, index).run()
    finally:
        connections.close()


class _Host:
    """The running parts of one dispatcher."""

    def __init__(
        self,
        options: HostOptions,
        host_json: HostJson,
        connections: Connections,
        index: FunctionIndex,
    ) -> None:
        self._options = options
        self._host_json = host_json
        self._connections = connections
        self._index = index
        self._host_id = options.host_id or _default_host_id(options.app)
        self._stopping = asyncio.Event()
        self._timed_out = False
        self._invoker = Invoker(host_json.function_timeout, self._stop_after_timeout)
        hosts = connections.blob_service(HOST_CONNECTION)
        self._hosts_container = hosts.get_container_client(HOSTS_CONTAINER)
        self._secrets_container = hosts.get_container_client(SECRETS_CONTAINER)
        self._blob_queue = InternalQueue(connections, self._host_id)

    async def run(self) -> int | None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        keys = await self._prepare_storage()
        if keys is None:
            return None
        webhook = BlobWebhook(self._index.blobs, self._blob_queue)
        app = HttpApp(self._index, keys, self._invoker, webhook, self._host_id)
        try:
            server = HttpServer(self._options.port, app.answer)
        except OSError as error:
            raise SettingsError(f"port {self._options.port}: {error.strerror}") from error
        base_url = f"http://127.0.0.1:{server.port}"
        server.start()
        listeners = [asyncio.create_task(work) for work in self._listeners(base_url, keys)]
        print(f"{READY_LINE}{base_url}", flush=True)
        host_log.info("Host %s serves %s", self._host_id, [f.name for f in self._index.all()])
        await self._until_stopped(listeners)
        await asyncio.to_thread(server.stop)
        await self._finish(listeners)
        return server.port if self._timed_out else None

    async def _prepare_storage(self) -> AppKeys | None:
        """Make what the host needs in its account; None when stopped before storage answered."""
        while not self._stopping.is_set():
            try:
                return await asyncio.to_thread(self._create_storage)
            except AzureError as error:
                host_log.warning("The host's storage does not answer: %s", describe(error))
                await pause(self._stopping, _STORAGE_RETRY_SECONDS)
        return None

    def _create_storage(self) -> AppKeys:
        _create_container(self._hosts_container)
        _create_container(self._secrets_container)
        if self._index.blobs:
            self._blob_queue.create()
        return load_keys(
            self._secrets_container,
            self._host_id,
            [function.name for function in self._index.http],
            master_key=self._options.master_key,
            function_key=self._options.function_key,
        )

    def _listeners(self, base_url: str, keys: AppKeys) -> list[Coroutine[None, None, None]]:
        return [
            *self._blob_listeners(),
            *self._event_subscriptions(base_url, keys),
            *self._queue_listeners(),
            *self._timer_listeners(),
        ]

    def _blob_listeners(self) -> list[Coroutine[None, None, None]]:
        functions = [function for function in self._index.blobs if function.enabled]
        if not functions:
            return []
        discovery = BlobDiscovery(self._connections, self._host_id, self._blob_queue)
        listener = QueueListener(
            self._blob_queue.client,
            self._blob_queue_policy(),
            BlobTriggerHandler(functions, self._connections, discovery, self._invoker),
        )
        loop = asyncio.get_running_loop()
        self._blob_queue.on_message = functools.partial(loop.call_soon_threadsafe, listener.wake)
        work = [listener.run(self._stopping)]
        scanned = [function for function in functions if function.source == SCAN]
        if scanned:
            scanner = ContainerScanner(
                scanned,
                self._connections,
                discovery,
                interval_seconds=self._options.scan_interval,
                strict_last_modified=self._options.strict_last_modified,
            )
            work.append(self._exclusively("WebJobs.Internal.Blobs", scanner.run))
        return work

    def _event_subscriptions(
        self, base_url: str, keys: AppKeys
    ) -> list[Coroutine[None, None, None]]:
        if not self._options.emit_events:
            return []
        subscriptions = [
            EmulatedEventGrid(
                function,
                self._connections,
                self._host_id,
                f"{base_url}{WEBHOOK_PATH}?functionName={function.full_id}&code={keys.system}",
                copies=self._options.event_copies,
                interval_seconds=self._options.event_interval,
            )
            for function in self._index.blobs
            if function.source == EVENT_GRID
        ]
        return [
            self._exclusively(f"EmulatedEventGrid.{subscription.name}", subscription.run)
            for subscription in subscriptions
        ]

    def _queue_listeners(self) -> list[Coroutine[None, None, None]]:
        work = []
        for function in self._index.queues:
            if function.enabled:
                service = self._connections.queue_service(function.connection)
                listener = QueueListener(
                    service.get_queue_client(function.queue_name),
                    self._queue_policy(),
                    QueueTriggerHandler(function, service, self._invoker),
                )
                work.append(listener.run(self._stopping))
        return work

    def _timer_listeners(self) -> list[Coroutine[None, None, None]]:
        work = []
        for function in self._index.timers:
            if function.enabled:
                status = self._hosts_container.get_blob_client(
                    f"timers/{self._host_id}/{function.full_id}/status"
                )
                listener = TimerListener(function, status, self._invoker)
                work.append(self._exclusively(f"{function.full_id}.Listener", listener.run))
        return work

    def _exclusively(
        self, name: str, work: Callable[[asyncio.Event], Awaitable[None]]
    ) -> Coroutine[None, None, None]:
        lock = SingletonLock(
            self._hosts_container.get_blob_client(f"locks/{self._host_id}/{name}"),
            self._options.lock_lease_seconds,
            break_stale=self._options.break_stale_locks,
        )
        return lock.run_exclusively(work, self._stopping)

    def _queue_policy(self) -> QueuePolicy:
        return QueuePolicy(
            batch_size=self._host_json.queue_batch_size,
            new_batch_threshold=self._host_json.queue_new_batch_threshold,
            max_dequeue_count=self._host_json.queue_max_dequeue_count,
            max_polling_seconds=self._host_json.queue_max_polling.total_seconds(),
            lease_seconds=self._options.queue_lease_seconds,
            release_seconds=int(self._host_json.queue_release.total_seconds()),
            base64=self._host_json.queue_base64,
        )

    def _blob_queue_policy(self) -> QueuePolicy:
        # One pool for all blob functions; no delay between attempts, always base64.
        parallelism = self._host_json.blob_max_parallelism
        batch = min(_MAX_BATCH, parallelism // 2 + 1)
        return QueuePolicy(
            batch_size=batch,
            new_batch_threshold=max(parallelism - batch, 0),
            max_dequeue_count=self._host_json.blob_poison_threshold,
            max_polling_seconds=self._host_json.queue_max_polling.total_seconds(),
            lease_seconds=self._options.queue_lease_seconds,
            release_seconds=0,
            base64=True,
        )

    def _stop_after_timeout(self) -> None:
        self._timed_out = True
        self._stopping.set()

    async def _until_stopped(self, listeners: list[asyncio.Task[None]]) -> None:
        """Wait for the stop signal; a listener that fails by itself is this host's bug."""
        stop_wait = asyncio.create_task(self._stopping.wait())
        waiting: set[asyncio.Task[Any]] = {stop_wait, *listeners}
        while not stop_wait.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _finish(self, listeners: list[asyncio.Task[None]]) -> None:
        grace = _TIMEOUT_GRACE_SECONDS if self._timed_out else _SHUTDOWN_GRACE_SECONDS
        if not await self._invoker.wait_idle(grace):
            host_log.warning("Invocations are cut off: they run longer than %s s", grace)
        if listeners:
            # What is left is settling messages and giving back locks.
            await asyncio.wait(listeners, timeout=_TIMEOUT_GRACE_SECONDS)


def _create_container(container: ContainerClient) -> None:
    with suppress(ResourceExistsError):
        container.create_container()


def _default_host_id(app: Path) -> str:
    """A stable id of this machine and folder, like the one of a local host."""
    configured = os.environ.get("AzureFunctionsWebHost__hostid")  # noqa: SIM112 - the host spells it so
    if configured:
        return configured
    machine = "".join(c for c in platform.node().lower() if c.isalnum())
    digest = hashlib.sha256(str(app).encode()).hexdigest()[:10]
    return f"{machine[: _HOST_ID_LENGTH - 11]}-{digest}".lstrip("-")


def leave(exit_code: int) -> None:
    """End this process now: threads of invocations that were cut off would keep it alive."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(exit_code)
