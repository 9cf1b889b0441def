"""The pure parts of the local Functions host."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from azure.storage.queue import QueueMessage

from sandbox.host.blob_path import BlobPath
from sandbox.host.connections import Connections
from sandbox.host.event_grid import split_blob_url
from sandbox.host.host_json import load_host_json
from sandbox.host.ncrontab import parse_schedule
from sandbox.host.queues import queue_input
from sandbox.host.routes import Route
from sandbox.host.settings import MissingSetting, SettingsError, is_disabled, resolve
from sandbox.storage import ACCOUNT_KEYS, HOST_ACCOUNT

if TYPE_CHECKING:
    from pathlib import Path

A_KEY = ACCOUNT_KEYS[HOST_ACCOUNT]
A_CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=sample;AccountKey={A_KEY}"


@pytest.mark.parametrize(
    ("schedule", "moment", "due"),
    [
        ("0 */15 * * * *", "2026-11-23T10:00:00", "2026-11-23T10:15:00"),
        ("*/15 * * * *", "2026-11-23T10:44:59", "2026-11-23T10:45:00"),
        ("30 5/20 9-11 * * *", "2026-11-23T11:45:30", "2026-11-24T09:05:30"),
        ("0 0 0 29 2 *", "2026-11-23T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 12 * JAN-mar Mon,Friday", "2026-11-23T00:00:00", "2027-01-01T12:00:00"),
        ("0 0 0 13 * 5", "2026-11-23T00:00:00", "2027-08-13T00:00:00"),
        ("0 0 0 * * 0", "2026-11-23T00:00:00", "2026-11-29T00:00:00"),
        ("00:30:00", "2026-11-23T10:01:02", "2026-11-23T10:31:02"),
        ("1.00:00:00", "2026-11-23T10:01:02", "2026-11-24T10:01:02"),
    ],
)
def test_schedule_finds_the_next_due_time(schedule: str, moment: str, due: str) -> None:
    """Six fields, five fields, names, lists, steps, day and weekday together, time spans."""
    start = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    expected = datetime.fromisoformat(due).replace(tzinfo=UTC)
    assert parse_schedule(schedule).next_after(start) == expected


def test_schedule_that_never_comes_has_no_next_time() -> None:
    """The 30th of February is searched for a bounded time."""
    assert parse_schedule("0 0 0 30 2 *").next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "schedule",
    ["", "* * * *", "60 * * * * *", "0 0 0 * * 7", "0 9-8 * * *", "0 */0 * * *", "00:00:00"],
)
def test_wrong_schedule_is_refused(schedule: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(SettingsError):
        parse_schedule(schedule)


@pytest.mark.parametrize(
    ("path", "name", "values"),
    [
        ("uploads/{name}", "a/b/c.txt", {"name": "a/b/c.txt"}),
        ("uploads", "a/b", {}),
        ("uploads/in/{name}.csv", "in/deep/x.csv", {"name": "deep/x"}),
        ("uploads/in/{name}.csv", "in/x.CSV", None),
        ("uploads/in/{name}.csv", "pre/in/x.csv", None),
        ("uploads/{base}.{ext}", "a.b.c", {"base": "a.b", "ext": "c"}),
        ("uploads/a{{b}}/{name}", "a{b}/c", {"name": "c"}),
        ("uploads/fixed.txt", "fixed.txt", {}),
        ("uploads/fixed.txt", "fixed-txt", None),
    ],
)
def test_blob_path_matches_like_the_host(
    path: str, name: str, values: dict[str, str] | None
) -> None:
    """Anchored, case-sensitive, greedy across slashes."""
    assert BlobPath.parse(path).match(name) == values


def test_blob_path_knows_its_literal_prefix() -> None:
    """The prefix is what an event subscription filters on."""
    assert BlobPath.parse("uploads/in/x-{name}.csv").prefix == "in/x-"


@pytest.mark.parametrize("path", ["{container}/{name}", "/{name}", "uploads/{a.b}", "uploads/{x"])
def test_wrong_blob_path_is_refused(path: str) -> None:
    """The container is literal, names have no dots, braces match."""
    with pytest.raises(SettingsError):
        BlobPath.parse(path)


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("api/items/{id:int}", "/API/items/12", {"id": "12"}),
        ("api/items/{id:int}", "/api/items/twelve", None),
        ("api/items/{id?}", "/api/items", {}),
        ("api/files/{*path}", "/api/files/a/b", {"path": "a/b"}),
        ("api/open", "/api/open/", {}),
        ("api/open", "/api/open/more", None),
    ],
)
def test_route_matches(template: str, path: str, values: dict[str, str] | None) -> None:
    """Literals regardless of case, constraints, optional and remaining segments."""
    assert Route.parse(template).match(path) == values


@pytest.mark.parametrize(
    ("url", "blob"),
    [
        ("https://sample.blob.core.windows.net/uploads/a%20b/c.txt", ("uploads", "a b/c.txt")),
        ("http://127.0.0.1:10000/account/uploads/a", ("uploads", "a")),
        ("http://localhost:10000/account/uploads/a/b", ("uploads", "a/b")),
    ],
)
def test_event_url_names_container_and_blob(url: str, blob: tuple[str, str]) -> None:
    """The account is in the host name, or in the path of an emulator's address."""
    assert split_blob_url(url) == blob


