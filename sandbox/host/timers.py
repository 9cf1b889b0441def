"""Timer triggers, after the WebJobs extensions' ``TimerListener`` and ``ScheduleMonitor``."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, ResourceNotFoundError

from sandbox.host.locks import pause
from sandbox.host.logs import describe, host_log
from sandbox.host.protos import TypedData

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

    from sandbox.host.functions import TimerFunction
    from sandbox.host.invoker import Invoker

_MONITORED_FROM = timedelta(minutes=1)  # more frequent timers are not monitored


@dataclass(frozen=True)
class TimerStatus:
    """What the monitor knows of a timer; aware times.

    Attributes:
        last: the latest run, None before the first.
        next: the next due time.
        updated: when this was written.
    """

    last: datetime | None
    next: datetime
    updated: datetime

    def encode(self) -> str:
        """The JSON text kept in storage and shown to the function."""
        last = self.last or datetime.min.replace(tzinfo=UTC)
        times = {"Last": last, "Next": self.next, "LastUpdated": self.updated}
        return json.dumps({name: moment.isoformat() for name, moment in times.items()})

    @classmethod
    def decode(cls, text: bytes) -> TimerStatus:
        """Read what ``encode`` wrote."""
        times = {name: datetime.fromisoformat(moment) for name, moment in json.loads(text).items()}
        never = datetime.min.replace(tzinfo=UTC)
        last = None if times["Last"] == never else times["Last"]
        return cls(last, times["Next"], times["LastUpdated"])


class TimerListener:
    """Runs one timer function when it is due, one run after the other.

    Args:
        function: the function.
        status_blob: where the monitor keeps its status.
        invoker: runs it.
    """

    def __init__(self, function: TimerFunction, status_blob: BlobClient, invoker: Invoker) -> None:
        self._function = function
        self._status_blob = status_blob
        self._invoker = invoker

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop``.

        A due time that passed while no host ran is made up for once, now. A run that fails waits
        for its next due time like any other.
        """
        now = datetime.now(UTC)
        due = self._function.schedule.next_after(now)
        if due is None:
            host_log.warning("The timer %s is never due", self._function.name)
            return
        status = await self._read_or_create_status(now, due) if self._is_monitored(due) else None
        if status is not None and status.next < now:
            status = await self._fire(status, past_due=True)
        elif self._function.run_on_startup:
            status = await self._fire(status, past_due=False)
        while not stop.is_set():
            due = self._function.schedule.next_after(datetime.now(UTC))
            if due is None:
                return
            # In a loop: the event loop's clock may be a little ahead of the wall clock.
            while not stop.is_set() and (wait := due - datetime.now(UTC)) > timedelta():
                await pause(stop, wait.total_seconds())
            if not stop.is_set():
                status = await self._fire(status, past_due=False)

    def _is_monitored(self, due: datetime) -> bool:
        following = self._function.schedule.next_after(due)
        frequent = following is not None and following - due < _MONITORED_FROM
        return self._function.use_monitor and not frequent

    async def _read_or_create_status(self, now: datetime, due: datetime) -> TimerStatus | None:
        """The stored status; a new one when there is none, or the schedule was changed since."""
        try:
            stored = await asyncio.to_thread(self._read)
            if stored is not None:
                expected = self._function.schedule.next_after(stored.updated)
                if stored.next == expected:
                    return stored
            status = TimerStatus(stored.last if stored else None, due, now)
            await asyncio.to_thread(self._write, status)
        except AzureError as error:
            host_log.warning("No monitor for %s: %s", self._function.name, describe(error))
            return None
        return status

    async def _fire(self, status: TimerStatus | None, *, past_due: bool) -> TimerStatus | None:
        """Run once; returns the status to show to the next run, None without a monitor."""
        reason = "timer, past due" if past_due else "timer"
        started = datetime.now(UTC)
        await self._invoker.invoke(
            self._function, reason, timer_input(status, past_due=past_due), {}
        )
        finished = datetime.now(UTC)
        following = self._function.schedule.next_after(finished)
        if status is None or following is None:
            return status
        status = TimerStatus(started, following, finished)
        try:
            await asyncio.to_thread(self._write, status)
        except AzureError as error:
            host_log.warning(
                "Cannot store the status of %s: %s", self._function.name, describe(error)
            )
        return status

    def _read(self) -> TimerStatus | None:
        try:
            return TimerStatus.decode(self._status_blob.download_blob().readall())
        except ResourceNotFoundError:
            return None

    def _write(self, status: TimerStatus) -> None:
        self._status_blob.upload_blob(status.encode().encode(), overwrite=True)


def timer_input(status: TimerStatus | None, *, past_due: bool) -> TypedData:
    """The value of a timer trigger as the host sends it."""
    return TypedData(
        json=json.dumps(
            {
                "Schedule": {"AdjustForDST": True},
                "ScheduleStatus": json.loads(status.encode()) if status is not None else None,
                "IsPastDue": past_due,
            }
        )
    )
