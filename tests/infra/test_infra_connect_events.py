"""The postdeploy hook, run as azd runs it, against a stand-in for the Azure CLI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from infra_bicep import INFRA, parse

if TYPE_CHECKING:
    from pathlib import Path

HOOK = INFRA / "hooks" / "connect_events.py"
A_SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
AN_ACCOUNT_ID = (
    f"/subscriptions/{A_SUBSCRIPTION}/resourceGroups/rg-sample/providers/Microsoft.Storage"
    "/storageAccounts/stsampleup"
)
AN_ENVIRONMENT = {
    "AZURE_SUBSCRIPTION_ID": A_SUBSCRIPTION,
    "AZURE_RESOURCE_GROUP": "rg-sample",
    "FUNCTION_APP_NAME": "func-sample",
    "HOST_STORAGE_ACCOUNT": "stsamplehost",
    "UPLOAD_STORAGE_ACCOUNT": "stsampleup",
    "UPLOAD_STORAGE_ACCOUNT_ID": AN_ACCOUNT_ID,
    "UPLOAD_CONTAINER_NAME": "uploads",
    "DEAD_LETTER_CONTAINER": "dead-letters",
    "SYSTEM_TOPIC_NAME": "evgt-sample",
    "LOG_WORKSPACE_ID": "/subscriptions/sample/workspaces/log-sample",
}
KEY_NOT_THERE = (
    "InvalidTemplate: The language expression property 'blobs_extension' doesn't exist, "
    "available properties are ''."
)
HOST_UNHEALTHY = "BadRequest: Encountered an error (ServiceUnavailable) from host runtime."
HANDSHAKE_FAILED = (
    "URL validation: Webhook validation handshake failed for "
    "https://func-sample.azurewebsites.net/runtime/webhooks/blobs?functionName=x&code=sample-key"
)
NOT_ALLOWED = "AuthorizationFailed: The client does not have authorization."

#: Answers with one line of the script a call, and writes down what it was asked.
A_CLI = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
kind = "topics" if sys.argv[1] == "eventgrid" else "deployments"
answers = json.loads((folder / kind).read_text())
answer = answers[0] if len(answers) == 1 else answers.pop(0)
(folder / kind).write_text(json.dumps(answers))
sys.stdout.write(answer.get("stdout", ""))
sys.stderr.write(answer.get("stderr", ""))
sys.exit(1 if "stderr" in answer else 0)
"""


@dataclass
class AzureCli:
    """A stand-in for ``az``: says what it is told to, the last answer for good."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(AN_ENVIRONMENT))

    def install(self, topics: list[dict[str, Any]], errors: list[str | None]) -> None:
        """Answer with these topics, and with the next of these errors (or none) each deployment."""
        program = self.folder / "az"
        program.write_text(A_CLI.format(python=sys.executable, folder=str(self.folder)))
        program.chmod(0o755)
        listed = [{"stdout": json.dumps(topics)}]
        (self.folder / "topics").write_text(json.dumps(listed))
        answers = [{} if error is None else {"stderr": f"ERROR: {error}\n"} for error in errors]
        (self.folder / "deployments").write_text(json.dumps(answers))

    def run_hook(self, minutes: float = 1.0) -> subprocess.CompletedProcess[str]:
        """Run the hook with the stand-in as the only ``az``."""
        patience = ["--give-up-after-minutes", str(minutes), "--pause-seconds", "0.01"]
        return subprocess.run(
            [sys.executable, str(HOOK), *patience],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": str(self.folder), **self.environment},
        )

    def deployments(self) -> list[dict[str, str]]:
        """Return the template parameters of each deployment that was tried."""
        calls = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        return [
            dict(pair.split("=", 1) for pair in call[call.index("--parameters") + 1 :])
            for call in calls
            if call[:3] == ["deployment", "group", "create"]
        ]


@pytest.fixture
def cli(tmp_path: Path) -> AzureCli:
    """An ``az`` that is told what to say before the hook runs."""
    return AzureCli(tmp_path)


def a_topic(name: str, **changes: Any) -> dict[str, Any]:
    """A system topic as ``az eventgrid system-topic list`` shows it."""
    return {
        "name": name,
        "resourceGroup": "rg-sample",
        "source": AN_ACCOUNT_ID.replace("resourceGroups", "resourcegroups"),
        "identity": {"principalId": "00000000-0000-0000-0000-000000000002"},
        **changes,
    }


def test_first_run_makes_topic_and_subscription(cli: AzureCli) -> None:
    """A fresh environment is connected by one deployment with the environment's names."""
    cli.install([], [None])
    done = cli.run_hook()
    assert done.returncode == 0, done.stderr
    (parameters,) = cli.deployments()
    assert parameters["systemTopicName"] == "evgt-sample"
    assert parameters["createTopic"] == "true"
    assert parameters["deadLetterAccountName"] == "stsamplehost"


