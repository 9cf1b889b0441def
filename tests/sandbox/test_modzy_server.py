"""The Modzy stand-in keeps the promises that other tests build on."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from azure.storage.blob import BlobServiceClient

from sandbox.modzy_model import analyse, media_type_of
from sandbox.modzy_server import JobOptions, ModzyServer, Options
from sandbox.storage import ACCOUNT_KEYS, UPLOAD_ACCOUNT, Azurite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
API_KEY = "prefix.a-secret"
CONTAINER = "uploads"
ACCOUNT_KEY = ACCOUNT_KEYS[UPLOAD_ACCOUNT]
QUICK = JobOptions(submitted_seconds=0, running_seconds=0)


class ApiSession:
    """A Modzy client that shows every answer as it is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"ApiKey {API_KEY}"

    def get(self, path: str, **query: Any) -> requests.Response:
        """Ask a route under ``/api``."""
        return self.http.get(f"{self.url}/api{path}", params=query, timeout=10)

    def submit(self, *names: str, **changes: Any) -> requests.Response:
        """Submit one input item for each blob name; the item key is the name."""
        timeout = changes.pop("client_timeout", 10)
        return self.http.post(
            f"{self.url}/api/jobs",
            json=submission(*names, **changes),
            timeout=timeout,
            allow_redirects=False,
        )

    def accepted(self, *names: str, **changes: Any) -> str:
        """Submit and return the job identifier."""
        answer = self.submit(*names, **changes)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["jobIdentifier"])

    def ended(self, job: str) -> dict[str, Any]:
        """Job details, once the status is final."""
        details: dict[str, Any] = until(
            lambda: self.get(f"/jobs/{job}").json(), lambda seen: is_final(seen["status"])
        )
        return details

    def results(self, job: str) -> dict[str, Any]:
        """Results of a job, once it has ended."""
        self.ended(job)
        content: dict[str, Any] = self.get(f"/results/{job}").json()
        return content


