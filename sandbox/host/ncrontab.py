"""Timer schedules: NCRONTAB expressions and fixed intervals.

After the WebJobs extensions' ``CronSchedule`` and ``TimerSchedule``: six fields (second minute hour
day month weekday), exactly five are minute-first, a time span ``hh:mm:ss`` is an interval. As in
NCRONTAB, day *and* weekday must both match, Sunday is 0, and ``5/10`` means from 5 to the end in
steps of 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sandbox.host.host_json import parse_time_span
from sandbox.host.settings import SettingsError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAME_LENGTH = 3  # names are told apart by so many letters; longer spellings are accepted
_FIELDS = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 6, _WEEKDAYS),
)
_SEARCH_DAYS = 8 * 366 + 1  # the longest gap between two 29ths of February


class Schedule(Protocol):
    """Something that says when a timer is due."""

    def next_after(self, moment: datetime) -> datetime | None:
        """The first due time later than ``moment`` (aware, UTC); None when there is none."""


@dataclass(frozen=True)
class Interval:
    """A fixed distance between two runs."""

    distance: timedelta

    def next_after(self, moment: datetime) -> datetime:
        """One distance after ``moment``."""
        return moment + self.distance


@dataclass(frozen=True)
class CronSchedule:
    """The values at which each field of an expression matches."""

    second: frozenset[int]
    minute: frozenset[int]
    hour: frozenset[int]
    day: frozenset[int]
    month: frozenset[int]
    weekday: frozenset[int]

    def next_after(self, moment: datetime) -> datetime | None:
        """The first matching second after ``moment``, searched up to eight years ahead."""
        first = moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        found = self._time_of_day(first) if self._matches_day(first) else None
        midnight = first.replace(hour=0, minute=0, second=0)
        for days in range(1, _SEARCH_DAYS):
            if found is not None:
                break
            day = midnight + timedelta(days=days)
            found = self._time_of_day(day) if self._matches_day(day) else None
        return found

    def _matches_day(self, moment: datetime) -> bool:
        return (
            moment.month in self.month
            and moment.day in self.day
            and moment.isoweekday() % 7 in self.weekday
        )

    def _time_of_day(self, start: datetime) -> datetime | None:
        """The first matching time of that day at or after ``start``."""
        earliest = (start.hour, start.minute, start.second)
        for hour in sorted(value for value in self.hour if value >= start.hour):
            for minute in sorted(self.minute):
                if (hour, minute) < earliest[:2]:
                    continue
                for second in sorted(self.second):
                    if (hour, minute, second) >= earliest:
                        return start.replace(hour=hour, minute=minute, second=second)
        return None


def parse_schedule(text: str) -> Schedule:
    """Read a schedule.

    Raises:
        SettingsError: the text is neither an expression nor a time span.
    """
    span = parse_time_span(text.strip())
    if span is not None:
        if not span:
            raise SettingsError(f"the schedule {text!r} is an interval of zero")
        return Interval(span)
    fields = text.split()
    if len(fields) == len(_FIELDS) - 1:
        fields.insert(0, "0")
    if len(fields) != len(_FIELDS):
        raise SettingsError(f"the schedule {text!r} needs six fields")
    return CronSchedule(
        **{
            name: _parse_field(field, name, low, high, names)
            for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True)
        }
    )


def _parse_field(
    field: str, name: str, low: int, high: int, names: tuple[str, ...]
) -> frozenset[int]:
    values: set[int] = set()
    for item in field.split(","):
        span, slash, step_text = item.partition("/")
        first_text, dash, last_text = span.partition("-")
        try:
            step = int(step_text) if slash else 1
            if span == "*":
                first, last = low, high
            else:
                first = _parse_value(first_text, low, names)
                last = _parse_value(last_text, low, names) if dash else (high if slash else first)
        except ValueError:
            raise SettingsError(f"{item!r} is not a {name} of a schedule") from None
        if not (low <= first <= last <= high and step > 0):
            raise SettingsError(f"{item!r} is out of range for a {name} of a schedule")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _parse_value(text: str, low: int, names: tuple[str, ...]) -> int:
    if names and text[:_NAME_LENGTH].lower() in names:
        return names.index(text[:_NAME_LENGTH].lower()) + low
    return int(text)
