"""The entry file: what it registers with the host, and that each trigger calls one use case."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import azure.functions as func
import pytest

from modzy_relay import wiring
from modzy_relay.identity import LedgerKey

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRY = Path(__file__).resolve().parents[2] / "function_app.py"
A_KEY = LedgerKey("2026-11-23-a", "0123456789abcdef01234567")


def load() -> dict[str, Any]:
    """The entry file's names, as the worker would load it in this environment."""
    return runpy.run_path(str(ENTRY))


def triggers(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The trigger binding of each function, by the function's name."""
    return {
        function.get_function_name(): function.get_trigger().get_dict_repr()
        for function in entry["app"].get_functions()
    }


def user_function(entry: dict[str, Any], name: str) -> Callable[..., Any]:
    """What runs when the host invokes a function."""
    (found,) = [one for one in entry["app"].get_functions() if one.get_function_name() == name]
    function: Callable[..., Any] = found.get_user_function()
    return function


@pytest.fixture
def use_cases(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Use cases that only note their calls."""
    fakes = SimpleNamespace(relay=Mock(), follower=Mock(), sweeper=Mock(), lookup=Mock())
    monkeypatch.setattr(wiring, "_services", fakes)
    return fakes


def test_five_functions_are_registered_without_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing setting is reported when a function runs; it unregisters none."""
    for name in ("BLOB_TRIGGER_SOURCE", "RelayStorage", "AzureWebJobsStorage"):
        monkeypatch.delenv(name, raising=False)
    found = triggers(load())
    assert {name: trigger["type"] for name, trigger in found.items()} == {
        "submit_upload": "blobTrigger",
        "advance_submission": "queueTrigger",
        "sweep": "timerTrigger",
        "job_completed": "httpTrigger",
        "get_submission": "httpTrigger",
    }
    assert found["submit_upload"]["path"] == "%UPLOAD_CONTAINER%/{name}"
    assert found["submit_upload"]["connection"] == "UploadStorage"
    assert found["submit_upload"]["source"] == "EventGrid"
    assert found["advance_submission"]["queueName"] == "%DUE_QUEUE%"
    assert found["advance_submission"]["connection"] == "AzureWebJobsStorage"
    assert found["sweep"]["schedule"] == "%SWEEP_SCHEDULE%"
    assert {found[name]["route"] for name in ("job_completed", "get_submission")} == {
        "modzy/job-completed",
        "submissions",
    }
    for name in ("job_completed", "get_submission"):
        assert found[name]["authLevel"] == func.AuthLevel.FUNCTION


@pytest.mark.parametrize("setting", ["RelayStorage", "RelayStorage__accountName"])
def test_the_due_queue_is_read_where_the_ledger_is(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A separate account for the relay is watched by its own trigger, too."""
    monkeypatch.setenv(setting, "anything")
    assert triggers(load())["advance_submission"]["connection"] == "RelayStorage"


def test_a_wrong_source_leaves_the_blob_trigger_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker would otherwise have one import error and no function."""
    monkeypatch.setenv("BLOB_TRIGGER_SOURCE", "Kafka")
    assert triggers(load())["submit_upload"]["source"] == "EventGrid"


def test_the_blob_trigger_takes_the_name_and_nothing_else(use_cases: SimpleNamespace) -> None:
    """No method of the bound client is called, so no content can be read."""
    client = Mock(spec_set=["blob_name"], blob_name="a/b.txt")
    user_function(load(), "submit_upload")(client)
    use_cases.relay.submit_upload.assert_called_once_with("a/b.txt")


def test_the_queue_trigger_advances_the_named_submission(use_cases: SimpleNamespace) -> None:
    """The message names a row."""
    body = json.dumps({"ledger_key": str(A_KEY)}).encode()
    user_function(load(), "advance_submission")(func.QueueMessage(body=body))
    use_cases.relay.advance.assert_called_once_with(A_KEY)


def test_a_message_of_somebody_else_fails(use_cases: SimpleNamespace) -> None:
    """It goes to the poison queue, where an alert sees it, and nothing is done for it."""
    with pytest.raises(ValueError, match="names no submission"):
        user_function(load(), "advance_submission")(func.QueueMessage(body=b'{"id": 1}'))
    use_cases.relay.advance.assert_not_called()


def test_the_timer_sweeps(use_cases: SimpleNamespace) -> None:
    """One run of the sweep for each tick."""
    user_function(load(), "sweep")(Mock(past_due=True))
    use_cases.sweeper.run.assert_called_once_with()


def test_http_answers_are_json_in_any_script(use_cases: SimpleNamespace) -> None:
    """Status, type and body come from the use case; names are readable."""
    use_cases.lookup.by_path.return_value = {"path": "東京.txt", "submissions": [{"state": "GONE"}]}
    request = func.HttpRequest(
        method="GET", url="/api/submissions", params={"path": "東京.txt"}, body=b""
    )
    answer = user_function(load(), "get_submission")(request)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert "東京" in answer.get_body().decode()


def test_the_webhook_passes_on_its_body(use_cases: SimpleNamespace) -> None:
    """The job that the body names is looked at."""
    use_cases.follower.hint.return_value = True
    body = json.dumps({"job": {"identifier": "fd2c6f8b"}}).encode()
    request = func.HttpRequest(method="POST", url="/api/modzy/job-completed", body=body)
    answer = user_function(load(), "job_completed")(request)
    assert json.loads(answer.get_body()) == {"known": True}
    use_cases.follower.hint.assert_called_once_with("fd2c6f8b")
