"""The local Functions host, as a child process against a real emulator.

Each test has names of its own (containers, queues, host id), so that all share one emulator.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import requests
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient, TextBase64EncodePolicy

from sandbox.host import FunctionsHost
from sandbox.storage import HOST_ACCOUNT, UPLOAD_ACCOUNT, Azurite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from azure.storage.blob import ContainerClient

Found = TypeVar("Found")

APPS = Path(__file__).parent / "apps"
DEADLINE_SECONDS = 20


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One emulator for the tests of a process."""
    with Azurite(tmp_path_factory.mktemp("azurite"), in_memory=True) as emulator:
        yield emulator


@dataclass
class Bench:
    """Storage clients, names that no other test uses, and hosts that are stopped at the end."""

    folder: Path
    settings: dict[str, str]
    host_id: str
    host_blobs: BlobServiceClient
    host_queues: QueueServiceClient
    upload_blobs: BlobServiceClient
    upload_queues: QueueServiceClient
    hosts: contextlib.ExitStack
    started: list[FunctionsHost] = field(default_factory=list)

    @property
    def container(self) -> str:
        """The watched container."""
        return self.settings["WATCHED"]

    def host(self, app: str, options: Sequence[str] = (), **settings: str) -> FunctionsHost:
        """Make a host of one of the sample apps; does not start it."""
        log = self.folder / f"host-{len(self.started)}.log"
        defaults = ["--host-id", self.host_id, "--scan-interval", "0.2"]
        host = FunctionsHost(APPS / app, {**self.settings, **settings}, log, [*defaults, *options])
        self.started.append(host)
        self.hosts.callback(host.stop)
        return host

    def run(self, app: str, options: Sequence[str] = (), **settings: str) -> FunctionsHost:
        """Start a host of one of the sample apps and wait until it is ready."""
        host = self.host(app, options, **settings)
        host.start()
        host.wait_ready()
        return host

    def upload(self, name: str, content: bytes = b"content") -> datetime:
        """Put a blob into the watched container; returns when it was last modified."""
        blob = self.upload_blobs.get_blob_client(self.container, name)
        blob.upload_blob(content, overwrite=True)
        return blob.get_blob_properties().last_modified

    def wait_for_next_second(self) -> None:
        """Wait until storage's clock, which counts whole seconds, has just moved."""
        clock = self.internal_container().get_blob_client(f"clock-{self.host_id}")

        def now() -> datetime:
            clock.upload_blob(b"", overwrite=True)
            return clock.get_blob_properties().last_modified

        start = now()
        until(now, lambda moment: moment != start)

    def wait_seen(self, name: str) -> list[str]:
        """Wait until the app has reported a blob; returns the names of all it has reported."""
        reports = until(
            self.reports_now, lambda found: any(report["blob"] == name for report in found)
        )
        return [report["blob"] for report in reports]

    def send(self, content: dict[str, Any]) -> None:
        """Send a message to the work queue, as the SDK's users have to."""
        self.send_text(base64.b64encode(json.dumps(content).encode()).decode())

    def send_text(self, text: str) -> None:
        """Send a message to the work queue as it is."""
        with self.host_queues.get_queue_client(self.settings["WORK"]) as queue:
            queue.send_message(text)

    def internal_container(self) -> ContainerClient:
        """The container of the host's own blobs, made if no host has made it yet."""
        container = self.host_blobs.get_container_client("azure-webjobs-hosts")
        with contextlib.suppress(ResourceExistsError):
            container.create_container()
        return container

    def reports(self, count: int) -> list[dict[str, Any]]:
        """Wait for that many reports of the app."""
        return until(self.reports_now, lambda found: len(found) >= count)

    def reports_now(self) -> list[dict[str, Any]]:
        """The reports that are there, in the order sent."""
        return [
            json.loads(base64.b64decode(text))
            for text in peek(self.host_queues, self.settings["REPORTS"])
        ]


