"""Names and form of the log lines that alerts, workbooks and operators read.

Every line is ``<event name> <one-line JSON object>``. The Functions host forwards the plain
message of a Python log record to Application Insights but not its ``extra`` fields, so the
values travel in the message; JSON keeps a blob name with a newline in it on one line. In KQL::

    AppTraces
    | extend event = tostring(split(Message, " ")[0])
    | extend data = parse_json(substring(Message, indexof(Message, "{")))

This module is the only place that names events. ``FIELDS`` says what each carries.
"""

from __future__ import annotations

import enum
import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modzy_relay.lifecycle import Submission

logger = logging.getLogger("modzy_relay")


class Event(enum.StrEnum):
    """What can be told of a submission, a job, a dependency or a sweep."""

    SUBMITTED = "submission.submitted"  # job identifier recorded (submitted or adopted)
    REPEATED = "submission.repeated"  # a hint for a version that is already known: no effect
    SKIPPED = "submission.skipped"
    DEFERRED = "submission.deferred"  # certainly not accepted yet; tried again later
    IN_DOUBT = "submission.in_doubt"  # a POST's outcome is unknown; history will be asked
    REJECTED = "submission.rejected"
    ABANDONED = "submission.abandoned"
    UNCERTAIN = "submission.uncertain"
    GONE = "submission.gone"
    DUPLICATE_JOBS = "submission.duplicate_jobs"  # more than one job for one version: an alarm
    JOB_LOOKED_AT = "job.looked_at"
    JOB_FINISHED = "job.finished"
    RESULTS_STORED = "job.results_stored"
    WEBHOOK = "job.webhook"
    UNAUTHORIZED = "modzy.unauthorized"  # 401 or 403 from Modzy, after reading the key again
    BREAKER_OPENED = "modzy.breaker_opened"
    BREAKER_CLOSED = "modzy.breaker_closed"
    VAULT_UNAVAILABLE = "vault.unavailable"  # a secret could not be read, last good value or none
    SETTINGS_INVALID = "settings.invalid"
    POISON = "poison.found"  # messages in a poison queue
    SWEEP = "sweep.completed"
    OPERATOR_CHANGED = "operator.changed"  # a command of an operator moved a submission


#: Fields of each event, beside ``submission`` (the ledger key) and ``path`` where there is one.
FIELDS: dict[Event, tuple[str, ...]] = {
    Event.SUBMITTED: (
        "job",
        "model",
        "version",
        "attempts",
        "adopted",
        "jobs",
        "latency_seconds",
        "generation",
    ),
    Event.REPEATED: ("state",),
    Event.SKIPPED: ("reason",),
    Event.DEFERRED: ("reason", "attempts", "delay_seconds"),
    Event.IN_DOUBT: ("reason", "attempts", "delay_seconds"),
    Event.REJECTED: ("reason", "attempts"),
    Event.ABANDONED: ("reason", "attempts"),
    Event.UNCERTAIN: ("reason", "attempts"),
    Event.GONE: ("reason",),
    Event.DUPLICATE_JOBS: ("job", "jobs", "cancelled", "reason"),
    Event.JOB_LOOKED_AT: ("job", "job_status", "looks", "delay_seconds"),
    Event.JOB_FINISHED: ("job", "job_status", "reason", "seconds"),
    Event.RESULTS_STORED: ("job", "files", "bytes"),
    Event.WEBHOOK: ("job", "known"),
    Event.UNAUTHORIZED: ("status", "reason"),
    Event.BREAKER_OPENED: ("reason", "seconds"),
    Event.BREAKER_CLOSED: ("seconds",),
    Event.VAULT_UNAVAILABLE: ("secret", "reason", "stale"),
    Event.SETTINGS_INVALID: ("problems",),
    Event.POISON: ("queue", "messages"),
    Event.SWEEP: (
        "blobs_listed",
        "uploads_without_row",
        "rows_overdue",
        "oldest_unfinished_minutes",
        "pass_complete",
        "seconds",
    ),
    Event.OPERATOR_CHANGED: ("action", "state", "reason"),
}

_ALARMS = frozenset(
    {
        Event.ABANDONED,
        Event.UNCERTAIN,
        Event.DUPLICATE_JOBS,
        Event.UNAUTHORIZED,
        Event.SETTINGS_INVALID,
        Event.POISON,
    }
)
_WARNINGS = frozenset(
    {
        Event.DEFERRED,
        Event.IN_DOUBT,
        Event.REJECTED,
        Event.BREAKER_OPENED,
        Event.VAULT_UNAVAILABLE,
    }
)


def emit(event: Event, **fields: Any) -> None:
    """Log one event: alarms as ERROR, expected trouble as WARNING, the rest as INFO.

    Values must be JSON-serialisable and must not hold a secret. ``None`` is left out.
    """
    level = (
        logging.ERROR
        if event in _ALARMS
        else logging.WARNING
        if event in _WARNINGS
        else logging.INFO
    )
    data = {name: value for name, value in fields.items() if value is not None}
    # A message without arguments: a "%" in a blob name must not be taken for a format.
    logger.log(level, event.value + " " + json.dumps(data, default=str))  # noqa: G003


def tell(event: Event, row: Submission, **fields: Any) -> None:
    """Log one event of a submission."""
    emit(event, submission=str(row.key), path=row.version.path, **fields)
