"""Hypothesis looks for an interleaving that breaks a rule, and shrinks it to its essence."""

from __future__ import annotations

import sys

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from interleaving import Fate
from relay_world import PATHS, PAUSES, PROCESSES, REPLIES, SKEWS, World

processes = st.integers(0, PROCESSES - 1)
paths = st.sampled_from(PATHS)
choices = st.integers(0, 7)
troubles = st.integers(0, len(REPLIES) - 1)


class RelayMachine(RuleBasedStateMachine):
    """Everything that may happen around the relay, in any order."""

    @initialize(seed=st.integers(0, 3))
    def begin(self, seed: int) -> None:
        """An empty ledger and one fresh upload."""
        self.world = World(seed=seed)
        self.world.write_blob(PATHS[0])

    @property
    def anybody(self) -> bool:
        """Whether a use case is under way."""
        return bool(self.world.tasks)

    @rule(path=paths)
    def write_blob(self, path: str) -> None:
        """A blob is written or overwritten."""
        self.world.write_blob(path)

    @rule(path=paths)
    def delete_blob(self, path: str) -> None:
        """A blob is deleted."""
        self.world.delete_blob(path)

    @rule(process=processes, path=paths)
    def deliver_event(self, process: int, path: str) -> None:
        """A blob event arrives, for the first time or again."""
        self.world.deliver_event(process, path)

    @rule(process=processes, choice=choices, again=st.booleans())
    def deliver_reminder(self, process: int, choice: int, again: bool) -> None:
        """A reminder arrives, once or twice."""
        self.world.deliver_reminder(process, choice, again=again)

    @rule(choice=choices)
    def lose_reminder(self, choice: int) -> None:
        """A reminder is lost."""
        self.world.lose_reminder(choice)

    @rule(process=processes, choice=choices)
    def deliver_hint(self, process: int, choice: int) -> None:
        """The webhook is called."""
        self.world.deliver_hint(process, choice)

    @rule(process=processes)
    def sweep(self, process: int) -> None:
        """The timer fires."""
        self.world.sweep(process)

    @precondition(lambda self: self.anybody)
    @rule(choice=choices, fate=st.sampled_from(Fate), trouble=troubles)
    def step(self, choice: int, fate: Fate, trouble: int) -> None:
        """One worker moves by one effect, fails there or dies there."""
        self.world.step(choice, fate, trouble)

    @precondition(lambda self: self.anybody)
    @rule(choice=choices, turns=st.integers(2, 12), trouble=troubles)
    def steps(self, choice: int, turns: int, trouble: int) -> None:
        """One worker moves by some effects and stops there."""
        task = self.world.tasks[choice % len(self.world.tasks)]
        for _ in range(turns):
            if task in self.world.tasks:
                self.world.step(self.world.tasks.index(task), Fate.GO, trouble)

    @precondition(lambda self: self.anybody)
    @rule(choice=choices, trouble=troubles)
    def run_worker(self, choice: int, trouble: int) -> None:
        """One worker runs to its end."""
        self.world.run(choice, trouble)

    @rule(process=processes)
    def crash(self, process: int) -> None:
        """A process dies and starts again."""
        self.world.crash(process)

    @rule(pause=st.sampled_from(PAUSES))
    def wait(self, pause: object) -> None:
        """Time passes while everybody stands still."""
        self.world.wait(pause)  # type: ignore[arg-type] # drawn from PAUSES

    @rule(service=st.integers(0, 2), offset=st.sampled_from(SKEWS))
    def skew(self, service: int, offset: object) -> None:
        """A service's clock is off from here on, within the margin."""
        self.world.skew(service, offset)  # type: ignore[arg-type] # drawn from SKEWS

    def teardown(self) -> None:
        """When the trouble is over, every upload has its one job."""
        try:
            # Runs in a ``finally`` of hypothesis: a rule that failed has said all there is.
            if sys.exc_info()[0] is None:
                self.world.settle()
                self.world.check_end()
        finally:
            self.world.close()


RelayMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
TestRelayMachine = RelayMachine.TestCase
