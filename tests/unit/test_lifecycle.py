"""The rule for the next step, state by state, and what a row remembers."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import a_submission, moments, submissions, texts

from modzy_relay.lifecycle import (
    FINAL_JOB_STATUSES,
    Abandon,
    Announce,
    AskHistory,
    Follow,
    Record,
    Rest,
    State,
    Step,
    Submission,
    Submit,
    Timing,
    Wait,
    next_step,
)
from modzy_relay.messages import EventType, event_about
from modzy_relay.testing import ManualClock

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TIMING = Timing(
    submit=timedelta(seconds=30),
    settle=timedelta(minutes=2),
    give_up=timedelta(days=7),
    follow=timedelta(days=7),
)
MARGIN = TIMING.clock_margin
SETTLED = MARGIN + TIMING.settle
#: Table Storage takes 64 KiB of UTF-16 in one property.
LARGEST_PROPERTY_UNITS = 32 * 1024


def _ask(*, conclusive: bool = False, given_up: bool = False) -> AskHistory:
    return AskHistory(conclusive=conclusive, given_up=given_up)


@pytest.mark.parametrize(
    ("lease_until", "expected"),
    [
        (NOW + SECOND, Wait(NOW + SECOND + MARGIN)),
        (NOW, Wait(NOW + MARGIN)),
        (NOW - MARGIN + SECOND, Wait(NOW + SECOND)),
        (NOW - MARGIN, _ask()),
        (NOW - SETTLED + SECOND, _ask()),
        (NOW - SETTLED, _ask(conclusive=True)),
        (NOW - timedelta(days=3), _ask(conclusive=True)),
    ],
)
def test_a_claim_is_waited_for_then_asked_about_then_settled(
    lease_until: datetime, expected: Step
) -> None:
    """Nobody takes over a live claim, and history is believed only once it had time to settle."""
    row = a_submission(lease_until=lease_until, next_attempt_at=lease_until)
    assert next_step(row, NOW, TIMING) == expected


def test_a_doubtful_claim_waits_for_its_next_attempt() -> None:
    """History is not asked more often than the row's own delay says."""
    due = NOW + timedelta(minutes=3)
    row = a_submission(lease_until=NOW - timedelta(hours=1), next_attempt_at=due)
    assert next_step(row, NOW, TIMING) == Wait(due)
    assert next_step(row, due, TIMING) == _ask(conclusive=True)


@pytest.mark.parametrize("over", [-SECOND, timedelta(), timedelta(days=1)])
def test_the_last_question_to_history_is_marked(over: timedelta) -> None:
    """Whoever asks after the end of GIVE_UP_AFTER knows that it is the last time."""
    row = a_submission(
        lease_until=NOW - timedelta(days=1), next_attempt_at=NOW, give_up_at=NOW - over
    )
    assert next_step(row, NOW, TIMING) == _ask(conclusive=True, given_up=over >= timedelta())


def test_a_known_job_is_announced_whatever_the_lease_says() -> None:
    """A job that exists is never asked for again, and never posted again."""
    row = a_submission(job_identifier="a-job", lease_until=NOW + timedelta(hours=1))
    assert next_step(row, NOW, TIMING) == Announce()


def test_a_claim_without_a_lease_is_an_error() -> None:
    """A row that the relay cannot have written is not guessed about."""
    with pytest.raises(ValueError, match="without a lease"):
        next_step(a_submission(lease_until=None), NOW, TIMING)


@pytest.mark.parametrize(
    ("due", "give_up_at", "expected"),
    [
        (NOW + SECOND, NOW + timedelta(days=1), Wait(NOW + SECOND)),
        (NOW, NOW + timedelta(days=1), Submit()),
        (None, NOW + timedelta(days=1), Submit()),
        (NOW - timedelta(days=2), NOW + SECOND, Submit()),
        (NOW + SECOND, NOW, Abandon()),
        (NOW, NOW - SECOND, Abandon()),
    ],
)
def test_what_was_put_off_is_submitted_when_due_until_it_is_given_up(
    due: datetime | None, give_up_at: datetime, expected: Step
) -> None:
    """DEFERRED: wait, submit, or abandon; the end of the time counts before the next attempt."""
    row = a_submission(
        state=State.DEFERRED, lease_until=None, next_attempt_at=due, give_up_at=give_up_at
    )
    assert next_step(row, NOW, TIMING) == expected


@pytest.mark.parametrize(
    ("job_status", "due", "expected"),
    [
        ("SUBMITTED", NOW + SECOND, Wait(NOW + SECOND)),
        ("IN_PROGRESS", NOW, Follow()),
        (None, None, Follow()),
        ("A_STATUS_OF_NEXT_YEAR", NOW, Follow()),
        *((status, None, Rest()) for status in sorted(FINAL_JOB_STATUSES)),
    ],
)
def test_a_job_is_followed_until_it_is_final(
    job_status: str | None, due: datetime | None, expected: Step
) -> None:
    """SUBMITTED: a status that nobody has heard of is not final."""
    row = a_submission(
        state=State.SUBMITTED,
        job_identifier="a-job",
        job_status=job_status,
        lease_until=None,
        next_attempt_at=due,
    )
    assert next_step(row, NOW, TIMING) == expected
    assert row.is_open is (expected != Rest())


