"""One circuit breaker for Modzy in each process: outages park uploads instead of holding threads.

Closed, every call may go. After a few failures in a row it opens, and callers are told at once
how long to stay away. When that time is over it lets one call through; each success doubles how
many may be under way together, until the limit is lifted, so that a recovered Modzy is not met
by everything that waited. It keeps no call waiting and starts no thread.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from modzy_relay.telemetry import Event, emit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_FAILURES_TO_OPEN = 3
_FIRST_PAUSE = 15.0
_LONGEST_PAUSE = 300.0
_LONGEST_SERVER_PAUSE = 3600.0
_FULLY_OPEN_WINDOW = 32
_RAMP_WAIT = 5.0


class Passage:
    """Leave to make a call, or the seconds to stay away; a context around the call.

    Attributes:
        wait: 0.0: go ahead, and say how it went. More: do not call for that many seconds.
    """

    def __init__(self, breaker: Breaker, wait: float) -> None:
        self.wait = wait
        self._breaker = breaker
        self._ok: bool | None = None
        self._retry_after: float | None = None
        self._reason = ""

    def succeeded(self) -> None:
        """Modzy answered usefully (a refusal is an answer too)."""
        self._ok = True

    def failed(self, reason: str, retry_after: float | None = None) -> None:
        """Modzy did not serve the call; ``retry_after`` is what it asked for, in seconds."""
        self._ok, self._reason, self._retry_after = False, reason, retry_after

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.wait:
            self._breaker._leave(self._ok, self._retry_after, self._reason)  # noqa: SLF001 - one unit


class Breaker:
    """Says whether a call to Modzy may go ahead now. Thread-safe.

    Args:
        ticks: Monotonic seconds.
        chance: Uniform in [0, 1).
    """

    def __init__(self, ticks: Callable[[], float], chance: Callable[[], float]) -> None:
        self._ticks = ticks
        self._chance = chance
        self._lock = threading.Lock()
        self._failures = 0  # in a row, while closed
        self._pauses = 0  # in a row, the exponent of the pause
        self._opened_at: float | None = None
        self._open_until = 0.0
        self._window: int | None = None  # None = no limit: closed
        self._under_way = 0

    def enter(self) -> Passage:
        """Ask to make a call; use the answer as a context around it."""
        with self._lock:
            now = self._ticks()
            if now < self._open_until:
                return Passage(self, self._open_until - now)
            if self._window is not None and self._under_way >= self._window:
                return Passage(self, _RAMP_WAIT * (1 + self._chance()))
            self._under_way += 1
            return Passage(self, 0.0)

    def _leave(self, ok: bool | None, retry_after: float | None, reason: str) -> None:
        with self._lock:
            self._under_way -= 1
            if ok:
                self._succeeded()
            elif ok is False:
                self._failed(retry_after, reason)

    def _succeeded(self) -> None:
        self._failures = 0
        if self._window is None or self._ticks() < self._open_until:
            return
        self._window *= 2
        if self._window > _FULLY_OPEN_WINDOW:
            self._window = None
            self._pauses = 0
            opened_at, self._opened_at = self._opened_at, None
            if opened_at is not None:
                emit(Event.BREAKER_CLOSED, seconds=round(self._ticks() - opened_at))

    def _failed(self, retry_after: float | None, reason: str) -> None:
        self._failures += 1
        now = self._ticks()
        if now < self._open_until:
            return  # a call that was under way when it opened: already accounted for
        if self._window is None and retry_after is None and self._failures < _FAILURES_TO_OPEN:
            return
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._pauses, 8))
        # Between half and the whole pause, so that processes which opened together probe apart.
        pause = max(
            pause * (0.5 + 0.5 * self._chance()), min(retry_after or 0.0, _LONGEST_SERVER_PAUSE)
        )
        self._pauses += 1
        self._open_until = now + pause
        self._window = 1
        if self._opened_at is None:
            self._opened_at = now
        emit(Event.BREAKER_OPENED, reason=reason, seconds=round(pause))
