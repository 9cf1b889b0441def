"""The life of a submission: its record, its states, and the rule for the next step.

``next_step`` is the whole rule. Everything that looks at a submission (a blob event, a queue
message, the webhook, the sweep) asks it, and nothing else decides.

===========  =======================================  =======================================
state        what the row says                        next step
===========  =======================================  =======================================
SUBMITTING   job identifier known                     Announce: finish what was begun
SUBMITTING   lease not over                           Wait until it is
SUBMITTING   lease over                               AskHistory; conclusive once settled
DEFERRED     not due yet                              Wait
DEFERRED     due                                      Submit (claims first)
DEFERRED     given up                                 Abandon
SUBMITTED    job not final, not due                   Wait
SUBMITTED    job not final, due                       Follow
SUBMITTED    job final                                Rest
others       final                                    Rest, until an operator acts
===========  =======================================  =======================================

Times are those of the storage service's clock (see ``Record``): two hosts whose own clocks
disagree still agree on when a lease is over.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from collections.abc import Callable

    from modzy_relay.identity import BlobVersion, LedgerKey

#: How far Modzy's clock may be from the storage service's.
_MODZY_CLOCK_MARGIN = timedelta(hours=1)
_HISTORY_LIMIT = 30
_REASON_LENGTH = 500
#: All changes together have to fit into one property of a table row, 32 Ki UTF-16 units, even if
#: JSON spells every character of every reason in six.
_CHANGE_REASON_LENGTH = 170


class State(enum.StrEnum):
    """Where a submission stands."""

    SUBMITTING = "SUBMITTING"  # claimed; the POST may or may not have happened
    DEFERRED = "DEFERRED"  # certainly not accepted by Modzy yet
    SUBMITTED = "SUBMITTED"  # job identifier known, announced and followed
    REJECTED = "REJECTED"  # refused by Modzy for good
    ABANDONED = "ABANDONED"  # not accepted within GIVE_UP_AFTER
    UNCERTAIN = "UNCERTAIN"  # outcome of a POST not found out within GIVE_UP_AFTER
    SKIPPED = "SKIPPED"  # not a file to submit
    GONE = "GONE"  # deleted or overwritten before it could be submitted


#: States announced to downstream systems as a failed submission.
FAILED_STATES = frozenset({State.REJECTED, State.ABANDONED, State.UNCERTAIN})

#: Job statuses after which a job is no longer followed: Modzy's own, and two of the relay's for
#: jobs whose end Modzy never told.
VANISHED = "VANISHED"  # Modzy no longer knows the job
UNFOLLOWED = "UNFOLLOWED"  # not final within FOLLOW_FOR
FINAL_JOB_STATUSES = frozenset({"COMPLETED", "CANCELED", "TIMEDOUT", "ERROR", VANISHED, UNFOLLOWED})


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a submission's history."""

    at: datetime
    state: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the ledger knows of one blob version. All times are aware, UTC.

    Attributes:
        version: The blob version.
        size: Bytes.
        state: Where it stands.
        created_at: When the row was made; a job for it cannot be older.
        item_key: Its input item key in the Modzy job.
        model, model_version, input_name, explain, timeout: Its route, fixed when the row is made.
        give_up_at: When an upload that was not accepted is given up.
        lease_until: SUBMITTING: no POST of this claim starts after this.
        next_attempt_at: When something has to happen next; None = nothing will.
        attempts: POSTs begun.
        deferrals: Times it was put off, the exponent of the delay.
        doubts: Claims that ended with an unknown outcome.
        job_identifier, job_status: The job, in Modzy's own words.
        submitted_at: When the job identifier was recorded.
        looks: Times the job was asked for.
        finished_at: When the job was found to be final.
        result_location: Where its results are, ``<container>/<blob prefix>``.
        reason: Why it is in this state, for the operator; never a secret.
        indexed: Lookups by path and job find it without a scan.
        changes: Its states and their times, oldest first; the middle is dropped when long.
    """

    version: BlobVersion
    size: int
    state: State
    created_at: datetime
    item_key: str
    model: str = ""
    model_version: str = ""
    input_name: str | None = None
    explain: bool = False
    timeout: int | None = None
    give_up_at: datetime
    lease_until: datetime | None = None
    next_attempt_at: datetime | None = None
    attempts: int = 0
    deferrals: int = 0
    doubts: int = 0
    job_identifier: str | None = None
    job_status: str | None = None
    submitted_at: datetime | None = None
    looks: int = 0
    finished_at: datetime | None = None
    result_location: str | None = None
    reason: str | None = None
    indexed: bool = False
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.created_at, self.give_up_at, self.lease_until, self.next_attempt_at):
            if value is not None and value.tzinfo is None:
                raise ValueError("a submission's times must be aware of their time zone")

    @property
    def key(self) -> LedgerKey:
        """Where the ledger keeps it."""
        return self.version.key

    @property
    def no_job_before(self) -> datetime:
        """From when on Modzy's history has to be asked for its jobs, by Modzy's clock."""
        return self.created_at - _MODZY_CLOCK_MARGIN

    @property
    def job_is_final(self) -> bool:
        """Whether the job has ended, as far as will ever be known."""
        return self.job_status in FINAL_JOB_STATUSES

    @property
    def is_open(self) -> bool:
        """Whether something still has to happen without an operator."""
        if self.state is State.SUBMITTED:
            return not self.job_is_final
        return self.state in {State.SUBMITTING, State.DEFERRED}

    def moved(
        self, state: State, at: datetime, reason: str | None = None, **fields: object
    ) -> Submission:
        """This submission in another state (or the same one again), with the move remembered."""
        reason = _storable(reason) if reason else None
        changes = self.changes
        told = reason[:_CHANGE_REASON_LENGTH] if reason else None
        if not changes or (changes[-1].state, changes[-1].reason) != (state.value, told):
            changes = (*changes, Change(at, state.value, told))
        if len(changes) > _HISTORY_LIMIT:
            changes = (*changes[:2], *changes[-(_HISTORY_LIMIT - 2) :])
        return replace(self, state=state, reason=reason, changes=changes, **fields)  # type: ignore[arg-type]  # checked by replace()


def _storable(text: str) -> str:
    """Somebody else's text as a row and a queue message can hold it: not too long, valid Unicode.

    A server's JSON can spell half a surrogate pair, which UTF-8 cannot.
    """
    return text[:_REASON_LENGTH].encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it was read: the guard for changing it, and the storage service's time.

    Attributes:
        row: The submission.
        etag: Changes to it succeed only while this is the row's ETag.
        as_of: The table service's own clock when it answered, never later than the truth.
        read_at: ``ticks()`` when the request was begun.
        ticks: A monotonic clock in seconds that also counts while the machine sleeps.
    """

    row: Submission
    etag: str
    as_of: datetime
    read_at: float
    ticks: Callable[[], float] = field(repr=False)

    def now(self) -> datetime:
        """The service's time now, by its last answer and the time passed here since asking."""
        return self.as_of + timedelta(seconds=self.ticks() - self.read_at)


