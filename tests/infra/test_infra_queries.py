"""Alerts and the workbook read only what the app logs.

`make check-infra` also parses these queries with Kusto's own language service.
"""

from __future__ import annotations

import json
import re

import pytest
from infra_bicep import INFRA, parse
from infra_queries import alert_queries, queries

from modzy_relay.telemetry import FIELDS, Event

NAMES = {event.value for event in Event}
#: Fields that telemetry.py promises beside those of the single event.
COMMON = {"submission", "path"}


def _events(query: str) -> set[str]:
    """Return the strings of a query that have the form of an event's name or of its beginning."""
    families = "|".join(sorted({name.partition(".")[0] for name in NAMES}))
    return set(re.findall(rf'"((?:{families})\.[a-z_]*)"', query))


@pytest.mark.parametrize("name", sorted(queries()))
def test_each_event_that_a_query_names_is_emitted(name: str) -> None:
    """A renamed event would leave an alert that cannot fire."""
    query = queries()[name]
    for event in _events(query):
        begins = [emitted for emitted in NAMES if emitted.startswith(event)]
        assert begins if event.endswith(".") else event in NAMES, event
    if "AppTraces" in query:
        assert _events(query), "a query over all traces"


@pytest.mark.parametrize("name", sorted(queries()))
def test_each_field_that_a_query_reads_is_in_one_of_its_events(name: str) -> None:
    """A renamed field would be null, and null is above no threshold."""
    query = queries()[name]
    carried = COMMON.union(*(FIELDS[Event(it)] for it in _events(query) if it in NAMES))
    assert set(re.findall(r"\bdata\.(\w+)", query)) <= carried


def test_each_alert_measures_one_number_and_has_its_query_file() -> None:
    """Rules compare the column `measure` with a threshold; no query file is left over."""
    alerts = alert_queries()
    assert set(alerts) == {path.stem for path in (INFRA / "queries").glob("*.kql")}
    for name, query in alerts.items():
        assert re.search(r"^\| (summarize|project) measure = [^|]*\Z", query, re.MULTILINE), name


@pytest.mark.parametrize(
    "event",
    [
        Event.DUPLICATE_JOBS, Event.ABANDONED, Event.UNCERTAIN, Event.REJECTED, Event.POISON,
        Event.UNAUTHORIZED, Event.VAULT_UNAVAILABLE, Event.SETTINGS_INVALID, Event.SWEEP,
    ],
)  # fmt: skip
def test_each_event_that_needs_a_person_has_an_alert(event: Event) -> None:
    """What the app logs as an alarm reaches somebody."""
    assert any(event.value in query for query in alert_queries().values())


def test_rules_look_back_further_than_they_run_apart() -> None:
    """No line is missed between two evaluations."""
    source = (INFRA / "modules/alerts.bicep").read_text()
    assert "evaluationFrequency: 'PT15M'" in source
    windows = {
        rule["window"] for rule in parse("modules/alerts.bicep")["variables"]["rules"]["value"]
    }
    assert windows <= {"PT1H", "PT2H", "PT6H"}


def test_the_workbook_has_its_four_subjects_and_a_time_range_for_each_query() -> None:
    """Latency, states, throughput and failures, each following the chosen time range."""
    workbook = json.loads((INFRA / "workbook.json").read_text())
    charts = [item["content"] for item in workbook["items"] if item["type"] == 3]
    text = " ".join(chart["query"] for chart in charts)
    for column in ("latency_seconds", "outcome", "bin(TimeGenerated, 1h)", "Success == false"):
        assert column in text
    assert {chart["timeContextFromParameter"] for chart in charts} == {"TimeRange"}
    assert workbook["fallbackResourceIds"] == ["<workspace id>"]
    assert "'<workspace id>'" in (INFRA / "modules/workbook.bicep").read_text()
