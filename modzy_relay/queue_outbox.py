"""The two queues on Azure Queue Storage.

Messages are base64, which is what a queue trigger reads unless its host.json says otherwise; the
Python SDK's default is plain text, which such a trigger moves straight to the poison queue.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import TextBase64EncodePolicy

from modzy_relay.messages import encode_reminder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.storage.queue import QueueClient, QueueServiceClient

    from modzy_relay.identity import LedgerKey
    from modzy_relay.messages import CloudEvent

_NEVER_EXPIRES = -1
_LONGEST_DELAY = timedelta(days=7)
_BLOB_POISON = "webjobs-blobtrigger-poison"


class QueueOutbox:
    """Implements ``ports.Outbox``. Thread-safe.

    Args:
        relay: Queue client of the account with the two queues.
        uploads: Queue client of the watched account, where the host puts events that failed;
            None if it cannot be asked.
    """

    def __init__(
        self,
        relay: QueueServiceClient,
        uploads: QueueServiceClient | None,
        *,
        jobs_queue: str,
        due_queue: str,
    ) -> None:
        encoding = {"message_encode_policy": TextBase64EncodePolicy()}
        self._jobs = relay.get_queue_client(jobs_queue, **encoding)
        self._due = relay.get_queue_client(due_queue, **encoding)
        self._poison = [relay.get_queue_client(f"{due_queue}-poison")]
        if uploads is not None:
            self._poison.append(uploads.get_queue_client(_BLOB_POISON))

    def announce(self, event: CloudEvent) -> None:
        """Send an event to downstream systems; it waits for them without limit."""
        self._jobs.send_message(event.encode(), time_to_live=_NEVER_EXPIRES)

    def remind(self, key: LedgerKey, delay: timedelta) -> None:
        """Have a submission looked at again after ``delay``, rounded up to whole seconds."""
        # One second more: the ledger's clock, read in whole seconds, may be that far behind.
        seconds = math.ceil(max(delay, timedelta()).total_seconds())
        self._due.send_message(
            encode_reminder(key),
            visibility_timeout=min(
                seconds + 1 if seconds else 0, int(_LONGEST_DELAY.total_seconds())
            ),
            time_to_live=_NEVER_EXPIRES,
        )

    def poison_counts(self) -> Mapping[str, int]:
        """Poison queues that are not empty."""
        counts = {queue.queue_name: _length(queue) for queue in self._poison}
        return {name: count for name, count in counts.items() if count}


def _length(queue: QueueClient) -> int:
    try:
        return queue.get_queue_properties().approximate_message_count or 0
    except ResourceNotFoundError:
        return 0  # the host makes a poison queue when it first needs one
