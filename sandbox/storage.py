"""Azurite, the storage emulator, as a child process with two accounts on free ports.

The two accounts stand for the two of a deployment: the host's own, which also keeps ledger and
queues, and the one that uploads are dropped into.
"""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sandbox.processes import ManagedProcess, ProcessFailed, wait_for_port

if TYPE_CHECKING:
    from types import TracebackType

HOST_ACCOUNT = "devstoreaccount1"
UPLOAD_ACCOUNT = "sandboxuploads"

# Account keys are base64 text of 64 bytes. The first is the emulator's documented, public key; the
# second exists nowhere outside this sandbox.
ACCOUNT_KEYS = {
    HOST_ACCOUNT: (
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    ),
    UPLOAD_ACCOUNT: base64.b64encode(
        b"This key opens the sandbox's own emulator and nothing else. (v1)"
    ).decode(),
}

# Every storage account has two keys, so that one can be in use while the other is replaced.
SECOND_UPLOAD_KEY = base64.b64encode(
    b"This key opens the sandbox's own emulator and nothing else. (v2)"
).decode()

_ENTRY = Path(__file__).parent / "node_modules/azurite/dist/src/azurite.js"
_SERVICES = ("Blob", "Queue", "Table")
_START_SECONDS = 30


class Azurite:
    """One emulator process.

    Args:
        folder: receives ``azurite.log`` and, unless ``in_memory``, the data.
        in_memory: keep nothing: a stop empties the accounts.
        ports: of blobs, queues and tables; 0 for a free one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        in_memory: bool = False,
        ports: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.folder = folder
        self._in_memory = in_memory
        self._ports = dict(zip(_SERVICES, ports, strict=True))
        self._process: ManagedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until blobs, queues and tables answer.

        The first start takes free ports, each later one takes the same ports again.

        Raises:
            ProcessFailed: it is not installed, or did not come up.
        """
        self._process = ManagedProcess(
            "azurite",
            self._command(),
            log_file=self.folder / "azurite.log",
            environment=os.environ | {"AZURITE_ACCOUNTS": _accounts_setting()},
        )
        self._process.start()
        for service in _SERVICES:
            address = self._process.wait_for_line(
                f"Azurite {service} service is successfully listening at ",
                timeout_seconds=_START_SECONDS,
            )
            self._ports[service] = int(address.rpartition(":")[2])
            wait_for_port(self._ports[service], timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stop it; what is not in memory survives until the next start."""
        if self._process is not None:
            self._process.stop()

    def pause(self) -> None:
        """Freeze it: requests connect and get no answer."""
        self._running().pause()

    def resume(self) -> None:
        """Let it answer again after a pause."""
        self._running().resume()

    @property
    def pid(self) -> int:
        """The emulator's process id."""
        return self._running().pid

    def endpoint(self, service: str, account: str = HOST_ACCOUNT) -> str:
        """The address of a service (``Blob``, ``Queue`` or ``Table``) of an account."""
        return f"http://127.0.0.1:{self._ports[service]}/{account}"

    def connection_string(self, account: str = HOST_ACCOUNT) -> str:
        """The connection string of an account, with explicit endpoints.

        Raises:
            KeyError: there is no such account.
        """
        endpoints = "".join(
            f"{service}Endpoint={self.endpoint(service, account)};" for service in _SERVICES
        )
        return (
            f"DefaultEndpointsProtocol=http;AccountName={account};"
            f"AccountKey={ACCOUNT_KEYS[account]};{endpoints}"
        )

    def _running(self) -> ManagedProcess:
        if self._process is None:
            raise ProcessFailed("azurite was never started")
        return self._process

    def _command(self) -> list[str]:
        node = shutil.which("node")
        if node is None or not _ENTRY.exists():
            raise ProcessFailed(
                "azurite needs node and its npm packages: run `npm ci --prefix sandbox`"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        # The emulator refuses --location together with --inMemoryPersistence.
        keep = (
            ["--inMemoryPersistence"]
            if self._in_memory
            else ["--location", str(self.folder / "azurite")]
        )
        ports = [
            argument
            for service, port in self._ports.items()
            for argument in (f"--{service.lower()}Port", str(port))
        ]
        # --skipApiVersionCheck: the newest SDKs ask for a newer service version than it knows.
        flags = ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        # node itself, not the npm shim: signals must reach the emulator and nothing else.
        return [node, str(_ENTRY), *flags, *keep, *ports]


def _accounts_setting() -> str:
    keys = ACCOUNT_KEYS | {UPLOAD_ACCOUNT: f"{ACCOUNT_KEYS[UPLOAD_ACCOUNT]}:{SECOND_UPLOAD_KEY}"}
    return ";".join(f"{account}:{key}" for account, key in keys.items())
