"""What one upload costs, counted on the wire; and that its size makes no difference."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from azure.storage.blob import BlobBlock

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e_recorder import Call
    from e2e_scene import Scene

_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3
_BLOCK = 4 * _MIB
_NO_LISTENERS = {
    "AzureWebJobs.submit_upload.Disabled": "true",
    "AzureWebJobs.advance_submission.Disabled": "true",
}
#: More than this, and content would have been in memory; less is the allocator's own unrest.
_MEMORY_UNREST = 8 * _MIB


@pytest.fixture(scope="module")
def scene(open_scene: Callable[..., Scene]) -> Scene:
    """A scene; each test starts the app as it needs it."""
    return open_scene()


def test_an_upload_costs_six_calls_in_their_order(scene: Scene) -> None:
    """HEAD, insert, POST, announcement, reminder, update, and no seventh to any service."""
    # Without listeners the host itself asks nothing of these accounts.
    scene.start(_NO_LISTENERS)
    submit(scene, "warm-up.txt")
    vault = scene.stack.vault
    asked_before = len(vault.vault_service.requests) + len(vault.identity_service.requests)
    seen_before = len(scene.recorder.calls)

    row = submit(scene, "folder/first.txt")

    calls = scene.recorder.calls[seen_before:]
    entity = f"(PartitionKey='{row['PartitionKey']}',RowKey='{row['RowKey']}')"
    assert [(call.service, call.method, call.path, call.status) for call in calls] == [
        ("Blob", "HEAD", "/sandboxuploads/uploads/folder/first.txt", 200),
        ("Table", "POST", "/devstoreaccount1/ModzySubmissions", 201),
        ("Modzy", "POST", "/api/jobs", 200),
        ("Queue", "POST", "/devstoreaccount1/modzy-jobs/messages", 201),
        ("Queue", "POST", "/devstoreaccount1/modzy-relay-due/messages", 201),
        ("Table", "PUT", f"/devstoreaccount1/ModzySubmissions{entity}", 204),
    ]
    states = [json.loads(call.body)["state"] for call in calls if call.service == "Table"]
    assert states == ["SUBMITTING", "SUBMITTED"]
    asked = len(vault.vault_service.requests) + len(vault.identity_service.requests)
    assert asked == asked_before


def submit(scene: Scene, path: str) -> dict[str, object]:
    """Upload a file and run its function, as the host would for its event."""
    scene.upload(path)
    scene.run_function("submit_upload", f"uploads/{path}")
    return scene.submitted(path)


def test_size_costs_neither_memory_nor_calls(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    """1 GiB and 1 KiB cost the app the same, and it reads no content of either."""
    scene.start()
    for number in range(5):  # fills pools and caches
        scene.upload(f"warm-up-{number}.bin", bytes(_KIB))
        scene.submitted(f"warm-up-{number}.bin")

    small = cost_of(scene, "small.bin", _KIB)
    large = cost_of(scene, "large.bin", _GIB)

    resident = resident_memory(scene) / _MIB
    for name, (calls, memory, answered) in {"1 KiB": small, "1 GiB": large}.items():
        told = (
            f"{calls.total()} calls, +{memory / _MIB:.1f} MiB of {resident:.0f} MiB, "
            f"{answered} bytes of content read"
        )
        print(f"{name}: {told}")  # noqa: T201 - a measurement that people want to see
        record_property(name, told)
    assert small[0] == large[0]
    assert large[1] - small[1] < _MEMORY_UNREST
    assert small[2] == large[2] == 0
    job = scene.only_job("large.bin")
    (result,) = job.results.values()
    assert (job.status, result["size"]) == ("COMPLETED", _GIB)


def cost_of(scene: Scene, path: str, size: int) -> tuple[collections.Counter[str], int, int]:
    """Calls by service and method, memory at its peak, and bytes of content it was sent."""
    memory = resident_memory(scene)
    seen = len(scene.recorder.calls)
    blob = scene.stack.uploads.get_blob_client(path)
    block = bytes(min(size, _BLOCK))
    blob.stage_block("block", block)
    # One block, named as often as it takes: the size is real, uploading it costs nothing.
    blob.commit_block_list([BlobBlock("block")] * (size // len(block)))
    row = scene.submitted(path)
    assert row["size"].value == size
    calls = [call for call in scene.recorder.calls[seen:] if concerns(call, path, row)]
    names = collections.Counter(f"{call.service} {call.method}" for call in calls)
    content = sum(call.answered for call in calls if call.service == "Blob")
    return names, peak_memory(scene) - memory, content


def concerns(call: Call, path: str, row: dict[str, object]) -> bool:
    """Whether a request was made for a blob: by the host that found it, or by the app."""
    if call.service == "Blob":
        return call.path.endswith(f"/{path}")
    return not call.is_poll and str(row["RowKey"]) in call.path + call.text


def resident_memory(scene: Scene) -> int:
    """What the app's process has in memory, in bytes; peaks are counted from here on."""
    # "5" resets the peak to the present: proc(5), /proc/pid/clear_refs.
    Path(f"/proc/{scene.host.pid}/clear_refs").write_text("5")
    return memory_of(scene, "VmRSS")


def peak_memory(scene: Scene) -> int:
    """The most that the app's process has had in memory since then, in bytes."""
    return memory_of(scene, "VmHWM")


def memory_of(scene: Scene, name: str) -> int:
    """A line of the process's status, in bytes."""
    status = Path(f"/proc/{scene.host.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * _KIB