@pytest.fixture
def bench(azurite: Azurite, tmp_path: Path) -> Iterator[Bench]:
    """A bench of its own for one test."""
    unique = uuid.uuid4().hex[:12]
    settings = {
        "AzureWebJobsStorage": azurite.connection_string(HOST_ACCOUNT),
        "UploadStorage": azurite.connection_string(UPLOAD_ACCOUNT),
        "WATCHED": f"watched-{unique}",
        "WORK": f"work-{unique}",
        "REPORTS": f"reports-{unique}",
    }
    with contextlib.ExitStack() as stack:
        bench = Bench(
            tmp_path,
            settings,
            f"test{unique}",
            stack.enter_context(
                BlobServiceClient.from_connection_string(settings["AzureWebJobsStorage"])
            ),
            stack.enter_context(
                QueueServiceClient.from_connection_string(settings["AzureWebJobsStorage"])
            ),
            stack.enter_context(
                BlobServiceClient.from_connection_string(settings["UploadStorage"])
            ),
            stack.enter_context(
                QueueServiceClient.from_connection_string(settings["UploadStorage"])
            ),
            stack.enter_context(contextlib.ExitStack()),
        )
        bench.upload_blobs.create_container(bench.container)
        bench.host_queues.create_queue(settings["WORK"])
        bench.host_queues.create_queue(settings["REPORTS"])
        yield bench


def until(look: Callable[[], Found], satisfied: Callable[[Found], object]) -> Found:
    """Look again until satisfied; fails with the latest find when the deadline passes."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = look()
        if satisfied(found):
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain; the latest find is {found!r}")
        time.sleep(0.05)


def peek(service: QueueServiceClient, name: str) -> list[str]:
    """The bodies of a queue's visible messages, none for a missing queue."""
    with service.get_queue_client(name) as queue:
        try:
            return [message.content for message in queue.peek_messages(max_messages=32)]
        except ResourceNotFoundError:
            return []


def is_empty(service: QueueServiceClient, name: str) -> bool:
    """Whether a queue has no message, hidden ones counted."""
    with service.get_queue_client(name) as queue:
        return queue.get_queue_properties().approximate_message_count == 0


def post_event(
    host: FunctionsHost, url: str, *, event_type: str | None, function: str, key: str | None
) -> int:
    """Post a blob event to the webhook as Event Grid does; returns the status."""
    headers = {"aeg-event-type": event_type} if event_type else {}
    if key:
        headers["x-functions-key"] = key
    event = {"eventType": "Microsoft.Storage.BlobCreated", "data": {"url": url, "eTag": "0x1"}}
    return requests.post(
        f"{host.url}/runtime/webhooks/blobs",
        params={"functionName": function},
        headers=headers,
        json=[event],
        timeout=DEADLINE_SECONDS,
    ).status_code


