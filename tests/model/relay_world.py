"""A small world in which the relay runs, everything may go wrong, and every rule is watched.

Two processes with the real use cases share the in-memory services. A driver (hypothesis, or a
seeded random one) chooses what happens next: a blob is written, a hint arrives, a worker takes one
step, storage fails, a process dies, time passes. The watched services check each effect as it
happens; ``settle`` then stops all trouble, and ``check_end`` looks at what came of it.
"""

from __future__ import annotations

import enum
import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from interleaving import Fate, SteppingWire, Worker, WorkerKilledError

from modzy_relay.identity import LedgerKey, ledger_key_of
from modzy_relay.lifecycle import FAILED_STATES, Record, State, Submission, Timing
from modzy_relay.messages import CloudEvent, EventType
from modzy_relay.modzy_api import ModzyError, NoAnswerError, Outcome, UnavailableError
from modzy_relay.ports import version_of
from modzy_relay.routing import Route, skip_reason
from modzy_relay.testing import (
    ManualClock,
    MemoryLedger,
    MemoryModzy,
    MemoryOutbox,
    MemoryResults,
    MemoryUploads,
    Reminder,
    Reply,
    StorageDownError,
    busy,
    cut_off,
    hanging,
    refusing,
    throttling,
    unreachable,
)
from modzy_relay.use_cases import UseCases, assemble

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from modzy_relay.modzy_api import Job
    from modzy_relay.testing.wire import Exchange, Wire

TIMING = Timing(
    submit=timedelta(seconds=30),
    settle=timedelta(minutes=2),
    give_up=timedelta(hours=6),
    follow=timedelta(days=7),
)
LOOKBACK = timedelta(days=2)
SWEEP_EVERY = timedelta(minutes=15)
ROUTES = (Route("**", "ed542963de", "1.0.1", "input.txt"),)
PATHS = ("letters/a.txt", "b.txt", "empty.txt")
PROCESSES = 2
WORKERS = 5
#: Where a worker stands after its last look at the clock.
BEFORE_POST = "modzy.submit.send?"
#: Where it stands when Modzy has the job and the worker does not know yet.
AFTER_POST = "modzy.submit!"
_HALTS = (
    None,
    "uploads.head!",
    "ledger.insert!",
    "ledger.get!",
    "modzy.submit?",
    AFTER_POST,
    "modzy.find!",
    "outbox.announce?",
    "outbox.announce!",
    "outbox.remind!",
    "ledger.replace?",
    "ledger.replace!",
)
#: How likely a worker that stands at such a point goes on standing there.
_FROZEN = 0.9
_SETTLING_ROUNDS = 3000
_SETTLING_AT_LEAST = timedelta(hours=1)


class Violation(AssertionError):  # noqa: N818 - the name states the fact
    """The relay broke a rule."""


class Trust(enum.Enum):
    """Which of its assumptions the relay may rely on."""

    FULL = "every assumption holds"
    HOLE = "a process may stand still between its last look at the clock and the POST"
    LYING_HISTORY = "the history may show a job later than it promised"


_SETTLE = TIMING.settle
REPLIES: tuple[Reply, ...] = (
    Reply(),
    Reply(history_lag=_SETTLE),
    cut_off(accepted=True, history_lag=_SETTLE),
    cut_off(accepted=True),
    cut_off(accepted=False),
    hanging(TIMING.submit, accepted=True, history_lag=_SETTLE),
    hanging(TIMING.submit),
    busy(),
    busy(retry_after=120.0),
    throttling(retry_after=20.0),
    unreachable(),
    refusing(),
)
LIES = (
    Reply(history_lag=20 * _SETTLE),
    cut_off(accepted=True, history_lag=20 * _SETTLE),
    cut_off(accepted=True, history_lag=timedelta(days=3)),
)
FAULTS: tuple[Exception | None, ...] = (
    None,
    None,
    UnavailableError("try later", status=503),
    NoAnswerError("the connection was cut"),
)
#: Longer than a claim, than the settle time, than what makes a row overdue, than GIVE_UP_AFTER.
PAUSES = tuple(timedelta(seconds=s) for s in (1, 4, 12, 60, 110, 240, 900, 3600, 7 * 3600))
_PAUSE_WEIGHTS = (6, 6, 8, 8, 8, 8, 6, 2, 1)
#: One service's front ends may differ by this: the margin less the second that is cut off.
SKEWS = tuple(timedelta(seconds=s) for s in (0, 1.5, 4))