def submission(*names: str, **changes: Any) -> dict[str, Any]:
    """Body of a submit; ``changes`` replace values, or remove members with None."""
    place = {"container": changes.pop("container", CONTAINER)}
    input_name = changes.pop("input_name", "input")
    body = {
        "model": {"identifier": "5f1c0de7a9", "version": "1.0.0"},
        "explain": False,
        "input": {
            "type": "azureblob",
            "storageAccount": changes.pop("account", UPLOAD_ACCOUNT),
            "storageAccountKey": changes.pop("account_key", ACCOUNT_KEY),
            "sources": {name: {input_name: {**place, "filePath": name}} for name in names},
        },
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def is_final(status: str) -> bool:
    """Whether a job in this status has ended."""
    return status in {"COMPLETED", "CANCELED", "TIMEDOUT", "ERROR"}


def until(look: Callable[[], Any], is_enough: Callable[[Any], bool]) -> Any:
    """Look again and again until it is enough; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while not is_enough(seen := look()):
        assert time.monotonic() < deadline, f"still {seen!r}"
        time.sleep(0.02)
    return seen


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A storage emulator for all tests of this module."""
    with Azurite(tmp_path_factory.mktemp("azurite"), in_memory=True) as azurite:
        yield azurite


@pytest.fixture(scope="module")
def upload(storage: Azurite) -> Iterator[Callable[[str, bytes], None]]:
    """Puts a blob into the container, under exactly the given name."""
    connection = storage.connection_string(UPLOAD_ACCOUNT)
    with BlobServiceClient.from_connection_string(connection) as service:
        container = service.create_container(CONTAINER)

        def put(name: str, content: bytes) -> None:
            container.upload_blob(name, content, overwrite=True).close()

        yield put


@pytest.fixture
def server(storage: Azurite, upload: object) -> Iterator[ModzyServer]:
    """A stand-in whose jobs take no longer than they need."""
    endpoints = {UPLOAD_ACCOUNT: storage.endpoint("Blob", UPLOAD_ACCOUNT)}
    with ModzyServer(endpoints, [API_KEY], job_options=QUICK) as modzy:
        yield modzy


@pytest.fixture
def api(server: ModzyServer) -> Iterator[ApiSession]:
    """A client of the server."""
    session = ApiSession(server.url)
    with session.http:
        yield session


def test_text_is_really_read(upload: Callable[[str, bytes], None], api: ApiSession) -> None:
    """The results follow from the content of the blob, not from its name."""
    content = b"What a wonderful day. The weather is great, only the coffee was bad."
    upload("notes.bin", content)
    results = api.results(api.accepted("notes.bin", explain=True))
    entry = results["results"]["notes.bin"]
    found = entry["results.json"]
    assert (found["kind"], found["size"]) == ("text", len(content))
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["wordCount"] == 13
    assert found["sentiment"]["label"] == "positive"
    assert (found["sentiment"]["positive"], found["sentiment"]["negative"]) == (2, 1)
    assert entry["explanation.json"]["evidence"] == {"wonderful": 1, "great": 1, "bad": 1}
    assert entry["status"] == "SUCCESSFUL"
    assert (results["finished"], results["failures"]) == (True, {})


@pytest.mark.parametrize(
    "name",
    [
        "plain.txt",
        "a b+c%20d&e=f.txt",
        "folder//twice/slashed.txt",
        "gr\u00fc\u00dfe/\u65e5\u672c\u8a9e \U0001f600.txt",
        "question?and#fragment.txt",
        "e\u0301 decomposed.txt",
    ],
)
def test_file_path_is_the_blob_name(
    name: str, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """The filePath names the blob byte for byte: it is neither decoded nor normalised."""
    content = name.encode()
    upload(name, content)
    results = api.results(api.accepted(name))["results"]
    assert results[name]["results.json"]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"account_key": "bm90IHRoZSBrZXk="}, "AuthorizationFailure"),
        ({"account_key": "not base64!"}, "could not be read"),
        ({"account": "elsewhere"}, "elsewhere cannot be reached"),
        ({"container": "nosuchcontainer"}, "not found"),
        ({"input_name": "image"}, "unknown input 'image'"),
    ],
)
def test_input_that_cannot_be_used_fails(
    changes: dict[str, str],
    reason: str,
    upload: Callable[[str, bytes], None],
    api: ApiSession,
) -> None:
    """The job is accepted and COMPLETED; its input fails for a reason that names no key."""
    upload("there.txt", b"content")
    job = api.accepted("there.txt", **changes)
    results = api.results(job)
    failure = results["failures"]["there.txt"]
    assert failure["status"] == "FAILED"
    assert reason in failure["error"]
    assert changes.get("account_key", ACCOUNT_KEY) not in str(results)
    details = api.ended(job)
    assert (details["status"], details["failed"], details["total"]) == ("COMPLETED", 1, 1)


def test_missing_blob_fails_alone(upload: Callable[[str, bytes], None], api: ApiSession) -> None:
    """One input that fails leaves the others of the job alone."""
    upload("present.txt", b"here")
    results = api.results(api.accepted("present.txt", "absent.txt"))
    assert list(results["results"]) == ["present.txt"]
    assert "not found" in results["failures"]["absent.txt"]["error"]


def test_keys_are_checked_and_can_be_rotated(server: ModzyServer, api: ApiSession) -> None:
    """Only valid keys get in, and the set of valid keys changes while the server runs."""
    assert api.get("/models").status_code == 200
    server.set_api_keys(["second.key"])
    refused = api.get("/models")
    assert refused.status_code == 401
    assert refused.json()["statusCode"] == 401
    api.http.headers["Authorization"] = "ApiKey second.key"
    assert api.get("/jobs/history").json() == []
    del api.http.headers["Authorization"]
    assert api.get("/models").status_code == 401


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"model": {"identifier": "ffffffffff", "version": "1.0.0"}}, 404),
        ({"model": {"identifier": "ed542963de", "version": "9.9.9"}}, 404),
        ({"model": {"identifier": "ed542963de"}}, 400),
        ({"model": None}, 400),
        ({"input": None}, 400),
        ({"input": {"type": "azureblob", "storageAccount": "a", "storageAccountKey": "b"}}, 400),
        ({"account_key": ""}, 400),
        ({"timeout": "soon"}, 400),
        ({"timeout": -1}, 400),
    ],
)
def test_bad_submission_makes_no_job(
    changes: dict[str, Any], status: int, server: ModzyServer, api: ApiSession
) -> None:
    """What is missing or unknown is refused with Modzy's error members, and nothing starts."""
    answer = api.submit("any.txt", **changes)
    assert answer.status_code == status
    assert {"statusCode", "status", "message", "reportErrorUrl"} <= set(answer.json())
    assert server.jobs_by_item() == {}


