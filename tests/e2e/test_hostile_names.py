"""Blob names that break careless programs: each gets its one job, under exactly its own name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient
from e2e_scene import until

from sandbox.storage import UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e_scene import Scene

    from sandbox.modzy_server import Job

_LONGEST_NAME = 1024
_GENERATED = 190
_CHOSEN = (
    *("it's", 'the "best"', "`back`", "a%2Fb", "%2F", "%", "%%", "a%zz", "100%25", "%C3%28"),
    *("#", "a#b", "?", "a?b=c&d", "a+b", "a b", "a&b", "&amp;", "a;b", "a,b", "a:b", "a=b"),
    *("new\nline", "cr\r\nlf", "tab\t", "del\x7f", "\x85", "\u2028", "\ufeffbom", "\u00a0"),
    *(
        "😀",
        "👩‍👩‍👧",
        "שלום",
        "مرحبا",
        "\u202etxt.exe",
        "e\u0301",
        "\u00e9",
        "ẞ",
        "東京",
        "\U0010fffd",
    ),
    *(" leading", "trailing ", " ", "dot.", "...", "a/.../b", ".hidden", "..two", "a../b"),
    *("a//b", "/leading", "trailing/", "//", "a/b/c/d/e", "~", "*", "|", "<b>", "a^b", "a\\b"),
    *('{"id": "1", "dequeueCount": 9}', "{name}", "{data.url}", "%UPLOAD_CONTAINER%", "[1, 2]"),
    *("null", "true", "..;/", "${jndi:x}", "' or 1 eq 1", "$logs"),
    *("x" * _LONGEST_NAME, "é" * _LONGEST_NAME, "😀" * (_LONGEST_NAME // 2), "a/" * 512),
)
_CHOSEN_FOR_RESULTS = ("a%2Fb", "#", "a?b=c&d", "new\nline", "\u202etxt.exe", "a//b", "dot.")
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f]")
_PIECES = (
    *("'", '"', "%", "%2F", "%00", "#", "?", "+", "&", "=", " ", "  ", ".", "..", "/", "//", "\n"),
    *("\t", "😀", "\u0301", "ש", "م", "\u200f", "\u202e", "é", "東", "{", "}", "[", "]", ":", ";"),
    *(",", "@", "!", "$", "^", "~", "|", "<", ">", "\\", "\u00ad", "\u2029", "a", "B", "0", "-_"),
)


def hostile_names() -> list[str]:
    """The chosen ones and as many at random, the same ones each time."""
    chance = random.Random(20261123)  # noqa: S311 - repeatable names, no secrecy
    names = set(_CHOSEN)
    while len(names) < len(_CHOSEN) + _GENERATED:
        name = "".join(chance.choices(_PIECES, k=chance.choice([2, 3, 5, 8, 13, 80, 500])))
        name = name[:_LONGEST_NAME]
        # Such names have no address: they are skipped, which test_routing proves.
        if not {".", ".."} & set(name.replace("\\", "/").split("/")):
            names.add(name)
    return sorted(names)


def content_of(name: str) -> bytes:
    """Each blob has a content of its own."""
    return f"the content of {name!r}".encode()


@pytest.fixture(scope="module")
def scene(open_scene: Callable[..., Scene]) -> Scene:
    """A scene with the app running."""
    scene = open_scene(job_seconds=0.01)
    scene.start()
    return scene


@pytest.fixture(scope="module")
def names(scene: Scene) -> list[str]:
    """Names that the emulator gives back as they were stored; their blobs are uploaded.

    Each is tried out in another container first. Characters that XML 1.0 does not have are not
    among them: one blob with such a name makes every listing of its container fail.
    """
    connection = scene.stack.azurite.connection_string(UPLOAD_ACCOUNT)
    with ContainerClient.from_connection_string(connection, "trial") as trial:
        trial.create_container()
        for name in hostile_names():
            with contextlib.suppress(HttpResponseError):
                trial.upload_blob(name, b"")
        stored = set(trial.list_blob_names())
    good = [name for name in hostile_names() if name in stored]
    assert len(good) >= 200
    for name in good:
        scene.upload(name, content_of(name))
    return good


@pytest.fixture(scope="module")
def jobs(scene: Scene, names: list[str]) -> dict[str, list[Job]]:
    """The jobs that came of them, by the path that Modzy was told."""

    def all_ended() -> list[Job]:
        jobs = scene.stack.modzy.jobs.all()
        return jobs if len(jobs) >= len(names) and all(job.is_final for job in jobs) else []

    until(all_ended, "a job for each name, and its end", seconds=90)
    scene.sweep()  # what it finds too much would come now
    by_path: dict[str, list[Job]] = {}
    for job in all_ended():
        ((place,),) = (inputs.values() for inputs in job.sources.values())
        by_path.setdefault(place["filePath"], []).append(job)
    return by_path


def test_each_name_gives_one_job_for_exactly_that_name(
    names: list[str], jobs: dict[str, list[Job]]
) -> None:
    """The ``filePath`` is the blob's name, byte for byte, and no name gives two jobs."""
    assert {path: len(found) for path, found in jobs.items()} == dict.fromkeys(names, 1)


