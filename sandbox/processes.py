"""Child processes of the sandbox: none outlives its parent, and each writes to one log file.

Every child runs in a process group of its own, so that a Ctrl-C in the terminal reaches only the
parent, which then ends its children in order. A child also ends when its parent is killed without
warning: on Linux the kernel is told so (``prctl(2)``, ``PR_SET_PDEATHSIG``) before the child's
program starts. That signal follows the *thread* that started the child, so start children from a
thread that lives as long as they should (the main thread, usually).
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import FrameType

POLL_SECONDS = 0.02

# Runs in the child in front of its real program. It is a program and not a `preexec_fn`, because
# code between fork and exec can deadlock in a parent that has threads. 1 is PR_SET_PDEATHSIG; the
# parent may have died before the call, hence the second look at the parent's process id.
_LAUNCHER = """
import ctypes, os, signal, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ProcessFailed(RuntimeError):  # noqa: N818 - the name states the fact
    """A child ended, or stayed silent for too long, before it was ready."""


class ManagedProcess:
    """One child process that can be started again after it ended.

    Args:
        name: what messages call it.
        command: program and arguments.
        log_file: receives standard output and standard error, appended over restarts.
        environment: the complete environment of the child; the parent's when left out.
        folder: the child's working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_file: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_file = log_file
        self._environment = dict(environment) if environment is not None else None
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ProcessFailed: it was never started.
        """
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs or before it was started."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the process; does not wait until it is ready.

        Raises:
            ProcessFailed: it is running already.
        """
        if self.running:
            raise ProcessFailed(f"{self.name} is running already")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._folder,
                process_group=0,
            )
        _started_processes.add(self)

    def output(self) -> str:
        """Everything the process has written since its latest start."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def wait_for_line(self, prefix: str, *, timeout_seconds: float) -> str:
        """Wait until the process has written a complete line that starts with ``prefix``.

        Returns:
            the rest of that line.

        Raises:
            ProcessFailed: the process ended first or the time is over; carries the log's end.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            ended = not self.running  # looked up first: what it wrote last must still be seen
            for line in self.output().splitlines(keepends=True):
                if line.startswith(prefix) and line.endswith("\n"):
                    return line.removeprefix(prefix).strip()
            if ended or time.monotonic() > deadline:
                reason = f"ended with exit code {self.exit_code}" if ended else "is not ready"
                raise ProcessFailed(f"{self.name} {reason}; it wrote:\n{self.output()[-4000:]}")
            time.sleep(POLL_SECONDS)

    def wait(self, *, timeout_seconds: float) -> int:
        """Wait until the process ends by itself.

        Returns:
            its exit code.

        Raises:
            ProcessFailed: it still runs when the time is over.
        """
        try:
            return self._started().wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} still runs after {timeout_seconds} s") from None

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its sockets stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stop(self, *, grace_seconds: float = 15) -> int | None:
        """End the process politely (SIGTERM), by force when it takes too long.

        Returns:
            the exit code; None when it was never started.
        """
        if self._process is None:
            return None
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a paused process would never see the SIGTERM
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        self.kill()
        return self.exit_code

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProcessFailed(f"{self.name} was never started")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        # The group, because a child may have children. It can be gone, or still be only the
        # launcher before its first instruction; neither is an error of the caller.
        with suppress(ProcessLookupError):
            os.killpg(self._started().pid, number)


_started_processes: weakref.WeakSet[ManagedProcess] = weakref.WeakSet()


@atexit.register
def stop_all() -> None:
    """Stop every child that still runs; called when the interpreter ends."""
    for process in list(_started_processes):
        if process.running:
            process.stop(grace_seconds=5)


def exit_on_sigterm() -> None:
    """Make SIGTERM leave this program like Ctrl-C does: through every ``finally`` and ``with``."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def wait_for_port(port: int, *, timeout_seconds: float, address: str = "127.0.0.1") -> None:
    """Wait until something accepts connections on ``address:port``.

    Raises:
        ProcessFailed: nothing does when the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        with suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise ProcessFailed(f"nothing accepts connections on {address}:{port}")
        time.sleep(POLL_SECONDS)
