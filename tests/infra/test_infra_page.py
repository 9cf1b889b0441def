"""docs/infrastructure.md says what the templates do, and its sums are right."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from infra_bicep import INFRA, ROOT, body, parse, resources
from infra_queries import alert_queries

PAGE = (ROOT / "docs" / "infrastructure.md").read_text()


def _tables() -> list[list[list[str]]]:
    """Return the tables as lists of rows of cells, the head row first."""
    blocks = re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    tables = []
    for block in blocks:
        rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in block.splitlines()]
        tables.append([rows[0], *rows[2:]])
    return tables


def _with_head(*cells: str) -> list[list[list[str]]]:
    return [table[1:] for table in _tables() if table[0] == list(cells)]


def _assigned(file: str) -> list[str]:
    """Return the role names that a file assigns, checked to be granted under their own id."""
    role_ids: dict[str, Any] = parse(file)["variables"]["roleIds"]["value"]
    names = []
    for symbol, resource in resources(file).items():
        text = str(body(resource)["properties"]["roleDefinitionId"])
        (name,) = (role for role in role_ids if repr(role.strip("'")) in text)
        assert repr(name.strip("'")) in str(body(resource)["name"]), symbol
        names.append(name.strip("'"))
    return names


@pytest.mark.parametrize(
    ("who", "file"),
    [
        ("app", "modules/roles.bicep"),
        ("topic", "modules/dead-letter-role.bicep"),
        ("operator", "modules/operator-roles.bicep"),
    ],
)
def test_the_roles_on_the_page_are_those_assigned(who: str, file: str) -> None:
    """Whoever reviews the page reviews what is granted, in number and name."""
    (rows,) = _with_head("who", "role", "where", "why", "without it")
    assert sorted(row[1] for row in rows if row[0] == who) == sorted(_assigned(file))


def test_no_role_is_assigned_outside_the_three_files() -> None:
    """Roles are where a reviewer looks for them."""
    files = {
        path.relative_to(INFRA).as_posix()
        for path in INFRA.rglob("*.bicep")
        if "Microsoft.Authorization/roleAssignments" in path.read_text()
    }
    assert files == {
        "modules/roles.bicep", "modules/dead-letter-role.bicep", "modules/operator-roles.bicep",
    }  # fmt: skip


def test_one_name_of_a_role_has_one_id_everywhere() -> None:
    """A wrong id would grant another role under a familiar name."""
    entry = re.compile(r"^  '([A-Z][\w ]+)': '([0-9a-f-]{36})'$", re.MULTILINE)
    pairs = {pair for path in INFRA.rglob("*.bicep") for pair in entry.findall(path.read_text())}
    assert len(pairs) == len({name for name, _ in pairs}) == len({it for _, it in pairs})


def test_each_alert_has_its_paragraph() -> None:
    """An alert that nobody knows what to do about is noise."""
    (rows,) = _with_head("alert", "means", "do")
    assert [row[0].strip("`") for row in rows] == list(alert_queries())


def _number(text: str) -> Decimal:
    match = re.search(r"[\d,]+(?:\.\d+)?", text)
    assert match is not None, text
    return Decimal(match[0].replace(",", ""))


def test_the_cost_tables_add_up() -> None:
    """An amount is quantity times price by unit, and the totals are their sums."""
    tables = _with_head("what", "quantity", "price in USD", "amount in USD")
    assert len(tables) == 3
    for *rows, total in tables:
        amounts = []
        for _, quantity, price, amount in rows:
            rate, unit = price.split(" per ")
            exact = _number(quantity) * _number(rate) / _number(unit)
            assert _number(amount) == exact.quantize(Decimal("0.0001")), price
            amounts.append(_number(amount))
        assert _number(total[3]) == sum(amounts)


def test_counts_in_the_cost_tables_are_those_of_the_templates() -> None:
    """Rules and endpoints are paid for by the piece."""
    targets = parse("modules/private-endpoints.bicep")["variables"]["targets"]["value"]
    assert f"| {len(alert_queries())} rules |" in PAGE
    assert f"| {len(targets)} endpoints |" in PAGE


def test_variables_on_the_page_exist() -> None:
    """What the page sets is an input, what it reads is an output."""
    inputs = set(re.findall(r"azd env set (\w+)", PAGE)) - {"..."}
    head = next(table for table in _tables() if table[0][0] == "`azd env set ...`")
    inputs |= {row[0].strip("`").split()[0] for row in head[1:]}
    file = (INFRA / "main.parameters.json").read_text()
    assert {name for name in inputs if f"${{{name}" not in file} == set()
    outputs = set(parse("main.bicep")["outputs"])
    assert set(re.findall(r'"\$(\w+)"', PAGE)) <= outputs


def test_files_on_the_page_exist() -> None:
    """A renamed file is renamed here."""
    for name in re.findall(r"`(infra/[\w./-]+\.\w+)`", PAGE):
        assert (ROOT / Path(name)).is_file(), name
