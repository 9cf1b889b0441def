"""Runs the whole fault matrix and writes ``docs/fault-matrix.md``.

Exit code 0 if every case is as it should be.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

from sandbox.fault_proxy import MODZY
from sandbox.stack import REPOSITORY
from sandbox.storage import Azurite
from tests.faults import outage
from tests.faults.campaign import quiet_stand_ins, run_scripts
from tests.faults.cases import SCRIPTS
from tests.faults.lane import Lane
from tests.faults.report import report
from tests.faults.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faults.outage import OutageReport
    from tests.faults.script import Script
    from tests.faults.verdict import Verdict

_REPORT = REPOSITORY / "docs" / "fault-matrix.md"
_LOGS = REPOSITORY / ".run" / "faults"


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("scripts", nargs="*", help="only these; then the page is printed")
    parser.add_argument("--list", action="store_true", help="name the scripts")
    parser.add_argument("--app-processes", type=int, default=12, help="how many run at once")
    parsed = parser.parse_args()
    names = {script.name for script in SCRIPTS}
    if parsed.list:
        print("\n".join(sorted(names)))  # noqa: T201 - a terminal program
        return 0
    if unknown := set(parsed.scripts) - names:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; --list names them")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = [script for script in SCRIPTS if script.name in (parsed.scripts or names)]
    try:
        return _run(chosen, parsed.app_processes, everything=not parsed.scripts)
    except KeyboardInterrupt:
        # Threads of the campaign wait for things that nobody needs any more; the processes that
        # they have started end with this one.
        os._exit(130)


def _run(chosen: Sequence[Script], app_processes: int, *, everything: bool) -> int:
    quiet_stand_ins()
    shutil.rmtree(_LOGS, ignore_errors=True)
    _LOGS.mkdir(parents=True)
    began = time.monotonic()
    verdicts = run_scripts(chosen, _LOGS, app_processes=app_processes)
    outages = _run_outages(_LOGS, verdicts) if everything else []
    minutes = (time.monotonic() - began) / 60
    page = report(verdicts, outages, minutes)
    if everything:
        _REPORT.write_text(page, "utf-8")
    else:
        print(page)  # noqa: T201 - as above
    for verdict in verdicts:
        for fault in verdict.faults:
            print(f"WRONG  {verdict.lane}: {verdict.case}: {fault}")  # noqa: T201 - as above
    wrong = sum(bool(verdict.faults) for verdict in verdicts)
    print(  # noqa: T201 - as above
        f"{len(verdicts)} cases, {wrong} wrong, {minutes:.1f} min; "
        f"logs: {_LOGS.relative_to(REPOSITORY)}"
    )
    return 1 if wrong else 0


def _run_outages(folder: Path, verdicts: list[Verdict]) -> list[OutageReport]:
    """One after the other and with nothing beside them, since they measure time."""
    reports = []
    for name, title, begin, end in (
        ("refused", "Modzy refuses connections for 60 s", outage.refuse, None),
        ("silent", "Modzy hangs for 60 s", outage.hang, outage.end_hanging),
    ):
        with (
            Azurite(folder / name, in_memory=True) as azurite,
            Lane(azurite, folder, f"outage{name}", proxied=(MODZY,)) as lane,
        ):
            reports.append(outage.run_outage(lane, title, begin, end))
            verdicts += judge(lane.cases, lane.evidence())
    return reports


if __name__ == "__main__":
    sys.exit(main())