_MOVES: dict[State | None, set[State]] = {
    None: {State.SUBMITTING, State.DEFERRED, State.SKIPPED},
    State.SUBMITTING: set(State) - {State.SKIPPED},
    State.DEFERRED: {State.SUBMITTING, State.DEFERRED, State.ABANDONED, State.GONE},
    State.SUBMITTED: {State.SUBMITTED},
    # Whoever POSTed long ago, stood still and was given up, comes back with the job.
    State.UNCERTAIN: {State.SUBMITTED},
}
_LATE_JOB = {State.DEFERRED, State.ABANDONED, State.UNCERTAIN, State.GONE, State.REJECTED}


class WatchedOutbox(MemoryOutbox):
    """Remembers what was told, and that a reminder followed it."""

    def __init__(self, clock: ManualClock, wire: Wire) -> None:
        super().__init__(clock, wire)
        self.told: dict[LedgerKey, set[tuple[EventType, str | None]]] = defaultdict(set)
        self.followed: set[str] = set()

    def announce(self, event: CloudEvent) -> None:
        """Note the event once it was sent."""
        event.encode()
        with self._exchange("outbox.announce"):
            self.announcements.append(event)
            key = LedgerKey.parse(event.data["ledger_key"])
            if key is None:
                raise Violation(f"an event without a ledger key: {event}")
            self.told[key].add((event.type, event.data["job_identifier"]))

    def remind(self, key: LedgerKey, delay: timedelta) -> None:
        """Note which announced jobs the reminder follows."""
        announced = {job for kind, job in self.told[key] if job and kind is EventType.JOB_SUBMITTED}
        super().remind(key, delay)
        self.followed |= announced


class WatchedLedger(MemoryLedger):
    """Hands every change of a row to a judge before it is made."""

    def __init__(self, clock: ManualClock, wire: Wire) -> None:
        super().__init__(clock, wire)
        self.judge: Callable[[Submission | None, Submission], None] = lambda _before, _after: None

    def _write(self, row: Submission, exchange: Exchange) -> Record:
        before, _ = self._rows.get(row.key, (None, ""))
        self.judge(before, row)
        return super()._write(row, exchange)


class WatchedModzy(MemoryModzy):
    """Counts jobs as they are accepted."""

    def __init__(self, clock: ManualClock, wire: Wire, *, doubles_expected: bool) -> None:
        # Where doubles are to be found and cancelled, jobs must live long enough for it.
        life = timedelta(hours=1) if doubles_expected else timedelta(minutes=2)
        super().__init__(clock, wire, job_life=life)
        self.doubles_expected = doubles_expected
        self.refused: set[str] = set()
        self.to_cancel: set[str] = set()

    def _accept(self, row: Submission, reply: Reply) -> Job:
        if self.jobs_of(row.item_key) and not self.doubles_expected:
            raise Violation(f"a second job for {row.item_key}")
        return super()._accept(row, reply)

    def cancel(self, job_identifier: str) -> None:
        """Note what was asked for."""
        self.to_cancel.add(job_identifier)
        super().cancel(job_identifier)


@dataclass
class Task:
    """A worker, the process it runs in, and the message it will be given again if it fails."""

    worker: Worker
    process: int
    reminder: Reminder | None = None


