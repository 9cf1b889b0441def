"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """The time of a simulated world.

    Args:
        start: The time at which it begins; aware.
    """

    def __init__(self, start: datetime = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = timedelta()

    def now(self) -> datetime:
        """The true time; services whose clock is off see another one."""
        return self._start + self._elapsed

    def ticks(self) -> float:
        """Monotonic seconds since the start: the clock of a process, pauses included."""
        return self._elapsed.total_seconds()

    def advance(self, by: timedelta) -> None:
        """Let time pass. Raises ValueError for a negative duration."""
        if by < timedelta():
            raise ValueError("time does not go backward; give a service an offset instead")
        self._elapsed += by
