"""The files that azd reads: azure.yaml and the parameters."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from infra_bicep import INFRA, ROOT, body, parse, resources
from jsonschema import Draft202012Validator

AZURE_YAML: dict[str, Any] = yaml.safe_load((ROOT / "azure.yaml").read_text())
PARAMETERS = json.loads((INFRA / "main.parameters.json").read_text())

_HOOK = {
    "type": "object",
    "additionalProperties": False,
    "required": ["shell", "run"],
    "properties": {
        "shell": {"enum": ["sh", "pwsh"]},
        "run": {"type": "string"},
        "interactive": {"type": "boolean"},
    },
}
#: The part of azd's format that this project uses, stricter than azd, which lets unknown words
#: at the top and in services pass.
_FORMAT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "infra", "services", "hooks"],
    "properties": {
        "name": {"pattern": "^[a-z0-9-]+$"},
        "metadata": {"type": "object"},
        "infra": {"const": {"provider": "bicep", "path": "infra", "module": "main"}},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["project", "language", "host"],
                "properties": {
                    "project": {"const": "."},
                    "language": {"const": "python"},
                    "host": {"const": "function"},
                },
            },
        },
        "hooks": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "postdeploy": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["posix", "windows"],
                    "properties": {"posix": _HOOK, "windows": _HOOK},
                }
            },
        },
    },
}


def test_azure_yaml_has_the_form_that_azd_reads() -> None:
    """A misspelt word would be passed over in silence."""
    Draft202012Validator(_FORMAT).validate(AZURE_YAML)


def test_the_function_app_is_the_one_that_azd_deploys_to() -> None:
    """The tool azd finds the app by a tag with the name of the service."""
    (service,) = AZURE_YAML["services"]
    tags = body(resources("modules/function-app.bicep")["app"])["tags"]["function"]["parameters"]
    assert tags["arg_2"] == {"'azd-service-name'": service}


def test_the_hook_that_azd_runs_is_there_on_both_kinds_of_systems() -> None:
    """Both shells start the same program with the same options."""
    hooks = AZURE_YAML["hooks"]["postdeploy"]
    commands = {re.search(r"infra/hooks/\S+ --\S+ \d+", hook["run"]) for hook in hooks.values()}
    texts = {command[0] for command in commands if command}
    (text,) = texts
    assert (ROOT / text.split()[0]).is_file()


def test_the_shell_line_of_the_hook_is_clean() -> None:
    """What azd gives to sh passes shellcheck."""
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--shell=sh", "-"],
        input=AZURE_YAML["hooks"]["postdeploy"]["posix"]["run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_parameter_can_be_set_in_the_environment_and_no_other() -> None:
    """The parameters file and main.bicep name the same things."""
    assert set(PARAMETERS["parameters"]) == set(parse("main.bicep")["parameters"])
    for name, entry in PARAMETERS["parameters"].items():
        assert re.fullmatch(r"\$\{[A-Z][A-Z_]+(=\w+)?\}", entry["value"]), name


def test_exactly_the_announced_questions_are_asked() -> None:
    """Environment, region, Modzy's address and key, model: all else has a default."""
    asked = {
        name
        for name, parameter in parse("main.bicep")["parameters"].items()
        if parameter["default"] is None
    }
    assert asked == {"environmentName", "location", "modzyUrl", "modzyApiKey", "modzyModel"}


def test_defaults_in_the_parameters_file_are_those_of_the_template() -> None:
    """A default that is written in both places is the same in both."""
    for name, entry in PARAMETERS["parameters"].items():
        default = re.fullmatch(r"\$\{\w+=(\w+)\}", entry["value"])
        if default:
            expected = parse("main.bicep")["parameters"][name]["default"]
            assert json.loads(default[1]) == expected
