"""Single JSON values that may come in the wrong type."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_TRUTH = {"true": True, "false": False}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def parse_time(value: object) -> datetime | None:
    """Read a time; None if it is not one. Without an offset it is taken for UTC.

    Seen: ``2021-08-02T21:19:52.529+00:00``, ``2021-08-02T21:19:52.529+0000``, and ``Z``.
    """
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def text(value: object) -> str | None:
    """A text, or an integer as text; else None."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def boolean(value: object) -> bool | None:
    """A truth value, also as text; else None."""
    if isinstance(value, bool):
        return value
    return _TRUTH.get(value.strip().lower()) if isinstance(value, str) else None


def integer(value: object) -> int | None:
    """An integer, also as a float without fraction or as text; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return None
