"""Runs scripts on lanes, several at once, over one emulator."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sandbox.storage import Azurite
from tests.faults.lane import Lane, NotSettledError
from tests.faults.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faults.script import Script
    from tests.faults.verdict import Verdict


def run_scripts(
    scripts: Sequence[Script],
    folder: Path,
    *,
    app_processes: int = 8,
    to_the_end: bool = True,
) -> list[Verdict]:
    """Run all scripts, the slow ones first; returns their verdicts in the scripts' order.

    Args:
        scripts: what to run.
        folder: for logs.
        app_processes: how many may run at once.
        to_the_end: count only when every job has been followed to its end, too.
    """
    room = _Room(app_processes)
    pool = ThreadPoolExecutor(app_processes)
    try:
        with Azurite(folder, in_memory=True) as azurite:
            running = {
                script.name: pool.submit(_run, script, azurite, folder, room, to_the_end)
                for script in sorted(scripts, key=lambda script: -script.seconds)
            }
            return [verdict for script in scripts for verdict in running[script.name].result()]
    finally:
        # Without waiting: what still runs here runs because the campaign was broken off.
        pool.shutdown(wait=False, cancel_futures=True)


class _Room:
    """Lets in as many app processes as there is room for, in the order of asking."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    def enter(self, processes: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= processes)
            self._free -= processes

    def leave(self, processes: int) -> None:
        with self._changed:
            self._free += processes
            self._changed.notify_all()


def _run(
    script: Script, azurite: Azurite, folder: Path, room: _Room, to_the_end: bool
) -> list[Verdict]:
    processes = int(script.lane.get("hosts", 1))
    room.enter(processes)
    began = time.monotonic()
    try:
        with (
            _storage(script, azurite, folder) as storage,
            Lane(storage, folder, script.name, **script.lane) as lane,
        ):
            verdicts = _run_on(lane, script, to_the_end=to_the_end)
    finally:
        room.leave(processes)
    faults = sum(len(verdict.faults) for verdict in verdicts)
    seconds = time.monotonic() - began
    print(f"{script.name}: {len(verdicts)} cases, {faults} faults, {seconds:.0f} s", flush=True)  # noqa: T201 - a program's report
    return verdicts


def _storage(
    script: Script, azurite: Azurite, folder: Path
) -> contextlib.AbstractContextManager[Azurite]:
    if script.own_storage:
        return Azurite(folder / f"storage-{script.name}")
    return contextlib.nullcontext(azurite)


def _run_on(lane: Lane, script: Script, *, to_the_end: bool) -> list[Verdict]:
    """Run one script and judge it; what goes wrong in the script itself is a fault too."""
    try:
        lane.start()
        lane.sweeping = script.sweep
        script.run(lane)
        lane.settle(seconds=script.seconds, to_the_end=to_the_end)
    except NotSettledError as error:
        lane.script_faults.append(str(error))
    except Exception as error:  # noqa: BLE001 - one broken script must not hide the others' results
        traceback.print_exc(file=sys.stderr)
        lane.script_faults.append(f"the script failed with {type(error).__name__}")
    if not lane.cases:
        lane.case(f"the script {script.name}")
    return judge(lane.cases, lane.evidence())


def quiet_stand_ins() -> None:
    """Keep what the stand-ins say of the faults they were ordered to make off the terminal."""
    logging.getLogger("sandbox").addHandler(logging.NullHandler())
    logging.getLogger("sandbox").propagate = False
