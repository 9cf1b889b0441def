"""Judges what became of the cases of a lane."""

from __future__ import annotations

import collections
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modzy_relay.lifecycle import FINAL_JOB_STATUSES, State
from sandbox.fault_proxy import Effect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandbox.fault_proxy import Sighting

    Row = Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """One content of one blob, and what is to become of it.

    Attributes:
        expected: states its row may end in; empty: it may have no row.
        jobs: how many jobs it is to have had.
    """

    path: str
    etag: str
    expected: frozenset[str]
    jobs: int


@dataclass
class Case:
    """One line of the fault matrix.

    Attributes:
        argued: why this case cannot be held to one job per version; empty for all others.
    """

    name: str
    argued: str = ""
    versions: list[Version] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What became of a case."""

    case: str
    tries: int
    jobs: int
    expected_jobs: int
    most_jobs: int
    states: Mapping[str, int]
    lost: int
    repeated: int
    cancelled: int
    alarms: int
    faults: Sequence[str]
    argued: str
    remarks: Sequence[str]
    lane: str

    @property
    def jobs_per_version(self) -> float:
        """Jobs that were accepted for each version that should have one."""
        return self.jobs / self.expected_jobs if self.expected_jobs else float(self.jobs)

    def with_more(self, other: Verdict) -> Verdict:
        """Both verdicts on one case as one."""
        return dataclasses.replace(
            self,
            tries=self.tries + other.tries,
            jobs=self.jobs + other.jobs,
            expected_jobs=self.expected_jobs + other.expected_jobs,
            most_jobs=max(self.most_jobs, other.most_jobs),
            states=collections.Counter(self.states) + collections.Counter(other.states),
            lost=self.lost + other.lost,
            repeated=self.repeated + other.repeated,
            cancelled=self.cancelled + other.cancelled,
            alarms=self.alarms + other.alarms,
            faults=[*self.faults, *other.faults],
            remarks=[*self.remarks, *other.remarks],
        )


@dataclass(frozen=True)
class Evidence:
    """What a lane has left behind.

    Attributes:
        rows: the ledger.
        jobs: identifiers of the accepted jobs by input item key.
        cancelled: those of them that were cancelled.
        events: how often each announcement was found, by path and event id.
        alarms: how often more than one job was alarmed, by path.
        sightings: what came by the proxies, if the order of effects can be told from it.
        faults: what went wrong with the lane as a whole.
        to_the_end: whether jobs were to be followed to their ends.
    """

    lane: str
    rows: Sequence[Row]
    jobs: Mapping[str, Sequence[str]]
    cancelled: frozenset[str]
    events: Mapping[tuple[str, str], int]
    alarms: Mapping[str, int]
    sightings: Sequence[Sighting]
    faults: Sequence[str]
    to_the_end: bool


def judge(cases: Sequence[Case], evidence: Evidence) -> list[Verdict]:
    """Count, for each case; what concerns the whole lane is held against each of its cases."""
    disorder = disorderly_rows(evidence.sightings)
    return [_verdict(case, evidence, disorder) for case in cases]


def _verdict(case: Case, evidence: Evidence, disorder: frozenset[str]) -> Verdict:
    by_version = {(row["path"], row["etag"]): row for row in evidence.rows}
    states = collections.Counter[str]()
    faults: list[str] = []
    jobs: list[Sequence[str]] = []
    for version in case.versions:
        row = by_version.get((version.path, version.etag))
        states[row["state"] if row is not None else "no row"] += 1
        jobs.append(evidence.jobs.get(row["item_key"], ()) if row is not None else ())
        faults += faults_of(version, row, jobs[-1], argued=bool(case.argued))
        if row is not None and is_open(row, to_the_end=evidence.to_the_end):
            faults.append(f"{version.path}: still open, {row['state']} ({row.get('reason')})")
        if row is not None and f"{row['PartitionKey']}.{row['RowKey']}" in disorder:
            faults.append(f"{version.path}: recorded before it was announced and followed")
    paths = {version.path for version in case.versions}
    return Verdict(
        case=case.name,
        tries=len(case.versions),
        jobs=sum(map(len, jobs)),
        expected_jobs=sum(version.jobs for version in case.versions),
        most_jobs=max(map(len, jobs), default=0),
        states=states,
        lost=sum(": lost" in fault for fault in faults),
        repeated=sum(count - 1 for (path, _), count in evidence.events.items() if path in paths),
        cancelled=sum(len(evidence.cancelled & set(found)) for found in jobs),
        alarms=sum(evidence.alarms.get(path, 0) for path in paths),
        faults=[*faults, *evidence.faults],
        argued=case.argued,
        remarks=case.remarks,
        lane=evidence.lane,
    )


def faults_of(
    version: Version, row: Row | None, jobs: Sequence[str], *, argued: bool
) -> Iterator[str]:
    """What is wrong with a version that has this row and these jobs."""
    if row is None:
        if version.expected:
            yield f"{version.path}: lost, it has no row"
        return
    if version.expected and row["state"] not in version.expected:
        yield f"{version.path}: lost, {row['state']} ({row.get('reason')})"
    if row["state"] == State.SUBMITTED and row["job_identifier"] not in jobs:
        yield f"{version.path}: lost, its job is not at Modzy"
    if version.expected and len(jobs) != version.jobs and not argued:
        yield f"{version.path}: {len(jobs)} jobs instead of {version.jobs}"


def disorderly_rows(sightings: Sequence[Sighting]) -> frozenset[str]:
    """Ledger keys recorded as SUBMITTED before an announcement and a reminder were sent."""
    return frozenset(
        record.row
        for record in sightings
        if record.row is not None
        and record.effect is Effect.RECORD
        and record.detail == State.SUBMITTED
        and not {Effect.ANNOUNCE, Effect.REMIND} <= set(_effects_before(record, sightings))
    )


def _effects_before(record: Sighting, sightings: Sequence[Sighting]) -> Iterator[Effect]:
    for seen in sightings:
        is_over = seen.answered is not None and seen.answered < record.number
        if seen.row == record.row and seen.done and is_over:
            yield seen.effect


def is_open(row: Row, *, to_the_end: bool) -> bool:
    """Whether something has yet to happen to a submission, its job's end included or not."""
    if row["state"] == State.SUBMITTED:
        return to_the_end and row.get("job_status") not in FINAL_JOB_STATUSES
    return row["state"] in {State.SUBMITTING, State.DEFERRED}
