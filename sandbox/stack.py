"""Everything the app needs around it, on this machine: storage, Modzy, Key Vault, Functions host.

The settings start from ``local.settings.sample.json``; only addresses, credentials and what a
caller asks for are replaced. The API key is made up anew for each stack.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import requests
from azure.core.exceptions import ResourceExistsError
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient, TextBase64DecodePolicy

from sandbox.host.child import FunctionsHost
from sandbox.keyvault_server import KeyVaultServer
from sandbox.modzy_server import JobOptions, ModzyServer
from sandbox.processes import ManagedProcess, ProcessFailed
from sandbox.storage import ACCOUNT_KEYS, HOST_ACCOUNT, UPLOAD_ACCOUNT, Azurite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE_SETTINGS = REPOSITORY / "local.settings.sample.json"


class Stack:
    """The stand-ins and clients to look at them; also a context manager.

    Args:
        folder: Receives data and all logs.
        settings: App settings that differ from the sample's.
        in_memory: Storage forgets everything when it stops.
        job_seconds: How long a job takes at least.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        in_memory: bool = True,
        job_seconds: float = 0.3,
    ) -> None:
        self.folder = folder
        self.api_key = f"{secrets.token_urlsafe(12)}.{secrets.token_urlsafe(18)}"
        self.azurite = Azurite(folder, in_memory=in_memory)
        self.modzy: ModzyServer
        self.vault = KeyVaultServer(folder)
        self._changes = dict(settings or {})
        self._job_options = JobOptions(
            submitted_seconds=job_seconds / 3, running_seconds=job_seconds * 2 / 3
        )
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as starting:
            starting.enter_context(self.azurite)
            self.modzy = starting.enter_context(
                ModzyServer(
                    {UPLOAD_ACCOUNT: self.azurite.endpoint("Blob", UPLOAD_ACCOUNT)},
                    [self.api_key],
                    job_options=self._job_options,
                )
            )
            starting.enter_context(self.vault)
            self._open_clients(starting)
            self._prepare()
            self._closing = starting.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    @property
    def settings(self) -> dict[str, str]:
        """App settings that point at this stack."""
        values: dict[str, str] = json.loads(SAMPLE_SETTINGS.read_text("utf-8"))["Values"]
        return (
            values
            | {
                "AzureWebJobsStorage": self.azurite.connection_string(HOST_ACCOUNT),
                "UploadStorage": self.azurite.connection_string(UPLOAD_ACCOUNT),
                "MODZY_URL": self.modzy.url,
            }
            | self.vault.environment
            | self._changes
        )

    @property
    def known_secrets(self) -> list[str]:
        """Every secret of this stack, to search logs for."""
        return [self.api_key, self.api_key.partition(".")[2], *ACCOUNT_KEYS.values()]

    def functions_host(self, options: Sequence[str] = ()) -> FunctionsHost:
        """The local dispatcher running the app; not started yet."""
        return FunctionsHost(REPOSITORY, self.settings, self.folder / "functions.log", options)

    def _open_clients(self, closing: contextlib.ExitStack) -> None:
        host = self.azurite.connection_string(HOST_ACCOUNT)
        uploads = self.azurite.connection_string(UPLOAD_ACCOUNT)
        names = {**json.loads(SAMPLE_SETTINGS.read_text("utf-8"))["Values"], **self._changes}
        self.table = closing.enter_context(
            TableServiceClient.from_connection_string(host)
        ).get_table_client(names["SUBMISSIONS_TABLE"])
        queues = closing.enter_context(QueueServiceClient.from_connection_string(host))
        decoded = {"message_decode_policy": TextBase64DecodePolicy()}
        self.jobs_queue = queues.get_queue_client(names["JOBS_QUEUE"], **decoded)
        self.due_queue = queues.get_queue_client(names["DUE_QUEUE"], **decoded)
        blobs = closing.enter_context(BlobServiceClient.from_connection_string(host))
        self.results = blobs.get_container_client(names["RESULTS_CONTAINER"] or "modzy-results")
        upload_blobs = closing.enter_context(BlobServiceClient.from_connection_string(uploads))
        self.uploads = upload_blobs.get_container_client(names["UPLOAD_CONTAINER"])

    def _prepare(self) -> None:
        for create in (
            self.table.create_table,
            self.jobs_queue.create_queue,
            self.due_queue.create_queue,
            self.results.create_container,
            self.uploads.create_container,
        ):
            with contextlib.suppress(ResourceExistsError):
                create()
        self.vault.set_secret("modzy-api-key", self.api_key)
        self.vault.set_secret("upload-storage-key", ACCOUNT_KEYS[UPLOAD_ACCOUNT])


class CoreToolsHost:
    """``func start`` of Azure Functions Core Tools, where it is installed.

    Same members as ``FunctionsHost``, as far as the demo uses them.
    """

    # Core Tools opens every function to this machine, whatever key comes along.
    function_key = "unused"
    _START_SECONDS = 180

    def __init__(self, stack: Stack, port: int = 7071) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = ManagedProcess(
            "func",
            ["func", "start", "--port", str(port)],
            log_file=stack.folder / "functions.log",
            environment=os.environ | stack.settings,
            folder=REPOSITORY,
        )

    @staticmethod
    def installed() -> bool:
        """Whether ``func`` is on the PATH."""
        return shutil.which("func") is not None

    def start(self) -> None:
        """Start it; does not wait."""
        self._process.start()

    def wait_ready(self) -> None:
        """Wait until the host says that it runs; the first start downloads its extensions."""
        deadline = time.monotonic() + self._START_SECONDS
        while time.monotonic() < deadline and self._process.running:
            with contextlib.suppress(requests.RequestException):
                status = requests.get(f"{self.url}/admin/host/status", timeout=5)
                if status.ok and status.json().get("state") == "Running":
                    return
            time.sleep(0.5)
        raise ProcessFailed(f"func is not ready; it wrote:\n{self._process.output()[-4000:]}")

    def stop(self) -> int | None:
        """End it politely."""
        return self._process.stop()
