"""A dispatcher as a child process, for tests and the demo."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sandbox.processes import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_REPOSITORY = Path(__file__).resolve().parents[2]
_READY_SECONDS = 30


class FunctionsHost:
    """One ``python -m sandbox.host`` process on a port of its own.

    It can be started again after ``kill`` or ``stop``, on the same port and with the same keys. It
    runs with ``--break-stale-locks``, so that nobody waits for the lease of a killed host.

    Args:
        app: folder of the function app.
        settings: app settings; they win over the app's settings file and this process's
            environment, which the child also gets.
        log_file: receives everything that the child writes.
        options: more command line options, such as ``["--queue-lease-seconds", "5"]``.
        settings_file: used in place of the app's ``local.settings.json``.
        port: 0 for a free one, which later starts keep.

    Attributes:
        function_key: opens every function of the app.
        master_key: opens everything.
    """

    def __init__(
        self,
        app: Path,
        settings: Mapping[str, str],
        log_file: Path,
        options: Sequence[str] = (),
        *,
        settings_file: Path | None = None,
        port: int = 0,
    ) -> None:
        self.function_key = secrets.token_hex(24)
        self.master_key = secrets.token_hex(24)
        self._app = app.resolve()
        self._environment = {**os.environ, **settings}
        self._log_file = log_file
        self._options = list(options)
        if settings_file is not None:
            self._options += ["--settings", str(settings_file.resolve())]
        self._port = port
        self._url: str | None = None
        self._process = self._new_process()

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; does not wait.

        Raises:
            ProcessFailed: it is running already.
        """
        self._url = None
        if not self._process.running:
            self._process = self._new_process()
        self._process.start()

    def wait_ready(self, *, timeout_seconds: float = _READY_SECONDS) -> None:
        """Wait until functions are indexed and listeners run.

        Raises:
            ProcessFailed: the process ended first, or the time is over; carries its log's end.
        """
        self._url = self._process.wait_for_line("host ready: ", timeout_seconds=timeout_seconds)
        self._port = int(self._url.rpartition(":")[2])

    def wait_exit(self, *, timeout_seconds: float = _READY_SECONDS) -> int:
        """Wait until the process ends by itself; returns its exit code.

        Raises:
            ProcessFailed: it still runs when the time is over.
        """
        return self._process.wait(timeout_seconds=timeout_seconds)

    @property
    def url(self) -> str:
        """The address, without a slash at its end.

        Raises:
            RuntimeError: ``wait_ready`` was not called since the last start.
        """
        if self._url is None:
            raise RuntimeError("the host is not ready")
        return self._url

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists, paused or not."""
        return self._process.running

    def output(self) -> str:
        """What the process has written since its latest start."""
        return self._process.output()

    def kill(self) -> None:
        """End it like a crash (SIGKILL)."""
        self._process.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        self._process.pause()

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.resume()

    def stop(self) -> int | None:
        """End it politely; returns the exit code, 0 when it ended in order."""
        return self._process.stop()

    def _new_process(self) -> ManagedProcess:
        return ManagedProcess(
            "functions host",
            [
                *(sys.executable, "-m", "sandbox.host", "--app", str(self._app)),
                *("--port", str(self._port), "--function-key", self.function_key),
                *("--master-key", self.master_key, "--break-stale-locks", *self._options),
            ],
            log_file=self._log_file,
            environment=self._environment,
            folder=_REPOSITORY,
        )
