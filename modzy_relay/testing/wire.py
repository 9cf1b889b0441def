"""What lies between the relay and a service, where a test can stage anything that goes wrong."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from modzy_relay.testing.clock import ManualClock


class StorageDownError(Exception):
    """Storage did not answer; whether the request took effect is not known."""


class Wire:
    """Carries every request and every answer; this one does so at once and without fault."""

    def request(self, operation: str) -> None:
        """Runs before a request takes effect; if it raises, the request has none."""

    def response(self, operation: str) -> None:
        """Runs after a request took effect; if it raises, the answer is lost."""


class MemoryService:
    """Common to the doubles: a clock of its own, one request at a time.

    Attributes:
        offset: How far the service's clock is ahead of the true time. Change it at will: the
            front ends of one real service differ too.
    """

    def __init__(self, clock: ManualClock, wire: Wire | None = None) -> None:
        self.offset = timedelta()
        self._clock = clock
        self._wire = wire or Wire()
        self._lock = threading.RLock()

    def _time(self) -> datetime:
        return self._clock.now() + self.offset

    def _exchange(self, operation: str) -> Exchange:
        return Exchange(self, operation)


class Exchange:
    """One request and its answer.

    Attributes:
        read_at: ``ticks()`` when the request was begun.
        as_of: The service's clock when it answered, as its ``Date`` header has it: the fraction
            of the second cut off.
    """

    as_of: datetime

    def __init__(self, service: MemoryService, operation: str) -> None:
        self._service = service
        self._operation = operation
        self.read_at = service._clock.ticks()  # noqa: SLF001 - one unit

    def __enter__(self) -> Exchange:
        self._service._wire.request(self._operation)  # noqa: SLF001 - one unit
        self._service._lock.acquire()  # noqa: SLF001 - one unit
        self.as_of = self._service._time().replace(microsecond=0)  # noqa: SLF001 - one unit
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._service._lock.release()  # noqa: SLF001 - one unit
        self._service._wire.response(self._operation)  # noqa: SLF001 - one unit
