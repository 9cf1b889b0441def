"""Processor time to import the app, against the libraries that it cannot do without.

Each import happens in a fresh interpreter, and the kinds take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import tell

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path(__file__).resolve().parents[1]
_ROUNDS = 15
#: What registering the functions and one upload need: the programming model, the SDK type of the
#: blob trigger, and a client of each service.
_AT_START = (
    "azure.functions",
    "azurefunctions.extensions.bindings.blob",
    "azure.data.tables",
    "azure.storage.queue",
    "requests",
)
_AT_FIRST_UPLOAD = ("azure.keyvault.secrets", "azure.identity")
_APP_AT_FIRST_USE = ("function_app", "modzy_relay.wiring")
#: Processor time, which a busy machine does not stretch as it does time on the clock.
_PROGRAM = (
    "import time; began = time.process_time(); import {}; "
    "print((time.process_time() - began) * 1000)"
)


def milliseconds(modules: str, environment: Mapping[str, str]) -> float:
    """Processor time of importing modules, in an interpreter of their own."""
    run = subprocess.run(  # noqa: S603 - this interpreter, with a program made here
        [sys.executable, "-c", _PROGRAM.format(modules)],
        cwd=_ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(run.stdout)


def main() -> None:
    """Measure and tell."""
    kinds = {
        "the app": "function_app",
        "its SDK modules alone": ", ".join(_AT_START),
        "the app and what it imports on first use": ", ".join(
            (*_APP_AT_FIRST_USE, *_AT_FIRST_UPLOAD)
        ),
        "its SDK modules for that": ", ".join((*_AT_START, *_AT_FIRST_UPLOAD)),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as bytecode:
        # All of it from bytecode, whatever this machine keeps of it.
        environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(_ROUNDS + 1):
            for name, modules in kinds.items():
                times[name].append(milliseconds(modules, environment))
    # The first round compiles, and reads files that later ones find in memory.
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, median in medians.items():
        tell(f"{name:<42} {median:6.0f} ms")
    app, base, app_in_use, base_in_use = medians.values()
    tell(f"{'app / its SDK modules':<42} {app / base:6.2f}")
    tell(f"{'the same with what first use adds':<42} {app_in_use / base_in_use:6.2f}")
    tell(f"median of {_ROUNDS}; not measured: a cold disk, compiling, the worker's own start")


if __name__ == "__main__":
    main()
