"""Log lines that alerts and operators read: one line each, which a query can take apart."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modzy_relay.telemetry import _ALARMS, _WARNINGS, FIELDS, Event, emit, logger

PACKAGE = Path(__file__).resolve().parents[2] / "modzy_relay"


class Kept(logging.Handler):
    """Keeps the messages as a handler formats them."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.messages.append(self.format(record))


@given(path=st.text(), reason=st.none() | st.text())
def test_any_name_stays_on_one_line_and_comes_back(path: str, reason: str | None) -> None:
    """A blob name with line ends, percent signs or braces cannot forge or break a line."""
    kept = Kept()
    logger.addHandler(kept)
    try:
        emit(Event.REJECTED, path=path, reason=reason, attempts=1)
    finally:
        logger.removeHandler(kept)
    (message,) = kept.messages
    assert len(message.splitlines()) == 1
    event, _, data = message.partition(" ")
    assert event == Event.REJECTED
    told = {"path": path, "reason": reason, "attempts": 1}
    assert json.loads(data) == {name: value for name, value in told.items() if value is not None}


@pytest.mark.parametrize("event", Event)
def test_levels_separate_alarms_from_expected_trouble(
    event: Event, caplog: pytest.LogCaptureFixture
) -> None:
    """An upload that is tried again is no error; what needs a person is one."""
    caplog.set_level(logging.INFO)
    emit(event)
    expected = "ERROR" if event in _ALARMS else "WARNING" if event in _WARNINGS else "INFO"
    assert [record.levelname for record in caplog.records] == [expected]
    assert not _ALARMS & _WARNINGS


def test_every_event_says_what_it_carries() -> None:
    """Whoever writes a query finds each event's fields in one place."""
    assert set(FIELDS) == set(Event)


def test_every_event_is_told_somewhere() -> None:
    """No query waits for an event that nothing emits."""
    used = {
        node.attr
        for file in PACKAGE.rglob("*.py")
        if file.name != "telemetry.py"
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Event"
    }
    assert {event.name for event in Event} <= used
