"""A short run of the fault matrix, and the judgement that all of it rests on.

All of it: ``make faults``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.campaign import run_scripts
from tests.faults.cases import SCRIPTS
from tests.faults.verdict import Version, faults_of

if TYPE_CHECKING:
    from tests.faults.verdict import Verdict

QUICK = [script for script in SCRIPTS if script.quick]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Verdict]]:
    """What became of the quick scripts, which run side by side."""
    found: dict[str, list[Verdict]] = {script.name: [] for script in QUICK}
    folder = tmp_path_factory.mktemp("faults")
    for verdict in run_scripts(QUICK, folder, to_the_end=False):
        found[verdict.lane].append(verdict)
    return found


@pytest.mark.parametrize("name", [script.name for script in QUICK])
def test_exactly_one_job_whatever_breaks(name: str, verdicts: dict[str, list[Verdict]]) -> None:
    """Real processes are killed and disturbed: one job a version, none lost, effects in order."""
    assert verdicts[name]
    for verdict in verdicts[name]:
        assert (verdict.case, verdict.jobs, verdict.lost) == (
            verdict.case,
            verdict.expected_jobs,
            0,
        )
        assert not verdict.faults


@pytest.mark.parametrize(
    ("state", "jobs", "complaint"),
    [
        ("SUBMITTED", ["j1", "j2"], "2 jobs instead of 1"),
        ("ABANDONED", [], "lost"),
        ("SUBMITTED", ["j9"], "its job is not at Modzy"),
        ("DEFERRED", [], "lost"),
    ],
)
def test_the_judgement_can_fail(state: str, jobs: list[str], complaint: str) -> None:
    """A second job, a lost version and a job that nobody has are found."""
    version = Version("a.txt", "e1", frozenset({"SUBMITTED"}), 1)
    row = {"state": state, "job_identifier": "j1", "reason": None}
    assert any(complaint in fault for fault in faults_of(version, row, jobs, argued=False))


def test_the_judgement_can_pass() -> None:
    """One job, known to the row, in the expected state."""
    version = Version("a.txt", "e1", frozenset({"SUBMITTED"}), 1)
    row = {"state": "SUBMITTED", "job_identifier": "j1"}
    assert not list(faults_of(version, row, ["j1"], argued=False))
