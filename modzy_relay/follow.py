"""From a job identifier to the job's end: looking at it, keeping its results, telling of its end.

The order of effects at the end: 1. store the results, ``results.json`` last. 2. Announce
``modzy.job.finished``. 3. Record the final status. Each can be repeated, so a crash anywhere
only means that the next look does it again.

What cannot be had is waited for, but not for ever: see ``_Patience``. ``docs/following.md`` says
what each ending means.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from modzy_relay.backoff import look_delay
from modzy_relay.errors import ConflictError, RelayError, SecretUnavailableError
from modzy_relay.identity import ledger_key_of
from modzy_relay.lifecycle import UNFOLLOWED, VANISHED, Record, State, Submission, Timing
from modzy_relay.messages import EventType, event_about
from modzy_relay.modzy_api import Job, JobStatus, ModzyError, Outcome, UnreadableAnswerError
from modzy_relay.results import failure_summary, one_line
from modzy_relay.telemetry import Event, emit, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modzy_relay.breaker import Breaker, Passage
    from modzy_relay.identity import LedgerKey
    from modzy_relay.modzy_api import Results
    from modzy_relay.ports import Ledger, Modzy, Outbox
    from modzy_relay.results import ResultKeeper

#: A job that Modzy answers 404 for is gone only when it does so for this long: right after a
#: submit, behind a lagging replica or during a deployment, a 404 means "not now".
_VANISHED_AFTER = timedelta(minutes=30)
#: How long a completed job's results may be late, or in a form that cannot be used, before the
#: job counts as finished without them.
_RESULTS_LATE = timedelta(minutes=30)
#: Repeated webhook calls within this time of one another are one call.
_HINT_PAUSE = timedelta(seconds=30)
_UNKNOWN_JOB = "Modzy does not know the job (404)"
_NOT_STORED = "results not stored"


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long to wait for what a job that has ended still lacks.

    Attributes:
        late: The usual time for results to appear is over.
        over: The job was followed for ``FOLLOW_FOR``.
    """

    late: bool
    over: bool

    def accepts(self, error: Exception) -> bool:
        """Whether to do without what this error stands in the way of.

        An answer that will not change is waited for as long as results may be late; an outage
        (of Modzy, of the vault or of storage) as long as the job is followed.
        """
        if self.over:
            return True
        unchanging = isinstance(error, UnreadableAnswerError) or (
            isinstance(error, ModzyError) and error.outcome is Outcome.REFUSED
        )
        return self.late and unchanging


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a job ended, beside its status."""

    reason: str | None = None
    location: str | None = None


class Follower:
    """Follows submitted jobs until their status is final.

    Args:
        ledger: One row per blob version.
        outbox: Announcements and reminders.
        modzy: The platform.
        breaker: Whether Modzy is to be called now.
        results: Keeps results; None = they are not kept, nor asked for.
        timing: The durations in force.
        chance: Uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        outbox: Outbox,
        modzy: Modzy,
        breaker: Breaker,
        results: ResultKeeper | None,
        timing: Timing,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._modzy = modzy
        self._breaker = breaker
        self._results = results
        self._timing = timing
        self._chance = chance

    def look(self, record: Record) -> None:
        """Ask Modzy for the job of a SUBMITTED row, once, and do what its status calls for."""
        is_first = not record.row.indexed
        record = self._indexed(record)
        with self._breaker.enter() as passage:
            if passage.wait:
                wait = timedelta(seconds=passage.wait)
                self._could_not_look(record, "Modzy is failing or throttling", wait, asked=False)
                return
            try:
                if is_first:
                    # As early as possible: a job that is one too many costs money while it runs.
                    self._cancel_doubles(record.row)
                job = self._modzy.job(_job_of(record.row))
            except SecretUnavailableError as error:
                self._could_not_look(record, str(error), asked=False)
                return
            except ModzyError as error:
                passage.failed(str(error), error.retry_after)
                self._could_not_look(record, str(error), _seconds(error))
                return
            passage.succeeded()
            self._take_note(record, job, passage)

    def _could_not_look(
        self,
        record: Record,
        fault: str,
        at_least: timedelta = timedelta(),
        *,
        asked: bool = True,
    ) -> None:
        if self._is_over(record):
            self._close(
                record, UNFOLLOWED, f"not known to be final within FOLLOW_FOR; last: {fault}"
            )
        else:
            self._look_later(record, at_least, asked=asked)

    @staticmethod
    def _age(record: Record) -> timedelta:
        return record.now() - (record.row.submitted_at or record.row.created_at)

    def _is_over(self, record: Record) -> bool:
        return self._age(record) > self._timing.follow

    def _take_note(self, record: Record, job: Job | None, passage: Passage) -> None:
        if job is not None and job.is_final:
            self._finish(record, job, passage)
        elif self._is_over(record):
            self._close(record, UNFOLLOWED, "not final within FOLLOW_FOR")
        elif job is None:
            self._missed(record)
        else:
            self._look_later(_seen_again(record), job_status=job.status)

    def _missed(self, record: Record) -> None:
        """Modzy has just said that it does not know the job."""
        now = record.now()
        row = record.row.moved(State.SUBMITTED, now, _UNKNOWN_JOB)
        # A repeated reason is not a new change, so the last change tells when this began.
        if now - row.changes[-1].at > _VANISHED_AFTER:
            self._close(record, VANISHED, "Modzy no longer knows this job")
        else:
            self._look_later(_changed(record, row))

    # -- the end of a job ------------------------------------------------------------------

    def _finish(self, record: Record, job: Job, passage: Passage) -> None:
        """Do what a final status calls for; later, if something for it is missing now."""
        now = record.now()
        found_final_at = record.row.finished_at or now
        record = _changed(record, dataclasses.replace(record.row, finished_at=found_final_at))
        patience = _Patience(late=now - found_final_at >= _RESULTS_LATE, over=self._is_over(record))
        try:
            self._cancel_late_doubles(record.row, patience)
            ending = self._ending(record.row, job, patience)
        except SecretUnavailableError:
            self._look_later(record)
        except ModzyError as error:
            if error.outcome is Outcome.NOT_ACCEPTED:
                # Modzy turns callers away. Any other fault here may be that of one job alone,
                # which is no reason to keep all others waiting.
                passage.failed(str(error), error.retry_after)
            self._look_later(record, _seconds(error))
        else:
            if ending is None:
                self._look_later(record)
            else:
                self._close(record, job.status, ending.reason, ending.location)

    def _ending(self, row: Submission, job: Job, patience: _Patience) -> _Ending | None:
        """Keep a job's results; None while they may still come."""
        if job.status != JobStatus.COMPLETED:
            return _Ending()
        if self._results is None:
            return _Ending(_count_of_failures(job))
        try:
            results = self._modzy.results(_job_of(row))
        except (ModzyError, SecretUnavailableError) as error:
            if not patience.accepts(error):
                raise
            return _Ending(f"{_NOT_STORED}: {error}")
        if not _are_complete(results) and not (patience.late or patience.over):
            return None
        if results is None:
            return _Ending("completed, but Modzy has no results for it")
        return self._kept(self._results, row, results, patience)

    @staticmethod
    def _kept(
        keeper: ResultKeeper, row: Submission, results: Results, patience: _Patience
    ) -> _Ending:
        reasons = [failure_summary(results)]
        try:
            kept = keeper.keep(row, results, patience.accepts)
        except (ModzyError, SecretUnavailableError):
            raise
        except Exception as error:
            # Storage that does not take the results: the host tries again, and so does the
            # sweep, but not for ever. Only the kind is told: a text may quote a signed request.
            if not patience.over:
                raise
            reasons.append(f"{_NOT_STORED} within FOLLOW_FOR: {type(error).__name__}")
            return _Ending(_joined(reasons))
        reasons += [f"{name} not stored: {why}" for name, why in kept.left_out.items()]
        return _Ending(_joined(reasons), kept.location)

    def _close(
        self, record: Record, job_status: str, reason: str | None, location: str | None = None
    ) -> None:
        now = record.now()
        row = record.row.moved(
            State.SUBMITTED,
            now,
            one_line(reason) if reason else f"job {job_status}",
            job_status=job_status,
            looks=record.row.looks + 1,
            finished_at=record.row.finished_at or now,
            next_attempt_at=None,
            result_location=location,
        )
        if reason is None:
            row = dataclasses.replace(row, reason=None)
        self._outbox.announce(event_about(row, EventType.JOB_FINISHED, now))
        try:
            self._ledger.replace(record, row)
        except ConflictError:
            return  # somebody else has finished it, or will after another look
        tell(
            Event.JOB_FINISHED,
            row,
            job=row.job_identifier,
            job_status=job_status,
            reason=row.reason,
            seconds=round(self._age(record).total_seconds(), 1),
        )

    def _look_later(
        self,
        record: Record,
        at_least: timedelta = timedelta(),
        *,
        asked: bool = True,
        job_status: str | None = None,
    ) -> None:
        """Put off the next look by ``at_least`` and, so that not all return together, more."""
        now = record.now()
        looks = record.row.looks + asked
        delay = at_least + look_delay(looks, self._chance)
        row = dataclasses.replace(
            record.row,
            looks=looks,
            job_status=job_status or record.row.job_status,
            next_attempt_at=now + delay,
        )
        self._outbox.remind(row.key, delay)
        try:
            self._ledger.replace(record, row)
        except ConflictError:
            return  # a colleague has just looked; the reminder will find that
        tell(
            Event.JOB_LOOKED_AT,
            row,
            job=row.job_identifier,
            job_status=row.job_status,
            looks=looks,
            delay_seconds=round(delay.total_seconds()),
        )

    def _indexed(self, record: Record) -> Record:
        """Make a submission findable; put off to its first look, off the upload's path."""
        if record.row.indexed:
            return record
        self._ledger.index(record.row)
        return _changed(record, dataclasses.replace(record.row, indexed=True))

    # -- more than one job -----------------------------------------------------------------

    def _cancel_late_doubles(self, row: Submission, patience: _Patience) -> None:
        """Once more at the end, when the history shows all; no reason to withhold results."""
        try:
            self._cancel_doubles(row)
        except (ModzyError, SecretUnavailableError):
            if not (patience.late or patience.over):
                raise

    def _cancel_doubles(self, row: Submission) -> None:
        """After more than one POST: make sure that one job came of them.

        Also after those that Modzy turned away, in case it did not mean it. They are few: the
        breaker sees to it that an outage costs few POSTs.
        """
        if row.attempts < 2:
            return
        jobs = self._modzy.find(row.item_key, row.no_job_before)
        others = [
            job.job_identifier
            for job in jobs
            if job.job_identifier != row.job_identifier and job.status != JobStatus.CANCELED
        ]
        if others:
            self.cancel_extra(row, others)

    def cancel_extra(self, row: Submission, others: Sequence[str]) -> None:
        """Cancel jobs that are one too many for a version, and raise the alarm."""
        cancelled = []
        for job_identifier in others:
            try:
                self._modzy.cancel(job_identifier)
                cancelled.append(job_identifier)
            except (ModzyError, SecretUnavailableError) as error:
                emit(
                    Event.DUPLICATE_JOBS,
                    submission=str(row.key),
                    path=row.version.path,
                    job=job_identifier,
                    reason=f"could not be cancelled: {error}",
                )
        tell(
            Event.DUPLICATE_JOBS,
            row,
            job=row.job_identifier,
            jobs=1 + len(others),
            cancelled=cancelled,
        )

    # -- the webhook -----------------------------------------------------------------------

    def hint(self, job_identifier: str) -> bool:
        """Somebody says that a job has ended: have it looked at now instead of later.

        The caller is not believed: the look asks Modzy. At most one question to Modzy, one
        change of the row and one reminder, whatever the caller sends and however often.

        Returns:
            Whether the job belongs to a submission.
        """
        key = self.submission_of(job_identifier)
        record = self._ledger.get(key) if key is not None else None
        known = record is not None and record.row.job_identifier == job_identifier
        emit(Event.WEBHOOK, job=job_identifier, known=known, submission=str(key) if key else None)
        if record is None or not known or not record.row.is_open:
            return known
        due = record.row.next_attempt_at
        if due is not None and record.as_of - _HINT_PAUSE < due <= record.as_of:
            return True  # somebody has just said so
        # Row first: a reminder that overtook the row's change would be taken for an early one.
        row = dataclasses.replace(record.row, next_attempt_at=record.as_of)
        try:
            self._ledger.replace(record, row)
        except ConflictError:
            return True  # being looked at this moment
        self._outbox.remind(row.key, timedelta())
        return True

    def submission_of(self, job_identifier: str) -> LedgerKey | None:
        """The submission that a job belongs to: from the index, else from Modzy's job details.

        A submission is indexed some seconds after its job was submitted; until then the job's
        input item key leads back to it. None as well while Modzy cannot be asked.
        """
        key = self._ledger.find_by_job(job_identifier)
        if key is not None:
            return key
        with self._breaker.enter() as passage:
            if passage.wait:
                return None
            try:
                job = self._modzy.job(job_identifier)
                passage.succeeded()
            except ModzyError as error:
                passage.failed(str(error), error.retry_after)
                return None
            except SecretUnavailableError:
                return None
        for item_key in job.job_inputs if job is not None else ():
            found = ledger_key_of(item_key)
            if found is not None:
                return found
        return None


def _job_of(row: Submission) -> str:
    if row.job_identifier is None:
        raise RelayError(f"submission {row.key} is {row.state} without a job identifier")
    return row.job_identifier


def _changed(record: Record, row: Submission) -> Record:
    """A record with changes that are still to be written."""
    return dataclasses.replace(record, row=row)


def _seen_again(record: Record) -> Record:
    """A record without the complaint that Modzy does not know the job."""
    if record.row.reason != _UNKNOWN_JOB:
        return record
    return _changed(record, record.row.moved(State.SUBMITTED, record.now()))


def _are_complete(results: Results | None) -> bool:
    # Documents of servers that leave the member out count as complete.
    return results is not None and results.document.get("finished") is not False


def _count_of_failures(job: Job) -> str | None:
    return f"{job.failed} of {job.total or job.failed} inputs failed" if job.failed else None


def _joined(reasons: Sequence[str | None]) -> str | None:
    return "; ".join(reason for reason in reasons if reason) or None


def _seconds(error: ModzyError) -> timedelta:
    return timedelta(seconds=error.retry_after or 0.0)
