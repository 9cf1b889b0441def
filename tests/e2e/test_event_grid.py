"""Uploads that arrive as Event Grid events, each of them three times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e_scene import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e_scene import Scene

_COPIES = 3


def test_events_that_come_three_times_give_one_job(open_scene: Callable[..., Scene]) -> None:
    """Event Grid delivers at least once; each blob version is submitted once all the same."""
    scene = open_scene()
    scene.start(
        {"BLOB_TRIGGER_SOURCE": "EventGrid"},
        options=[
            *("--emit-events", "--event-copies", str(_COPIES), "--event-interval", "0.2"),
        ],
    )
    paths = [f"folder/{number} & more.txt" for number in range(15)]
    for path in paths:
        scene.upload(path, path.encode())

    def executions() -> int:
        return scene.host.output().count("Executed submit_upload (Succeeded")

    until(lambda: executions() >= _COPIES * len(paths), "every copy of every event has run")

    assert executions() == _COPIES * len(paths)
    assert [len(scene.jobs_for(path)) for path in paths] == [1] * len(paths)
    assert {(row["path"], row["state"]) for row in scene.rows()} == {
        (path, "SUBMITTED") for path in paths
    }
    submitted = [event["id"] for event in scene.events() if "submitted" in event["type"]]
    assert len(set(submitted)) == len(paths)
    repeated = scene.log_of("submission.repeated")
    assert len(repeated) == (_COPIES - 1) * len(paths)
    assert scene.host.output().count("(Failed") == 0


def test_an_overwritten_blob_is_another_upload(open_scene: Callable[..., Scene]) -> None:
    """Each version of a blob has its own row and its own job."""
    scene = open_scene()
    scene.start(
        {"BLOB_TRIGGER_SOURCE": "EventGrid"},
        options=["--emit-events", "--event-copies", "2", "--event-interval", "0.2"],
    )
    scene.upload("report.txt", b"first")
    first = scene.submitted("report.txt")
    scene.upload("report.txt", b"second, longer")
    until(lambda: len(scene.jobs_for("report.txt")) == 2, "a job for the second version")
    until(lambda: all(row["state"] == "SUBMITTED" for row in scene.rows()), "both recorded")
    assert len({row["job_identifier"] for row in scene.rows()}) == 2
    assert first["RowKey"] in {row["RowKey"] for row in scene.rows()}
