"""App settings: every wrong one is named, with what it should be, and no value that is secret."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modzy_relay import wiring
from modzy_relay.errors import SettingsError
from modzy_relay.settings import (
    DEFAULTS,
    SETTING_NAMES,
    Settings,
    parse_duration,
    relay_connection_name,
    trigger_source,
)

SAMPLE = Path(__file__).resolve().parents[2] / "local.settings.sample.json"
GOOD: dict[str, str] = json.loads(SAMPLE.read_text("utf-8"))["Values"]
KEY = "c2VjcmV0IGtleSBvZiBhbiBhY2NvdW50"
MINIMAL = {
    "AzureWebJobsStorage__accountName": "hostaccount",
    "UploadStorage__blobServiceUri": "https://uploadaccount.blob.core.windows.net/",
    "KEY_VAULT_URI": "https://kv-sample.vault.azure.net/",
    "MODZY_URL": "https://app.modzy.com/api",
    "MODZY_MODEL_ID": "ed542963de",
    "MODZY_MODEL_VERSION": "1.0.1",
}


def problems(changes: dict[str, str], *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What is said of the sample's settings after these changes; nothing if they are good."""
    env = {name: value for name, value in (GOOD | changes).items() if name not in without}
    try:
        Settings.from_env(env)
    except SettingsError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AzureWebJobsStorage", "a connection string, or AzureWebJobsStorage__accountName"),
        ("UploadStorage", "a connection string, or UploadStorage__accountName"),
        ("KEY_VAULT_URI", "https://<name>.vault.azure.net"),
        ("MODZY_URL", "for example https://app.modzy.com"),
        ("MODZY_MODEL_ID", "a default route needs both"),
        ("MODZY_MODEL_VERSION", "a default route needs both"),
    ],
)
@pytest.mark.parametrize("empty", [True, False], ids=["empty", "absent"])
def test_a_missing_setting_is_named(name: str, words: str, *, empty: bool) -> None:
    """One problem, which begins with the setting's name and says what belongs there."""
    (problem,) = problems({name: ""}) if empty else problems({}, without=(name,))
    assert problem.startswith(f"{name} is missing: ")
    assert words in problem


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("UploadStorage", "UseDevelopmentStorage=true", "connection string out in full"),
        ("UploadStorage", "uploadaccount", "AccountName and AccountKey"),
        ("AzureWebJobsStorage", "AccountName=a", "AccountName and AccountKey"),
        ("RelayStorage", "AccountKey=a", "AccountName and AccountKey"),
        ("RelayStorage__queueServiceUri", "https://a.queue.core.windows.net", "incomplete"),
        ("UPLOAD_CONTAINER", "Uploads", "lower-case"),
        ("UPLOAD_CONTAINER", "a--b", "single hyphens"),
        ("BLOB_TRIGGER_SOURCE", "eventgrid", "EventGrid or LogsAndContainerScan"),
        ("KEY_VAULT_URI", "http://kv.vault.azure.net", "https://<name>.vault.azure.net"),
        ("KEY_VAULT_URI", "https://kv.vault.azure.net/secrets/x", "https://<name>."),
        ("KEY_VAULT_URI", "https://[", "not an address"),
        ("MODZY_API_KEY_SECRET", f"prefix.{KEY}", "not the secret"),
        ("UPLOAD_STORAGE_KEY_SECRET", f"{KEY}==", "not the secret"),
        ("MODZY_URL", "app.modzy.com", "https://app.modzy.com"),
        ("MODZY_URL", "http://app.modzy.com", "use https"),
        ("MODZY_URL", f"https://user:{KEY}@app.modzy.com", "without user"),
        ("MODZY_URL", f"https://app.modzy.com?key={KEY}", "the key is in the vault"),
        ("MODZY_EXPLAIN", "yes", "true or false"),
        ("MODZY_JOB_TIMEOUT", "1h", "whole number of seconds"),
        ("MODZY_JOB_TIMEOUT", "0", "whole number of seconds"),
        ("MODZY_ROUTES", "[", "not JSON"),
        ("MODZY_ROUTES", "{}", "a JSON list"),
        ("MODZY_ROUTES", '["*"]', "[0] is not a JSON object"),
        ("MODZY_ROUTES", '[{"match": "*", "model": "m"}]', "[0] needs version"),
        (
            "MODZY_ROUTES",
            '[{"match": "*", "model": "m", "version": "1", "modl": 1}]',
            "unknown keys modl",
        ),
        (
            "MODZY_ROUTES",
            '[{"match": "*", "model": "m", "version": "1", "timeout": true}]',
            "whole number",
        ),
        (
            "MODZY_ROUTES",
            '[{"match": "*", "model": "m", "version": "1", "explain": "no"}]',
            "true or false",
        ),
        ("SUBMISSIONS_TABLE", "modzy-submissions", "letters and digits"),
        ("JOBS_QUEUE", "x", "3 to 63"),
        ("JOBS_QUEUE", GOOD["DUE_QUEUE"], "two different queues"),
        ("DUE_QUEUE", "due_queue", "3 to 63"),
        ("RESULTS_CONTAINER", "-results", "3 to 63"),
        ("SWEEP_LOOKBACK", "2 days", "2d, 12h, 15m or 30s"),
        ("GIVE_UP_AFTER", "0", "2d, 12h, 15m or 30s"),
        ("SUBMIT_TIMEOUT", "10m", "5m at most"),
        ("HISTORY_SETTLE", "-1", "2d, 12h, 15m or 30s"),
        ("FOLLOW_FOR", "99999999999d", "2d, 12h, 15m or 30s"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_right(name: str, value: str, words: str) -> None:
    """One problem, which names the setting and says what to do; a pasted key is not repeated."""
    (problem,) = problems({name: value})
    assert name.partition("__")[0] in problem
    assert words in problem
    assert KEY not in problem


def test_all_problems_come_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Who has to set ten settings is not sent back ten times; the log says it once."""
    with pytest.raises(SettingsError) as raised:
        wiring.build({"MODZY_EXPLAIN": "?"})
    (record,) = caplog.records
    assert (record.levelname, record.message.partition(" ")[0]) == ("ERROR", "settings.invalid")
    for name in ("UploadStorage", "AzureWebJobsStorage", "KEY_VAULT_URI", "MODZY_URL"):
        assert f"{name} is missing" in record.message
        assert f"{name} is missing" in str(raised.value)
    assert "\n" not in record.message + str(raised.value)


def test_what_may_be_left_out_has_its_default() -> None:
    """The shortest settings that work, keyless as in a deployment."""
    settings = Settings.from_env(MINIMAL)
    assert settings.relay_storage.account == "hostaccount"
    assert settings.relay_storage.service_uris["table"].startswith("https://hostaccount.table.")
    assert settings.upload_storage.account == "uploadaccount"
    assert settings.upload_container == DEFAULTS["UPLOAD_CONTAINER"]
    assert settings.give_up_after == timedelta(days=7)
    (route,) = settings.routes
    assert (route.model, route.input_name, route.explain, route.timeout) == (
        "ed542963de",
        None,
        False,
        None,
    )


def test_empty_is_the_same_as_left_out_but_for_results() -> None:
    """The portal cannot delete a value easily; an empty results container means: keep none."""
    emptied = Settings.from_env(MINIMAL | dict.fromkeys(DEFAULTS, ""))
    assert emptied.results_container is None
    assert Settings.from_env(MINIMAL).results_container == DEFAULTS["RESULTS_CONTAINER"]
    assert emptied.due_queue == DEFAULTS["DUE_QUEUE"]


def test_routes_come_before_the_default_route() -> None:
    """First match wins, so the route for everything is the last."""
    settings = Settings.from_env(GOOD)
    assert [route.match for route in settings.routes] == ["scans/*", "*.csv", "**"]


@pytest.mark.parametrize("setting", ["RelayStorage", "RelayStorage__accountName"])
def test_a_separate_account_is_used_by_trigger_and_app_alike(setting: str) -> None:
    """The due queue is where the trigger looks for it."""
    assert relay_connection_name(MINIMAL) == "AzureWebJobsStorage"
    assert relay_connection_name(MINIMAL | {setting: ""}) == "AzureWebJobsStorage"
    assert relay_connection_name(MINIMAL | {setting: "x"}) == "RelayStorage"


def test_a_wrong_trigger_source_does_not_unregister_the_function() -> None:
    """The function is registered with the default; the settings report tells of the fault."""
    assert trigger_source({}) == "EventGrid"
    assert trigger_source({"BLOB_TRIGGER_SOURCE": "Kafka"}) == "EventGrid"
    assert trigger_source({"BLOB_TRIGGER_SOURCE": " LogsAndContainerScan "}) != "EventGrid"


def test_no_key_is_in_a_repr() -> None:
    """Settings may end in a traceback or a log."""
    settings = Settings.from_env(GOOD)
    for name in ("AzureWebJobsStorage", "UploadStorage"):
        key = GOOD[name].partition("AccountKey=")[2].partition(";")[0]
        assert len(key) > 40
        assert key not in repr(settings)
        assert key not in str(settings)


@given(st.dictionaries(st.sampled_from(sorted(SETTING_NAMES)), st.text()))
def test_whatever_is_set_is_accepted_or_explained(changes: dict[str, str]) -> None:
    """No text in any setting breaks the report of the others."""
    for problem in problems(changes):
        assert problem.endswith(".")
        assert "\n" not in problem


@pytest.mark.parametrize(
    ("text", "seconds"), [("2d", 172800), ("1d12h", 129600), ("15m", 900), ("90s", 90), ("7", 7)]
)
def test_durations(text: str, seconds: int) -> None:
    """All forms that the README shows."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0", "0d", "1w", "h", "-1s", "1.5h", "1s1d", "9" * 20 + "d"])
def test_no_durations(text: str) -> None:
    """Anything else is refused, zero included."""
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)
