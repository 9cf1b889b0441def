"""What an operator may do to submissions.

``MOVES`` is the whole rule of who may be moved where. Each move changes one row, guarded by the
ETag of the reading that it was decided on, or inserts one, and then has the relay take the next
step: no command submits a job itself, so the order of effects stays in ``relay.py``.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from modzy_relay.errors import ConflictError, RelayError, SecretUnavailableError
from modzy_relay.lifecycle import Record, State, Submission, Timing
from modzy_relay.modzy_api import ModzyError
from modzy_relay.ports import version_of
from modzy_relay.relay import parked_row
from modzy_relay.routing import NO_ROUTE
from modzy_relay.telemetry import Event, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from modzy_relay.identity import LedgerKey
    from modzy_relay.modzy_api import Job
    from modzy_relay.ports import Ledger, Modzy, Outbox, Uploads
    from modzy_relay.relay import Relay

COMMAND = "python -m modzy_relay"
_T = TypeVar("_T")


class Action(enum.StrEnum):
    """What an operator may do, as it is typed."""

    RETRY = "retry"
    ADOPT = "resolve --job"
    RESEND = "resolve --no-job"
    REPLAY = "replay"  # leaves the row as it is and makes one of the next generation


#: The states that an action is for, and the state that follows. A submission for which something
#: still has to happen without an operator is in nobody's reach.
MOVES: dict[Action, tuple[frozenset[State], State]] = {
    Action.RETRY: (frozenset({State.REJECTED, State.ABANDONED}), State.DEFERRED),
    Action.ADOPT: (frozenset({State.UNCERTAIN}), State.SUBMITTING),
    Action.RESEND: (frozenset({State.UNCERTAIN}), State.DEFERRED),
    Action.REPLAY: (frozenset({State.SUBMITTED, State.SKIPPED}), State.DEFERRED),
}


class RefusedError(RelayError):
    """Nothing was changed; the text says why and what to do instead."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a command changed.

    Attributes:
        before: The submission that was named.
        after: It, or the row of its new generation.
        reminded: Whether the relay was told; otherwise the next sweep tells it.
    """

    before: Submission
    after: Submission
    reminded: bool


def refusal(action: Action, row: Submission) -> str | None:
    """Why an action is not for a submission, and what is; None if it is."""
    sources, _ = MOVES[action]
    if row.state in sources and not row.is_open:
        return None
    status = f" (job {row.job_status or 'not looked at yet'})" if row.job_identifier else ""
    if row.is_open:
        advice = "The relay is at work on it and needs no command."
    else:
        fitting = [f"`{other}`" for other in Action if row.state in MOVES[other][0]]
        advice = (
            f"It can be moved by {' or '.join(fitting)}."
            if fitting
            else "Upload the file again: that is a new version."
        )
    return (
        f"{row.key} is {row.state}{status}; `{action}` is for {' or '.join(sorted(sources))}"
        f"{' with a job that has ended' if State.SUBMITTED in sources else ''}. {advice}"
    )


def moved(
    action: Action, row: Submission, now: datetime, timing: Timing, **fields: object
) -> Submission:
    """The row after an action: due now, with all the time of a new submission."""
    return row.moved(
        MOVES[action][1],
        now,
        f"{action} by an operator",
        lease_until=None,
        next_attempt_at=now,
        give_up_at=now + timing.give_up,
        deferrals=0,
        # Its path is indexed, but a job that it gets now is not.
        indexed=False,
        **fields,
    )


class Operator:
    """The commands that look at, or change, the ledger.

    Args:
        uploads: The watched container.
        ledger: One row per blob version.
        outbox: Reminders.
        modzy: The platform; it is only asked.
        relay: Chooses routes and makes rows.
        timing: The durations in force.
    """

    def __init__(
        self,
        *,
        uploads: Uploads,
        ledger: Ledger,
        outbox: Outbox,
        modzy: Modzy,
        relay: Relay,
        timing: Timing,
    ) -> None:
        self._uploads = uploads
        self._ledger = ledger
        self._outbox = outbox
        self._modzy = modzy
        self._relay = relay
        self._timing = timing

    def find(
        self, states: Collection[State], since: timedelta, limit: int
    ) -> tuple[list[Submission], bool]:
        """Submissions of blobs written in the time before now, newest day first.

        Costs one query a day and one point read for each submission.

        Returns:
            At most ``limit`` of them, and whether there are more.
        """
        now = datetime.now(UTC)
        keys: list[LedgerKey] = []
        # From tomorrow on: the storage service's clock may be ahead of this machine's.
        for days in range(-1, (now.date() - (now - since).date()).days + 1):
            day = now.date() - timedelta(days=days)
            keys += self._ledger.written_on(day, now - since, states, limit + 1 - len(keys))
            if len(keys) > limit:
                break
        rows = [record.row for key in keys[:limit] if (record := self._ledger.get(key))]
        rows.sort(key=lambda row: row.version.last_modified, reverse=True)
        return rows, len(keys) > limit

    def retry(self, key: LedgerKey) -> Change:
        """Have a REJECTED or ABANDONED submission tried again, on the route of today's settings.

        Raises:
            RefusedError: Its state or the settings do not allow it, or it has just changed.
        """
        record = self._allowed(Action.RETRY, key)
        row = self._relay.routed(record.row)
        if row is None:
            raise RefusedError(f"{NO_ROUTE}: set MODZY_MODEL_ID or MODZY_ROUTES first")
        return self._change(Action.RETRY, record, row)

    def adopt(self, key: LedgerKey, job_identifier: str) -> Change:
        """Give an UNCERTAIN submission the job that was found to be its own.

        Raises:
            RefusedError: Modzy does not know the job or it has another input, or as above.
        """
        record = self._allowed(Action.ADOPT, key)
        row = record.row
        job = self._ask(lambda: self._modzy.job(job_identifier))
        if job is None:
            raise RefusedError(
                f"Modzy has no job {job_identifier}: look for the input {row.item_key} in its jobs"
            )
        if row.item_key not in job.job_inputs:
            raise RefusedError(
                f"job {job_identifier} is not that of {key}: its inputs are "
                f"{', '.join(job.job_inputs) or 'not told'}, not {row.item_key}"
            )
        return self._change(
            Action.ADOPT,
            record,
            row,
            job_identifier=job.job_identifier,
            job_status=job.status,
        )

    def resend(self, key: LedgerKey) -> Change:
        """Have an UNCERTAIN submission sent again, once Modzy's history has no job for it.

        Raises:
            RefusedError: There is a job, or it cannot be ruled out, or as above.
        """
        record = self._allowed(Action.RESEND, key)
        row = record.row
        # Its last claim was over when it became UNCERTAIN.
        settled_at = row.changes[-1].at + self._timing.settle
        if record.as_of < settled_at:
            raise RefusedError(
                f"Modzy's history may show a job of {key} until {settled_at.isoformat()}: "
                "try again then"
            )
        # The row was read before: if it is still the same afterwards, nothing was sent meanwhile.
        jobs = self._ask(lambda: self._modzy.find(row.item_key, row.no_job_before))
        if jobs:
            oldest = jobs[0].job_identifier
            raise RefusedError(
                f"Modzy has {_named(jobs)} for {key}. "
                f"Adopt it: {COMMAND} resolve {key} --job {oldest}"
            )
        return self._change(Action.RESEND, record, row)

    def replay(self, key: LedgerKey) -> Change:
        """Have a version submitted once more, as its next generation: another job, paid again.

        Raises:
            RefusedError: The blob is gone or has changed, it would be skipped, an earlier replay
                is not at its end, or as above.
        """
        record = self._allowed(Action.REPLAY, key)
        latest = self._latest_generation(record.row)
        if latest.key != key:
            raise RefusedError(
                f"{key} was replayed as {latest.key}, which is {latest.state}: go on with that one"
            )
        facts = self._uploads.head(latest.version.path)
        if facts is None:
            raise RefusedError(f"{latest.version.path} is gone: upload it again")
        generation = latest.version.generation
        present = version_of(self._uploads, facts)
        if dataclasses.replace(present, generation=generation).key != key:
            raise RefusedError(
                f"{latest.version.path} is another version by now: see {COMMAND} show {present.key}"
            )
        row = self._relay.new_row(facts, generation + 1)
        if row.state is State.SKIPPED:
            raise RefusedError(f"it would be skipped again: {row.reason}")
        row = parked_row(row, f"{Action.REPLAY} by an operator", timedelta())
        self._ledger.index(row)
        _, created = self._ledger.insert(row)
        if not created:
            raise RefusedError(f"somebody else has just replayed {key}, as {row.key}")
        return self._tell(Action.REPLAY, latest, row)

    def _allowed(self, action: Action, key: LedgerKey) -> Record:
        record = self._ledger.get(key)
        if record is None:
            raise RefusedError(f"there is no submission {key}: find it with {COMMAND} list")
        reason = refusal(action, record.row)
        if reason is not None:
            raise RefusedError(reason)
        return record

    def _latest_generation(self, row: Submission) -> Submission:
        while True:
            version = row.version
            following = dataclasses.replace(version, generation=version.generation + 1)
            record = self._ledger.get(following.key)
            if record is None:
                return row
            row = record.row

    def _change(self, action: Action, record: Record, row: Submission, **fields: object) -> Change:
        # as_of is never later than the truth, so whoever reads the row next finds it due.
        row = moved(action, row, record.as_of, self._timing, **fields)
        try:
            self._ledger.replace(record, row)
        except ConflictError as error:
            raise RefusedError(
                f"{row.key} has just been changed by somebody else: {COMMAND} show {row.key}"
            ) from error
        return self._tell(action, record.row, row)

    def _tell(self, action: Action, before: Submission, row: Submission) -> Change:
        tell(Event.OPERATOR_CHANGED, row, action=action, state=row.state, reason=before.reason)
        # Row first: a reminder that overtook its row's change would be taken for an early one.
        try:
            self._outbox.remind(row.key, timedelta())
        except Exception:  # noqa: BLE001 - the row is changed; the caller tells what it waits for
            return Change(before, row, reminded=False)
        return Change(before, row, reminded=True)

    @staticmethod
    def _ask(question: Callable[[], _T]) -> _T:
        try:
            return question()
        except (ModzyError, SecretUnavailableError) as error:
            raise RefusedError(
                f"Modzy cannot be asked, so nothing was changed ({error}): try again later"
            ) from error


def _named(jobs: Sequence[Job]) -> str:
    identifiers = ", ".join(job.job_identifier for job in jobs)
    return f"{'a job' if len(jobs) == 1 else f'{len(jobs)} jobs'} ({identifiers})"
