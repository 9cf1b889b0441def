"""Runs functions: one log line at the start and one at the end, time limit, running count."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

from sandbox.host import worker
from sandbox.host.logs import host_log
from sandbox.host.worker import WorkerResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from sandbox.host.functions import Function
    from sandbox.host.protos import TypedData


class Invoker:
    """Runs functions of the loaded app.

    Args:
        timeout: longest invocation, None without limit.
        on_timeout: called once an invocation is over the limit. The host then replaces the whole
            worker process, since a thread cannot be stopped.
    """

    def __init__(self, timeout: timedelta | None, on_timeout: Callable[[], None]) -> None:
        self._timeout_seconds = timeout.total_seconds() if timeout is not None else None
        self._on_timeout = on_timeout
        self._running: set[asyncio.Task[WorkerResult]] = set()

    async def invoke(
        self, function: Function, reason: str, value: TypedData, metadata: Mapping[str, TypedData]
    ) -> WorkerResult:
        """Run a function once and log how it went.

        Args:
            function: the function.
            reason: what made it run, for the log.
            value: the trigger's value.
            metadata: the trigger's metadata.
        """
        invocation_id = str(uuid.uuid4())
        host_log.info("Executing %s (id=%s, reason=%s)", function.name, invocation_id, reason)
        started = time.monotonic()
        task = asyncio.create_task(
            worker.invoke(function.worker_id, invocation_id, function.parameter, value, metadata)
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        done, _ = await asyncio.wait({task}, timeout=self._timeout_seconds)
        if done:
            result = task.result()
        else:
            result = WorkerResult(error=f"Timeout: it ran longer than {self._timeout_seconds} s")
        _log_end(function, invocation_id, time.monotonic() - started, result)
        if not done:
            self._on_timeout()
        return result

    async def wait_idle(self, grace_seconds: float) -> bool:
        """Wait until nothing runs any more; False when the grace was too short."""
        if not self._running:
            return True
        _, late = await asyncio.wait(set(self._running), timeout=grace_seconds)
        return not late


def _log_end(function: Function, invocation_id: str, seconds: float, result: WorkerResult) -> None:
    outcome = "Succeeded" if result.error is None else "Failed"
    text = f"Executed {function.name} ({outcome}, id={invocation_id}, {seconds * 1000:.0f} ms)"
    if result.error is None:
        host_log.info(text)
    else:
        host_log.error("%s\n%s", text, result.error)