class TestBlobScan:
    """The scan source."""

    def test_matching_blobs_run_once_and_others_never(self, bench: Bench) -> None:
        """The pattern is anchored, case-sensitive, crosses slashes; receipts survive a restart."""
        for name in ("in/one.dat", "in/deep/er.dat", "in/one.DAT", "other/one.dat"):
            bench.upload(name)
        host = bench.run("blob")
        assert {report["blob"] for report in bench.reports(2)} == {"in/one.dat", "in/deep/er.dat"}
        host.kill()
        host.start()
        host.wait_ready()
        bench.upload("in/two.dat")  # comes after everything that the restart could repeat
        names = sorted(report["blob"] for report in bench.reports(3))
        assert names == ["in/deep/er.dat", "in/one.dat", "in/two.dat"]

    def test_overwritten_blob_runs_again(self, bench: Bench) -> None:
        """A new version is a new run, also within one second."""
        bench.run("blob")
        bench.upload("in/a.dat", b"1")
        bench.reports(1)
        bench.upload("in/a.dat", b"22")
        assert [report["size"] for report in bench.reports(2)] == [1, 2]

    def test_strict_rule_loses_a_blob_of_the_same_second(self, bench: Bench) -> None:
        """On request the host has the real one's fault, so that an app can be tested against it."""
        bench.run("blob", ["--strict-last-modified", "--scan-interval", "0.05"])
        for attempt in range(20):
            bench.wait_for_next_second()  # so that two blobs have a chance to share one
            early = bench.upload(f"in/early-{attempt}.dat")
            bench.wait_seen(f"in/early-{attempt}.dat")
            lost = f"in/late-{attempt}.dat"
            if bench.upload(lost) == early:
                break
        else:
            pytest.fail("this machine never put two blobs into one second")
        bench.wait_for_next_second()
        bench.upload("in/next.dat")
        assert lost not in bench.wait_seen("in/next.dat")

    def test_failing_blob_is_poison_after_five_attempts(self, bench: Bench) -> None:
        """Five runs, then the message is in the watched account's poison queue."""
        bench.run("blob")
        bench.upload("in/bad.dat")
        poison = until(
            lambda: [
                message
                for message in peek(bench.upload_queues, "webjobs-blobtrigger-poison")
                if bench.container in base64.b64decode(message).decode()
            ],
            len,
        )
        content = json.loads(base64.b64decode(poison[0]))
        assert content["FunctionId"] == "Host.Functions.report"
        assert (content["ContainerName"], content["BlobName"]) == (bench.container, "in/bad.dat")
        assert len(bench.reports_now()) == 5

    def test_message_of_an_older_version_hands_the_blob_back(self, bench: Bench) -> None:
        """An ETag that no longer fits drops the message; the current version is discovered."""
        bench.upload("in/a.dat")
        # Holding the scanner's lock: only the hand-back can discover the blob.
        lock = bench.internal_container().get_blob_client(
            f"locks/{bench.host_id}/WebJobs.Internal.Blobs"
        )
        lock.upload_blob(b"")
        lock.acquire_lease(-1)
        with bench.host_queues.get_queue_client(
            f"azure-webjobs-blobtrigger-{bench.host_id}",
            message_encode_policy=TextBase64EncodePolicy(),
        ) as queue:
            queue.create_queue()
            message = {
                "Type": "BlobTrigger",
                "FunctionId": "Host.Functions.report",
                "BlobType": "BlockBlob",
                "ContainerName": bench.container,
                "BlobName": "in/a.dat",
                "ETag": '"0x1"',
            }
            queue.send_message(json.dumps(message))
            queue.send_message(json.dumps({**message, "BlobName": "in/gone.dat"}))
            bench.run("blob")
            bench.reports(1)
            until(lambda: is_empty(bench.host_queues, queue.queue_name), bool)
        assert [report["blob"] for report in bench.reports_now()] == ["in/a.dat"]
        # A receipt shows that it was discovered anew and not run for the stale message.
        receipts = bench.internal_container().list_blob_names(
            name_starts_with=f"blobreceipts/{bench.host_id}/"
        )
        assert len(list(receipts)) == 1

    def test_two_hosts_share_the_work(self, bench: Bench) -> None:
        """Two hosts with one id run each blob once, and the second takes over when one dies."""
        first = bench.run("blob")
        bench.run("blob")
        for number in range(8):
            bench.upload(f"in/{number}.dat")
        bench.reports(8)
        first.kill()
        bench.upload("in/last.dat")
        names = sorted(report["blob"] for report in bench.reports(9))
        assert names == [*(f"in/{number}.dat" for number in range(8)), "in/last.dat"]


class TestBlobEvents:
    """The Event Grid source."""

    def test_webhook_obeys_the_event_type_header(self, bench: Bench) -> None:
        """Handshake, notification, absent and unknown types; a wrong function name is a 202."""
        host = bench.run("blob_event")
        bench.upload("in/a.txt")
        url = bench.upload_blobs.get_blob_client(bench.container, "in/a.txt").url
        function = "Host.Functions.report"
        key = host.master_key
        for event_type, name, status in (
            ("Notification", function, 202),
            ("Notification", "report", 202),
            ("Notification", "Host.Functions.nobody", 202),
            ("Unsubscribe", function, 202),
            ("Other", function, 400),
            (None, function, 400),
        ):
            code = post_event(host, url, event_type=event_type, function=name, key=key)
            assert (event_type, name, code) == (event_type, name, status)
        assert [report["blob"] for report in bench.reports(2)] == ["in/a.txt"] * 2
        answer = requests.post(
            f"{host.url}/runtime/webhooks/blobs?functionName={function}&code={key}",
            headers={"aeg-event-type": "SubscriptionValidation"},
            json=[{"data": {"validationCode": "sample"}}],
            timeout=DEADLINE_SECONDS,
        )
        assert answer.json() == {"validationResponse": "sample"}

    def test_webhook_checks_keys(self, bench: Bench) -> None:
        """No key and unknown keys are 401, a key for something else is 403."""
        host = bench.run("blob_event")
        for key, status in ((None, 401), ("unknown", 401), (host.function_key, 403)):
            answer = post_event(
                host, "http://127.0.0.1/a/b/c", event_type="Notification", function="x", key=key
            )
            assert answer == status

    def test_emulated_event_grid_delivers_at_least_once(self, bench: Bench) -> None:
        """Each new blob under the prefix is posted in the asked number of copies, old ones never.

        Events of blobs that arrive while no host runs are delivered by the next one.
        """
        host = bench.run(
            "blob_event", ["--emit-events", "--event-copies", "2", "--event-interval", "0.2"]
        )
        bench.upload("out/ignored.txt")
        bench.upload("in/a.txt")
        assert [report["blob"] for report in bench.reports(2)] == ["in/a.txt"] * 2
        assert host.stop() == 0
        bench.upload("in/b.txt")
        host.start()
        host.wait_ready()
        names = [report["blob"] for report in bench.reports(4)]
        assert names == ["in/a.txt", "in/a.txt", "in/b.txt", "in/b.txt"]