class World:
    """See the module's text.

    Args:
        trust: Which assumptions hold.
        seed: For the relay's own jitter.
    """

    def __init__(self, trust: Trust = Trust.FULL, *, seed: int = 0) -> None:
        self.trust = trust
        self.trace: list[str] = []
        self.clock = ManualClock()
        self.wire = SteppingWire()
        if trust is not Trust.HOLE:
            self.wire.passing = frozenset({"modzy.submit.send"})
        self.uploads = MemoryUploads(self.clock, self.wire)
        self.ledger = WatchedLedger(self.clock, self.wire)
        self.ledger.judge = self._judge
        self.outbox = WatchedOutbox(self.clock, self.wire)
        self.results = MemoryResults(self.clock, self.wire)
        self.modzy = WatchedModzy(self.clock, self.wire, doubles_expected=trust is not Trust.FULL)
        self.replies = REPLIES + (LIES if trust is Trust.LYING_HISTORY else ())
        self.tasks: list[Task] = []
        self.halts: frozenset[str | None] = frozenset(
            {BEFORE_POST, AFTER_POST} if trust is Trust.HOLE else ()
        )
        self._closed_at: dict[LedgerKey, datetime] = {}
        self._chance = random.Random(seed).random  # noqa: S311 - jitter, and repeatable
        self._started = 0
        self.processes = [self._start_process() for _ in range(PROCESSES)]

    def _start_process(self) -> UseCases:
        return assemble(
            uploads=self.uploads,
            ledger=self.ledger,
            outbox=self.outbox,
            modzy=self.modzy,
            results=self.results,
            routes=ROUTES,
            timing=TIMING,
            lookback=LOOKBACK,
            ticks=self.clock.ticks,
            chance=self._chance,
        )

    # -- what may happen -------------------------------------------------------------------

    def write_blob(self, path: str) -> None:
        """A blob is written, new or over another."""
        self._note(f"write {path}")
        self.uploads.put(path, size=0 if path.startswith("empty") else 5)

    def delete_blob(self, path: str) -> None:
        """A blob is deleted, if it is there."""
        if any(blob.path == path for blob in self.uploads.blobs()):
            self._note(f"delete {path}")
            self.uploads.delete(path)

    def deliver_event(self, process: int, path: str) -> None:
        """A blob event arrives: the first, a repeated or a very late one."""
        relay = self.processes[process].relay
        self._begin(process, f"event {path}", lambda: relay.submit_upload(path))

    def deliver_reminder(self, process: int, choice: int, *, again: bool = False) -> None:
        """A visible message of the due queue arrives; ``again``: and will arrive once more."""
        visible = self._visible()
        if not visible:
            return
        reminder = visible[choice % len(visible)]
        if not again:
            self.outbox.lose(reminder)
        relay = self.processes[process].relay
        self._begin(
            process,
            f"reminder {reminder.number}",
            lambda: relay.advance(reminder.key),
            None if again else reminder,
        )

    def lose_reminder(self, choice: int) -> None:
        """A message of the due queue is lost."""
        reminders = self.outbox.reminders()
        if reminders:
            reminder = reminders[choice % len(reminders)]
            self._note(f"lose reminder {reminder.number}")
            self.outbox.lose(reminder)

    def deliver_hint(self, process: int, choice: int) -> None:
        """The webhook is called for some job."""
        jobs = list(self.modzy.jobs)
        if jobs:
            job = jobs[choice % len(jobs)]
            follower = self.processes[process].follower
            self._begin(process, f"hint {job}", lambda: follower.hint(job))

    def sweep(self, process: int) -> None:
        """The timer fires."""
        self._begin(process, "sweep", self.processes[process].sweeper.run)

    def step(self, choice: int, fate: Fate = Fate.GO, trouble: int = 0) -> None:
        """One worker gets one turn; ``trouble`` chooses how Modzy answers meanwhile."""
        if self.tasks:
            self._step(self.tasks[choice % len(self.tasks)], fate, trouble)

    def run(self, choice: int, trouble: int = 0) -> None:
        """One worker runs to its end, or up to one of the points where a run halts."""
        if self.tasks:
            task = self.tasks[choice % len(self.tasks)]
            self._step(task, Fate.GO, trouble)
            while not task.worker.ended and task.worker.at not in self.halts:
                self._step(task, Fate.GO, trouble)

    def crash(self, process: int) -> None:
        """A process dies with all its workers, and starts again."""
        self._note(f"process {process} dies")
        for task in [task for task in self.tasks if task.process == process]:
            self._step(task, Fate.KILL, 0)
        self.processes[process] = self._start_process()

    def wait(self, pause: timedelta) -> None:
        """Time passes; whoever is under way stands still."""
        self._note(f"wait {pause}")
        self.clock.advance(pause)

    def skew(self, service: int, offset: timedelta) -> None:
        """A service answers from a front end whose clock differs."""
        services = (self.uploads, self.ledger, self.outbox)
        services[service % len(services)].offset = offset
        self._note(f"service {service % len(services)} is ahead by {offset}")

    # -- machinery -------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        self.trace.append(f"{self.clock.now():%d %H:%M:%S} {text}")

    def _visible(self) -> list[Reminder]:
        now = self.clock.now() + self.outbox.offset
        return [reminder for reminder in self.outbox.reminders() if reminder.visible_at <= now]

    def _begin(
        self,
        process: int,
        name: str,
        use_case: Callable[[], object],
        reminder: Reminder | None = None,
    ) -> None:
        if len(self.tasks) >= WORKERS:
            if reminder is not None:
                self.outbox.put_back(reminder)
            return
        self._started += 1
        name = f"{self._started}:{name} in {process}"
        self._note(f"begin {name}")
        self.tasks.append(Task(Worker(name, use_case), process, reminder))

    def _step(self, task: Task, fate: Fate, trouble: int) -> None:
        worker = task.worker
        at = worker.at or ""
        if fate is Fate.FAIL and (at == "start" or at.startswith("modzy.")):
            fate = Fate.GO  # Modzy's trouble is of another kind
        reply = self.replies[trouble % len(self.replies)]
        fault = FAULTS[trouble % len(FAULTS)]
        self.modzy.reply = lambda _: reply
        self.modzy.fault = lambda _: fault
        posts = len(self.modzy.posts)
        self.wire.step(worker, fate)
        if len(self.modzy.posts) > posts and _refuses(reply):
            self.modzy.refused.add(self.modzy.posts[-1])
        answer = f" ({reply})" if len(self.modzy.posts) > posts else ""
        self._note(f"{worker.name}: {fate.value} at {at}{answer} -> {worker.at or worker.error}")
        if worker.ended:
            self._end(task)

    def _end(self, task: Task) -> None:
        self.tasks.remove(task)
        error = task.worker.error
        if isinstance(error, WorkerKilledError | StorageDownError):
            if task.reminder is not None:
                self.outbox.put_back(task.reminder)
        elif isinstance(error, Violation):
            raise error
        elif error is not None:
            raise Violation(f"{task.worker.name} ended with {error!r}") from error

    def close(self) -> None:
        """End every worker that is still under way."""
        while self.tasks:
            task = self.tasks.pop()
            while not task.worker.ended:
                self.wire.step(task.worker, Fate.KILL)

    # -- the rules, at every change --------------------------------------------------------

    def _judge(self, before: Submission | None, row: Submission) -> None:
        was = before.state if before is not None else None
        late_job = self.trust is not Trust.FULL and was in _LATE_JOB
        if row.state not in _MOVES.get(was, set()) and not (
            late_job and row.state in {State.SUBMITTED, State.SUBMITTING}
        ):
            raise Violation(f"{row.key} moved from {was} to {row.state}")
        if before is not None and before.job_identifier not in {None, row.job_identifier}:
            raise Violation(f"{row.key} changed its job to {row.job_identifier}")
        if row.is_open and row.next_attempt_at is None:
            raise Violation(f"{row.key} is {row.state} and nobody will look at it again")
        if not row.is_open:
            self._closed_at[row.key] = self.clock.now()
        self._judge_told(row)
        self._judge_end(row)

    def _judge_told(self, row: Submission) -> None:
        told = self.outbox.told[row.key]
        if row.state is State.SUBMITTED:
            if (EventType.JOB_SUBMITTED, row.job_identifier) not in told:
                raise Violation(f"{row.key} is SUBMITTED and nobody was told")
            if row.job_identifier not in self.outbox.followed:
                raise Violation(f"{row.key} is SUBMITTED and its job is not followed")
            if row.job_is_final and (EventType.JOB_FINISHED, row.job_identifier) not in told:
                raise Violation(f"{row.key} is finished and nobody was told")
            if row.job_status == "COMPLETED" and not row.result_location:
                raise Violation(f"{row.key} is COMPLETED without results")
        if row.state in FAILED_STATES and (EventType.SUBMISSION_FAILED, None) not in told:
            raise Violation(f"{row.key} is {row.state} and nobody was told")

    def _judge_end(self, row: Submission) -> None:
        jobs = self.modzy.jobs_of(row.item_key)
        if row.state in {State.ABANDONED, State.UNCERTAIN}:
            margin = TIMING.clock_margin
            if self.clock.now() + margin < row.give_up_at:
                raise Violation(f"{row.key} is {row.state} before its time was over")
        settled_without_job = {State.GONE, State.ABANDONED, State.REJECTED, State.DEFERRED}
        if row.state in settled_without_job and jobs and self.trust is Trust.FULL:
            raise Violation(f"{row.key} is {row.state} but has job {jobs[0].job_identifier}")
        if row.state is State.REJECTED and row.item_key not in self.modzy.refused:
            raise Violation(f"{row.key} is REJECTED but was not refused")

    # -- the end ---------------------------------------------------------------------------

    def settle(self) -> None:
        """No more trouble: everybody goes on, messages arrive, the sweep runs, until all is quiet.

        Raises:
            Violation: It never gets quiet.
        """
        self._note("settle")
        while self.tasks:
            for task in list(self.tasks):
                self._step(task, Fate.GO, 0)
        self.modzy.reply = lambda _: Reply()
        self.modzy.fault = lambda _: None
        process = self.processes[0]
        began = self.clock.now()
        next_sweep = began
        for _ in range(_SETTLING_ROUNDS):
            if self.clock.now() >= next_sweep:
                process.sweeper.run()
                next_sweep = self.clock.now() + SWEEP_EVERY
            while (reminder := self.outbox.receive()) is not None:
                process.relay.advance(reminder.key)
            if self.clock.now() - began > _SETTLING_AT_LEAST and self._quiet():
                return
            visible_at = self.outbox.next_visible_at()
            wake = min(next_sweep, visible_at - self.outbox.offset) if visible_at else next_sweep
            self.clock.advance(max(wake - self.clock.now(), timedelta()))
        raise Violation("it does not settle")

    def _quiet(self) -> bool:
        return self.outbox.next_visible_at() is None and not any(
            row.is_open for row in self.ledger.rows()
        )

    def check_end(self) -> None:
        """Nothing was lost and nothing doubled. Raises Violation."""
        rows = {row.key: row for row in self.ledger.rows()}
        present = set()
        for facts in self.uploads.blobs():
            key = version_of(self.uploads, facts).key
            present.add(key)
            if key not in rows:
                raise Violation(f"{facts.path} {facts.etag} was lost")
            skipped = skip_reason(facts.path, facts.size, facts.metadata) is not None
            if skipped != (rows[key].state is State.SKIPPED):
                raise Violation(f"{key} is {rows[key].state}")
        for row in rows.values():
            if row.state is State.GONE and row.key in present:
                raise Violation(f"{row.key} is GONE, but its blob is there")
        for job in self.modzy.jobs.values():
            job_key = ledger_key_of(job.item_key)
            if job_key is None or job_key not in rows:
                raise Violation(f"job {job.job_identifier} has no row")
            self._check_job(job.job_identifier, rows[job_key])

    def _check_job(self, job_identifier: str, row: Submission) -> None:
        job = self.modzy.jobs[job_identifier]
        if row.job_identifier == job_identifier:
            if job_identifier in self.modzy.to_cancel:
                raise Violation(f"job {job_identifier} of {row.key} was cancelled")
            return
        if row.job_identifier is None and (
            row.state is State.UNCERTAIN or self.trust is not Trust.FULL
        ):
            return
        unseen = self.trust is not Trust.FULL and job.visible_at >= self._closed_at[row.key]
        if job_identifier not in self.modzy.to_cancel and not unseen:
            raise Violation(f"job {job_identifier} is nobody's; {row.key} is {row.state}")


