"""The figures of docs/following.md."""

from __future__ import annotations

from follow_world import REPOSITORY

from benchmarks.follow_load import SCENARIOS, simulate, table


def test_documented_tables_are_those_of_the_script() -> None:
    """The page shows what the script prints, so it changes when the real delays do."""
    page = (REPOSITORY / "docs/following.md").read_text("utf-8")
    for scenario in SCENARIOS:
        assert table(scenario, 10_000) in page


def test_every_job_is_found_ended_with_one_request_for_results() -> None:
    """The simulation follows each job to its end: one look finds it, and results cost one more."""
    for scenario in SCENARIOS:
        for webhook in (False, True):
            load = simulate(scenario, 300, webhook=webhook)
            assert len(load.lateness) == 300
            assert load.requests == load.looks + 300
            assert load.lateness[0] >= 0
            assert load.lateness[-1] <= (2.01 if webhook else 600 * 1.2 + 1)