class TestQueue:
    """Queue triggers."""

    def test_failing_message_is_tried_again(self, bench: Bench) -> None:
        """Failures release the message at once; the attempt that succeeds deletes it."""
        bench.run("queue")
        bench.send({"name": "a", "failures": 2})
        assert [report["attempt"] for report in bench.reports(3)] == [1, 2, 3]
        until(lambda: is_empty(bench.host_queues, bench.settings["WORK"]), bool)

    def test_message_is_poison_after_five_attempts(self, bench: Bench) -> None:
        """The body moves to the poison queue unchanged."""
        bench.run("queue")
        bench.send({"name": "a", "failures": 99})
        poison = until(lambda: peek(bench.host_queues, bench.settings["WORK"] + "-poison"), len)
        assert json.loads(base64.b64decode(poison[0]))["name"] == "a"
        assert len(bench.reports_now()) == 5

    def test_plain_text_is_poison_without_running(self, bench: Bench) -> None:
        """A body that is not base64 never reaches the function."""
        bench.run("queue")
        bench.send_text("{plain text}")
        poison = until(lambda: peek(bench.host_queues, bench.settings["WORK"] + "-poison"), len)
        assert poison == ["{plain text}"]
        assert bench.reports_now() == []

    def test_poison_queue_has_no_poison_queue(self, bench: Bench) -> None:
        """Its failed messages return when their lease ends, and are skipped after five attempts."""
        work = bench.settings["WORK"] = bench.settings["WORK"] + "-poison"
        bench.host_queues.create_queue(work)
        host = bench.run("queue", ["--queue-lease-seconds", "1"])
        bench.send({"failures": 99})
        until(host.output, lambda output: "is skipped: that queue has no poison queue" in output)
        assert [report["attempt"] for report in bench.reports_now()] == [1, 2, 3, 4, 5]
        assert not is_empty(bench.host_queues, work)

    def test_body_fields_overwrite_metadata(self, bench: Bench) -> None:
        """A body with the key "ID" changes what the function sees as the message's id."""
        bench.run("queue")
        bench.send({"ID": "from the body"})
        assert bench.reports(1)[0]["id"] == "from the body"

    def test_long_run_keeps_its_message(self, bench: Bench) -> None:
        """The lease is extended while the function runs: no second run."""
        bench.run("queue", ["--queue-lease-seconds", "2"])
        bench.send({"seconds": 4})
        until(lambda: is_empty(bench.host_queues, bench.settings["WORK"]), bool)
        assert len(bench.reports_now()) == 1

    def test_message_of_a_killed_host_comes_back(self, bench: Bench) -> None:
        """Another host runs it when the lease is over, with a higher dequeue count."""
        first = bench.run("queue", ["--queue-lease-seconds", "2"])
        bench.send({"seconds": 3})
        bench.reports(1)
        first.kill()
        bench.run("queue", ["--queue-lease-seconds", "2"])
        assert [report["attempt"] for report in bench.reports(2)] == [1, 2]

    def test_stop_waits_for_the_running_invocation(self, bench: Bench) -> None:
        """SIGTERM lets it end, deletes its message, and exits with 0."""
        host = bench.run("queue")
        bench.send({"seconds": 1.5})
        bench.reports(1)
        assert host.stop() == 0
        assert is_empty(bench.host_queues, bench.settings["WORK"])