def test_references_to_settings_are_resolved() -> None:
    """Several in one text; a missing one is named."""
    assert resolve("%A%/x-%B%", {"A": "one", "B": "two"}) == "one/x-two"
    with pytest.raises(MissingSetting, match="'C'"):
        resolve("%A%/%C%", {"A": "one"})


@pytest.mark.parametrize(
    ("name", "value", "disabled"),
    [
        ("AzureWebJobs.sample.Disabled", "true", True),
        ("AzureWebJobs_sample_Disabled", "1", True),
        ("AzureWebJobs.sample.Disabled", "false", False),
        ("AzureWebJobs.other.Disabled", "true", False),
    ],
)
def test_functions_are_disabled_by_settings(name: str, value: str, disabled: bool) -> None:
    """Both spellings count, for that function."""
    assert is_disabled("sample", {name: value}) is disabled


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({"Up": A_CONNECTION + ";EndpointSuffix=core.test"}, "sample.blob.core.test"),
        (
            {
                "Up": A_CONNECTION + ";EndpointSuffix=core.test",
                "AzureWebJobsUp": A_CONNECTION + ";EndpointSuffix=first.test",
            },
            "sample.blob.first.test",
        ),
        ({"Up__blobServiceUri": "https://other.blob.core.test"}, "other.blob.core.test"),
        ({"Up__serviceUri": "https://other.blob.core.test"}, "other.blob.core.test"),
        ({"Up__accountName": "third"}, "third.blob.core.windows.net"),
    ],
)
def test_connections_are_found_like_the_host_does(settings: dict[str, str], host: str) -> None:
    """The prefixed name comes first; connection strings and identity settings both work."""
    connections = Connections(settings)
    assert connections.blob_service("Up").primary_hostname == host
    connections.close()


def test_identity_connection_of_a_blob_trigger_needs_the_queue_service() -> None:
    """The missing setting is named."""
    connections = Connections({"Up__blobServiceUri": "https://other.blob.core.test"})
    with pytest.raises(MissingSetting, match="Up__queueServiceUri"):
        connections.queue_service("Up")


def test_malformed_connection_string_is_not_quoted() -> None:
    """Its setting is named, its text with the key is not."""
    with pytest.raises(SettingsError) as caught:
        Connections({"Up": "AccountKey=sample-secret"}).blob_service("Up")
    assert "'Up'" in str(caught.value)
    assert "sample-secret" not in repr(caught.value)


def test_host_json_has_the_hosts_defaults(tmp_path: Path) -> None:
    """Defaults depend on the cores; app settings override the file."""
    path = tmp_path / "host.json"
    path.write_text(
        json.dumps({"version": "2.0", "extensions": {"queues": {"maxPollingInterval": "00:00:07"}}})
    )
    settings = {"AzureFunctionsJobHost__extensions__queues__batchSize": "8"}
    host_json = load_host_json(path, settings, cores=2)
    assert (host_json.queue_batch_size, host_json.queue_new_batch_threshold) == (8, 8)
    assert host_json.queue_max_polling == timedelta(seconds=7)
    assert host_json.blob_max_parallelism == 16
    assert host_json.function_timeout == timedelta(minutes=30)
    assert host_json.route_prefix == "api"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"version": "1.0"},
        {"version": "2.0", "extensions": {"queues": {"batchSize": 33}}},
        {"version": "2.0", "functionTimeout": "5 minutes"},
        {"version": "2.0", "concurrency": {"dynamicConcurrencyEnabled": True}},
    ],
)
def test_wrong_host_json_is_refused(content: dict[str, object], tmp_path: Path) -> None:
    """Nothing in it is ignored that would change what happens."""
    path = tmp_path / "host.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SettingsError):
        load_host_json(path, {}, cores=1)


def test_body_fields_overwrite_queue_metadata() -> None:
    """Regardless of case, and numbers stay JSON."""
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    message = QueueMessage()
    message.id, message.pop_receipt, message.dequeue_count = "from the service", "receipt", 1
    message.inserted_on = message.expires_on = message.next_visible_on = moment
    _, metadata = queue_input(message, b'{"ID": "from the body", "dequeuecount": 7}')
    assert vars(metadata["Id"])["string"] == "from the body"
    assert vars(metadata["DequeueCount"])["json"] == "7"
    assert vars(metadata["InsertionTime"])["json"] == '"2026-11-23T00:00:00+00:00"'
