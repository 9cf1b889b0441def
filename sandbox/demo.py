"""The main job, end to end: real files up, jobs and results back; or ``--stay`` for your own.

Everything is real but Modzy, Key Vault and the Azure host around the app, which are stand-ins on
this machine. Exits with 0 only if every file got what it should have.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import mimetypes
import shutil
import signal
import sys
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from azure.storage.blob import ContentSettings

from sandbox.processes import exit_on_sigterm
from sandbox.stack import REPOSITORY, CoreToolsHost, Stack
from sandbox.storage import UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sandbox.host.child import FunctionsHost

    Host = FunctionsHost | CoreToolsHost
    Row = Mapping[str, Any]

SAMPLES = Path(__file__).parent / "samples"
_RUN = REPOSITORY / ".run"
_CONNECTION_FILE = _RUN / "upload-connection-string"
_DEADLINE_SECONDS = 75.0
_FINAL_JOBS = frozenset({"COMPLETED", "CANCELED", "TIMEDOUT", "ERROR", "VANISHED", "UNFOLLOWED"})


@dataclass(slots=True)
class Outcome:
    """What became of one sample, and what is wrong with it."""

    path: str
    row: Row
    result: dict[str, Any] | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The result in a few words, or the reason for none."""
        if self.result is None:
            return str(self.row.get("reason", ""))
        if self.result["kind"] == "text":
            sentiment = self.result["sentiment"]
            label, score = sentiment["label"], sentiment["score"]
            return f"{label} ({score:+.2f}), {self.result['wordCount']} words"
        return f"{self.result['mediaType']}, {self.result['size']:,} bytes"


def run_demo() -> int:
    """Upload the samples, show what happens, check all of it; returns the exit code."""
    folder = _RUN / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    with Stack(folder) as stack:
        host = _start_host(stack)
        try:
            _say(f"stand-ins and Functions host are up ({time.monotonic() - began:.1f} s)")
            samples = _upload_samples(stack)
            rows = _watch(stack, set(samples))
            outcomes = [_outcome(stack, path, rows.get(path)) for path in samples]
            _show(outcomes)
            faults = _look_up(host, outcomes) + _check_events(stack, outcomes)
        finally:
            host.stop()
        faults += [f"{outcome.path}: {fault}" for outcome in outcomes for fault in outcome.faults]
        faults += _leaks(stack, folder)
    for fault in faults:
        _say(f"WRONG  {fault}")
    jobs = sum("job_identifier" in outcome.row for outcome in outcomes)
    print(
        f"\n{len(outcomes)} files, {jobs} jobs, {len(faults)} faults, "
        f"{time.monotonic() - began:.1f} s; logs: {folder.relative_to(REPOSITORY)}"
    )
    return 1 if faults else 0


def stay() -> int:
    """Keep everything running until Ctrl-C."""
    folder = _RUN / "live"
    with Stack(folder, in_memory=False) as stack:
        host = _start_host(stack)
        _CONNECTION_FILE.write_text(stack.azurite.connection_string(UPLOAD_ACCOUNT), "utf-8")
        try:
            print(
                f"""
The relay is running. Upload a file, in another terminal:

  make upload FILE=README.md

or with any Azure storage tool, into the container "uploads", with the connection string in
{_CONNECTION_FILE.relative_to(REPOSITORY)}. Then ask where it is:

  curl '{host.url}/api/submissions?path=README.md&code={host.function_key}'

Results: container "modzy-results"; jobs: queue "modzy-jobs"; ledger: table "ModzySubmissions".
Logs: {folder.relative_to(REPOSITORY)}. Ctrl-C ends everything.
""",
                flush=True,
            )
            _watch(stack, None)
        finally:
            _CONNECTION_FILE.unlink(missing_ok=True)
            host.stop()
    return 0


def upload(file: Path) -> int:
    """Upload one file to a relay that ``stay`` keeps running."""
    from azure.storage.blob import ContainerClient

    if not _CONNECTION_FILE.exists():
        print("The relay is not running: start it with `make run` first.", file=sys.stderr)
        return 1
    connection = _CONNECTION_FILE.read_text("utf-8")
    with (
        ContainerClient.from_connection_string(connection, "uploads") as container,
        file.open("rb") as content,
    ):
        container.upload_blob(file.name, content, overwrite=True)
    print(f"uploaded {file.name}")
    return 0


def _start_host(stack: Stack) -> Host:
    host: Host
    if CoreToolsHost.installed():
        host = CoreToolsHost(stack)
    else:
        host = stack.functions_host(["--scan-interval", "0.5", "--break-stale-locks"])
    host.start()
    host.wait_ready()
    return host


def _upload_samples(stack: Stack) -> list[str]:
    paths = []
    for file in sorted(path for path in SAMPLES.rglob("*") if path.is_file()):
        path = file.relative_to(SAMPLES).as_posix()
        media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        with file.open("rb") as content:
            stack.uploads.upload_blob(
                path, content, content_settings=ContentSettings(content_type=media_type)
            )
        _say(f"uploaded   {path} ({file.stat().st_size:,} bytes)")
        paths.append(path)
    return paths


