"""Properties of resources, against an extract of Azure's published resource types."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
from resource_types import EXTRACT, Written, problems, written_objects

TYPES = json.loads(EXTRACT.read_text())
#: Types that the source of the extract has no answer for; the compiler checks these elsewhere.
UNKNOWN_TYPES = frozenset({
    "Microsoft.Insights/actionGroups",
    "Microsoft.Insights/diagnosticSettings",
    "Microsoft.Insights/scheduledQueryRules",
    "Microsoft.Network/privateDnsZones",
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks",
})  # fmt: skip


def _known() -> list[Written]:
    return [it for it in written_objects() if it.type.partition("@")[0] not in UNKNOWN_TYPES]


@pytest.mark.parametrize("written", _known(), ids=lambda it: f"{it.where}.{it.path}")
def test_each_object_has_the_properties_that_its_type_knows(written: Written) -> None:
    """A misspelt property is silently ignored by Azure, or refused while deploying."""
    assert problems(written, TYPES) == []


def test_the_comparison_sees_what_is_wrong() -> None:
    """Unknown, missing and wrong values are told apart."""
    account = next(it for it in _known() if it.where.endswith("host-storage.bicep: account"))
    wrong = {**account.value, "kindd": "x", "kind": "Standard"}
    del wrong["sku"]
    found = problems(Written("sample", account.type, "", wrong), TYPES)
    assert len(found) == 3
