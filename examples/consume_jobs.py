#!/usr/bin/env python3
"""Read the relay's events from a terminal or a service: each event counts once.

    pip install azure-storage-queue
    export AzureWebJobsStorage='<connection string of the account with JOBS_QUEUE>'
    python examples/consume_jobs.py --database jobs.sqlite

Events come at least once. What this program makes of an event and its note of the event's id are
one database row, so a repeat finds the row and changes nothing, whenever either side crashed. A
message is deleted only after that row is on disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ResourceExistsError
from azure.storage.queue import QueueClient, TextBase64DecodePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CONNECTION = "AzureWebJobsStorage"
#: As the Functions host does: after this many attempts a message is put aside.
_MOST_ATTEMPTS = 5
_PAGE = 32
_HIDDEN_SECONDS = 60
_PAUSE_SECONDS = 2.0
_TABLE = """
CREATE TABLE IF NOT EXISTS events (
    id TEXT PRIMARY KEY, type TEXT, path TEXT, job TEXT, job_status TEXT, results TEXT, reason TEXT
)
"""


def store(database: sqlite3.Connection, event: Mapping[str, Any]) -> bool:
    """Write what an event says; returns False if it was written before.

    Raises:
        KeyError: It is not one of the relay's events.
        TypeError: Likewise.
    """
    data = event["data"]
    row = (
        *(event["id"], event["type"], event["subject"], data["job_identifier"]),
        *(data["job_status"], data["result_location"], data["reason"]),
    )
    with database:
        written = database.execute("INSERT OR IGNORE INTO events VALUES (?,?,?,?,?,?,?)", row)
    return written.rowcount == 1


def consume(queue: QueueClient, aside: QueueClient, database: sqlite3.Connection) -> int:
    """Deal with the messages that are there now; returns how many there were."""
    count = 0
    for message in queue.receive_messages(
        messages_per_page=_PAGE, visibility_timeout=_HIDDEN_SECONDS
    ):
        count += 1
        try:
            event = json.loads(message.content)
            is_new = store(database, event)
        except (ValueError, KeyError, TypeError) as error:
            print(f"not an event of the relay: {error!r}", file=sys.stderr)  # noqa: T201 - a terminal program
            if (message.dequeue_count or 0) >= _MOST_ATTEMPTS:
                with contextlib.suppress(ResourceExistsError):
                    aside.create_queue()
                aside.send_message(message.content)
                queue.delete_message(message)
            continue
        if is_new:
            print(json.dumps(event, ensure_ascii=False), flush=True)  # noqa: T201 - a terminal program
        queue.delete_message(message)
    return count


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--queue", default="modzy-jobs", help="JOBS_QUEUE of the relay")
    parser.add_argument("--database", type=Path, default=Path("jobs.sqlite"))
    parser.add_argument("--once", action="store_true", help="end when the queue is empty")
    parsed = parser.parse_args(arguments)
    connection = os.environ.get(_CONNECTION)
    if not connection:
        parser.error(f"set {_CONNECTION} to the connection string of the account with the queue")
    with (
        contextlib.closing(sqlite3.connect(parsed.database)) as database,
        QueueClient.from_connection_string(
            connection, parsed.queue, message_decode_policy=TextBase64DecodePolicy()
        ) as queue,
        QueueClient.from_connection_string(connection, f"{parsed.queue}-poison") as aside,
    ):
        database.execute(_TABLE)
        while consume(queue, aside, database) or not parsed.once:
            time.sleep(0.0 if parsed.once else _PAUSE_SECONDS)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
