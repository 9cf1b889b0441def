"""Settings that are wrong: one line says all of it, and what was uploaded meanwhile is not lost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from e2e_scene import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e_scene import Scene

_PASTED_SECRET = "pasted.KwBzL9yTq3mXv7RjN2cD"
#: Settings that the Functions host itself does not need, each of them wrong.
_WRONG = {
    "BLOB_TRIGGER_SOURCE": "Kafka",
    "KEY_VAULT_URI": "vault",
    "MODZY_API_KEY_SECRET": _PASTED_SECRET,
    "UPLOAD_STORAGE_KEY_SECRET": f"{_PASTED_SECRET}==",
    "MODZY_URL": "http://modzy.example.com",
    "MODZY_MODEL_VERSION": "",
    "MODZY_ROUTES": '[{"match": "*", "modle": "x"}, 7]',
    "SUBMISSIONS_TABLE": "modzy submissions",
    "JOBS_QUEUE": "Modzy_Jobs",
    "RESULTS_CONTAINER": "R",
    "SWEEP_LOOKBACK": "forever",
    "GIVE_UP_AFTER": "soon",
    "SUBMIT_TIMEOUT": "1h",
    "HISTORY_SETTLE": "0",
    "FOLLOW_FOR": "-1d",
}
_EVENTS = ["--emit-events", "--event-interval", "0.2"]


def test_all_wrong_settings_at_once_lose_no_upload(open_scene: Callable[..., Scene]) -> None:
    """All functions stay, one line names every setting, and the sweep finds the upload later."""
    scene = open_scene()
    scene.secrets.add(_PASTED_SECRET)
    scene.start(_WRONG, options=_EVENTS)
    assert_all_functions_are_served(scene)

    scene.upload("meanwhile.txt")
    until(scene.poisoned_uploads, "the host has given up on the event")
    assert scene.poisoned_uploads() == ["meanwhile.txt"]
    line = scene.wait_for_log("settings.invalid")
    assert line.level == "ERROR"
    assert "\n" not in line.text
    named = {name for name in _WRONG if any(name in problem for problem in line.data["problems"])}
    assert named == set(_WRONG)
    assert len(line.data["problems"]) == len(_WRONG) + 1  # two routes are wrong
    assert scene.rows() == []
    assert scene.call("submissions", params={"path": "meanwhile.txt"}).status_code == 500

    scene.start({"BLOB_TRIGGER_SOURCE": "EventGrid"})  # and the event never comes again
    scene.recorder.ahead = timedelta(minutes=15)
    found = scene.sweep()
    assert (found["blobs_listed"], found["uploads_without_row"]) == (1, 1)
    assert scene.wait_for_log("poison.found").data["queue"] == "webjobs-blobtrigger-poison"
    scene.recorder.ahead += timedelta(minutes=30)
    assert scene.sweep()["rows_overdue"] == 1
    scene.submitted("meanwhile.txt")
    assert scene.only_job("meanwhile.txt").status == "COMPLETED"


def assert_all_functions_are_served(scene: Scene) -> None:
    """The host lists them, and takes an order to run each."""
    served = next(line for line in scene.host.output().splitlines() if " serves [" in line)
    assert all(repr(name) in served for name in scene.function_names)
    assert "could not be indexed" not in scene.host.output()


def test_missing_settings_are_told_and_lose_no_upload(open_scene: Callable[..., Scene]) -> None:
    """What was uploaded before the app was configured is submitted once it is."""
    scene = open_scene()
    missing = ["KEY_VAULT_URI", "MODZY_URL", "MODZY_MODEL_ID", "MODZY_MODEL_VERSION"]
    scene.start({"MODZY_ROUTES": ""}, without=missing)
    assert_all_functions_are_served(scene)
    assert scene.call("submissions", params={"path": "early.txt"}).status_code == 500
    (line,) = scene.log_of("settings.invalid")
    told = [problem.partition(" is missing: ")[0] for problem in line.data["problems"]]
    assert told == ["KEY_VAULT_URI", "MODZY_URL", "MODZY_MODEL_ID"]

    scene.start(without=["UPLOAD_CONTAINER"])
    assert "submit_upload could not be indexed" in scene.host.output()
    assert "UPLOAD_CONTAINER" in scene.host.output()
    scene.upload("early.txt")
    scene.sweep()

    scene.start()
    scene.submitted("early.txt")
    assert scene.only_job("early.txt").status == "COMPLETED"
