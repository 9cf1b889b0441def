"""The runbook and the commands tell of the same things."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from modzy_relay.cli import _parser
from modzy_relay.operate import COMMAND, MOVES

_RUNBOOK = (Path(__file__).parents[2] / "docs/operating.md").read_text("utf-8")
_TYPED = re.findall(rf"^\$ {COMMAND} (.*)$", _RUNBOOK, re.MULTILINE)


def _commands() -> set[str]:
    actions = _parser()._actions
    return set(next(it for it in actions if isinstance(it, argparse._SubParsersAction)).choices)


@pytest.mark.parametrize("line", sorted(set(_TYPED) - {"--help"}))
def test_what_the_runbook_types_can_be_typed(line: str) -> None:
    """A command of the runbook that does not exist any more would be found in an emergency."""
    _parser().parse_args(shlex.split(line))


def test_the_runbook_shows_every_command() -> None:
    """Nothing that an operator can do is missing from the page that they read."""
    assert {line.split()[0] for line in _TYPED} - {"--help"} == _commands()


def test_the_runbooks_table_has_the_states_of_every_move() -> None:
    """The page promises for each action the states that the code allows."""
    for action, (sources, target) in MOVES.items():
        row = next(line for line in _RUNBOOK.splitlines() if line.startswith(f"| `{action}` |"))
        _, _, given, afterwards, _ = row.split("|")
        assert set(re.findall(r"\b[A-Z]{4,}\b", given)) == set(sources)
        assert target in afterwards


@pytest.mark.parametrize("name", sorted(_commands()))
def test_help_has_examples_that_can_be_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples in --help work, and each command that changes something has a dry run."""
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args([name, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    examples = re.findall(rf"^  {COMMAND} (.*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        _parser().parse_args(shlex.split(example))
    assert ("--dry-run" in text) == (name in {"retry", "resolve", "replay", "sweep"})
