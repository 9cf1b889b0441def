"""Reading infra/: parse trees of the Bicep files, and the symbols that they use.

The Bicep compiler is in no package registry, so the tests check offline what it would: syntax
(by pycep), symbols, module parameters and outputs, and the properties of resources.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pycep import BicepParser

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
INFRA = ROOT / "infra"
FILES = sorted(INFRA.rglob("*.bicep"))

#: pycep gives an expression as an object with one of these keys.
EXPRESSIONS = frozenset({"function", "operator", "loop_type"})


@functools.cache
def parse(name: str) -> dict[str, Any]:
    """Return the parse tree of a file, named from infra/. Raises on a syntax error."""
    return cast("dict[str, Any]", BicepParser().parse(text=(INFRA / name).read_text()))


def body(declaration: dict[str, Any]) -> dict[str, Any]:
    """Return the object of a resource or module, out of its loop or condition."""
    config: dict[str, Any] = declaration["config"]
    while "config" in config:
        config = config["config"]
    return config


def resources(name: str) -> dict[str, dict[str, Any]]:
    """Return the resources of a file that are deployed, not only referred to, by symbol."""
    declared: dict[str, dict[str, Any]] = parse(name).get("resources", {})
    return {symbol: it for symbol, it in declared.items() if not it["existing"]}


def app_settings() -> dict[str, str]:
    """Return the function app's settings: name to value or parameter as written."""
    variables = parse("modules/function-app.bicep")["variables"]
    optional = variables["optionalSettings"]["value"]["function"]["parameters"]["input_array"]
    listed = [
        *variables["platformSettings"]["value"],
        *variables["relaySettings"]["value"],
        *optional,
    ]
    settings = {setting["name"]: setting["value"] for setting in listed}
    assert len(settings) == len(listed), "a setting is written twice"
    return settings


def main_value(symbol: str) -> Any:
    """Return what a parameter's default or a variable of main.bicep says."""
    tree = parse("main.bicep")
    if symbol in tree["variables"]:
        return tree["variables"][symbol]["value"]
    return tree["parameters"][symbol]["default"]


def app_setting_in_main(name: str) -> Any:
    """Return the value that main.bicep gives a setting when no parameter is changed."""
    value = app_settings()[name]
    passed = body(parse("main.bicep")["modules"]["functionApp"])["params"]
    return main_value(passed[value]) if value in passed else value


def symbols_used(source: str) -> Iterator[str]:
    """Yield each identifier that must be declared: no keys, members, strings or comments."""
    code = _without_strings_and_comments(source)
    for match in re.finditer(r"(?<![\w.@'])(?<!::)[A-Za-z_]\w*", code):
        is_key = re.match(r":(?!:)", code[match.end() :]) is not None
        is_looped_over = code[: match.start()].endswith(" in ")
        if is_looped_over or not is_key:
            yield match.group()


def _without_strings_and_comments(source: str) -> str:
    """Return the code with strings reduced to the expressions that are interpolated in them."""
    out: list[str] = []
    # One entry a string that is open around the current place: the depth of braces inside it.
    depths: list[int] = []
    in_string = False
    position = 0
    while position < len(source):
        rest = source[position:]
        if in_string:
            if rest.startswith("\\"):
                position += 2
                continue
            if rest.startswith("${"):
                in_string = False
                depths.append(0)
                out.append(" ")
                position += 2
                continue
            in_string = not rest.startswith("'")
            position += 1
            continue
        if rest.startswith("//"):
            position += rest.find("\n")
            continue
        character = rest[0]
        if character == "'":
            in_string = True
            out.append(" ")
        elif character == "}" and depths and depths[-1] == 0:
            depths.pop()
            in_string = True
            out.append(" ")
        else:
            if depths and character in "{}":
                depths[-1] += 1 if character == "{" else -1
            out.append(character)
        position += 1
    return "".join(out)