class TestTimer:
    """Timer triggers."""

    def test_schedule_runs(self, bench: Bench) -> None:
        """A timer of every second runs again and again."""
        bench.run("timer", SCHEDULE="* * * * * *")
        assert [report["past_due"] for report in bench.reports(2)[:2]] == [False, False]

    def test_missed_run_is_made_up_for_once(self, bench: Bench) -> None:
        """A due time that passed while no host ran is run at start, marked as past due."""
        status = {
            "Last": "2020-01-01T00:00:00+00:00",
            "LastUpdated": "2020-01-01T00:00:00+00:00",
            "Next": "2020-01-01T04:00:00+00:00",
        }
        bench.internal_container().upload_blob(
            f"timers/{bench.host_id}/Host.Functions.tick/status", json.dumps(status)
        )
        host = bench.run("timer", SCHEDULE="0 0 4 * * *")
        assert [report["past_due"] for report in bench.reports(1)] == [True]
        host.stop()
        bench.run("timer", SCHEDULE="0 0 4 * * *", RUN_ON_STARTUP="true")
        assert [report["past_due"] for report in bench.reports(2)] == [True, False]

    def test_one_of_two_hosts_runs_the_timer(self, bench: Bench) -> None:
        """The lock keeps the second host from running it; it takes over when the first dies."""
        first = bench.run("timer", SCHEDULE="* * * * * *")
        first_pid = first.pid
        second = bench.run("timer", SCHEDULE="* * * * * *")
        assert {report["process"] for report in bench.reports(3)} == {first_pid}
        first.kill()
        until(
            lambda: {report["process"] for report in bench.reports_now()},
            lambda processes: second.pid in processes,
        )


class TestHttp:
    """HTTP triggers."""

    def test_request_and_response_go_through(self, bench: Bench) -> None:
        """Route parameters, query, headers, body; status, headers and cookies back."""
        host = bench.run("http")
        answer = requests.post(
            f"{host.url}/api/items/box/7?q=1&empty=",
            headers={"x-functions-key": host.function_key, "X-Sample": "yes"},
            data=b"body",
            timeout=DEADLINE_SECONDS,
        )
        assert answer.status_code == 201
        assert answer.headers["X-Answer"] == "yes"
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Set-Cookie"] == "flavour=plain; HttpOnly; Path=/"
        assert answer.json() == {
            "route": {"kind": "box", "number": "7"},
            "query": {"q": "1"},
            "header": "yes",
            "body": "body",
        }
        assert "the app logs a line" in host.output()

    def test_keys_guard_the_levels(self, bench: Bench) -> None:
        """Levels ask for their keys; the header wins over the query; unknown routes are 404."""
        host = bench.run("http")
        item, administer = "/api/items/box/7", "/api/administer"
        function_key, master_key = host.function_key, host.master_key
        for method, path, header, code, status in (
            ("POST", item, None, None, 401),
            ("POST", item, "wrong", function_key, 401),
            ("POST", item, function_key, "wrong", 201),
            ("POST", item, None, master_key, 201),
            ("GET", item, function_key, None, 404),
            ("POST", "/api/items/box/seven", function_key, None, 404),
            ("GET", "/api/OPEN", None, None, 200),
            ("GET", administer, function_key, None, 401),
            ("GET", administer, master_key, None, 200),
            ("GET", "/api/nothing", master_key, None, 404),
            ("GET", "/admin/host/status", function_key, None, 401),
            ("GET", "/admin/host/status", master_key, None, 200),
        ):
            answer = requests.request(
                method,
                host.url + path,
                headers={"x-functions-key": header} if header else {},
                params={"code": code} if code else {},
                timeout=DEADLINE_SECONDS,
            )
            assert (method, path, answer.status_code) == (method, path, status)
        assert function_key not in host.output()
        assert master_key not in host.output()

    def test_stored_function_key_opens_its_function_only(self, bench: Bench) -> None:
        """Keys are kept in the host's account, one for each function."""
        host = bench.run("http")
        blob = bench.host_blobs.get_blob_client(
            "azure-webjobs-secrets", f"{bench.host_id}/item.json"
        )
        key = json.loads(blob.download_blob().readall())["keys"][0]["value"]
        for path, status in (("/api/items/a/1", 201), ("/api/administer", 401)):
            answer = requests.post(
                host.url + path, headers={"x-functions-key": key}, timeout=DEADLINE_SECONDS
            )
            assert answer.status_code == status

    def test_failures_are_500_and_the_host_lives_on(self, bench: Bench) -> None:
        """An exception, and even SystemExit, ends only its invocation; the trace is logged."""
        host = bench.run("http")
        for name in ("fails", "leaves"):
            answer = requests.get(f"{host.url}/api/{name}", timeout=DEADLINE_SECONDS)
            assert (answer.status_code, answer.content) == (500, b"")
        assert requests.get(f"{host.url}/api/open", timeout=DEADLINE_SECONDS).text == "hello"
        assert "RuntimeError: this request fails" in host.output()
        assert "Traceback" in host.output()

    def test_manual_run_of_a_queue_function(self, bench: Bench) -> None:
        """An administrator can run any function with an input of his own."""
        host = bench.run("queue")
        answer = requests.post(
            f"{host.url}/admin/functions/attempt",
            headers={"x-functions-key": host.master_key},
            json={"input": json.dumps({"name": "by hand"})},
            timeout=DEADLINE_SECONDS,
        )
        assert answer.status_code == 202
        assert bench.reports(1)[0]["name"] == "by hand"