def _refuses(reply: Reply) -> bool:
    error = reply.error
    return isinstance(error, ModzyError) and error.outcome is Outcome.REFUSED


def explore(seed: int, trust: Trust = Trust.FULL, *, steps: int = 120) -> World:
    """One random run, the same for the same seed.

    Raises:
        Violation: The relay broke a rule; ``trace`` in its notes says how it came to it.
    """
    chance = random.Random(seed)  # noqa: S311 - choices, and repeatable
    world = World(trust, seed=seed)
    try:
        # In most runs there is one point of the way at which workers stand still for long.
        if trust is not Trust.HOLE:
            world.halts = frozenset({chance.choice(_HALTS)})
        world.write_blob(PATHS[0])
        for _ in range(steps):
            _act(world, chance)
        world.settle()
        world.check_end()
    except Violation as violation:
        violation.add_note("\n".join([f"seed {seed}, {trust}", *world.trace]))
        raise
    finally:
        world.close()
    return world


def _act(world: World, chance: random.Random) -> None:
    process = chance.randrange(PROCESSES)
    path = chance.choices(PATHS, (6, 3, 1))[0]
    choice = chance.randrange(1 << 16)
    awake = [i for i, task in enumerate(world.tasks) if task.worker.at not in world.halts]
    if awake and chance.random() < _FROZEN:
        choice = chance.choice(awake)
    trouble = chance.randrange(1 << 16) if chance.random() < 0.5 else 0
    deaths = 5 if world.trust is Trust.HOLE else 1
    fate = chance.choices(tuple(Fate), (30, 2, deaths))[0]
    actions: tuple[tuple[int, Callable[[], None]], ...] = (
        (3, lambda: world.write_blob(path)),
        (1, lambda: world.delete_blob(path) if chance.random() < 0.3 else None),
        (5, lambda: world.deliver_event(process, path)),
        (8, lambda: world.deliver_reminder(process, choice, again=chance.random() < 0.2)),
        (1, lambda: world.lose_reminder(choice)),
        (1, lambda: world.deliver_hint(process, choice)),
        (2, lambda: world.sweep(process)),
        (50, lambda: world.step(choice, fate, trouble)),
        (14, lambda: world.run(choice, trouble)),
        (2, lambda: world.crash(process)),
        (14, lambda: world.wait(chance.choices(PAUSES, _PAUSE_WEIGHTS)[0])),
        (1, lambda: world.skew(choice, chance.choice(SKEWS))),
    )
    weights = [weight for weight, _ in actions]
    chance.choices(actions, weights)[0][1]()
