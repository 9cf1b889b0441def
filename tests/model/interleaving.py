"""Runs use cases step by step: nobody moves between two effects unless told to.

Each use case under way has a thread of its own, but only one thread runs at a time: it runs up to
its next request or answer and hands the baton back. Every request and every answer is such a
point, so two workers and the sweep really interleave between any two effects, and the same
choices give the same run.
"""

from __future__ import annotations

import enum
import threading
from typing import TYPE_CHECKING

from modzy_relay.testing import StorageDownError, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

_STUCK_AFTER_SECONDS = 60.0


class WorkerKilledError(BaseException):
    """The process died here. Not an ``Exception``: no handler of the relay's may catch it."""


class Fate(enum.Enum):
    """What happens to a worker at the point where it stands."""

    GO = "go"
    FAIL = "fail"  # storage does not answer
    KILL = "kill"


class Worker:
    """One use case under way.

    Attributes:
        name: For traces.
        at: The point where it stands, ``<operation>?`` before a request takes effect and
            ``<operation>!`` after; None once it has ended.
        error: What it ended with.
    """

    def __init__(self, name: str, use_case: Callable[[], object]) -> None:
        self.name = name
        self.at: str | None = "start"
        self.error: BaseException | None = None
        self.fate = Fate.GO
        self.turn = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self._use_case = use_case
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether its use case has returned or raised."""
        return self.at is None

    def pause(self, at: str) -> None:
        """Called on the worker's own thread: hand the baton back and wait for the next turn."""
        self.at = at
        self.done.release()
        self.turn.acquire()
        if self.fate is Fate.KILL:
            raise WorkerKilledError(at)
        if self.fate is Fate.FAIL:
            raise StorageDownError(at)

    def _run(self) -> None:
        try:
            self.turn.acquire()
            if self.fate is not Fate.KILL:
                self._use_case()
        except BaseException as error:  # noqa: BLE001 - judged by whoever steps the worker
            self.error = error
        self.at = None
        self.done.release()

    def step(self, fate: Fate) -> None:
        """Give it one turn: up to its next point, or its end."""
        if self.ended:
            raise ValueError(f"{self.name} has ended")
        self.fate = fate
        self.turn.release()
        if not self.done.acquire(timeout=_STUCK_AFTER_SECONDS):
            raise TimeoutError(f"{self.name} does not come back from {self.at}")
        if self.ended:
            self._thread.join()


class SteppingWire(Wire):
    """Stops the worker whose turn it is at every request and every answer.

    Attributes:
        current: The worker whose turn it is; None lets everything through.
        passing: Operations at which nobody stops.
    """

    def __init__(self) -> None:
        self.current: Worker | None = None
        self.passing: frozenset[str] = frozenset()

    def request(self, operation: str) -> None:
        """Stop before the effect."""
        if self.current is not None and operation not in self.passing:
            self.current.pause(f"{operation}?")

    def response(self, operation: str) -> None:
        """Stop after the effect."""
        if self.current is not None and operation not in self.passing:
            self.current.pause(f"{operation}!")

    def step(self, worker: Worker, fate: Fate) -> None:
        """Give a worker one turn."""
        self.current = worker
        try:
            worker.step(fate)
        finally:
            self.current = None
