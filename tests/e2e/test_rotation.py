"""Keys that are changed in the vault while the app runs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from e2e_scene import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e_scene import Scene


@pytest.fixture(scope="module")
def scene(open_scene: Callable[..., Scene]) -> Scene:
    """A scene with the app running, which has used its first keys."""
    scene = open_scene()
    scene.start()
    scene.upload("before.txt")
    scene.submitted("before.txt")
    return scene


def rotate(scene: Scene) -> None:
    """Give Modzy and the vault a new API key; the old one is refused from now on."""
    new = f"{secrets.token_urlsafe(12)}.{secrets.token_urlsafe(18)}"
    scene.secrets |= {new, new.partition(".")[2]}
    scene.stack.vault.set_secret("modzy-api-key", new)
    scene.stack.modzy.set_api_keys([new])


def test_a_new_api_key_is_taken_from_the_vault(scene: Scene) -> None:
    """Uploads go on without a restart; each file still gets one job."""
    process = scene.host.pid
    rotate(scene)
    scene.upload("after.txt")
    scene.submitted("after.txt")
    assert len(scene.jobs_for("after.txt")) == 1
    assert scene.host.pid == process
    refused = [request for request in scene.stack.modzy.requests if request.outcome == "401"]
    assert refused, "Modzy was never asked with the old key, so nothing was shown"


def test_a_job_submitted_with_the_old_key_is_followed_with_the_new_one(scene: Scene) -> None:
    """What was begun before a rotation is brought to its end."""
    row = scene.finish("before.txt")
    assert row["job_status"] == "COMPLETED"
    document = scene.call("submissions", params={"job": row["job_identifier"]}).json()
    assert document["job_status"] == "COMPLETED"


def test_a_key_that_only_modzy_forgot_is_alarmed_until_it_is_replaced(scene: Scene) -> None:
    """The log says what to check, the upload is parked, and a good key sets it going again."""
    old_key = scene.stack.modzy._keys
    scene.stack.modzy.set_api_keys(["someone-elses.key"])
    scene.upload("parked.txt")
    scene.wait_for_row("parked.txt", lambda row: row["state"] == "DEFERRED")
    alarm = scene.wait_for_log("modzy.unauthorized")
    assert alarm.level == "ERROR"
    assert "check secret modzy-api-key" in alarm.data["reason"]
    scene.stack.modzy.set_api_keys(old_key)
    scene.submitted("parked.txt")
    until(lambda: len(scene.jobs_for("parked.txt")) == 1, "its one job")
