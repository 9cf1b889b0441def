"""One upload on the happy path: the relay against its six calls made with the bare libraries.

The stand-ins run in this process, the measured code in a child, on the same Azurite and Modzy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import cost_of, tell

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 150
_WARM_UP = 20


def relay_call() -> Callable[[], object]:
    """Submits the next of the prepared uploads."""
    from modzy_relay.wiring import build

    relay = build(os.environ).relay
    paths = (f"relay/{number:05}.txt" for number in itertools.count())
    return lambda: relay.submit_upload(next(paths))


def bare_calls() -> Callable[[], object]:
    """Makes the same six calls with the same libraries, and does nothing else."""
    import requests
    from azure.core import MatchConditions
    from azure.data.tables import UpdateMode
    from azure.storage.queue import TextBase64EncodePolicy

    from modzy_relay.azure_clients import blob_service, queue_service, table_service
    from modzy_relay.settings import Settings

    settings = Settings.from_env(os.environ)
    uploads = blob_service(settings.upload_storage).get_container_client(settings.upload_container)
    table = table_service(settings.relay_storage).get_table_client(settings.submissions_table)
    queues = queue_service(settings.relay_storage)
    encoding = {"message_encode_policy": TextBase64EncodePolicy()}
    jobs = queues.get_queue_client(settings.jobs_queue, **encoding)
    due = queues.get_queue_client(settings.due_queue, **encoding)
    session = requests.Session()
    api_key, storage_key = os.environ["BENCH_API_KEY"], os.environ["BENCH_STORAGE_KEY"]
    url = f"{settings.modzy_url}/api/jobs"
    numbers = itertools.count()

    def once() -> None:
        number = next(numbers)
        path = f"bare/{number:05}.txt"
        properties = uploads.get_blob_client(path).get_blob_properties()
        row = _row_like_the_relays(path, f"{number:024}", properties.etag, properties.size)
        etag = table.create_entity(row)["etag"]
        body = _body_like_the_relays(path, storage_key)
        answer = session.post(
            url, json=body, headers={"Authorization": f"ApiKey {api_key}"}, timeout=(10, 30)
        )
        row["job_identifier"] = answer.json()["jobIdentifier"]
        jobs.send_message(json.dumps({"data": row}, default=str), time_to_live=-1)
        due.send_message(json.dumps({"ledger_key": path}), visibility_timeout=10, time_to_live=-1)
        table.update_entity(
            row, mode=UpdateMode.REPLACE, etag=etag, match_condition=MatchConditions.IfNotModified
        )

    return once


def _row_like_the_relays(path: str, row_key: str, etag: str, size: int) -> dict[str, Any]:
    """As many columns, of the same types."""
    now = datetime.now(UTC)
    times = ("last_modified", "created_at", "give_up_at", "lease_until", "next_attempt_at")
    texts = ("account", "container", "item_key", "model", "model_version", "write_id", "changes")
    numbers = ("generation", "attempts", "deferrals", "doubts", "looks")
    return {
        "PartitionKey": f"{now:%Y-%m-%d}-a",
        "RowKey": row_key,
        "state": "SUBMITTING",
        "path": path,
        "etag": etag,
        "size": size,
        "explain": False,
        "indexed": False,
        **dict.fromkeys(times, now),
        **dict.fromkeys(texts, "a text of the usual length"),
        **dict.fromkeys(numbers, 0),
    }


def _body_like_the_relays(path: str, storage_key: str) -> dict[str, Any]:
    sources = {f"item-{path[-9:]}": {"input.txt": {"container": "uploads", "filePath": path}}}
    return {
        "model": {"identifier": "ed542963de", "version": "0.0.27"},
        "explain": False,
        "input": {
            "type": "azureblob",
            "storageAccount": "sandboxuploads",
            "storageAccountKey": storage_key,
            "sources": sources,
        },
    }


def measure() -> None:
    """In the child: print the costs as JSON."""
    # The worker has the app's INFO lines formatted and sent, so they are formatted here, too.
    with Path(os.devnull).open("w") as nowhere:
        logging.basicConfig(level=logging.INFO, stream=nowhere)
        logging.getLogger("azure").setLevel(logging.WARNING)
        calls = [relay_call(), bare_calls()]
        cost_of(calls, _WARM_UP)
        relay, bare = cost_of(calls, _ROUNDS)
    tell(json.dumps([relay.cpu, relay.wall, bare.cpu, bare.wall]))


def main() -> None:
    """Prepare the uploads, have them measured, and tell."""
    from sandbox.stack import Stack
    from sandbox.storage import ACCOUNT_KEYS, UPLOAD_ACCOUNT

    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        for kind in ("relay", "bare"):
            for number in range(_ROUNDS + _WARM_UP):
                stack.uploads.upload_blob(f"{kind}/{number:05}.txt", b"a good file")
        keys = {
            "BENCH_API_KEY": stack.api_key,
            "BENCH_STORAGE_KEY": ACCOUNT_KEYS[UPLOAD_ACCOUNT],
        }
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.upload", "--child"],
            env=os.environ | stack.settings | keys,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    cpu, wall, bare_cpu, bare_wall = json.loads(run.stdout)
    tell(f"relay            {cpu:6.2f} ms CPU {wall:7.2f} ms")
    tell(f"six bare calls   {bare_cpu:6.2f} ms CPU {bare_wall:7.2f} ms")
    tell(f"relay / bare     {cpu / bare_cpu:6.2f}     {wall / bare_wall:9.2f}")
    tell(f"not measured: TLS, real networks, many uploads at once; median of {_ROUNDS}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upload", description=__doc__)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    measure() if parser.parse_args().child else main()
