"""A lane: the relay with everything it needs, on names and ports of its own, and a fault proxy.

Many lanes share one emulator and run side by side. A lane has one app process or several, each
behind its own ``FaultProxy``; only the app's own clients go through it, the Functions host around
it goes straight to the emulator. The host looks for ``AzureWebJobs<connection>`` before
``<connection>``, so each connection is set twice.
"""

from __future__ import annotations

import collections
import contextlib
import json
import re
import secrets
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import (
    QueueServiceClient,
    TextBase64DecodePolicy,
    TextBase64EncodePolicy,
)

from modzy_relay.lifecycle import State
from sandbox.fault_proxy import BLOB, MODZY, QUEUE, TABLE, Fault, FaultProxy, Journal, Names
from sandbox.host.child import FunctionsHost
from sandbox.keyvault_server import KeyVaultServer
from sandbox.modzy_server import ModzyServer
from sandbox.stack import REPOSITORY, SAMPLE_SETTINGS
from sandbox.storage import (
    ACCOUNT_KEYS,
    HOST_ACCOUNT,
    SECOND_UPLOAD_KEY,
    UPLOAD_ACCOUNT,
    Azurite,
)
from tests.faults.verdict import Case, Evidence, Version, is_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from azure.storage.queue import QueueClient

    from sandbox.fault_proxy import Effect, When
    from tests.faults.verdict import Row

API_KEY_SECRET, STORAGE_KEY_SECRET = "modzy-api-key", "upload-storage-key"
_CHILD_MODULES = Path(__file__).parent / "child"
_POLL_SECONDS = 0.25
_QUEUE_LEASE_SECONDS = 3
_SWEEP_EVERY_SECONDS = 6.0
_DEATH_SECONDS = 60.0
#: Short where the product waits for somebody else's slowness; the rest is as in production.
_SETTINGS = {
    "SUBMIT_TIMEOUT": "2s",
    "HISTORY_SETTLE": "3s",
    "MODZY_ROUTES": "",
    "MODZY_MODEL_ID": "ed542963de",
    "MODZY_MODEL_VERSION": "0.0.27",
    # Once a year: these tests run the sweep by hand.
    "SWEEP_SCHEDULE": "0 0 0 1 1 *",
}
_EVENT = re.compile(r"modzy_relay: (\S+) (\{.*\})$", re.MULTILINE)


class NotSettledError(AssertionError):
    """The time was over before everything had come to its end."""


class Control:
    """The app process's side is ``child/sitecustomize.py``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(bytes(16))

    def step_clock(self, seconds: float) -> None:
        """Put the app's wall clock off by this much, from now on."""
        self._write("<d", 0, seconds)

    def stop_before_first_byte(self) -> None:
        """Have the app stop itself between its last look at the lease and the first byte."""
        self._write("<q", 8, 1)

    def stop_before_body(self) -> None:
        """Have the app stop itself between its last look at the time and a POST's body."""
        self._write("<q", 8, 2)

    @property
    def has_stopped(self) -> bool:
        """Whether the app has done so."""
        return not struct.unpack_from("<q", self.file.read_bytes(), 8)[0]

    def _write(self, form: str, offset: int, value: float) -> None:
        with self.file.open("r+b") as file:
            file.seek(offset)
            file.write(struct.pack(form, value))