def test_the_hook_gives_the_template_every_parameter_that_it_needs(cli: AzureCli) -> None:
    """The parameter names of events.bicep and of the hook are the same."""
    cli.install([], [None])
    cli.run_hook()
    (given,) = cli.deployments()
    accepted = parse("events.bicep")["parameters"]
    required = {name for name, parameter in accepted.items() if parameter["default"] is None}
    assert required <= set(given) <= set(accepted)


@pytest.mark.parametrize("error", [KEY_NOT_THERE, HOST_UNHEALTHY, HANDSHAKE_FAILED])
def test_an_app_that_is_still_starting_is_tried_again(cli: AzureCli, error: str) -> None:
    """The key, the host and the handshake may each take a while after a deployment."""
    cli.install([], [error, error, None])
    done = cli.run_hook()
    assert done.returncode == 0, done.stderr
    assert len(cli.deployments()) == 3


def test_an_app_that_never_starts_ends_with_the_reason_and_the_next_step(cli: AzureCli) -> None:
    """The hook gives up, fails azd's command, and says why."""
    cli.install([], [HOST_UNHEALTHY])
    done = cli.run_hook(minutes=0)
    assert done.returncode == 1
    assert "ServiceUnavailable" in done.stderr
    assert "azd deploy" in done.stderr


def test_no_key_is_shown_when_the_handshake_fails(cli: AzureCli) -> None:
    """Event Grid's message may quote the address with the key in it."""
    cli.install([], [HANDSHAKE_FAILED])
    done = cli.run_hook(minutes=0)
    assert done.returncode == 1
    assert "sample-key" not in done.stdout + done.stderr


def test_a_missing_right_is_not_waited_for(cli: AzureCli) -> None:
    """What no waiting cures fails at once."""
    cli.install([], [NOT_ALLOWED])
    assert cli.run_hook().returncode == 1
    assert len(cli.deployments()) == 1


def test_a_topic_that_is_there_already_is_used_and_not_made(cli: AzureCli) -> None:
    """An account can have one system topic; Defender for Storage may have made it."""
    cli.install([a_topic("defender-topic")], [None])
    assert cli.run_hook().returncode == 0
    (parameters,) = cli.deployments()
    assert parameters["systemTopicName"] == "defender-topic"
    assert parameters["createTopic"] == "false"


def test_second_run_keeps_its_own_topic(cli: AzureCli) -> None:
    """Deploying again changes nothing."""
    others = a_topic("elsewhere", source=AN_ACCOUNT_ID + "2")
    cli.install([others, a_topic("evgt-sample")], [None])
    assert cli.run_hook().returncode == 0
    assert cli.run_hook().returncode == 0
    first, second = cli.deployments()
    assert first == second
    assert first["createTopic"] == "true"


@pytest.mark.parametrize(
    ("change", "next_step"),
    [
        ({"identity": None}, "az eventgrid system-topic update"),
        ({"resourceGroup": "rg-other"}, "Move it to rg-sample"),
    ],
)
def test_a_topic_that_cannot_be_used_is_told_with_the_next_step(
    cli: AzureCli, change: dict[str, Any], next_step: str
) -> None:
    """Nothing is changed about a topic that belongs to somebody else."""
    cli.install([a_topic("defender-topic", **change)], [None])
    done = cli.run_hook()
    assert done.returncode == 1
    assert next_step in done.stderr
    assert cli.deployments() == []


def test_an_environment_without_outputs_is_told_what_to_run(cli: AzureCli) -> None:
    """`azd deploy` before `azd provision` says so."""
    cli.install([], [None])
    del cli.environment["FUNCTION_APP_NAME"]
    done = cli.run_hook()
    assert done.returncode == 1
    assert "FUNCTION_APP_NAME" in done.stderr
    assert "azd provision" in done.stderr


def test_a_machine_without_the_azure_cli_is_told_so(cli: AzureCli) -> None:
    """The hook's only tool is named."""
    done = cli.run_hook()
    assert done.returncode == 1
    assert "Azure CLI" in done.stderr


def test_outputs_of_the_template_are_what_the_hook_reads() -> None:
    """A renamed output is found here."""
    outputs = set(parse("main.bicep")["outputs"])
    assert set(AN_ENVIRONMENT) - {"AZURE_SUBSCRIPTION_ID"} <= outputs


def test_the_command_in_azure_yaml_runs_the_hook(cli: AzureCli) -> None:
    """The words that azd gives to the shell start the hook from the folder of azure.yaml."""
    cli.install([], [None])
    line = next(
        line.partition("run: ")[2]
        for line in (INFRA.parent / "azure.yaml").read_text().splitlines()
        if "run: exec" in line
    )
    (cli.folder / "python3").symlink_to(sys.executable)
    shell = shutil.which("sh", path=os.defpath)
    assert shell is not None
    done = subprocess.run(
        [shell, "-c", line],
        cwd=INFRA.parent,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(cli.folder), **cli.environment},
    )
    assert done.returncode == 0, done.stderr
    assert len(cli.deployments()) == 1
