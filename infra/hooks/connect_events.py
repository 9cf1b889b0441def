"""Connect the upload account's events to the deployed function app (azd's ``postdeploy`` hook).

Deploys ``infra/events.bicep`` with the Azure CLI. Event Grid calls the app while the subscription
is made, with a key that the host makes when it first loads the blob extension, so a fresh
deployment may have to be tried again until the host is up. Doing it twice changes nothing.

The key is read inside Azure Resource Manager and never reaches this process. Needs the outputs of
``infra/main.bicep`` in the environment, where azd puts them, and nothing beside Python 3.9 and
``az``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TEMPLATE = Path(__file__).resolve().parent.parent / "events.bicep"

REQUIRED = (
    "AZURE_SUBSCRIPTION_ID",
    "AZURE_RESOURCE_GROUP",
    "FUNCTION_APP_NAME",
    "HOST_STORAGE_ACCOUNT",
    "UPLOAD_STORAGE_ACCOUNT",
    "UPLOAD_STORAGE_ACCOUNT_ID",
    "UPLOAD_CONTAINER_NAME",
    "DEAD_LETTER_CONTAINER",
    "SYSTEM_TOPIC_NAME",
    "LOG_WORKSPACE_ID",
)

#: Words in the CLI's errors that no waiting cures.
FINAL_ERRORS = (
    "AuthorizationFailed",
    "az login",
    "Error BCP",
    "MissingSubscriptionRegistration",
    "RequestDisallowedByPolicy",
    "SubscriptionNotFound",
)


class EventsNotConnectedError(Exception):
    """The events are not connected; the text says why and what to do next."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Connect the events; return the exit code for the shell."""
    options = _parse(arguments)
    try:
        _connect(dict(os.environ), options.give_up_after_minutes * 60, options.pause_seconds)
    except EventsNotConnectedError as failure:
        print(f"Uploads are not connected to the app yet: {failure}", file=sys.stderr)
        return 1
    print("Uploads are connected: every finished file in the container now reaches the app.")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--give-up-after-minutes",
        type=float,
        default=20.0,
        help="how long to keep trying while the app starts (default: 20)",
    )
    parser.add_argument(
        "--pause-seconds", type=float, default=15.0, help="between two tries (default: 15)"
    )
    return parser.parse_args(arguments)


def _connect(environment: dict[str, str], patience_seconds: float, pause_seconds: float) -> None:
    missing = [name for name in REQUIRED if not environment.get(name)]
    if missing:
        raise EventsNotConnectedError(f"not set: {', '.join(missing)}. Run `azd provision` first.")
    az = shutil.which("az")
    if az is None:
        raise EventsNotConnectedError(
            "the Azure CLI (az) is not on the PATH. Install it, then `azd deploy`."
        )
    topic_name, ours = _find_topic(az, environment)
    parameters = {
        "functionAppName": environment["FUNCTION_APP_NAME"],
        "uploadAccountName": environment["UPLOAD_STORAGE_ACCOUNT"],
        "uploadContainerName": environment["UPLOAD_CONTAINER_NAME"],
        "deadLetterAccountName": environment["HOST_STORAGE_ACCOUNT"],
        "deadLetterContainerName": environment["DEAD_LETTER_CONTAINER"],
        "systemTopicName": topic_name,
        "createTopic": str(ours).lower(),
        "workspaceId": environment["LOG_WORKSPACE_ID"],
    }
    _deploy(az, environment, parameters, patience_seconds, pause_seconds)


def _find_topic(az: str, environment: dict[str, str]) -> tuple[str, bool]:
    """Return the name of the account's system topic and whether it is this template's own.

    A storage account has at most one system topic, and Defender for Storage may have made it.

    Raises:
        EventsNotConnectedError: The topic that is there cannot be used as it is.
    """
    arguments = ["eventgrid", "system-topic", "list", "--output", "json"]
    done = _run(az, [*arguments, *_subscription(environment)])
    if done.returncode != 0:
        raise EventsNotConnectedError(f"the Event Grid topics could not be listed. {_said(done)}")
    own_name = environment["SYSTEM_TOPIC_NAME"]
    group = environment["AZURE_RESOURCE_GROUP"]
    source = environment["UPLOAD_STORAGE_ACCOUNT_ID"].casefold()
    for topic in json.loads(done.stdout):
        if str(topic.get("source")).casefold() != source:
            continue
        name = str(topic["name"])
        if str(topic["resourceGroup"]).casefold() != group.casefold():
            raise EventsNotConnectedError(
                f"the account's system topic {name} is in the resource group "
                f"{topic['resourceGroup']}. Move it to {group}, then `azd deploy`."
            )
        if name == own_name:
            return own_name, True
        if not (topic.get("identity") or {}).get("principalId"):
            raise EventsNotConnectedError(
                f"the account's system topic {name} has no system-assigned identity, which dead "
                f"letters need. Run `az eventgrid system-topic update --resource-group {group} "
                f"--name {name} --identity systemassigned`, then `azd deploy`."
            )
        print(f"Using the system topic {name}, which the account has already.")
        return name, False
    return own_name, True


def _deploy(
    az: str,
    environment: dict[str, str],
    parameters: dict[str, str],
    patience_seconds: float,
    pause_seconds: float,
) -> None:
    command = [
        "deployment", "group", "create",
        "--name", "modzy-relay-events",
        "--resource-group", environment["AZURE_RESOURCE_GROUP"],
        "--template-file", str(TEMPLATE),
        "--only-show-errors",
        "--output", "none",
        *_subscription(environment),
        "--parameters", *(f"{name}={value}" for name, value in parameters.items()),
    ]  # fmt: skip
    deadline = time.monotonic() + patience_seconds
    while True:
        done = _run(az, command)
        if done.returncode == 0:
            return
        reason = _said(done)
        if any(word in reason for word in FINAL_ERRORS):
            raise EventsNotConnectedError(f"{reason}\nCorrect this, then `azd deploy`.")
        if time.monotonic() + pause_seconds > deadline:
            raise EventsNotConnectedError(
                f"the app was not ready in time. The last answer:\n{reason}\n"
                "See whether its functions are listed in the portal, then `azd deploy`."
            )
        print("The app is not ready to receive events yet; trying again.", file=sys.stderr)
        time.sleep(pause_seconds)


def _subscription(environment: dict[str, str]) -> list[str]:
    return ["--subscription", environment["AZURE_SUBSCRIPTION_ID"]]


def _run(az: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([az, *arguments], capture_output=True, text=True, check=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """Return what the CLI wrote to standard error, without the key of a webhook address."""
    return re.sub(r"(code=)[^&\s\"']+", r"\1***", done.stderr.strip())


if __name__ == "__main__":
    sys.exit(main())