@dataclass(frozen=True, slots=True)
class Timing:
    """The durations that the exactly-once argument rests on.

    Attributes:
        submit: The longest a POST may take once it is begun.
        settle: After the last moment at which a POST can have been in flight, Modzy's history
            gets this long to show its job.
        give_up: How long an upload is tried.
        follow: How long a job is followed.
        clock_margin: By how much the clocks of two storage services may differ.
    """

    submit: timedelta
    settle: timedelta
    give_up: timedelta
    follow: timedelta
    clock_margin: timedelta = timedelta(seconds=5)

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts: connecting, the POST, a second one after a 401, some slack."""
        return 3 * self.submit + timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is due before ``until``."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing will ever be due, unless an operator acts."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Claim the row, then POST."""


@dataclass(frozen=True, slots=True)
class Announce:
    """A job was accepted, but downstream systems may not have been told."""


@dataclass(frozen=True, slots=True)
class AskHistory:
    """A POST may have been accepted: ask Modzy for the item key.

    Attributes:
        conclusive: A job that is not there now was never accepted.
        given_up: The time is over; whatever the answer, this was the last question.
    """

    conclusive: bool
    given_up: bool


@dataclass(frozen=True, slots=True)
class Abandon:
    """Not accepted in all the time there was."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Ask Modzy for the job."""


Step = Wait | Rest | Submit | Announce | AskHistory | Abandon | Follow


def next_step(row: Submission, now: datetime, timing: Timing) -> Step:
    """What to do with a submission at ``now``; see the table above.

    Args:
        row: As the ledger has it.
        now: The storage service's time, not later than the truth: an early ``now`` waits, a
            late one could take over a claim that is still alive.
        timing: The durations in force.
    """
    match row.state:
        case State.SUBMITTING:
            return _next_of_submitting(row, now, timing)
        case State.DEFERRED:
            if now >= row.give_up_at:
                return Abandon()
            if row.next_attempt_at is not None and now < row.next_attempt_at:
                return Wait(row.next_attempt_at)
            return Submit()
        case State.SUBMITTED:
            if row.job_is_final:
                return Rest()
            if row.next_attempt_at is not None and now < row.next_attempt_at:
                return Wait(row.next_attempt_at)
            return Follow()
        case State.REJECTED | State.ABANDONED | State.UNCERTAIN | State.SKIPPED | State.GONE:
            return Rest()
        case _:
            assert_never(row.state)


def _next_of_submitting(row: Submission, now: datetime, timing: Timing) -> Step:
    if row.job_identifier is not None:
        return Announce()
    if row.lease_until is None:
        raise ValueError(f"submission {row.key} is SUBMITTING without a lease")
    free_at = row.lease_until + timing.clock_margin
    if now < free_at:
        return Wait(free_at)
    if row.next_attempt_at is not None and now < row.next_attempt_at:
        return Wait(row.next_attempt_at)
    return AskHistory(
        conclusive=now >= free_at + timing.settle,
        given_up=now >= row.give_up_at,
    )