def test_modzy_could_fetch_each_of_them(names: list[str], jobs: dict[str, list[Job]]) -> None:
    """Every job ran on the very content that was uploaded under its name."""
    digests = {path: digest_of(found[0]) for path, found in jobs.items()}
    assert digests == {name: hashlib.sha256(content_of(name)).hexdigest() for name in names}


def digest_of(job: Job) -> object:
    """What the model says about the content it got; its failure if it got none."""
    (result,) = job.results.values() or [{"sha256": f"{job.status}: {job.failures}"}]
    return result["sha256"]


def test_each_name_is_in_the_ledger_under_its_job(
    scene: Scene, names: list[str], jobs: dict[str, list[Job]]
) -> None:
    """The table has the same names and identifiers as Modzy."""
    told = {row["path"]: (row["state"], row["job_identifier"]) for row in scene.rows()}
    assert told == {name: ("SUBMITTED", jobs[name][0].identifier) for name in names}


def test_each_name_is_announced_once_by_its_name(
    scene: Scene, names: list[str], jobs: dict[str, list[Job]]
) -> None:
    """Whoever reads the queue learns the job's identifier with the unchanged name."""
    submitted = [event for event in scene.events() if event["type"] == "modzy.job.submitted"]
    told = {event["subject"]: event["data"]["job_identifier"] for event in submitted}
    assert len(submitted) == len(names)
    assert told == {name: jobs[name][0].identifier for name in names}
    assert {event["data"]["file_path"] for event in submitted} == set(names)


def test_names_can_be_asked_for_over_http(
    scene: Scene, names: list[str], jobs: dict[str, list[Job]]
) -> None:
    """A lookup by path finds a file whatever it is called; every fifth name is asked for."""
    for name in {*names[::5], *filter(_CONTROL_CHARACTER.search, names)}:
        answer = scene.call("submissions", params={"path": name})
        assert answer.ok, (name, answer.text)
        found = answer.json()
        identifiers = [one["job_identifier"] for one in found["submissions"]]
        assert (found["path"], identifiers) == (name, [jobs[name][0].identifier])


def test_results_are_kept_for_every_name(
    scene: Scene, names: list[str], jobs: dict[str, list[Job]]
) -> None:
    """results.json of the longest and the strangest names can be stored and read back."""
    for name in [*_CHOSEN_FOR_RESULTS, max(names, key=len)]:
        if name not in names:
            continue
        row = scene.finish(name)
        prefix = row["result_location"].removeprefix(f"{scene.stack.results.container_name}/")
        document = json.loads(scene.stack.results.download_blob(f"{prefix}/results.json").readall())
        assert document["jobIdentifier"] == jobs[name][0].identifier
