"""The command line of the dispatcher."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEASE_RANGE = range(15, 61)


@dataclass(frozen=True)
class HostOptions:
    """How a dispatcher runs; the field's help texts are in ``parse_options``."""

    app: Path
    settings: Path | None
    port: int
    log: Path | None
    log_level: str
    host_id: str | None
    cores: int
    scan_interval: float
    strict_last_modified: bool
    queue_lease_seconds: int
    lock_lease_seconds: int
    break_stale_locks: bool
    function_key: str | None = field(repr=False)
    master_key: str | None = field(repr=False)
    emit_events: bool
    event_copies: int
    event_interval: float


def parse_options(arguments: Sequence[str] | None = None) -> HostOptions:
    """Read the command line.

    Raises:
        SystemExit: it is not valid; the reason is on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.host",
        description="Runs a Python (v2) function app against a storage emulator, in place of the "
        "Azure Functions host.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--app", type=_folder, required=True, help="folder with function_app.py and host.json")
    add(
        "--settings",
        type=Path,
        help="settings file; local.settings.json in the app's folder if it exists; the "
        "environment wins over it",
    )
    add("--port", type=int, default=7071, help="loopback port, 0 for a free one")
    add("--log", type=Path, help="log file, beside standard error")
    add(
        "--log-level",
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="least level",
    )
    add(
        "--host-id",
        help="hosts with one id share work; else AzureFunctionsWebHost__hostid, else one made of "
        "machine and folder",
    )
    add("--cores", type=_positive, default=os.cpu_count(), help="scales default concurrency")
    add("--scan-interval", type=float, default=2, help="seconds between two container listings")
    add(
        "--strict-last-modified",
        action="store_true",
        help="lose blobs as the real host does on an emulator: those written in the same second "
        "as the newest one seen",
    )
    add(
        "--queue-lease-seconds",
        type=_positive,
        default=600,
        help="how long messages of a killed host stay hidden",
    )
    add(
        "--lock-lease-seconds",
        type=_lease,
        default=60,
        help="how long scans and timers of a killed host stay locked (15 to 60)",
    )
    add(
        "--break-stale-locks",
        action="store_true",
        help="take over locks of dead processes of this machine at once; the real host waits",
    )
    add("--function-key", help="accept this key for every function, beside the stored ones")
    add("--master-key", help="use this master key instead of the stored one")
    add(
        "--emit-events",
        action="store_true",
        help="emulate Event Grid: post BlobCreated events for functions with that source",
    )
    add("--event-copies", type=_positive, default=1, help="how often each event is posted")
    add("--event-interval", type=float, default=1, help="seconds between two looks for new blobs")
    return HostOptions(**vars(parser.parse_args(arguments)))


def _folder(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _lease(text: str) -> int:
    number = int(text)
    if number not in _LEASE_RANGE:
        raise argparse.ArgumentTypeError("the storage service allows leases of 15 to 60 seconds")
    return number