def _watch(stack: Stack, expected: set[str] | None) -> dict[str, Row]:
    """Show every change of the ledger until the expected paths are done; forever without any."""
    deadline = time.monotonic() + _DEADLINE_SECONDS if expected else float("inf")
    shown: dict[str, str] = {}
    rows: dict[str, Row] = {}
    while time.monotonic() < deadline:
        for row in _rows(stack):
            rows[row["path"]] = row
            status = f"{row['state']:<10} {row.get('job_status', ''):<11}"
            if shown.get(row["RowKey"]) != status:
                shown[row["RowKey"]] = status
                _say(f"{status} {row['path']}")
        if expected and expected <= {path for path, row in rows.items() if _is_done(row)}:
            break
        time.sleep(0.2)
    return rows


def _rows(stack: Stack) -> Iterator[Row]:
    # Submissions are filed under their date; pointers and bookmarks under words.
    return iter(stack.table.query_entities("PartitionKey lt 'a'"))


def _is_done(row: Row) -> bool:
    if row["state"] == "SUBMITTED":
        return row.get("job_status") in _FINAL_JOBS
    return row["state"] not in {"SUBMITTING", "DEFERRED"}


def _outcome(stack: Stack, path: str, row: Row | None) -> Outcome:
    """Hold what the relay did against what the file itself says."""
    if row is None:
        return Outcome(path, {"state": "MISSING"}, faults=["no row in the ledger"])
    outcome = Outcome(path, row)
    content = (SAMPLES / path).read_bytes()
    if not content:
        if row["state"] != "SKIPPED":
            outcome.faults.append(f"an empty file is {row['state']}")
        return outcome
    if (row["state"], row.get("job_status")) != ("SUBMITTED", "COMPLETED"):
        outcome.faults.append(f"{row['state']} {row.get('job_status')}: {row.get('reason')}")
        return outcome
    jobs = stack.modzy.jobs_by_item().get(row["item_key"], [])
    if jobs != [row["job_identifier"]]:
        outcome.faults.append(f"Modzy has the jobs {jobs}")
    name = row["result_location"].partition("/")[2] + "/results.json"
    document = json.loads(stack.results.download_blob(name).readall())
    outcome.result = document["results"][row["item_key"]]["results.json"]
    if outcome.result["sha256"] != hashlib.sha256(content).hexdigest():
        outcome.faults.append("the result is that of another content")
    return outcome


def _check_events(stack: Stack, outcomes: list[Outcome]) -> list[str]:
    events = [json.loads(message.content) for message in _messages(stack)]
    wanted = {
        (kind, outcome.row["job_identifier"])
        for outcome in outcomes
        if "job_identifier" in outcome.row
        for kind in ("modzy.job.submitted", "modzy.job.finished")
    }
    got = {(event["type"], event["data"]["job_identifier"]) for event in events}
    shown = next((event for event in events if event["type"] == "modzy.job.finished"), None)
    _title(f"One of {len(events)} announcements on the queue modzy-jobs, decoded")
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    return [] if got == wanted else [f"announcements differ from jobs: {sorted(got ^ wanted)}"]


def _messages(stack: Stack) -> list[Any]:
    found: list[Any] = []
    while page := list(stack.jobs_queue.receive_messages(max_messages=32, visibility_timeout=300)):
        found += page
        if len(page) < 32:
            break
    return found


def _look_up(host: Host, outcomes: list[Outcome]) -> list[str]:
    """Ask the app itself, over HTTP, by path and by job."""
    outcome = next(one for one in outcomes if "job_identifier" in one.row)
    headers = {"x-functions-key": host.function_key}
    address = f"{host.url}/api/submissions"
    by_path = requests.get(address, {"path": outcome.path}, headers=headers, timeout=10)
    by_job = requests.get(
        address, {"job": outcome.row["job_identifier"]}, headers=headers, timeout=10
    )
    _title(f"GET /api/submissions?path={outcome.path}")
    print(json.dumps(by_path.json(), indent=2, ensure_ascii=False))
    _title("The ledger row")
    for name, value in sorted(outcome.row.items()):
        print(f"  {name:<18} {value}")
    if by_path.json().get("submissions") != [by_job.json()]:
        return [f"lookups by path and by job differ: {by_job.text}"]
    return []


def _leaks(stack: Stack, folder: Path) -> list[str]:
    """Files of the run in which a secret can be read."""
    return [
        f"a secret is in {file.name}"
        for file in folder.rglob("*.log")
        for secret in stack.known_secrets
        if secret in file.read_text("utf-8", "replace")
    ]


def _show(outcomes: list[Outcome]) -> None:
    _title("What became of each file")
    line = "{} {:<10} {:<37} {:<10} {}"
    print(
        line.format("file".ljust(40), "state", "job identifier", "job status", "result or reason")
    )
    for outcome in outcomes:
        row = outcome.row
        # East Asian characters take two columns of a terminal.
        wide = sum(unicodedata.east_asian_width(char) in "WF" for char in outcome.path)
        print(
            line.format(
                outcome.path.ljust(40 - wide),
                row["state"],
                row.get("job_identifier", "-"),
                row.get("job_status", "-"),
                outcome.text,
            )
        )


def _title(text: str) -> None:
    print(f"\n{text}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep running for your own files")
    parser.add_argument("--upload", type=Path, metavar="FILE", help="upload a file to --stay")
    parsed = parser.parse_args()
    # What the stand-ins have to say is in their logs, what goes wrong on purpose included.
    logging.getLogger("sandbox").addHandler(logging.NullHandler())
    logging.getLogger("sandbox").propagate = False
    exit_on_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if parsed.upload:
            sys.exit(upload(parsed.upload))
        sys.exit(stay() if parsed.stay else run_demo())
    except KeyboardInterrupt:
        print("\nended")


if __name__ == "__main__":
    main()
