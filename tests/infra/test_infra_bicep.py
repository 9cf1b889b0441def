"""Bicep that compiles, as far as can be told without the compiler."""

from __future__ import annotations

import re
from typing import Any

import pytest
from infra_bicep import FILES, INFRA, body, parse, resources, symbols_used

NAMES = [str(path.relative_to(INFRA)) for path in FILES]
KEYWORDS = frozenset({
    "param", "var", "resource", "module", "output", "targetScope", "existing", "if", "for", "in",
    "true", "false", "null", "string", "int", "bool", "array", "object",
})  # fmt: skip
FUNCTIONS = frozenset({
    "concat", "empty", "environment", "filter", "guid", "listKeys", "loadTextContent", "replace",
    "resourceGroup", "resourceId", "split", "subscription", "subscriptionResourceId", "tenant",
    "toLower", "union", "uniqueString",
})  # fmt: skip


def _declared(source: str) -> set[str]:
    statements = re.findall(r"^\s*(?:param|var|resource|module|output) (\w+)", source, re.MULTILINE)
    loops = re.findall(r"\bfor (?:(\w+)|\((\w+), (\w+)\)) in\b", source)
    lambdas = re.findall(r"\b(\w+) =>", source)
    return {*statements, *lambdas, *(name for loop in loops for name in loop if name)}


@pytest.mark.parametrize("name", NAMES)
def test_each_file_parses_and_names_only_what_is_declared(name: str) -> None:
    """A typing error in a symbol is found here, not while deploying."""
    parse(name)
    source = (INFRA / name).read_text()
    unknown = set(symbols_used(source)) - _declared(source) - KEYWORDS - FUNCTIONS
    assert not unknown


def test_the_symbol_scan_sees_inside_strings_and_not_in_comments() -> None:
    """The scan that the previous test relies on misses no interpolation."""
    source = "// nope\nvar a = 'x ${b(c.d)} y${'${e}'}'\nvar f = { g: h, i: j::k }\n"
    assert set(symbols_used(source)) == {"var", "a", "b", "c", "e", "f", "h", "j"}


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_or_variable_is_left_unused(name: str) -> None:
    """What can be set has an effect."""
    source = (INFRA / name).read_text()
    used = list(symbols_used(source))
    tree = parse(name)
    declared = [*tree.get("parameters", {}), *tree.get("variables", {})]
    assert [symbol for symbol in declared if used.count(symbol) < 2] == []


def _module_calls() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (name, symbol, declaration)
        for name in NAMES
        for symbol, declaration in parse(name).get("modules", {}).items()
    ]


@pytest.mark.parametrize(
    ("name", "symbol", "declaration"), _module_calls(), ids=lambda it: it if type(it) is str else ""
)
def test_each_module_gets_its_parameters(
    name: str, symbol: str, declaration: dict[str, Any]
) -> None:
    """Modules are local files, get every required parameter and none that they lack."""
    assert declaration["type"] == "local", "a registry module cannot be compiled offline"
    accepted = parse(declaration["detail"]["full"])["parameters"]
    given = set(body(declaration)["params"])
    required = {key for key, parameter in accepted.items() if parameter["default"] is None}
    assert given <= set(accepted)
    assert required <= given


@pytest.mark.parametrize("name", NAMES)
def test_each_output_that_is_read_exists(name: str) -> None:
    """`module.outputs.x` names an output of that module's file."""
    modules = parse(name).get("modules", {})
    for symbol, output in re.findall(r"\b(\w+)\.outputs\.(\w+)", (INFRA / name).read_text()):
        assert output in parse(modules[symbol]["detail"]["full"])["outputs"], f"{symbol}.{output}"


def test_every_module_file_is_deployed_by_one_of_the_two_templates() -> None:
    """No file is left over."""
    used = {declaration["detail"]["full"] for _, _, declaration in _module_calls()}
    assert used | {"main.bicep", "events.bicep"} == set(NAMES)


def test_no_output_holds_a_secret() -> None:
    """The tool azd writes outputs to a file in clear."""
    for name in NAMES:
        for line in (INFRA / name).read_text().splitlines():
            if line.startswith("output "):
                assert not re.search(r"listKeys|modzyApiKey\b|\.keys\b", line), line


def test_the_api_key_is_a_secure_parameter_all_the_way() -> None:
    """The key shows in no deployment record."""
    for name in ("main.bicep", "modules/vault.bicep"):
        decorators = parse(name)["parameters"]["modzyApiKey"]["decorators"]
        assert {"type": "secure"} in decorators
    for name in NAMES:
        if name not in {"main.bicep", "modules/vault.bicep"}:
            assert "modzyApiKey" not in parse(name).get("parameters", {})


def test_only_the_upload_account_has_shared_keys() -> None:
    """Modzy needs the key of the account that it reads; nothing else may have one."""
    shared = {
        name: body(resource)["properties"]["allowSharedKeyAccess"]
        for name in NAMES
        for resource in resources(name).values()
        if resource["type"] == "Microsoft.Storage/storageAccounts"
    }
    assert shared == {"modules/host-storage.bicep": False, "modules/upload-storage.bicep": True}


@pytest.mark.parametrize(
    "forbidden",
    ["linuxFxVersion", "ftpsState", "use32BitWorkerProcess", "functionAppScaleLimit", "alwaysOn"],
)
def test_flex_consumption_gets_no_property_that_it_refuses(forbidden: str) -> None:
    """Azure Resource Manager answers these with error 51021, in some regions only."""
    site = body(resources("modules/function-app.bicep")["app"])
    assert forbidden not in site["properties"]["siteConfig"]


def test_the_subscription_lets_only_finished_files_of_the_one_container_pass() -> None:
    """The blob extension checks neither the type of an event nor its container."""
    filters = body(resources("modules/event-subscription.bicep")["uploads"])["properties"]["filter"]
    assert filters["includedEventTypes"] == ["Microsoft.Storage.BlobCreated"]
    prefix = "/blobServices/default/containers/${uploadContainerName}/blobs/"
    assert filters["subjectBeginsWith"] == prefix
    (calls,) = filters["advancedFilters"]
    assert calls["key"] == "data.api"
    assert set(calls["values"]) == {
        "PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit",
    }  # fmt: skip


def test_undeliverable_events_are_kept_with_the_topics_own_identity() -> None:
    """Without a dead-letter place a refused webhook call loses the event."""
    uploads = body(resources("modules/event-subscription.bicep")["uploads"])["properties"]
    assert uploads["deadLetterWithResourceIdentity"]["identity"] == {"type": "SystemAssigned"}
    made = body(parse("main.bicep")["modules"]["hostStorage"])["params"]["containerNames"]
    assert "deadLetterContainerName" in made
