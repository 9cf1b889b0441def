"""Compare the resources in infra/ with Azure's published resource types.

Run as a program it writes ``data/resource_types.json`` anew from the types inside the npm package
``@azure/mcp-linux-x64`` (2.0.5; 137 MB, hence the extract), which needs no network:

    AZURE_MCP_COLLECT_TELEMETRY=false python tests/infra/tools/resource_types.py <path of azmcp>

For every object that infra/ writes, the extract has the names that the type knows, with the values
that are allowed where they are listed. Types that the package does not answer for are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from infra_bicep import EXPRESSIONS, FILES, INFRA, body, resources

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRACT = Path(__file__).resolve().parent.parent / "data" / "resource_types.json"

#: Bicep's own words in a resource, and those that every resource accepts.
BICEP_KEYS = frozenset({"parent", "scope", "dependsOn"})


@dataclass(frozen=True)
class Written:
    """One object that a resource in infra/ writes."""

    where: str
    type: str
    path: str
    value: dict[str, Any]


def written_objects() -> Iterator[Written]:
    """Yield every object literal in every deployed resource, outermost first."""
    for file in FILES:
        name = str(file.relative_to(INFRA))
        for symbol, resource in resources(name).items():
            config = {key: it for key, it in body(resource).items() if key not in BICEP_KEYS}
            version = f"{resource['type']}@{resource['api_version']}"
            yield from _inside(f"{name}: {symbol}", version, "", config)


def _inside(where: str, version: str, path: str, value: object) -> Iterator[Written]:
    if isinstance(value, list):
        for element in value:
            yield from _inside(where, version, f"{path}[]", element)
    elif isinstance(value, dict) and not EXPRESSIONS & set(value):
        yield Written(where, version, path, value)
        for key, it in value.items():
            # A quoted key is a name of ours in a dictionary, not one of the type's.
            if not key.startswith("'"):
                yield from _inside(where, version, f"{path}.{key}".lstrip("."), it)


def problems(written: Written, extract: dict[str, Any]) -> list[str]:
    """Return what the type would refuse in this object."""
    known = extract[written.type].get(_variant(written.path, written.value, extract[written.type]))
    if known is None:
        return [f"{written.path}: not in the extract, write it anew (see {Path(__file__).name})"]
    found = [
        f"{written.path}.{key} is unknown"
        for key in written.value
        if key not in known["properties"] and not known["open"]
    ]
    found += [
        f"{written.path}.{key} is missing" for key in known["required"] if key not in written.value
    ]
    for key, it in written.value.items():
        allowed = known["properties"].get(key)
        if allowed and isinstance(it, str) and it in _SUSPECTS and it not in allowed:
            found.append(f"{written.path}.{key} cannot be {it!r}")
    return found


#: pycep shows a name and a text alike, so only texts that cannot be names here are compared.
_SUSPECTS = frozenset({
    "Allow", "AzureServices", "Deny", "Disabled", "Enabled", "EventGridSchema", "FlexConsumption",
    "Log", "None", "PerGB2018", "Standard", "Static", "StorageBlob", "StorageV2", "StringIn",
    "SystemAssigned", "TLS1_2", "User", "UserAssigned", "UserAssignedIdentity", "WebHook",
    "ServicePrincipal", "blobContainer", "shared", "web",
})  # fmt: skip


def _variant(path: str, value: dict[str, Any], known: dict[str, Any]) -> str:
    """Return the key in the extract: a type that comes in variants has one entry for each."""
    discriminator = known.get(path, {}).get("discriminator")
    return f"{path}<{value[discriminator]}>" if discriminator in value else path


def _extract(azmcp: str) -> dict[str, Any]:
    types: dict[str, Any] = {}
    definitions: dict[str, dict[str, Any]] = {}
    for written in written_objects():
        if written.type not in definitions:
            definitions[written.type] = _definitions(azmcp, written.type)
        if definitions[written.type]:
            _describe(written, definitions[written.type], types.setdefault(written.type, {}))
    return types


def _definitions(azmcp: str, version: str) -> dict[str, Any]:
    done = subprocess.run(
        [azmcp, "bicepschema", "get", "--resource-type", version.partition("@")[0]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AZURE_MCP_COLLECT_TELEMETRY": "false"},
    )
    if done.returncode != 0:
        sys.stderr.write(f"no type for {version}\n")
        return {}
    listed = json.loads(done.stdout)["results"]["BicepSchemaResult"]
    named = {it["name"]: it for it in listed if "name" in it}
    if version not in named:
        sys.stderr.write(f"another version than {version}\n")
        return {}
    return {**named, "": named[version]["bodyType"]}


def _describe(written: Written, definitions: dict[str, Any], known: dict[str, Any]) -> None:
    """Add what the type says of one written object."""
    definition = _definition_at(written, definitions, known)
    if definition is None or definition["$type"] not in {"Object", "DiscriminatedObject"}:
        return
    key = written.path
    properties = definition.get("properties", [])
    if definition["$type"] == "DiscriminatedObject":
        discriminator = definition["discriminator"]
        choice = written.value[discriminator]
        known[key] = {"discriminator": discriminator}
        key = f"{key}<{choice}>"
        chosen = next(
            element
            for element in definition["elements"]
            if any(
                it["name"] == discriminator and it["type"] == choice for it in element["properties"]
            )
        )
        properties = [*definition["baseProperties"], *chosen["properties"]]
    known[key] = {
        "open": "additionalPropertiesType" in definition,
        "required": sorted(it["name"] for it in properties if "Required" in it.get("flags", "")),
        "properties": {
            it["name"]: _choices(it["type"])
            for it in sorted(properties, key=lambda it: str(it["name"]))
            if "ReadOnly" not in it.get("flags", "")
        },
        "types": {it["name"]: it["type"] for it in properties if it["name"] in written.value},
    }


def _definition_at(
    written: Written, definitions: dict[str, Any], known: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the definition of a path by way of the object that holds it, described before."""
    if not written.path:
        root: dict[str, Any] = definitions[""]
        return root
    holder, _, key = written.path.removesuffix("[]").rpartition(".")
    holders = [known[it] for it in known if it == holder or it.startswith(f"{holder}<")]
    for described in holders:
        type_name = described.get("types", {}).get(key)
        if type_name is not None:
            found: dict[str, Any] | None = definitions.get(type_name.removesuffix("[]"))
            return found
    return None


def _choices(type_name: str) -> list[str]:
    """Return the values of a listed type, nothing for other types."""
    choices = type_name.split(" | ")
    return [] if len(choices) < 2 else choices


def main(azmcp: str) -> None:
    """Write the extract."""
    types = _extract(azmcp)
    for known in types.values():
        for description in known.values():
            description.pop("types", None)
    EXTRACT.write_text(json.dumps(types, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"{len(types)} types, {EXTRACT.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1])