def test_submission_without_items_is_refused(api: ApiSession) -> None:
    """A job has at least one input item."""
    assert api.submit().status_code == 400


def test_model_versions_name_their_inputs(api: ApiSession) -> None:
    """A caller can look up the input name, and there is a version where that is ambiguous."""
    one = api.get("/models/ed542963de/versions/1.0.1").json()["inputs"]
    assert [known["name"] for known in one] == ["input.txt"]
    two = api.get("/models/2b9a6e04d1/versions/2.1.0").json()["inputs"]
    assert [known["name"] for known in two] == ["document.txt", "image"]
    assert api.get("/models/ed542963de/versions/0.0.28").status_code == 404
    assert api.get("/models/requirements/account").json() == []


def test_job_goes_through_its_states(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """SUBMITTED, IN_PROGRESS, COMPLETED, in this order; results are a 404 at first."""
    upload("a.txt", b"a")
    server.set_options(submitted_seconds=0.3, running_seconds=0.3)
    answer = api.submit("a.txt").json()
    job = answer["jobIdentifier"]
    assert answer["status"] == "SUBMITTED"
    assert answer["jobInputs"] == {"identifier": ["a.txt"]}
    assert api.get(f"/results/{job}").status_code == 404
    seen: list[str] = []

    def look() -> list[str]:
        status = api.get(f"/jobs/{job}").json()["status"]
        if status not in seen:
            seen.append(status)
        return seen

    until(look, lambda statuses: is_final(statuses[-1]))
    assert seen == ["SUBMITTED", "IN_PROGRESS", "COMPLETED"]
    details = api.ended(job)
    assert details["jobInputs"] == [{"identifier": "a.txt"}]
    assert (details["completed"], details["failed"], details["pending"]) == (1, 0, 0)


def test_timeout_is_kept(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """A job that takes longer than its timeout is TIMEDOUT and has no results."""
    upload("a.txt", b"a")
    server.set_options(running_seconds=60)
    job = api.accepted("a.txt", timeout=100)
    assert api.ended(job)["status"] == "TIMEDOUT"
    results = api.results(job)
    assert (results["finished"], results["results"]) == (True, {})


def test_cancel_ends_a_job_once(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """A running job can be canceled; one that has ended stays what it was."""
    upload("a.txt", b"a")
    done = api.accepted("a.txt")
    assert api.ended(done)["status"] == "COMPLETED"
    server.set_options(running_seconds=60)
    running = api.accepted("a.txt")
    for job, status in ((running, "CANCELED"), (done, "COMPLETED")):
        answer = api.http.delete(f"{api.url}/api/jobs/{job}", timeout=10)
        assert answer.json()["status"] == status


def test_history_filters(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """Status, model, key, user and creation date each narrow the history."""
    upload("a.txt", b"a")
    server.set_api_keys([API_KEY, "other.key"])
    done = api.accepted("a.txt")
    api.ended(done)
    between = datetime.now(UTC)
    server.set_options(running_seconds=60)
    api.http.headers["Authorization"] = "ApiKey other.key"
    model = {"identifier": "ed542963de", "version": "1.0.1"}
    running = api.accepted("a.txt", model=model, input_name="input.txt")

    def listed(**query: str) -> list[str]:
        answer = api.get("/jobs/history", **query)
        assert answer.status_code == 200, answer.text
        return [job["jobIdentifier"] for job in answer.json()]

    assert listed() == [running, done]
    assert listed(direction="ASC", **{"sort-by": "createdAt"}) == [done, running]
    assert listed(status="terminated") == [done]
    assert listed(status="PENDING") == [running]
    assert listed(status="COMPLETED") == [done]
    assert listed(model="ed542963de") == [running]
    assert listed(model="Sentiment Analysis") == [running]
    assert listed(accessKey="prefix") == [done]
    assert listed(user="nobody@sandbox.invalid") == []
    assert listed(startDate=between.isoformat()) == [running]
    assert listed(endDate=between.strftime("%Y-%m-%dT%H:%M:%S.%f+0000")) == [done]
    assert listed(endDate=(between - timedelta(hours=1)).isoformat()) == []
    for query in ({"status": "DONE"}, {"startDate": "today"}, {"sort-by": "x"}, {"page": "one"}):
        assert api.get("/jobs/history", **query).status_code == 400


@pytest.mark.parametrize("base", [0, 1])
def test_history_pages(base: int, server: ModzyServer, api: ApiSession) -> None:
    """Pages from either base cover the history once, and the Link header leads through them."""
    server.set_options(page_base=base, max_per_page=3, default_per_page=2)
    accepted = [api.accepted(f"{number}.txt") for number in range(7)]
    assert len(api.get("/jobs/history").json()) == 2
    seen: list[str] = []
    answer = api.get("/jobs/history", page=base, direction="ASC", **{"per-page": 100})
    while True:
        seen += [job["jobIdentifier"] for job in answer.json()]
        if "next" not in answer.links:
            break
        answer = api.http.get(answer.links["next"]["url"], timeout=10)
    assert seen == accepted
    server.set_options(link_header="always")
    beyond = api.get("/jobs/history", page=base + 9)
    assert (beyond.json(), "next" in beyond.links) == ([], True)


@pytest.mark.parametrize(
    "action",
    [
        {"do": "cut_after"},
        {"do": "cut_after", "reset": True},
        {"do": "lose_answer", "seconds": 0.05},
        {"do": "hang", "seconds": 0.05, "processed": True},
    ],
    ids=str,
)
def test_accepted_without_an_answer(
    action: dict[str, Any], server: ModzyServer, api: ApiSession
) -> None:
    """The caller hears nothing, yet there is exactly one job."""
    rule = server.misbehave(action)
    with pytest.raises(requests.ConnectionError):
        api.submit("a.txt")
    assert rule.fired == 1
    (jobs,) = server.jobs_by_item().values()
    assert len(jobs) == 1
    assert [job["jobIdentifier"] for job in api.get("/jobs/history").json()] == jobs


@pytest.mark.parametrize(
    "action",
    [{"do": "cut_before"}, {"do": "cut_before", "reset": True}, {"do": "hang", "seconds": 0.05}],
    ids=str,
)
def test_cut_before_anything_happened(
    action: dict[str, Any], server: ModzyServer, api: ApiSession
) -> None:
    """The caller hears nothing, and there is no job; the next submit is answered."""
    server.misbehave(action)
    with pytest.raises(requests.ConnectionError):
        api.submit("a.txt")
    assert server.jobs_by_item() == {}
    assert api.submit("a.txt").status_code == 200


def test_hanging_request_times_out_and_is_released(server: ModzyServer, api: ApiSession) -> None:
    """A request hangs until the client gives up; a release ends it on the server, too."""
    server.misbehave({"do": "hang"})
    with pytest.raises(requests.ReadTimeout):
        api.submit("a.txt", client_timeout=0.2)
    server.misbehave({"do": "hang"})
    outcomes: list[BaseException] = []

    def hang() -> None:
        try:
            requests.post(f"{server.url}/api/jobs", json={}, timeout=10)
        except requests.ConnectionError as error:
            outcomes.append(error)

    caller = threading.Thread(target=hang)
    caller.start()
    until(lambda: len(server.requests), lambda count: count == 2)
    until(lambda: server.requests[1].outcome, lambda outcome: outcome == "hang")

    def released() -> list[BaseException]:
        server.service.release()
        return outcomes

    until(released, lambda ended: len(ended) == 1)
    caller.join(timeout=10)


@pytest.mark.parametrize(
    ("action", "status", "jobs"),
    [
        ({"do": "status", "status": 429, "headers": {"Retry-After": "7"}}, 429, 0),
        ({"do": "status", "status": 503, "body": ""}, 503, 0),
        ({"do": "accept_then_status", "status": 502, "body": "<html>Bad</html>"}, 502, 1),
        ({"do": "garbage", "body": "<html>"}, 200, 1),
        ({"do": "garbage", "body": {"status": "SUBMITTED"}, "status": 202}, 202, 1),
        ({"do": "garbage", "body": "", "processed": False}, 200, 0),
        ({"do": "redirect", "location": "http://127.0.0.1:9/"}, 307, 0),
        ({"do": "delay", "before": 0.01, "after": 0.01}, 200, 1),
        ({"do": "trickle", "interval": 0.0001}, 200, 1),
    ],
    ids=str,
)
def test_ordered_answer(
    action: dict[str, Any], status: int, jobs: int, server: ModzyServer, api: ApiSession
) -> None:
    """The answer is the one that was ordered, and whether a job exists is as documented."""
    server.misbehave(action)
    answer = api.submit("a.txt")
    assert answer.status_code == status
    assert len(server.jobs_by_item()) == jobs
    for name, value in action.get("headers", {}).items():
        assert answer.headers[name] == value
    body = action.get("body")
    if isinstance(body, dict):
        assert answer.json() == body
    elif body is not None:
        assert answer.text == body
    elif status == 200:
        assert answer.json()["jobIdentifier"] in server.jobs_by_item()["a.txt"]
    if "location" in action:
        assert answer.headers["Location"] == action["location"]


def test_rules_choose_their_requests(server: ModzyServer, api: ApiSession) -> None:
    """`after`, `count`, method and path say which requests a rule applies to."""
    server.misbehave({"do": "status", "status": 500}, after=1, count=2)
    statuses = [api.submit("a.txt").status_code for _ in range(5)]
    assert statuses == [200, 500, 500, 200, 200]
    server.misbehave({"do": "status", "status": 404}, method="GET", path_regex="^/api/models")
    assert api.get("/jobs/history").status_code == 200
    assert api.get("/models").status_code == 404


def test_probability_repeats_with_its_seed(server: ModzyServer, api: ApiSession) -> None:
    """A rule with a probability makes the same choices again when its seed is the same."""

    def round_of_requests() -> list[int]:
        server.service.rules.replace([])
        server.misbehave(
            {"do": "status", "status": 500},
            method="GET",
            path_regex="",
            count=None,
            probability=0.5,
            seed=4,
        )
        return [api.get("/models").status_code for _ in range(20)]

    first = round_of_requests()
    assert set(first) == {200, 500}
    assert round_of_requests() == first


def test_late_history(server: ModzyServer, api: ApiSession) -> None:
    """With a history lag a job is known by its identifier before the history shows it."""
    server.misbehave({"do": "job", "options": {"history_lag": 0.5}})
    job = api.accepted("a.txt")
    assert api.get("/jobs/history").json() == []
    assert api.get(f"/jobs/{job}").status_code == 200
    until(lambda: api.get("/jobs/history").json(), bool)


def test_late_results(server: ModzyServer, api: ApiSession) -> None:
    """Results can stay a 404 for a while after the job has ended."""
    server.misbehave({"do": "job", "options": {"results_late": 0.5}})
    job = api.accepted("a.txt")
    api.ended(job)
    assert api.get(f"/results/{job}").status_code == 404
    until(lambda: api.get(f"/results/{job}").status_code, lambda status: status == 200)


@pytest.mark.parametrize("outcome", ["CANCELED", "TIMEDOUT", "ERROR"])
def test_forced_outcome(outcome: str, server: ModzyServer, api: ApiSession) -> None:
    """A rule decides how the next job ends, and only the next."""
    server.misbehave({"do": "job", "options": {"outcome": outcome}})
    assert api.ended(api.accepted("a.txt"))["status"] == outcome
    assert api.ended(api.accepted("a.txt"))["status"] == "COMPLETED"


def test_vanished_job(server: ModzyServer, api: ApiSession) -> None:
    """A vanished job is unknown everywhere, yet stays in the evidence."""
    server.misbehave({"do": "job", "options": {"outcome": "VANISHED"}})
    job = api.accepted("a.txt")
    until(lambda: api.get(f"/jobs/{job}").status_code, lambda status: status == 404)
    assert api.get(f"/results/{job}").status_code == 404
    assert api.get("/jobs/history").json() == []
    assert server.jobs_by_item() == {"a.txt": [job]}


def test_partial_failure(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """Some inputs of a job can be made to fail."""
    upload("a.txt", b"a")
    upload("b.txt", b"b")
    server.set_options(failing_inputs=1)
    details = api.ended(api.accepted("a.txt", "b.txt"))
    assert (details["completed"], details["failed"], details["total"]) == (1, 1, 2)


def test_binary_result_is_a_link(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """A binary result is a URL, fetched with the same key; item keys are escaped in it."""
    name = "dir/a b#1.txt"
    upload(name, b"content")
    server.set_options(binary_result=70, link_newline=True)
    link = api.results(api.accepted(name))["results"][name]["digest.bin"]
    assert link.endswith(f"/{quote(name, safe='')}/digest.bin\n")
    fetched = api.http.get(link.strip(), timeout=10)
    digest = hashlib.sha256(b"content").digest()
    assert fetched.content == (digest * 3)[:70]
    assert requests.get(link.strip(), timeout=10).status_code == 401
    server.set_options(link_base="http://127.0.0.1:9", link_newline=False)
    foreign = api.results(api.accepted(name))["results"][name]["digest.bin"]
    assert foreign.startswith("http://127.0.0.1:9/api/results/")
    assert not foreign.endswith("\n")


def test_old_and_odd_shapes(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """Every documented shape of an answer can be had."""
    upload("a.txt", b"a")
    server.set_options(
        double_nesting=True,
        submit_items="names",
        detail_items="object",
        big_result=100_000,
        submit_status=202,
        compact_offsets=True,
    )
    answer = api.submit("a.txt")
    assert (answer.status_code, answer.json()["jobInputs"]) == (202, ["a.txt"])
    job = answer.json()["jobIdentifier"]
    details = api.ended(job)
    assert details["jobInputs"] == {"identifier": ["a.txt"]}
    assert details["createdAt"].endswith("+0000")
    nested = api.results(job)["results"]["a.txt"]["a.txt"]
    assert len(nested["results.json"]["padding"]) == 100_000
    server.set_options(submit_minimal=True, detail_items="absent")
    minimal = api.submit("a.txt").json()
    assert list(minimal) == ["jobIdentifier"]
    assert "jobInputs" not in api.get(f"/jobs/{minimal['jobIdentifier']}").json()


def test_unknown_option_is_refused(server: ModzyServer, api: ApiSession) -> None:
    """A misspelled rule or option is an error, not a fault that never happens."""
    with pytest.raises(ValueError, match="unknown action"):
        server.misbehave({"do": "explode"})
    with pytest.raises(TypeError):
        server.set_options(histroy_lag=1)
    with pytest.raises(TypeError):
        server.misbehave({"do": "job", "options": {"histroy_lag": 1}})
    with pytest.raises(ValueError, match="outcome"):
        server.set_options(outcome="DONE")
    bad_rules: list[Any] = [
        {"action": {"do": "status", "code": 500}},
        {"action": 1},
        {"do": "hang"},
        {"action": {"do": "job", "options": {"outcome": "DONE"}}},
        {"action": {"do": "hang"}, "count": "once"},
    ]
    for rule in bad_rules:
        answer = api.http.put(f"{server.url}/_sandbox/rules", json=[rule], timeout=10)
        assert answer.status_code == 400


def test_journal_keeps_jobs_over_a_restart(
    storage: Azurite, upload: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    """Jobs and results outlive the process; the account key never reaches the file."""
    upload("a.txt", b"a")
    journal = tmp_path / "jobs.jsonl"
    endpoints = {UPLOAD_ACCOUNT: storage.endpoint("Blob", UPLOAD_ACCOUNT)}
    with ModzyServer(endpoints, [API_KEY], journal=journal, job_options=QUICK) as server:
        api = ApiSession(server.url)
        with api.http:
            done = api.accepted("a.txt")
            before = api.results(done)
            server.set_options(running_seconds=60)
            running = api.accepted("a.txt")
            port = server.service.port
    assert ACCOUNT_KEY not in journal.read_text()
    with ModzyServer(endpoints, [API_KEY], journal=journal, port=port) as server:
        api = ApiSession(server.url)
        with api.http:
            assert api.results(done) == before
            assert api.ended(running)["status"] == "ERROR"
            assert server.jobs_by_item() == {"a.txt": [done, running]}


def test_outage_in_process(
    server: ModzyServer, upload: Callable[[str, bytes], None], api: ApiSession
) -> None:
    """A stopped server refuses connections; started again it has its port, jobs and rules."""
    upload("a.txt", b"a")
    server.set_options(submitted_seconds=0.2)
    url, job = server.url, api.accepted("a.txt")
    server.misbehave({"do": "status", "status": 503})
    server.stop()
    with pytest.raises(requests.ConnectionError):
        api.get(f"/jobs/{job}")
    server.start()
    assert server.url == url
    assert api.submit("a.txt").status_code == 503
    assert api.ended(job)["completed"] == 1


def test_evidence_holds_no_secret(
    server: ModzyServer, api: ApiSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are recorded and logged without API key and account key."""
    caplog.set_level("DEBUG", logger="sandbox")
    api.accepted("a.txt")
    (record,) = server.requests
    assert (record.method, record.target, record.outcome) == ("POST", "/api/jobs", "200")
    assert record.body["input"]["sources"] == {
        "a.txt": {"input": {"container": CONTAINER, "filePath": "a.txt"}}
    }
    shown = requests.get(f"{server.url}/_sandbox/requests", timeout=10).text
    shown += requests.get(f"{server.url}/_sandbox/jobs", timeout=10).text
    shown += repr(server.requests) + repr(server.jobs.all()) + caplog.text
    assert "POST /api/jobs 200" in caplog.text
    assert ACCOUNT_KEY not in shown
    assert API_KEY not in shown


def test_one_connection_serves_many_requests(server: ModzyServer) -> None:
    """Connections are kept alive, so a pooled client pays for one."""
    connection = http.client.HTTPConnection(server.service.authority, timeout=10)
    with closing(connection):
        connection.connect()
        connection.auto_open = 0  # from here on a closed connection is an error
        for _ in range(5):
            connection.request("GET", "/api/models", headers={"Authorization": f"ApiKey {API_KEY}"})
            with connection.getresponse() as answer:
                assert (answer.status, answer.read()[:1]) == (200, b"[")


def test_many_submissions_at_once(server: ModzyServer) -> None:
    """Concurrent submissions each get their own job."""

    def submit(number: int) -> None:
        api = ApiSession(server.url)
        with api.http:
            api.accepted(f"{number}.txt")

    callers = [threading.Thread(target=submit, args=(number,)) for number in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=20)
    jobs = server.jobs_by_item()
    assert set(jobs) == {f"{number}.txt" for number in range(20)}
    assert all(len(identifiers) == 1 for identifiers in jobs.values())


def test_process_is_steered_and_ends_cleanly(
    storage: Azurite, upload: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    """The command prints its URL, obeys the admin routes and ends with 0 on SIGTERM."""
    upload("a.txt", b"a")
    log = tmp_path / "modzy.log"
    arguments = ["--blob-endpoint", storage.endpoint("Blob", UPLOAD_ACCOUNT), "--log", str(log)]
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox.modzy_server", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"SANDBOX_MODZY_API_KEYS": API_KEY},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        api = ApiSession(process.stdout.readline().strip())
        with api.http:
            admin = f"{api.url}/_sandbox"
            rule = {
                "match": {"method": "POST", "path_regex": "^/api/jobs$"},
                "count": 1,
                "action": {"do": "cut_after"},
            }
            assert api.http.put(f"{admin}/rules", json=[rule], timeout=10).status_code == 200
            with pytest.raises(requests.ConnectionError):
                api.submit("a.txt")
            (job,) = api.http.get(f"{admin}/jobs", timeout=10).json()
            assert job["itemKeys"] == ["a.txt"]
            assert api.ended(job["jobIdentifier"])["completed"] == 1
            (fired,) = api.http.get(f"{admin}/rules", timeout=10).json()
            assert fired["fired"] == 1
            options = api.http.post(f"{admin}/options", json={"page_base": 0}, timeout=10)
            assert options.json()["page_base"] == 0
            api.http.post(f"{admin}/keys", json={"keys": ["new.key"]}, timeout=10)
            assert api.get("/models").status_code == 401
            api.http.post(f"{admin}/reset", timeout=10)
            assert api.http.get(f"{admin}/jobs", timeout=10).json() == []
            assert api.http.get(f"{admin}/options", timeout=10).json()["page_base"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    text = log.read_text()
    assert "POST /api/jobs cut_after" in text
    assert API_KEY not in text
    assert ACCOUNT_KEY not in text


def png(width: int, height: int) -> bytes:
    """The start of a PNG file of this size in pixels."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + b"IHDR" + header


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(640, 480), {"mediaType": "image/png", "width": 640, "height": 480}),
        (b"%PDF-1.7\n\xe2\xe3", {"mediaType": "application/pdf", "pdfVersion": "1.7"}),
        (b"%PDF-1.4\nall ascii", {"mediaType": "application/pdf", "pdfVersion": "1.4"}),
        (b"\x00\x01\x02", {"kind": "binary", "mediaType": "application/octet-stream"}),
        (b"caf\xc3", {"kind": "binary"}),
        ("caf\u00e9".encode(), {"kind": "text", "wordCount": 1}),
        (b"", {"kind": "text", "size": 0, "wordCount": 0}),
    ],
)
def test_model_judges_content(content: bytes, expected: dict[str, Any]) -> None:
    """Kind, media type and details come from the bytes alone, however they are cut up."""
    findings = analyse([content[:1], content[1:5], content[5:]])
    assert expected.items() <= findings.items()
    assert findings["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("start", "media_type"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"PK\x03\x04", "application/zip"),
        (b"RIFF\x00\x00\x00\x00WAVE", "audio/wav"),
        (b"RIFF\x00\x00\x00\x00none", "application/octet-stream"),
        (b"\x00\x00\x00\x18ftypmp42", "video/mp4"),
    ],
)
def test_media_type_by_leading_bytes(start: bytes, media_type: str) -> None:
    """Common formats are told by their first bytes."""
    assert media_type_of(start) == media_type


def test_model_does_not_hold_its_input() -> None:
    """Memory does not grow with the content: 64 MiB pass through in a few."""
    chunk = b"good and bad days \n" * 50_000
    tracemalloc.start()
    try:
        findings = analyse(chunk for _ in range(70))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert findings["size"] == 70 * len(chunk)
    assert peak < 24 * 1024 * 1024


def test_options_are_checked() -> None:
    """A shape that does not exist is refused when the options are made."""
    with pytest.raises(ValueError, match="jobInputs"):
        JobOptions(submit_items="tuple")
    with pytest.raises(ValueError, match="link_header"):
        Options(link_header="sometimes")
