"""Who may be moved where: the table, its messages, and what a moved row leads to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operate_rows import TIMING, a_row

from modzy_relay.checks import Check, MismatchError, check_input, fault_of, run_checks
from modzy_relay.lifecycle import (
    FINAL_JOB_STATUSES,
    Announce,
    State,
    Submit,
    next_step,
)
from modzy_relay.modzy_api import NotFoundError
from modzy_relay.operate import MOVES, Action, moved, refusal
from modzy_relay.routing import Route

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
A_JOB = "fd2c6f8b-4f33-4e52-a995-ad7671de31e5"
ALLOWED = {
    ("retry", "REJECTED"),
    ("retry", "ABANDONED"),
    ("resolve --job", "UNCERTAIN"),
    ("resolve --no-job", "UNCERTAIN"),
    ("replay", "SUBMITTED"),
    ("replay", "SKIPPED"),
}


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("state", State)
def test_each_action_is_for_its_states_only(action: Action, state: State) -> None:
    """A command moves a submission only from the states that the design names."""
    row = a_row(state, job_status="COMPLETED" if state is State.SUBMITTED else None)
    assert (refusal(action, row) is None) == ((str(action), str(state)) in ALLOWED)


@given(
    action=st.sampled_from(Action),
    state=st.sampled_from(State),
    status=st.sampled_from([None, "IN_PROGRESS", "NEW_WORD", *sorted(FINAL_JOB_STATUSES)]),
    job=st.sampled_from([None, A_JOB]),
)
def test_what_is_under_way_is_in_no_operators_reach(
    action: Action, state: State, status: str | None, job: str | None
) -> None:
    """Where the relay may still act by itself, a command could make a second job."""
    row = a_row(state, job_identifier=job, job_status=status)
    text = refusal(action, row)
    if row.is_open:
        assert text is not None
        assert "needs no command" in text
    elif text is not None:
        assert str(row.key) in text
        assert "can be moved by" in text or "Upload" in text


def test_a_refusal_names_a_command_that_is_not_refused() -> None:
    """A refusal ends in the next step."""
    for state in (State.REJECTED, State.ABANDONED, State.UNCERTAIN, State.SKIPPED):
        row = a_row(state)
        for action in Action:
            text = refusal(action, row)
            if text is not None:
                advised = {other for other in Action if f"`{other}`" in text} - {action}
                assert advised
                assert all(refusal(other, row) is None for other in advised)


@given(
    move=st.sampled_from(
        [(it, state) for it in Action if it is not Action.REPLAY for state in MOVES[it][0]]
    ),
    later=st.timedeltas(min_value=timedelta(), max_value=timedelta(days=4000)),
)
def test_a_moved_row_is_taken_up_at_once(move: tuple[Action, State], later: timedelta) -> None:
    """However long it lay, a moved row is due now, has its full time, and can be found again."""
    action, state = move
    before = a_row(state)
    now = NOW + later
    job = {"job_identifier": A_JOB} if action is Action.ADOPT else {}
    row = moved(action, before, now, TIMING, **job)
    step = next_step(row, now, TIMING)
    assert isinstance(step, Announce if action is Action.ADOPT else Submit)
    assert row.is_open
    assert row.next_attempt_at == now
    assert row.give_up_at == now + TIMING.give_up
    assert not row.indexed
    # The history of POSTs stays, or a job too many would not be looked for.
    assert (row.attempts, row.doubts) == (before.attempts, before.doubts)
    assert (row.key, row.item_key, row.created_at) == (
        before.key,
        before.item_key,
        before.created_at,
    )
    assert row.changes[:-1] == before.changes


def test_every_check_is_run_and_each_fault_is_told() -> None:
    """One fault does not hide another, and a ping's result, maybe a secret, goes nowhere."""

    def fail() -> None:
        raise NotFoundError("unknown model", request="GET /api/models/m", status=404)

    def leak() -> str:
        return "prefix.secret"

    checks = [Check("a", fail, "do a"), Check("b", leak, "do b"), Check("c", fail, "do c")]
    findings = run_checks(checks)
    assert [(it.name, it.fault is None) for it in findings] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    assert "prefix.secret" not in repr(findings)


def test_a_foreign_errors_text_is_not_told() -> None:
    """An SDK's text may quote what was signed; its type is enough."""
    assert fault_of(OSError("Signature=c2VjcmV0")) == "could not be asked (OSError)"


@pytest.mark.parametrize(
    ("named", "offered", "fits"),
    [
        ("input.txt", ["input.txt"], True),
        ("input.txt", ["image", "input.txt"], True),
        ("input.txt", ["image"], False),
        ("input.txt", [], False),
        (None, ["image"], True),
        (None, ["image", "input.txt"], False),
        (None, [], False),
    ],
)
def test_a_routes_input_is_one_of_the_models(
    named: str | None, offered: list[str], *, fits: bool
) -> None:
    """A misspelled input is found before an upload is rejected for it."""
    route = Route("**", "m1", "1.0.0", named)
    if fits:
        check_input(route, offered)
    else:
        with pytest.raises(MismatchError):
            check_input(route, offered)
