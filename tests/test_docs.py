"""README and docs say what is true: functions, states, commands, links and examples."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from modzy_relay.lifecycle import State
from modzy_relay.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])


def first_cells(heading: str) -> list[str]:
    """The names in the first column of the table that follows a text."""
    table = README.partition(heading)[2].lstrip().partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def code_blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def functions_of_the_app() -> list[str]:
    """Names of the functions that function_app.py registers, in their order."""
    module = ast.parse((ROOT / "function_app.py").read_text("utf-8"))
    return [
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("app.") for decorator in node.decorator_list)
    ]


def test_the_table_of_functions_is_complete() -> None:
    """Every function that the host runs is described, and no other."""
    table = README.partition("| function | trigger |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == functions_of_the_app()


def test_the_table_of_states_is_complete() -> None:
    """Every state that a row can show is described, and no other."""
    assert first_cells("### States") == [state.value for state in State]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_named_exist(document: Path) -> None:
    """Nobody is told to run a make target that is not there."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    text = document.read_text("utf-8")
    named = set(re.findall(r"(?:`|^\$ )make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    """Every relative link works in a fresh clone."""
    text = document.read_text("utf-8")
    links = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)
    broken = [link for link in links if not leads_somewhere(document, unquote(link))]
    assert not broken


def leads_somewhere(document: Path, link: str) -> bool:
    """Whether a relative link names a file and, if any, a heading in it."""
    path, _, anchor = link.partition("#")
    target = (document.parent / path) if path else document
    if not target.exists():
        return False
    if not anchor or target.suffix != ".md":
        return True
    headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
    return anchor in {anchor_of(heading) for heading in headings}


def anchor_of(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_example_of_routes_is_accepted() -> None:
    """The routes in the README can be copied into MODZY_ROUTES."""
    (example,) = code_blocks(README, "json")
    sample = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    settings = Settings.from_env(sample | {"MODZY_ROUTES": example})
    assert [route.match for route in settings.routes] == [
        *(route["match"] for route in json.loads(example)),
        "**",
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_compiles(document: Path) -> None:
    """Examples are free of slips, and what they import from the package is there."""
    for block in code_blocks(document.read_text("utf-8"), "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modzy_relay"):
                module = __import__(node.module or "", fromlist=["*"])
                assert all(hasattr(module, alias.name) for alias in node.names)