class Lane:
    """See the module's docstring; a context manager, to be used by one thread.

    Args:
        azurite: the emulator, running.
        folder: for this lane's logs.
        name: lower-case letters and digits; part of every name in the emulator.
        hosts: how many app processes.
        settings: app settings that differ.
        options: more options of the local Functions host.
        control: whether the app processes can be given another clock (see ``Control``).
        sweep_seconds: the sweep's grace time, if not that of production.
        proxied: services that are reached through the fault proxy.
    """

    def __init__(
        self,
        azurite: Azurite,
        folder: Path,
        name: str,
        *,
        hosts: int = 1,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        control: bool = False,
        sweep_seconds: float | None = None,
        proxied: Sequence[str] = (BLOB, QUEUE, TABLE, MODZY),
    ) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.names = Names(
            container=f"uploads-{name}",
            table=f"Ledger{name}",
            jobs_queue=f"jobs-{name}",
            due_queue=f"due-{name}",
            results_container=f"results-{name}",
        )
        self._secrets = [*ACCOUNT_KEYS.values(), SECOND_UPLOAD_KEY]
        self.new_api_key()
        self.journal = Journal(self.names)
        self.vault = KeyVaultServer(self.folder)
        self.modzy = ModzyServer(
            {UPLOAD_ACCOUNT: azurite.endpoint(BLOB, UPLOAD_ACCOUNT)},
            [self.api_key],
        )
        self.cases: list[Case] = []
        self.script_faults: list[str] = []
        self._certain_faults: list[Fault] = []
        self.hosts: list[FunctionsHost] = []
        self.proxies: list[FaultProxy] = []
        self.control = Control(self.folder / "control") if control else None
        self.events: collections.Counter[tuple[str, str]] = collections.Counter()
        self.azurite = azurite
        self.sweeping = False
        self._next_sweep = 0.0
        self._host_count = hosts
        self._changes = dict(settings or {})
        self._options = list(options)
        self._sweep_seconds = sweep_seconds
        self._proxied = proxied
        self._to_the_end = True
        self._closing = contextlib.ExitStack()

    # -- beginning and end -----------------------------------------------------------------

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            starting.enter_context(self.modzy)
            starting.enter_context(self.vault)
            self.vault.set_secret(API_KEY_SECRET, self.api_key)
            self.vault.set_secret(STORAGE_KEY_SECRET, ACCOUNT_KEYS[UPLOAD_ACCOUNT])
            self._open_clients(starting)
            for number in range(1, self._host_count + 1):
                self._add_host(number, starting)
            self._closing = starting.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def _open_clients(self, closing: contextlib.ExitStack) -> None:
        host = self.azurite.connection_string(HOST_ACCOUNT)
        uploads = self.azurite.connection_string(UPLOAD_ACCOUNT)
        tables = closing.enter_context(TableServiceClient.from_connection_string(host))
        self.table = tables.create_table(self.names.table)
        self._queues = closing.enter_context(QueueServiceClient.from_connection_string(host))
        self.jobs_queue = self.queue(self.names.jobs_queue)
        self.due_queue = self.queue(self.names.due_queue)
        self.poison_queue = self.queue(f"{self.names.due_queue}-poison")
        self.internal_queue = self.queue(f"azure-webjobs-blobtrigger-{self.name}")
        self.jobs_queue.create_queue()
        self.due_queue.create_queue()
        blobs = closing.enter_context(BlobServiceClient.from_connection_string(host))
        blobs.create_container(self.names.results_container)
        upload_blobs = closing.enter_context(BlobServiceClient.from_connection_string(uploads))
        self.uploads = upload_blobs.create_container(self.names.container)

    def raw_queue(self, name: str) -> QueueClient:
        """A queue of the relay's account; messages are sent and read as they are."""
        return self._queues.get_queue_client(name)

    def queue(self, name: str) -> QueueClient:
        """A queue of the relay's account; messages are base64."""
        return self._queues.get_queue_client(
            name,
            message_encode_policy=TextBase64EncodePolicy(),
            message_decode_policy=TextBase64DecodePolicy(),
        )

    def _add_host(self, number: int, starting: contextlib.ExitStack) -> None:
        addresses = {
            service: self.azurite.endpoint(service).rpartition("/")[0]
            for service in (BLOB, QUEUE, TABLE)
        } | {MODZY: self.modzy.url}
        upstreams = {service: addresses[service] for service in self._proxied}
        proxy = FaultProxy(f"{self.name}-{number}", upstreams, self.journal)
        starting.enter_context(proxy)
        host = FunctionsHost(
            REPOSITORY,
            self._settings(proxy),
            self.folder / f"host-{number}.log",
            [
                *("--host-id", self.name, "--scan-interval", "0.5"),
                *("--queue-lease-seconds", str(_QUEUE_LEASE_SECONDS)),
                *("--lock-lease-seconds", "15", *self._options),
            ],
        )
        starting.callback(host.kill)
        proxy.process = host
        self.proxies.append(proxy)
        self.hosts.append(host)

    def _settings(self, proxy: FaultProxy) -> dict[str, str]:
        values: dict[str, str] = json.loads(SAMPLE_SETTINGS.read_text("utf-8"))["Values"]
        host = self.azurite.connection_string(HOST_ACCOUNT)
        uploads = self.azurite.connection_string(UPLOAD_ACCOUNT)
        values |= _SETTINGS | self.vault.environment
        values |= {
            "AzureWebJobsStorage": host,
            "AzureWebJobsRelayStorage": host,
            "RelayStorage": proxy.through(host),
            "AzureWebJobsUploadStorage": uploads,
            "UploadStorage": proxy.through(uploads),
            "MODZY_URL": proxy.through(self.modzy.url),
            "UPLOAD_CONTAINER": self.names.container,
            "SUBMISSIONS_TABLE": self.names.table,
            "JOBS_QUEUE": self.names.jobs_queue,
            "DUE_QUEUE": self.names.due_queue,
            "RESULTS_CONTAINER": self.names.results_container,
        }
        if self.control is not None or self._sweep_seconds is not None:
            values["PYTHONPATH"] = f"{_CHILD_MODULES}:{REPOSITORY}"
        if self.control is not None:
            values["FAULTS_CONTROL"] = str(self.control.file)
        if self._sweep_seconds is not None:
            values["FAULTS_SWEEP_SECONDS"] = str(self._sweep_seconds)
        return values | self._changes

    def new_api_key(self) -> None:
        """Make up another API key; neither Modzy nor the vault has it yet."""
        self.api_key = f"{secrets.token_urlsafe(12)}.{secrets.token_urlsafe(18)}"
        self._secrets += [self.api_key, self.api_key.partition(".")[2]]

    # -- running ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start every app process and wait until it is ready."""
        for host in self.hosts:
            host.start()
        for host in self.hosts:
            host.wait_ready()

    def keep_running(self) -> None:
        """Start again what has died; and run the sweep from time to time, if ``sweeping``."""
        for host in self.hosts:
            if not host.running:
                host.start()
                host.wait_ready()
        if self.sweeping and time.monotonic() > self._next_sweep:
            self.run_function("sweep")
            self._next_sweep = time.monotonic() + _SWEEP_EVERY_SECONDS

    def wait_for_death(self, host: FunctionsHost) -> None:
        """Wait until an app process has been killed, and leave it dead.

        Raises:
            NotSettledError: it lives.
        """
        deadline = time.monotonic() + _DEATH_SECONDS
        while host.running:
            if time.monotonic() > deadline:
                raise NotSettledError(f"{self.name}: not killed within {_DEATH_SECONDS} s")
            time.sleep(_POLL_SECONDS)

    def until(self, what: str, met: Callable[[], object], *, seconds: float = 120) -> None:
        """Wait until something is so; restarts what dies meanwhile.

        Raises:
            NotSettledError: the time is over.
        """
        deadline = time.monotonic() + seconds
        while not met():
            if time.monotonic() > deadline:
                raise NotSettledError(f"{self.name}: not within {seconds} s: {what}")
            self.keep_running()
            time.sleep(_POLL_SECONDS)

    def fault(self, effect: Effect, when: When, *, certain: bool = True, **members: Any) -> Fault:
        """Let a fault wait for an effect; see ``sandbox.fault_proxy.Fault``.

        Args:
            effect: the effect.
            when: the side of it.
            certain: a case whose fault never struck has shown nothing, and counts as wrong.
            members: of the fault.
        """
        fault = self.journal.add(Fault(effect=effect, when=when, **members))
        if certain:
            self._certain_faults.append(fault)
        return fault

    def case(self, name: str, argued: str = "") -> Case:
        """Begin a line of the matrix."""
        case = Case(name, argued)
        self.cases.append(case)
        return case

    def upload(
        self,
        case: Case,
        path: str,
        content: bytes = b"It works, and that is good.",
        *,
        expected: Sequence[str] = (State.SUBMITTED,),
        jobs: int = 1,
    ) -> Version:
        """Write a blob, as a version of which is known what has to become of it."""
        answer = self.uploads.get_blob_client(path).upload_blob(content, overwrite=True)
        version = Version(path, str(answer["etag"]).strip('"'), frozenset(expected), jobs)
        case.versions.append(version)
        return version

    def run_function(self, name: str, text: str = "") -> None:
        """Run a function by hand, as an administrator can."""
        answer = requests.post(
            f"{self.hosts[0].url}/admin/functions/{name}",
            json={"input": text},
            headers={"x-functions-key": self.hosts[0].master_key},
            timeout=10,
        )
        answer.raise_for_status()

    def run_submit_upload(self, path: str) -> None:
        """Deliver the event of a blob once more."""
        self.run_function("submit_upload", f"{self.names.container}/{path}")

    # -- looking ---------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Every submission in the ledger."""
        return [
            row
            for row in self.table.list_entities()
            if "state" in row and row["PartitionKey"][:4].isdigit()
        ]

    def rows_of(self, path: str) -> list[Row]:
        """The submissions of a blob."""
        return [row for row in self.rows() if row["path"] == path]

    def state_of(self, path: str) -> str | None:
        """The state of the only submission of a blob; None before there is one."""
        found = self.rows_of(path)
        return found[0]["state"] if found else None

    def log_events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Events that the app processes have logged."""
        for log in self.folder.glob("host-*.log"):
            for name, fields in _EVENT.findall(log.read_text("utf-8", "replace")):
                yield name, json.loads(fields)

    def settle(self, *, seconds: float = 240, to_the_end: bool = True) -> None:
        """Wait until nothing is open, nothing waits in a queue, and every version has its row.

        Args:
            seconds: how long at most; what is open then is a fault of its case.
            to_the_end: wait for the ends of jobs, too.
        """
        self._to_the_end = to_the_end
        with contextlib.suppress(NotSettledError):
            self.until(
                "settle", lambda: not any(self._open_ends(to_the_end=to_the_end)), seconds=seconds
            )

    def _open_ends(self, *, to_the_end: bool) -> tuple[list[str], list[str], int]:
        rows = self.rows()
        known = {(row["path"], row["etag"]) for row in rows}
        missing = [
            version.path
            for case in self.cases
            for version in case.versions
            if version.expected and (version.path, version.etag) not in known
        ]
        still_open = [row["path"] for row in rows if is_open(row, to_the_end=to_the_end)]
        queues = (self.due_queue, self.internal_queue) if to_the_end else (self.internal_queue,)
        waiting = sum(map(queue_length, queues))
        return missing, still_open, waiting

    def _drain(self) -> None:
        for message in self.jobs_queue.receive_messages(messages_per_page=32):
            event = json.loads(message.content)
            self.events[event["subject"], event["id"]] += 1
            self.jobs_queue.delete_message(message)

    # -- judging ---------------------------------------------------------------------------

    def evidence(self) -> Evidence:
        """What there is to judge by."""
        self._drain()
        ordered = {QUEUE, TABLE} <= set(self._proxied)
        return Evidence(
            lane=self.name,
            rows=self.rows(),
            jobs=self.modzy.jobs_by_item(),
            cancelled=frozenset(
                job.identifier for job in self.modzy.jobs.all() if job.status == "CANCELED"
            ),
            events=self.events,
            alarms=collections.Counter(
                fields["path"]
                for name, fields in self.log_events()
                if name == "submission.duplicate_jobs" and "cancelled" in fields
            ),
            sightings=self.journal.sightings if ordered else (),
            faults=[*self.script_faults, *self._idle_faults(), *self._leaks()],
            to_the_end=self._to_the_end,
        )

    def _idle_faults(self) -> Iterator[str]:
        for fault in self._certain_faults:
            if not fault.fired:
                yield f"nothing happened {fault}, {fault.path}"

    def _leaks(self) -> Iterator[str]:
        for log in self.folder.glob("*.log"):
            text = log.read_text("utf-8", "replace")
            if any(secret in text for secret in self._secrets):
                yield f"a secret is in {log.name}"


def queue_length(queue: QueueClient) -> int:
    """Messages in a queue, hidden ones included; 0 if there is no such queue."""
    try:
        return queue.get_queue_properties().approximate_message_count or 0
    except ResourceNotFoundError:
        return 0