@pytest.mark.parametrize(
    "state",
    [State.REJECTED, State.ABANDONED, State.UNCERTAIN, State.SKIPPED, State.GONE],
)
def test_final_states_rest(state: State) -> None:
    """Only an operator moves a submission out of a final state."""
    row = a_submission(state=state, next_attempt_at=NOW - timedelta(days=1))
    assert next_step(row, NOW, TIMING) == Rest()
    assert not row.is_open


@given(row=submissions(), now=moments)
def test_a_wait_always_ends(row: Submission, now: datetime) -> None:
    """What is waited for lies ahead, and when it has come something else is to be done."""
    if row.state is State.SUBMITTING and row.lease_until is None:
        return
    step = next_step(row, now, TIMING)
    for _ in range(3):
        if not isinstance(step, Wait):
            break
        assert step.until > now
        now = step.until
        step = next_step(row, now, TIMING)
    assert not isinstance(step, Wait)


@given(row=submissions(), now=moments)
def test_nothing_is_posted_blindly(row: Submission, now: datetime) -> None:
    """The rule itself says Submit only of rows that certainly have no job."""
    if row.state is State.SUBMITTING and row.lease_until is None:
        return
    if next_step(row, now, TIMING) == Submit():
        assert row.state is State.DEFERRED


def test_a_lease_outlasts_two_posts() -> None:
    """A second POST after a changed API key fits into the claim, with room to spare."""
    assert TIMING.lease > 2 * TIMING.submit


# -- what a row remembers ------------------------------------------------------------------


def test_a_repeated_state_for_the_same_reason_is_one_change() -> None:
    """Hundreds of equal deferrals do not push the interesting changes out of the row."""
    row = a_submission()
    for minute in range(5):
        row = row.moved(State.DEFERRED, NOW + timedelta(minutes=minute), "503 try later")
    assert [(change.at, change.state) for change in row.changes] == [(NOW, "DEFERRED")]
    assert row.reason == "503 try later"


def test_a_long_life_keeps_its_beginning_and_its_end() -> None:
    """The middle of the changes is dropped, the first two and the latest stay."""
    row = a_submission()
    for number in range(100):
        row = row.moved(State.DEFERRED, NOW + timedelta(minutes=number), f"reason {number}")
    reasons = [change.reason for change in row.changes]
    assert reasons[:2] == ["reason 0", "reason 1"]
    assert reasons[2:] == [f"reason {number}" for number in range(72, 100)]


@pytest.mark.parametrize("character", ["x", '"', "\\", "\x01", "长", "🚢", "\ud800"])
def test_changes_fit_into_one_property(character: str) -> None:
    """Whatever a server gives as reasons, the row can be written."""
    row = a_submission()
    for number in range(100):
        row = row.moved(State.SUBMITTING, NOW, character * 1000 + str(number)[::-1])
        row = row.moved(State.DEFERRED, NOW.replace(microsecond=123456), character * 1000)
    text = json.dumps(
        [[change.at.isoformat(), change.state, change.reason] for change in row.changes],
        ensure_ascii=False,
    )
    assert len(text.encode("utf-16-le")) // 2 <= LARGEST_PROPERTY_UNITS


def test_half_a_surrogate_pair_in_a_reason_can_be_sent() -> None:
    """A server's JSON can spell what UTF-8 cannot; the announcement must not fail on it."""
    row = a_submission().moved(State.REJECTED, NOW, "400 bad \ud83d input")
    event_about(row, EventType.SUBMISSION_FAILED, NOW).encode().encode()
    assert row.reason == "400 bad ? input"


@given(text=texts)
def test_a_valid_short_reason_is_kept_as_it_is(text: str) -> None:
    """Nothing is changed that need not be."""
    assert (a_submission().moved(State.REJECTED, NOW, text).reason or "") == text


@pytest.mark.parametrize("field", ["created_at", "give_up_at", "lease_until", "next_attempt_at"])
def test_times_without_a_zone_are_refused(field: str) -> None:
    """A naive time would be off by the host's zone."""
    naive = datetime(2026, 11, 23)  # noqa: DTZ001 - on purpose
    with pytest.raises(ValueError, match="time zone"):
        dataclasses.replace(a_submission(), **{field: naive})  # type: ignore[arg-type] # by name


@given(waited=st.timedeltas(timedelta(), timedelta(days=30)))
def test_a_records_time_goes_on(waited: timedelta) -> None:
    """The service's time now is its last answer and what passed since, pauses included."""
    clock = ManualClock(NOW)
    record = Record(a_submission(), 'W/"1"', NOW, clock.ticks(), clock.ticks)
    clock.advance(waited)
    assert abs(record.now() - (NOW + waited)) <= timedelta(milliseconds=1)
