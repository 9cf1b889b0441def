"""Work that one of several hosts with the same host id does: leases on blobs.

After the WebJobs SDK's ``SingletonOptions``: scanning and each timer are singletons per host id,
held by a lease of 60 s on a blob under ``azure-webjobs-hosts/locks``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
)
from azure.storage.blob import BlobLeaseClient

from sandbox.host.logs import describe, host_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from azure.storage.blob import BlobClient

_CONFLICT = 409
_STALE_CHECK_SECONDS = 1


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait for a time, or until ``stop`` is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


class SingletonLock:
    """A lease on one blob.

    Args:
        blob: created when missing.
        lease_seconds: 15 to 60, what the storage service allows.
        break_stale: take the lock at once from a process of this machine that is gone. The real
            host waits until the lease ends; tests that kill hosts cannot.
    """

    def __init__(self, blob: BlobClient, lease_seconds: int, *, break_stale: bool) -> None:
        self._blob = blob
        self._lease_seconds = lease_seconds
        self._break_stale = break_stale
        self._lease: BlobLeaseClient | None = None

    async def run_exclusively(
        self, work: Callable[[asyncio.Event], Awaitable[None]], stopping: asyncio.Event
    ) -> None:
        """Run ``work`` whenever this host holds the lock, until ``stopping``.

        ``work`` receives an event that is set when it has to end: because the lock was lost, or
        because of ``stopping``. Work that ends by itself is not started again.
        """
        while not stopping.is_set():
            if not await self._try_acquire():
                await pause(stopping, self._seconds_between_tries())
                continue
            end = asyncio.Event()
            worker = asyncio.ensure_future(work(end))
            await self._renew_while(worker, stopping)
            finished = worker.done()
            end.set()
            await worker
            await self._release()
            if finished:
                return

    def _seconds_between_tries(self) -> float:
        return _STALE_CHECK_SECONDS if self._break_stale else self._lease_seconds

    async def _try_acquire(self) -> bool:
        try:
            return await asyncio.to_thread(self._acquire)
        except AzureError as error:
            host_log.warning("Cannot lock %s: %s", self._blob.blob_name, describe(error))
            return False

    def _acquire(self) -> bool:
        with suppress(ResourceExistsError, ResourceModifiedError):
            self._blob.upload_blob(b"", overwrite=False)
        try:
            self._lease = self._blob.acquire_lease(self._lease_seconds)
        except HttpResponseError as error:
            if error.status_code != _CONFLICT:
                raise
            if not (self._break_stale and self._owner_is_gone()):
                return False
            BlobLeaseClient(self._blob).break_lease(0)
            self._lease = self._blob.acquire_lease(self._lease_seconds)
        self._blob.set_blob_metadata(
            {"host": socket.gethostname(), "pid": str(os.getpid())}, lease=self._lease
        )
        return True

    def _owner_is_gone(self) -> bool:
        owner = self._blob.get_blob_properties().metadata
        if owner.get("host") != socket.gethostname():
            return False
        # A restarted worker keeps its process id but none of its leases.
        return owner["pid"] == str(os.getpid()) or not _is_alive(int(owner["pid"]))

    async def _renew_while(self, worker: asyncio.Future[Any], stopping: asyncio.Event) -> None:
        """Keep the lease; returns when it is lost, the work is over, or ``stopping``."""
        stop_wait = asyncio.ensure_future(stopping.wait())
        last_renewal = time.monotonic()
        while time.monotonic() - last_renewal < self._lease_seconds:
            done, _ = await asyncio.wait(
                {worker, stop_wait},
                timeout=self._lease_seconds / 3,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if done:
                break
            sent = time.monotonic()
            try:
                await asyncio.to_thread(self._held().renew)
                last_renewal = sent
            except HttpResponseError as error:
                if error.status_code == _CONFLICT:
                    host_log.warning("Lost the lock %s", self._blob.blob_name)
                    break
                host_log.warning("Cannot renew a lock: %s", describe(error))
            except AzureError as error:
                host_log.warning("Cannot renew a lock: %s", describe(error))
        stop_wait.cancel()

    def _held(self) -> BlobLeaseClient:
        if self._lease is None:
            raise RuntimeError(f"the lock {self._blob.blob_name} is not held")
        return self._lease

    async def _release(self) -> None:
        # Nothing is lost when it fails: the lease ends by itself.
        with suppress(AzureError):
            await asyncio.to_thread(self._held().release)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