class TestHost:
    """Settings, start, and end."""

    def test_missing_setting_leaves_out_its_function_only(self, bench: Bench) -> None:
        """The function is named with its setting, the others run."""
        host = bench.run("broken_setting")
        assert requests.get(f"{host.url}/api/sound", timeout=DEADLINE_SECONDS).text == "sound"
        assert "The function lost could not be indexed: the setting 'MISSING'" in host.output()

    def test_unsupported_binding_is_refused_by_name(self, bench: Bench) -> None:
        """The host does not start half an app."""
        host = bench.host("unsupported_binding")
        host.start()
        assert host.wait_exit() == 3
        assert "function forward: the binding 'copy' of type 'queue' is not supported" in (
            host.output()
        )

    def test_app_that_cannot_be_imported_ends_the_host(self, bench: Bench) -> None:
        """Its stack trace is in the log."""
        host = bench.host("import_error")
        host.start()
        assert host.wait_exit() == 1
        assert "RuntimeError: this app is broken" in host.output()

    def test_disabled_function_has_no_listener(self, bench: Bench) -> None:
        """Its route is gone, except for an administrator."""
        host = bench.run("http", **{"AzureWebJobs.open_to_all.Disabled": "true"})
        url = f"{host.url}/api/open"
        assert requests.get(url, timeout=DEADLINE_SECONDS).status_code == 404
        assert requests.get(url, params={"code": host.master_key}, timeout=DEADLINE_SECONDS).ok

    def test_environment_wins_over_the_settings_file(self, bench: Bench) -> None:
        """Both are read, in the host's order."""
        settings_file = bench.folder / "settings.json"
        values = {"REPORTS": "never-made", "SCHEDULE": "* * * * * *"}
        settings_file.write_text(json.dumps({"IsEncrypted": False, "Values": values}))
        bench.run("timer", ["--settings", str(settings_file)])
        bench.reports(1)

    def test_timeout_replaces_the_worker(self, bench: Bench) -> None:
        """An invocation over functionTimeout fails, and the host comes back under the same port."""
        host = bench.run("http", AzureFunctionsJobHost__functionTimeout="00:00:01")
        pid = host.pid
        answer = requests.get(
            f"{host.url}/api/slow", params={"seconds": "60"}, timeout=DEADLINE_SECONDS
        )
        assert answer.status_code == 500
        until(lambda: host.output().count("host ready: "), lambda times: times == 2)
        assert requests.get(f"{host.url}/api/open", timeout=DEADLINE_SECONDS).text == "hello"
        assert (host.running, host.pid) == (True, pid)

    def test_host_outlives_an_outage_of_storage(self, bench: Bench, tmp_path: Path) -> None:
        """Listeners go on after storage was away."""
        with Azurite(tmp_path / "own") as storage:
            text = storage.connection_string()
            with QueueServiceClient.from_connection_string(text) as queues:
                queues.create_queue(bench.settings["WORK"])
                queues.create_queue(bench.settings["REPORTS"])
                host = bench.run("queue", AzureWebJobsStorage=text)
                storage.stop()
                until(host.output, lambda output: "Cannot poll the queue" in output)
                storage.start()
                with queues.get_queue_client(bench.settings["WORK"]) as queue:
                    queue.send_message(base64.b64encode(b'{"name": "after"}').decode())
                until(lambda: peek(queues, bench.settings["REPORTS"]), len)
                assert host.stop() == 0

    def test_host_waits_for_its_storage(self, bench: Bench, tmp_path: Path) -> None:
        """A host that is started during an outage becomes ready when storage does."""
        with Azurite(tmp_path / "own") as storage:
            text = storage.connection_string()
            storage.stop()
            host = bench.host("http", AzureWebJobsStorage=text)
            host.start()
            until(host.output, lambda output: "storage does not answer" in output)
            storage.start()
            host.wait_ready()
            assert requests.get(f"{host.url}/api/open", timeout=DEADLINE_SECONDS).ok
            host.stop()
