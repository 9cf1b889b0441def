"""Wrong credentials, vaults and models: what the operator is told, and that nothing is lost."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from e2e_scene import until

from sandbox.keyvault_server import Fault
from sandbox.storage import ACCOUNT_KEYS, UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e_scene import Scene

_ROUTES = [
    {"match": "unknown-model/*", "model": "0000000000", "version": "1.0.0", "input": "input"},
    {"match": "model-without-input/*", "model": "0000000000", "version": "1.0.0"},
    {"match": "unknown-version/*", "model": "ed542963de", "version": "9.9.9"},
    {"match": "two-inputs/*", "model": "2b9a6e04d1", "version": "2.1.0"},
]


@pytest.fixture(scope="module")
def scene(open_scene: Callable[..., Scene]) -> Scene:
    """A scene; each test starts the app anew, for it remembers the keys it has read."""
    return open_scene()


def unreachable_vault(scene: Scene) -> None:
    """Nothing listens where the vault should be."""
    scene.stack.vault.set_fault(Fault.REFUSED)


def forbidden_vault(scene: Scene) -> None:
    """The app's identity has no role at the vault."""
    scene.stack.vault.set_fault(Fault.FORBIDDEN)


def missing_api_key(scene: Scene) -> None:
    """Nobody has stored the API key."""
    scene.stack.vault.delete_secret("modzy-api-key")


def missing_storage_key(scene: Scene) -> None:
    """Nobody has stored the key of the upload account."""
    scene.stack.vault.delete_secret("upload-storage-key")


def wrong_api_key(scene: Scene) -> None:
    """Somebody has stored a key that Modzy does not know."""
    scene.secrets.add("unknown.Vd8sJq2LhRk5TzXwP3yB")
    scene.stack.vault.set_secret("modzy-api-key", "unknown.Vd8sJq2LhRk5TzXwP3yB")


@pytest.mark.parametrize(
    ("fault", "event", "told"),
    [
        (
            unreachable_vault,
            "vault.unavailable",
            ["cannot be read", "check KEY_VAULT_URI", "network path"],
        ),
        (forbidden_vault, "vault.unavailable", ["403", "Key Vault Secrets User"]),
        (missing_api_key, "vault.unavailable", ["has no secret modzy-api-key", "create it"]),
        (missing_storage_key, "vault.unavailable", ["no secret upload-storage-key", "create it"]),
        (wrong_api_key, "modzy.unauthorized", ["401", "check secret modzy-api-key"]),
    ],
)
def test_an_upload_waits_until_the_fault_is_repaired(
    scene: Scene, fault: Callable[[Scene], None], event: str, told: list[str]
) -> None:
    """One line names what to repair; after that the upload gets its one job."""
    path = f"{fault.__name__}.txt"
    scene.recorder.ahead = timedelta()
    fault(scene)
    scene.start()
    scene.upload(path)
    deferred = scene.wait_for_row(path, lambda row: row["state"] == "DEFERRED")
    line = scene.wait_for_log(event)
    assert line.level in {"WARNING", "ERROR"}
    assert "\n" not in line.text
    assert told[0] in deferred["reason"]
    for words in told:
        assert words in line.data["reason"]
    assert scene.jobs_for(path) == []

    repair(scene)
    scene.start()
    # Its own reminder is on its way as well; the two together must not give two jobs.
    scene.recorder.ahead = timedelta(minutes=1)
    scene.remind(deferred)
    row = scene.submitted(path)
    assert row["attempts"] >= 1
    assert scene.only_job(path).status == "COMPLETED"


def repair(scene: Scene) -> None:
    """Put the vault and what is in it in order."""
    scene.stack.vault.set_fault(None)
    scene.stack.vault.set_secret("modzy-api-key", scene.stack.api_key)
    scene.stack.vault.set_secret("upload-storage-key", ACCOUNT_KEYS[UPLOAD_ACCOUNT])


@pytest.fixture(scope="module")
def misrouted(open_scene: Callable[..., Scene]) -> Scene:
    """A scene whose routes lead to models that cannot be called, and whose storage key is wrong."""
    scene = open_scene()
    key = ACCOUNT_KEYS[UPLOAD_ACCOUNT].swapcase()
    scene.secrets.add(key)
    scene.stack.vault.set_secret("upload-storage-key", key)
    scene.start({"MODZY_ROUTES": json.dumps(_ROUTES)})
    return scene


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("unknown-model", ["404", "check model 0000000000 version 1.0.0", "MODZY_ROUTES"]),
        ("model-without-input", ["404", "check model 0000000000 version 1.0.0", "MODZY_ROUTES"]),
        ("unknown-version", ["404", "check model ed542963de version 9.9.9", "MODZY_ROUTES"]),
        ("two-inputs", ["has 2 inputs", "document.txt, image", "MODZY_INPUT_NAME"]),
    ],
)
def test_a_model_that_cannot_be_called_is_told_to_all(
    misrouted: Scene, folder: str, told: list[str]
) -> None:
    """The row, the log and downstream systems learn the reason, and which model it was."""
    path = f"{folder}/a.txt"
    misrouted.upload(path)
    row = misrouted.wait_for_row(path, lambda row: row["state"] == "REJECTED")
    (line,) = [one for one in misrouted.log_of("submission.rejected") if one.data["path"] == path]
    (event,) = [one for one in misrouted.events() if one["subject"] == path]
    assert event["type"] == "modzy.submission.failed"
    for reason in (row["reason"], line.data["reason"], event["data"]["reason"]):
        for words in told:
            assert words in reason
    assert misrouted.jobs_for(path) == []


def test_a_wrong_storage_key_is_seen_in_the_jobs_reason(misrouted: Scene) -> None:
    """Only Modzy uses that key, so its job tells: its reason is in the row and in the event."""
    misrouted.upload("any.txt")
    row = misrouted.finish("any.txt")
    assert row["job_status"] == "COMPLETED"
    assert row["reason"].startswith("1 of 1 inputs failed: uploads/any.txt could not be read")
    (line,) = misrouted.log_of("job.finished")
    assert line.data["reason"] == row["reason"]
    (event,) = [one for one in misrouted.events() if one["type"] == "modzy.job.finished"]
    assert event["data"]["reason"] == row["reason"]


def test_after_the_repair_the_file_is_uploaded_again(misrouted: Scene) -> None:
    """A rejected version stays rejected; the same file as a new version gets its job."""
    repair(misrouted)
    misrouted.start()
    for path in ("two-inputs/a.txt", "any.txt"):
        upload_again(misrouted, path)
        row = misrouted.submitted(path)
        job = misrouted.stack.modzy.jobs.find(row["job_identifier"])
        finished = misrouted.finish(path)
        assert (job.status, finished.get("reason")) == ("COMPLETED", None)


def upload_again(scene: Scene, path: str) -> None:
    """Overwrite a file, and wait until the ledger has the new version."""
    earlier = scene.row(path)
    scene.upload(path, b"the same, again")
    until(lambda: scene.row(path) != earlier, f"a newer row of {path}")
