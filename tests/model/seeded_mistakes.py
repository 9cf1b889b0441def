"""Mistakes that the model check must find: each breaks one rule of the relay on purpose."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from modzy_relay import lifecycle
from modzy_relay import relay as relay_module
from modzy_relay.lifecycle import AskHistory, Record, State, Submission, Submit, Wait, next_step
from modzy_relay.relay import Relay
from modzy_relay.sweep import Sweeper
from modzy_relay.testing import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import pytest

    from modzy_relay.lifecycle import Step, Timing
    from modzy_relay.modzy_api import Job

    Mistake = Callable[[pytest.MonkeyPatch], None]


def _with_rule(patch: pytest.MonkeyPatch, change: Callable[[Submission, Step], Step]) -> None:
    def changed(row: Submission, now: datetime, timing: Timing) -> Step:
        return change(row, next_step(row, now, timing))

    patch.setattr(relay_module, "next_step", changed)


def history_is_not_asked(patch: pytest.MonkeyPatch) -> None:
    """A claim that ran out is posted again at once."""
    _with_rule(patch, lambda _, step: Submit() if isinstance(step, AskHistory) else step)


def settle_time_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What the history does not show yet counts as never accepted."""

    def impatient(_: Submission, step: Step) -> Step:
        return dataclasses.replace(step, conclusive=True) if isinstance(step, AskHistory) else step

    _with_rule(patch, impatient)


def live_claims_are_taken_over(patch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the end of a lease."""

    def greedy(row: Submission, step: Step) -> Step:
        if row.state is State.SUBMITTING and isinstance(step, Wait):
            return AskHistory(conclusive=True, given_up=False)
        return step

    _with_rule(patch, greedy)


def lease_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A POST starts however long ago its claim was made."""
    patch.setattr(Relay, "_check_lease", lambda _self, _record: None)


def recorded_before_announced(patch: pytest.MonkeyPatch) -> None:
    """The row says SUBMITTED before anybody was told."""
    announce = Relay._announce

    def record_first(
        self: Relay, record: Record, job_identifier: str, job_status: str | None, **how: Any
    ) -> None:
        now = record.now()
        row = record.row.moved(
            State.SUBMITTED, now, job_identifier=job_identifier, next_attempt_at=now
        )
        announce(self, self._ledger.replace(record, row), job_identifier, job_status, **how)

    patch.setattr(Relay, "_announce", record_first)


def not_followed(patch: pytest.MonkeyPatch) -> None:
    """No reminder follows an announcement."""
    announce = Relay._announce

    def announce_only(self: Relay, record: Record, *job: str | None, **how: Any) -> None:
        with patch.context() as silenced:
            silenced.setattr(self._outbox, "remind", lambda _key, _delay: None)
            announce(self, record, *job, **how)  # type: ignore[arg-type] # the same arguments

    patch.setattr(Relay, "_announce", announce_only)


def etag_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    """The last writer wins."""
    replace = MemoryLedger.replace

    def overwrite(self: MemoryLedger, record: Record, row: Submission) -> Record:
        return replace(self, dataclasses.replace(record, etag=self._rows[row.key][1]), row)

    patch.setattr(MemoryLedger, "replace", overwrite)


def insert_overwrites(patch: pytest.MonkeyPatch) -> None:
    """A claim does not mind that there is one."""

    def upsert(self: MemoryLedger, row: Submission) -> tuple[Record, bool]:
        with self._exchange("ledger.insert") as exchange:
            return self._write(row, exchange), True

    patch.setattr(MemoryLedger, "insert", upsert)


def unknown_counts_as_not_accepted(patch: pytest.MonkeyPatch) -> None:
    """A time-out is retried like a 503."""
    patch.setattr(Relay, "_in_doubt", Relay._defer)


def history_is_asked_from_now_on(patch: pytest.MonkeyPatch) -> None:
    """The search begins after the job in question."""
    patch.setattr(lifecycle, "_MODZY_CLOCK_MARGIN", -timedelta(hours=1))


def doubt_ends_as_abandoned(patch: pytest.MonkeyPatch) -> None:
    """An outcome that was never found out is told as "not accepted"."""

    def forget(self: Relay, record: Record, _step: AskHistory, reason: str, *_: object) -> None:
        self._end(record, State.ABANDONED, reason)

    patch.setattr(Relay, "_history_unavailable", forget)


def ended_jobs_are_not_finished(patch: pytest.MonkeyPatch) -> None:
    """A job that had ended when it was adopted counts as done with: no results, no end told."""
    patch.setattr(relay_module, "FINAL_JOB_STATUSES", frozenset[str]())


def own_job_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    """Whoever finds the row changed cancels its job, even if that is the one adopted."""

    def cancel(self: Relay, key: Any, job: Job) -> None:
        current = self._ledger.get(key)
        if current is not None and current.row.job_identifier is not None:
            self._follower.cancel_extra(current.row, [job.job_identifier])

    patch.setattr(Relay, "_lost", cancel)


def conflict_is_an_error(patch: pytest.MonkeyPatch) -> None:
    """Somebody else's progress makes a use case fail."""

    def stubborn(self: Relay, record: Record, row: Submission, *_: object) -> None:
        self._ledger.replace(record, row)

    patch.setattr(Relay, "_put_off", stubborn)


def uploads_are_not_listed(patch: pytest.MonkeyPatch) -> None:
    """The sweep does not look for uploads whose event was lost."""

    def no_listing(self: Sweeper, *_: object) -> datetime:
        return self._uploads.list_page(None).as_of

    patch.setattr(Sweeper, "_list_uploads", no_listing)


def overdue_rows_are_not_found(patch: pytest.MonkeyPatch) -> None:
    """The sweep does not look for rows whose reminder was lost."""
    patch.setattr(Sweeper, "_remind_overdue", lambda *_: None)


def reminders_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """No time is set for what is put off, and no reminder sent."""
    put_off = Relay._put_off

    def forget(self: Relay, record: Record, row: Submission, *rest: Any) -> None:
        put_off(self, record, dataclasses.replace(row, next_attempt_at=None), *rest)

    patch.setattr(Relay, "_put_off", forget)


def failures_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """A failed submission is only recorded."""
    patch.setattr(relay_module, "FAILED_STATES", frozenset[State]())


MISTAKES: tuple[Mistake, ...] = (
    history_is_not_asked,
    settle_time_is_forgotten,
    live_claims_are_taken_over,
    lease_is_not_checked,
    recorded_before_announced,
    not_followed,
    etag_is_not_compared,
    insert_overwrites,
    unknown_counts_as_not_accepted,
    history_is_asked_from_now_on,
    doubt_ends_as_abandoned,
    ended_jobs_are_not_finished,
    own_job_is_cancelled,
    conflict_is_an_error,
    uploads_are_not_listed,
    overdue_rows_are_not_found,
    reminders_are_dropped,
    failures_are_not_told,
)
