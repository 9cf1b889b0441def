"""Azure SDK clients, each with its own pooled connections, short retries and finite time-outs."""

from __future__ import annotations

import functools
import os
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import requests
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.data.tables import TableServiceClient
    from azure.storage.blob import BlobServiceClient
    from azure.storage.queue import QueueServiceClient

    from modzy_relay.settings import StorageConnection

#: Connections kept open to one service: as many as the worker may have threads.
_POOL_SIZE = 32
_CONNECT_TIMEOUT = 5
_READ_TIMEOUT = 20


def ticks() -> float:
    """Monotonic seconds that go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class ServiceTime:
    """Takes the service's clock from an answer: pass it as ``raw_response_hook``.

    The ``Date`` header has whole seconds, cut off, so ``as_of`` is never later than the truth.
    """

    def __init__(self) -> None:
        self.read_at = ticks()
        self.as_of = datetime.now(UTC)

    def __call__(self, response: Any) -> None:  # PipelineResponse; its type is not exported
        """Note the time of an answer."""
        date = response.http_response.headers.get("Date")
        if date:
            self.as_of = parsedate_to_datetime(date)


def _transport() -> RequestsTransport:
    session = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=_POOL_SIZE, max_retries=Retry(total=False, redirect=False))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return RequestsTransport(
        session=session, connection_timeout=_CONNECT_TIMEOUT, read_timeout=_READ_TIMEOUT
    )


def _options() -> dict[str, Any]:
    # Short waits: the function's thread is held meanwhile, and the hint comes again anyway. The
    # blob and queue clients read the first three names, the table client the last.
    return {
        "transport": _transport(),
        "retry_total": 2,
        "initial_backoff": 0.4,
        "increment_base": 2,
        "random_jitter_range": 0.3,
        "retry_backoff_factor": 0.4,
    }


@functools.cache
def credential(client_id: str | None) -> TokenCredential:
    """The identity of the app in Azure; on a developer's machine that of the developer.

    One for all clients, so that they share its tokens.

    ``IDENTITY_ENDPOINT`` is set wherever Functions has a managed identity. Elsewhere the
    developer's own tools are asked, which takes seconds and would only slow down a start in Azure.
    """
    if "IDENTITY_ENDPOINT" in os.environ:
        from azure.identity import ManagedIdentityCredential

        return ManagedIdentityCredential(client_id=client_id or os.environ.get("AZURE_CLIENT_ID"))
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(exclude_managed_identity_credential=True)


def table_service(connection: StorageConnection) -> TableServiceClient:
    """Table client of an account."""
    from azure.data.tables import TableServiceClient

    if connection.connection_string is not None:
        return TableServiceClient.from_connection_string(connection.connection_string, **_options())
    return TableServiceClient(
        connection.service_uris["table"],
        credential=credential(connection.client_id),
        **_options(),
    )


def queue_service(connection: StorageConnection) -> QueueServiceClient:
    """Queue client of an account."""
    from azure.storage.queue import QueueServiceClient

    if connection.connection_string is not None:
        return QueueServiceClient.from_connection_string(connection.connection_string, **_options())
    return QueueServiceClient(
        connection.service_uris["queue"],
        credential=credential(connection.client_id),
        **_options(),
    )


def blob_service(connection: StorageConnection) -> BlobServiceClient:
    """Blob client of an account."""
    from azure.storage.blob import BlobServiceClient

    if connection.connection_string is not None:
        return BlobServiceClient.from_connection_string(connection.connection_string, **_options())
    return BlobServiceClient(
        connection.service_uris["blob"],
        credential=credential(connection.client_id),
        **_options(),
    )
