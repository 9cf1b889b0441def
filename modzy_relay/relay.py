"""The order of effects: one job for each blob version, whatever breaks.

This module alone decides in which order things happen on the way to a job:

1. HEAD the blob. 2. Insert the row as SUBMITTING. 3. POST, while the claim lasts. 4. Announce the
job. 5. Send the reminder that follows it. 6. Record SUBMITTED with the job identifier.

A step is recorded after its effects, so a crash anywhere repeats effects that are safe to repeat
(announcements carry the same event id) and never the one that is not: a POST is repeated only
after Modzy's history was asked for the row's item key and, once settled, did not have it.

``docs/guarantees.md`` has the whole argument.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from modzy_relay.backoff import look_delay, retry_delay
from modzy_relay.errors import ConflictError, LeaseOverError, SecretUnavailableError
from modzy_relay.identity import input_item_key, plain_etag
from modzy_relay.lifecycle import (
    FAILED_STATES,
    FINAL_JOB_STATUSES,
    Abandon,
    Announce,
    AskHistory,
    Follow,
    Record,
    Rest,
    State,
    Submission,
    Submit,
    Timing,
    Wait,
    next_step,
)
from modzy_relay.messages import EventType, event_about
from modzy_relay.modzy_api import ModzyError, NotFoundError, Outcome
from modzy_relay.ports import version_of
from modzy_relay.routing import NO_ROUTE, Route, choose_route, skip_reason
from modzy_relay.telemetry import Event, emit, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from modzy_relay.breaker import Breaker, Passage
    from modzy_relay.follow import Follower
    from modzy_relay.identity import LedgerKey
    from modzy_relay.modzy_api import Job
    from modzy_relay.ports import BlobFacts, Ledger, Modzy, Outbox, Uploads

#: A reminder that arrives this early is sent again; one that is earlier is somebody's old one.
_EARLY = timedelta(seconds=30)
_PARKED = "Modzy is failing or throttling, so it is not called just now"


class Relay:
    """Takes submissions from an upload to a job that is known, announced and followed.

    Args:
        uploads: The watched container.
        ledger: One row per blob version.
        outbox: Announcements and reminders.
        modzy: The platform.
        follower: What happens to a submission once its job is known.
        breaker: Whether Modzy is to be called now.
        routes: In order of precedence, the default route last.
        timing: The durations in force.
        chance: Uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        *,
        uploads: Uploads,
        ledger: Ledger,
        outbox: Outbox,
        modzy: Modzy,
        follower: Follower,
        breaker: Breaker,
        routes: Sequence[Route],
        timing: Timing,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._uploads = uploads
        self._ledger = ledger
        self._outbox = outbox
        self._modzy = modzy
        self._follower = follower
        self._breaker = breaker
        self._routes = routes
        self._timing = timing
        self._chance = chance

    # -- hints -----------------------------------------------------------------------------

    def submit_upload(self, path: str) -> None:
        """A blob was written: claim its present version and submit it.

        Safe to repeat, at once or much later. Errors of storage rise, and the hint comes again.
        """
        facts = self._uploads.head(path)
        if facts is None:
            emit(Event.GONE, path=path, reason="deleted before it was looked at")
            return
        row = self.new_row(facts)
        if row.state is State.SKIPPED:
            self._insert_skipped(row)
            return
        with self._breaker.enter() as passage:
            if passage.wait:
                delay = retry_delay(0, self._chance, timedelta(seconds=passage.wait))
                self._insert_parked(row, _PARKED, delay)
                return
            record, created = self._ledger.insert(row)
            if created:
                self._post(record, passage)
                return
        tell(Event.REPEATED, record.row, state=record.row.state.value)
        self._take_up(record)

    def park_upload(self, facts: BlobFacts, delay: timedelta) -> bool:
        """Take on a version found by listing, to be submitted after ``delay``.

        Returns:
            False if the ledger knows it already.
        """
        row = self.new_row(facts)
        if row.state is State.SKIPPED:
            return self._insert_skipped(row)
        return self._insert_parked(row, "found by the sweep; its event was lost or late", delay)

    def advance(self, key: LedgerKey) -> None:
        """Take the next step of a submission, if one is due."""
        record = self._ledger.get(key)
        if record is None:
            # A reminder is sent before its row is inserted, and the insert may have failed.
            return
        self._take_up(record)

    def _take_up(self, record: Record) -> None:
        row = record.row
        step = next_step(row, record.as_of, self._timing)
        match step:
            case Wait(until):
                self._wait(record, until)
            case Rest():
                return
            case Submit():
                self._submit(record)
            case Announce():
                self._announce_remembered(record)
            case AskHistory():
                self._ask_history(record, step)
            case Abandon():
                self._end(record, State.ABANDONED, row.reason or "not accepted in time")
            case Follow():
                self._follower.look(record)
            case _:
                assert_never(step)

    def _wait(self, record: Record, until: datetime) -> None:
        row = record.row
        remaining = until - record.as_of
        # Whoever set a time in the row has sent a reminder for it, but nobody has for the end
        # of a lease: its holder means to be done by then.
        lease_is_live = row.next_attempt_at is None or until > row.next_attempt_at
        if lease_is_live or remaining <= _EARLY:
            self._outbox.remind(row.key, remaining)

    # -- claiming --------------------------------------------------------------------------

    def new_row(self, facts: BlobFacts, generation: int = 0) -> Submission:
        """The row of a version that the ledger does not have: claimed, or SKIPPED."""
        version = dataclasses.replace(version_of(self._uploads, facts), generation=generation)
        now = facts.as_of
        row = Submission(
            version=version,
            size=facts.size,
            state=State.SUBMITTING,
            created_at=now,
            give_up_at=now + self._timing.give_up,
            item_key=input_item_key(version.path, version.key),
        )
        reason = skip_reason(facts.path, facts.size, facts.metadata)
        routed = self.routed(row)
        if reason is not None or routed is None:
            return row.moved(State.SKIPPED, now, reason or NO_ROUTE)
        return self._claimed(routed, facts)

    def routed(self, row: Submission) -> Submission | None:
        """A submission on the route that the settings choose now; None if they choose none."""
        route = choose_route(self._routes, row.version.path)
        if route is None:
            return None
        return dataclasses.replace(
            row,
            model=route.model,
            model_version=route.version,
            input_name=route.input_name,
            explain=route.explain,
            timeout=route.timeout,
        )

    def _claimed(self, row: Submission, facts: BlobFacts) -> Submission:
        lease_until = facts.as_of + self._timing.lease
        return row.moved(
            State.SUBMITTING,
            facts.as_of,
            lease_until=lease_until,
            next_attempt_at=lease_until,
            attempts=row.attempts + 1,
        )

    def _insert_skipped(self, row: Submission) -> bool:
        self._ledger.index(row)
        _, created = self._ledger.insert(dataclasses.replace(row, indexed=True))
        if created:
            tell(Event.SKIPPED, row, reason=row.reason)
        return created

    def _insert_parked(self, row: Submission, reason: str, delay: timedelta) -> bool:
        parked = parked_row(row, reason, delay)
        self._outbox.remind(row.key, delay)
        _, created = self._ledger.insert(parked)
        if created:
            tell(
                Event.DEFERRED,
                parked,
                reason=reason,
                attempts=0,
                delay_seconds=round(delay.total_seconds()),
            )
        return created

    def _submit(self, record: Record) -> None:
        """Claim a row on which no POST can be in flight, and POST."""
        row = record.row
        facts = self._uploads.head(row.version.path)
        if facts is None:
            self._end(record, State.GONE, "deleted before it could be submitted")
            return
        if plain_etag(facts.etag) != plain_etag(row.version.etag):
            newer = version_of(self._uploads, facts).key
            self._end(record, State.GONE, f"overwritten; the newer version is {newer}")
            return
        with self._breaker.enter() as passage:
            if passage.wait:
                self._defer(record, _PARKED, timedelta(seconds=passage.wait))
                return
            try:
                claimed = self._ledger.replace(record, self._claimed(row, facts))
            except ConflictError:
                return  # somebody else claimed it
            self._post(claimed, passage)

    # -- the POST --------------------------------------------------------------------------

    def _post(self, record: Record, passage: Passage) -> None:
        """POST the job of a row that this call has just claimed."""
        row = record.row
        try:
            input_name = row.input_name or self._modzy.input_name(row.model, row.model_version)
        except SecretUnavailableError as error:
            self._defer(record, str(error))
            return
        except ModzyError as error:
            # Only a question was asked: whatever became of it, no job was submitted.
            if error.outcome is Outcome.REFUSED:
                passage.succeeded()
                self._end(record, State.REJECTED, _refusal(row, error))
            else:
                passage.failed(str(error), error.retry_after)
                self._defer(record, str(error), _seconds(error.retry_after))
            return
        try:
            job = self._modzy.submit(row, input_name, lambda: self._check_lease(record))
        except LeaseOverError as error:
            self._defer(record, str(error))
        except SecretUnavailableError as error:
            self._defer(record, str(error))
        except ModzyError as error:
            self._not_accepted(record, error, passage)
        else:
            passage.succeeded()
            self._accepted(record, job)

    def _check_lease(self, record: Record) -> None:
        """Run right before the first byte of the POST is sent."""
        lease_until = record.row.lease_until
        if lease_until is None or record.now() + self._timing.submit > lease_until:
            raise LeaseOverError("the claim ended before the request could be sent")

    def _not_accepted(self, record: Record, error: ModzyError, passage: Passage) -> None:
        match error.outcome:
            case Outcome.REFUSED:
                passage.succeeded()
                self._end(record, State.REJECTED, _refusal(record.row, error))
            case Outcome.NOT_ACCEPTED:
                passage.failed(str(error), error.retry_after)
                self._defer(record, str(error), _seconds(error.retry_after))
            case Outcome.UNKNOWN:
                passage.failed(str(error), error.retry_after)
                self._in_doubt(record, str(error))

    def _accepted(self, record: Record, job: Job) -> None:
        lease_until = record.row.lease_until
        try:
            if lease_until is not None and record.now() >= lease_until:
                # This process stood still for so long that somebody else may have taken over:
                # the row decides whose job counts before anybody is told of one.
                record = self._remember(record, job)
            self._announce(record, job.job_identifier, job.status)
        except ConflictError:
            self._lost(record.row.key, job)
        except Exception:
            # The job exists but nobody was told. Its identifier in the row spares asking history.
            with contextlib.suppress(ConflictError):
                self._remember(record, job)
            raise

    def _remember(self, record: Record, job: Job) -> Record:
        """Record an accepted job that is still to be announced."""
        now = record.now()
        return self._ledger.replace(
            record,
            record.row.moved(
                State.SUBMITTING,
                now,
                "accepted; still to be announced",
                job_identifier=job.job_identifier,
                job_status=job.status,
                next_attempt_at=now,
            ),
        )

    def _announce_remembered(self, record: Record) -> None:
        row = record.row
        if row.job_identifier is None:
            raise ValueError(f"submission {row.key} has no job to announce")
        try:
            self._announce(record, row.job_identifier, row.job_status, adopted=True)
        except ConflictError:
            return  # somebody else announced it

    def _announce(
        self,
        record: Record,
        job_identifier: str,
        job_status: str | None,
        *,
        adopted: bool = False,
        jobs: int = 1,
    ) -> None:
        """Tell of an accepted job, have it followed, then record it: effects 4, 5 and 6."""
        now = record.now()
        delay = look_delay(0, self._chance)
        row = record.row.moved(
            State.SUBMITTED,
            now,
            job_identifier=job_identifier,
            # An adopted job may have ended by now. The follower has yet to keep its results and
            # to tell of its end, so it must not look finished here.
            job_status=None if job_status in FINAL_JOB_STATUSES else job_status,
            submitted_at=now,
            lease_until=None,
            next_attempt_at=now + delay,
        )
        self._outbox.announce(event_about(row, EventType.JOB_SUBMITTED, now))
        self._outbox.remind(row.key, delay)
        self._ledger.replace(record, row)
        tell(
            Event.SUBMITTED,
            row,
            job=job_identifier,
            model=row.model,
            version=row.model_version,
            attempts=row.attempts,
            adopted=adopted,
            jobs=jobs,
            generation=row.version.generation,
            latency_seconds=round((now - row.version.last_modified).total_seconds(), 1),
        )

    def _lost(self, key: LedgerKey, job: Job) -> None:
        """The row changed while this call's POST was accepted: make one job count."""
        while True:
            current = self._ledger.get(key)
            if current is None:
                raise LookupError(f"ledger row {key} has disappeared")
            if current.row.job_identifier == job.job_identifier:
                return  # adopted from history meanwhile: this very job counts
            if current.row.job_identifier is not None:
                self._follower.cancel_extra(current.row, [job.job_identifier])
                return
            try:
                # Claimed by somebody who has no job yet, or given up: this job is the row's.
                self._announce(current, job.job_identifier, job.status, adopted=True)
            except ConflictError:
                continue
            return

    # -- other outcomes --------------------------------------------------------------------

    def _defer(self, record: Record, reason: str, at_least: timedelta = timedelta()) -> None:
        """Put off a submission of which it is certain that no job exists."""
        now = record.now()
        row = record.row
        delay = retry_delay(row.deferrals, self._chance, at_least)
        deferred = row.moved(
            State.DEFERRED,
            now,
            reason,
            lease_until=None,
            next_attempt_at=now + delay,
            deferrals=row.deferrals + 1,
        )
        self._put_off(record, deferred, delay, Event.DEFERRED)

    def _in_doubt(self, record: Record, reason: str) -> None:
        """A POST's outcome is unknown: give up the claim, and have history asked."""
        now = record.now()
        row = record.row
        delay = retry_delay(row.doubts, self._chance)
        doubtful = row.moved(
            State.SUBMITTING,
            now,
            reason,
            lease_until=now,
            next_attempt_at=now + delay,
            doubts=row.doubts + 1,
        )
        self._put_off(record, doubtful, delay, Event.IN_DOUBT)

    def _put_off(self, record: Record, row: Submission, delay: timedelta, event: Event) -> None:
        self._outbox.remind(row.key, delay)
        try:
            self._ledger.replace(record, row)
        except ConflictError:
            return  # somebody else has taken the next step; the reminder will find it taken
        tell(
            event,
            row,
            reason=row.reason,
            attempts=row.attempts,
            delay_seconds=round(delay.total_seconds()),
        )

    def _end(self, record: Record, state: State, reason: str) -> None:
        """Bring a submission to an end without a job."""
        now = record.now()
        row = record.row.moved(
            state, now, reason, lease_until=None, next_attempt_at=None, indexed=True
        )
        if state in FAILED_STATES:
            self._outbox.announce(event_about(row, EventType.SUBMISSION_FAILED, now))
        self._ledger.index(row)
        try:
            self._ledger.replace(record, row)
        except ConflictError:
            return  # somebody else has brought it further
        tell(_END_EVENTS[state], row, reason=reason, attempts=row.attempts)

    # -- asking history --------------------------------------------------------------------

    def _ask_history(self, record: Record, step: AskHistory) -> None:
        """A POST may have been accepted: adopt its job, or make sure that there is none."""
        row = record.row
        with self._breaker.enter() as passage:
            if passage.wait:
                self._history_unavailable(record, step, _PARKED, timedelta(seconds=passage.wait))
                return
            try:
                jobs = self._modzy.find(row.item_key, row.no_job_before)
            except SecretUnavailableError as error:
                self._history_unavailable(record, step, str(error))
                return
            except ModzyError as error:
                passage.failed(str(error), error.retry_after)
                self._history_unavailable(record, step, str(error), _seconds(error.retry_after))
                return
            passage.succeeded()
        if jobs:
            self._adopt(record, jobs)
        elif not step.conclusive:
            self._look_again(record, "not in Modzy's history yet")
        elif step.given_up:
            self._end(record, State.ABANDONED, row.reason or "not accepted in time")
        else:
            self._submit(record)

    def _history_unavailable(
        self, record: Record, step: AskHistory, reason: str, at_least: timedelta = timedelta()
    ) -> None:
        if step.given_up:
            self._end(
                record,
                State.UNCERTAIN,
                f"a job may exist, but Modzy's history could not be read: {reason}",
            )
        else:
            self._look_again(record, f"waiting for Modzy's history: {reason}", at_least)

    def _look_again(self, record: Record, reason: str, at_least: timedelta = timedelta()) -> None:
        now = record.now()
        row = record.row
        delay = retry_delay(row.deferrals, self._chance, at_least)
        waiting = row.moved(
            State.SUBMITTING,
            now,
            reason,
            next_attempt_at=now + delay,
            deferrals=row.deferrals + 1,
            doubts=max(row.doubts, 1),
        )
        self._put_off(record, waiting, delay, Event.IN_DOUBT)

    def _adopt(self, record: Record, jobs: Sequence[Job]) -> None:
        oldest, *others = jobs
        try:
            self._announce(
                record, oldest.job_identifier, oldest.status, adopted=True, jobs=len(jobs)
            )
        except ConflictError:
            return  # somebody else has brought it further
        if others:
            row = dataclasses.replace(record.row, job_identifier=oldest.job_identifier)
            self._follower.cancel_extra(row, [job.job_identifier for job in others])


def parked_row(row: Submission, reason: str, delay: timedelta) -> Submission:
    """A new row that does not claim its version yet, but waits for ``delay``."""
    now = row.created_at
    return dataclasses.replace(row, changes=(), attempts=0, lease_until=None).moved(
        State.DEFERRED, now, reason, next_attempt_at=now + delay, deferrals=1
    )


_END_EVENTS = {
    State.REJECTED: Event.REJECTED,
    State.ABANDONED: Event.ABANDONED,
    State.UNCERTAIN: Event.UNCERTAIN,
    State.GONE: Event.GONE,
}


def _refusal(row: Submission, error: ModzyError) -> str:
    """Why Modzy refused for good. Its 404 does not say which model it was asked for."""
    if not isinstance(error, NotFoundError):
        return str(error)
    return (
        f"{error}; check model {row.model} version {row.model_version}, "
        "in MODZY_MODEL_ID and MODZY_MODEL_VERSION or in MODZY_ROUTES"
    )


def _seconds(retry_after: float | None) -> timedelta:
    return timedelta(seconds=retry_after or 0.0)
