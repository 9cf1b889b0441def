"""From a job identifier to the job's end: looking at it, keeping its results, telling of its end.

The order of effects at the end: 1. store the results, ``results.json`` last. 2. Announce
``modzy.job.finished``. 3. Record the final status. Each can be repeated, so a crash anywhere
only means that the next look does it again.
"""

from __future__ import annotations

import dataclasses
import random
from datetime import timedelta
from typing import TYPE_CHECKING

from modzy_relay.backoff import look_delay
from modzy_relay.errors import ConflictError, RelayError, SecretUnavailableError
from modzy_relay.identity import ledger_key_of
from modzy_relay.lifecycle import UNFOLLOWED, VANISHED, Record, State, Submission, Timing
from modzy_relay.messages import EventType, event_about
from modzy_relay.modzy_api import Job, JobStatus, ModzyError
from modzy_relay.results import failure_summary
from modzy_relay.telemetry import Event, emit, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modzy_relay.breaker import Breaker
    from modzy_relay.identity import LedgerKey
    from modzy_relay.ports import Ledger, Modzy, Outbox
    from modzy_relay.results import ResultKeeper

#: A job that Modzy answers 404 for is gone only after this long: right after a submit, and behind
#: a lagging replica, a 404 means "not yet".
_VANISHED_AFTER = timedelta(minutes=30)
#: How long a completed job's results may be late before the job counts as finished without.
_RESULTS_LATE = timedelta(minutes=30)
#: Repeated webhook calls within this time of one another are one call.
_HINT_PAUSE = timedelta(seconds=30)
_HISTORY_MARGIN = timedelta(hours=1)


class Follower:
    """Follows submitted jobs until their status is final.

    Args:
        ledger: One row per blob version.
        outbox: Announcements and reminders.
        modzy: The platform.
        breaker: Whether Modzy is to be called now.
        results: Keeps results; None = they are not kept.
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
        record = self._indexed(record)
        row = record.row
        with self._breaker.enter() as passage:
            if passage.wait:
                self._look_later(record, timedelta(seconds=passage.wait))
                return
            try:
                job = self._modzy.job(_job_of(row))
                passage.succeeded()
                self._take_note(record, job)
            except SecretUnavailableError as error:
                self._could_not_look(record, str(error))
            except ModzyError as error:
                passage.failed(str(error), error.retry_after)
                self._could_not_look(record, str(error), timedelta(seconds=error.retry_after or 0))

    def _could_not_look(
        self, record: Record, fault: str, at_least: timedelta = timedelta()
    ) -> None:
        if self._age(record) > self._timing.follow:
            self._close(record, UNFOLLOWED, f"not final within FOLLOW_FOR; last: {fault}")
        else:
            self._look_later(record, at_least)

    @staticmethod
    def _age(record: Record) -> timedelta:
        return record.now() - (record.row.submitted_at or record.row.created_at)

    def _take_note(self, record: Record, job: Job | None) -> None:
        age = self._age(record)
        if job is not None and job.is_final:
            self._finish(record, job)
        elif age > self._timing.follow:
            self._close(record, UNFOLLOWED, "not final within FOLLOW_FOR")
        elif job is None and age > _VANISHED_AFTER:
            self._close(record, VANISHED, "Modzy no longer knows this job")
        elif job is None:
            self._look_later(record)
        else:
            self._look_later(record, job_status=job.status)

    def _finish(self, record: Record, job: Job) -> None:
        row = record.row
        self._cancel_doubles(row)
        location: str | None = None
        reason: str | None = None
        if job.status == JobStatus.COMPLETED:
            document = self._modzy.results(_job_of(row))
            if document is None:
                late_since = row.finished_at or record.now()
                if record.now() - late_since < _RESULTS_LATE:
                    self._look_later(record, finished_at=late_since)
                    return
                reason = "completed, but Modzy has no results for it"
            else:
                reason = failure_summary(document)
                if self._results is not None:
                    location = self._results.keep(row, document)
        self._close(record, job.status, reason, location)

    def _close(
        self, record: Record, job_status: str, reason: str | None, location: str | None = None
    ) -> None:
        now = record.now()
        row = record.row.moved(
            State.SUBMITTED,
            now,
            reason or f"job {job_status}",
            job_status=job_status,
            looks=record.row.looks + 1,
            finished_at=now,
            next_attempt_at=None,
            result_location=location,
        )
        row = dataclasses.replace(row, reason=reason)
        self._outbox.announce(event_about(row, EventType.JOB_FINISHED, now))
        try:
            self._ledger.replace(record, row)
        except ConflictError:
            return  # somebody else has finished it
        tell(
            Event.JOB_FINISHED,
            row,
            job=row.job_identifier,
            job_status=job_status,
            reason=reason,
            seconds=round(self._age(record).total_seconds(), 1),
        )

    def _look_later(
        self, record: Record, at_least: timedelta = timedelta(), **fields: object
    ) -> None:
        now = record.now()
        looks = record.row.looks + 1
        delay = max(look_delay(looks, self._chance), at_least)
        row = dataclasses.replace(
            record.row,
            looks=looks,
            next_attempt_at=now + delay,
            **fields,  # type: ignore[arg-type] # checked by replace()
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
        self._cancel_doubles(record.row)
        return dataclasses.replace(record, row=dataclasses.replace(record.row, indexed=True))

    # -- more than one job -----------------------------------------------------------------

    def _cancel_doubles(self, row: Submission) -> None:
        """After a doubtful POST was repeated: make sure that only one job came of it."""
        if row.attempts < 2 or not row.doubts:
            return
        jobs = self._modzy.find(row.item_key, row.created_at - _HISTORY_MARGIN)
        others = [job.job_identifier for job in jobs if job.job_identifier != row.job_identifier]
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
