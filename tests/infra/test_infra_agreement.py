"""What the Python package and the infrastructure must say in the same words."""

from __future__ import annotations

import json
import re

from infra_bicep import (
    INFRA,
    ROOT,
    app_setting_in_main,
    app_settings,
    body,
    main_value,
    parse,
    resources,
)

from modzy_relay.settings import DEFAULTS, SETTING_NAMES, Settings

#: Read by the Functions host, the worker or a library, not by modzy_relay.settings.
PLATFORM_SETTINGS = frozenset({
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "PYTHON_THREADPOOL_THREAD_COUNT",
})  # fmt: skip
#: Families of settings that the Functions platform spells with a double underscore.
CONNECTIONS = ("AzureWebJobsStorage", "UploadStorage")
#: Settings that only an app outside this template needs: `RelayStorage` moves the ledger to an
#: account of its own, and the plain connection strings are for local runs.
NOT_DEPLOYED = ("AzureWebJobsStorage", "UploadStorage", "RelayStorage")


def test_every_setting_of_the_app_is_deployed_and_no_other() -> None:
    """A setting that one side renames is found here."""
    deployed = {
        name
        for name in app_settings()
        if name.partition("__")[0] not in CONNECTIONS and name not in PLATFORM_SETTINGS
    }
    known = {name for name in SETTING_NAMES if name.partition("__")[0] not in NOT_DEPLOYED}
    # The identity's id is read by the Azure SDK where the settings do not read it themselves.
    assert deployed - {"AZURE_CLIENT_ID"} == known - {"AZURE_CLIENT_ID"}


def test_defaults_are_the_same_on_both_sides() -> None:
    """Leaving a parameter alone and leaving a setting out mean the same."""
    deployed = {name: app_setting_in_main(name) for name in DEFAULTS}
    assert deployed == DEFAULTS


def test_the_app_accepts_the_deployed_settings() -> None:
    """An app that has just been deployed has nothing to say about its settings."""
    given = {
        "hostAccountName": "stsamplehost",
        "identityClientId": "00000000-0000-0000-0000-000000000000",
        "uploadBlobEndpoint": "https://stsampleup.blob.core.windows.net/",
        "uploadQueueEndpoint": "https://stsampleup.queue.core.windows.net/",
        "vaultUri": "https://kv-sample.vault.azure.net/",
        "modzyUrl": "https://modzy.example.com",
        "modzyModelId": "ed542963de",
        "modzyModelVersion": "1.0.1",
        "componentConnectionString": "InstrumentationKey=sample",
    }
    values = {name: given.get(it, it) for name, it in app_settings().items()}
    values |= {name: app_setting_in_main(name) for name in DEFAULTS}
    optional = {"MODZY_INPUT_NAME", "MODZY_EXPLAIN", "MODZY_JOB_TIMEOUT", "MODZY_ROUTES"}
    settings = Settings.from_env({name: it for name, it in values.items() if name not in optional})
    assert settings.upload_storage.account == "stsampleup"
    assert settings.relay_storage.account == "stsamplehost"
    assert settings.relay_storage.client_id == given["identityClientId"]


def test_connections_are_identities_and_carry_all_that_the_triggers_need() -> None:
    """Missing the queue address, the blob trigger cannot write its poison message."""
    names = set(app_settings())
    assert {
        "AzureWebJobsStorage__accountName",
        "AzureWebJobsStorage__credential",
        "AzureWebJobsStorage__clientId",
        "UploadStorage__blobServiceUri",
        "UploadStorage__queueServiceUri",
        "UploadStorage__credential",
        "UploadStorage__clientId",
    } <= names
    assert not names & {"AzureWebJobsStorage", "UploadStorage", "FUNCTIONS_WORKER_RUNTIME"}


def test_the_event_endpoint_names_the_blob_triggered_function() -> None:
    """Event Grid gets 202 for a wrong name too, and every event is dropped in silence."""
    name = parse("events.bicep")["parameters"]["functionName"]["default"]
    source = (ROOT / "function_app.py").read_text()
    match = re.search(
        r"@app\.blob_trigger\((?P<arguments>.*?)\)\s*def (?P<function>\w+)", source, re.DOTALL
    )
    assert match is not None
    explicit = re.search(r"""@app\.function_name\(["'](\w+)["']\)\s*@app\.blob_trigger""", source)
    assert name == (explicit[1] if explicit else match["function"])
    destination = body(resources("modules/event-subscription.bicep")["uploads"])["properties"][
        "destination"
    ]
    assert (
        "?functionName=Host.Functions.${functionName}&" in destination["properties"]["endpointUrl"]
    )


def test_queues_table_and_containers_that_the_app_uses_are_made() -> None:
    """No part of the path of an upload waits for something that nobody creates."""
    made = body(parse("main.bicep")["modules"]["hostStorage"])["params"]
    assert main_value(made["tableName"]) == DEFAULTS["SUBMISSIONS_TABLE"]
    containers = {main_value(symbol) for symbol in made["containerNames"]}
    assert DEFAULTS["RESULTS_CONTAINER"] in containers
    queues = {
        re.sub(r"\$\{(\w+)\}", lambda match: str(main_value(match[1])), name)
        if "${" in name
        else main_value(name)
        for name in made["queueNames"]
    }
    used = {DEFAULTS["JOBS_QUEUE"], DEFAULTS["DUE_QUEUE"]}
    assert queues == used | {f"{queue}-poison" for queue in used}
    assert main_value("uploadContainerName") == DEFAULTS["UPLOAD_CONTAINER"]


def test_both_secrets_are_written_under_the_names_that_the_app_reads() -> None:
    """A vault with other names would look like a vault without secrets."""
    vault = body(parse("main.bicep")["modules"]["vault"])["params"]
    for parameter, setting in (
        ("modzyApiKeySecretName", "MODZY_API_KEY_SECRET"),
        ("uploadStorageKeySecretName", "UPLOAD_STORAGE_KEY_SECRET"),
    ):
        assert main_value(vault[parameter]) == DEFAULTS[setting]


def test_host_json_fits_flex_consumption_and_the_alerts() -> None:
    """Flex runs bundle 4 or later, and a sampled trace would be an alert that never fires."""
    host = json.loads((ROOT / "host.json").read_text())
    assert re.match(r"\[[4-9]\.", host["extensionBundle"]["version"])
    sampling = host["logging"]["applicationInsights"]["samplingSettings"]
    assert not sampling["isEnabled"] or "Trace" in sampling.get("excludedTypes", "")


def test_as_many_threads_as_the_host_sends_invocations() -> None:
    """An invocation that waits for a thread waits while its time-out runs."""
    extensions = json.loads((ROOT / "host.json").read_text())["extensions"]
    queues = extensions["queues"]["batchSize"] + extensions["queues"]["newBatchThreshold"]
    blobs = extensions["blobs"]["maxDegreeOfParallelism"]
    assert queues + blobs <= int(app_settings()["PYTHON_THREADPOOL_THREAD_COUNT"])


def test_the_poison_queue_of_the_trigger_is_named_alike_where_it_is_made_and_granted() -> None:
    """The role is limited to a queue of this name."""
    made = parse("modules/upload-storage.bicep")["variables"]["poisonQueueName"]["value"]
    assert f"name: '{made}'" in (INFRA / "modules/roles.bicep").read_text()
