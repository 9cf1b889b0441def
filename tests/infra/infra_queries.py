"""The KQL of the alerts and of the workbook."""

from __future__ import annotations

import json

from infra_bicep import INFRA, parse


def alert_queries() -> dict[str, str]:
    """Return the query of each alert rule, by the rule's name."""
    rules = parse("modules/alerts.bicep")["variables"]["rules"]["value"]
    return {
        rule["name"]: (
            INFRA / "modules" / rule["query"]["function"]["parameters"]["file_path"]
        ).read_text()
        for rule in rules
    }


def queries() -> dict[str, str]:
    """Return all queries by a name that finds them."""
    workbook = json.loads((INFRA / "workbook.json").read_text())
    charts = (item["content"] for item in workbook["items"] if item["type"] == 3)
    return {
        **{f"alert {name}": query for name, query in alert_queries().items()},
        **{f"workbook {chart['title']}": chart["query"] for chart in charts},
    }
