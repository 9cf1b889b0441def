"""Storage clients for the connections that bindings name, found the way the host finds them.

A connection is the name of an app setting with a connection string, or the prefix of settings
(``<name>__blobServiceUri`` and so on) for an identity. The host looks for ``AzureWebJobs<name>``
before ``<name>``. After the storage extension's ``StorageClientProvider``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.storage.blob import BlobServiceClient, LinearRetry
from azure.storage.queue import LinearRetry as QueueLinearRetry
from azure.storage.queue import QueueServiceClient
from requests.adapters import HTTPAdapter

from sandbox.host.settings import MissingSetting, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.core.credentials import TokenCredential

Client = TypeVar("Client", BlobServiceClient, QueueServiceClient)

IO_THREADS = 32  # threads of this host that talk to storage

HOST_CONNECTION = "AzureWebJobsStorage"

# Short waits: a dead storage service must show in the log within seconds, and every caller here
# polls again anyway.
_TIMEOUTS: dict[str, Any] = {"connection_timeout": 3, "read_timeout": 20}
_RETRY: dict[str, Any] = {"backoff": 1, "retry_total": 2, "random_jitter_range": 0}


class Connections:
    """Builds one client for each connection and service, and keeps it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._blob: dict[str, BlobServiceClient] = {}
        self._queue: dict[str, QueueServiceClient] = {}

    def blob_service(self, connection: str) -> BlobServiceClient:
        """The blob service of a connection; sends nothing.

        Raises:
            SettingsError: no setting describes it, or not completely.
        """
        if connection not in self._blob:
            options = {"transport": _transport(), "retry_policy": LinearRetry(**_RETRY)}
            text, prefix = self._find(connection)
            if text is not None:
                self._blob[connection] = _from_text(BlobServiceClient, connection, text, options)
            else:
                self._blob[connection] = BlobServiceClient(
                    self._service_uri(prefix, "blob"), self._credential(prefix), **options
                )
        return self._blob[connection]

    def queue_service(self, connection: str) -> QueueServiceClient:
        """The queue service of a connection; sends nothing.

        Raises:
            SettingsError: no setting describes it, or not completely.
        """
        if connection not in self._queue:
            options = {"transport": _transport(), "retry_policy": QueueLinearRetry(**_RETRY)}
            text, prefix = self._find(connection)
            if text is not None:
                self._queue[connection] = _from_text(QueueServiceClient, connection, text, options)
            else:
                self._queue[connection] = QueueServiceClient(
                    self._service_uri(prefix, "queue"), self._credential(prefix), **options
                )
        return self._queue[connection]

    def close(self) -> None:
        """Close the connections of every client."""
        for blob_client in self._blob.values():
            blob_client.close()
        for queue_client in self._queue.values():
            queue_client.close()

    def _find(self, connection: str) -> tuple[str | None, str]:
        """Return the connection string, or None and the prefix of the identity settings."""
        # An empty connection means the host's own account; both stand under the full name.
        name = connection.removeprefix("AzureWebJobs") or "Storage"
        for candidate in (f"AzureWebJobs{name}", connection):
            if self._settings.get(candidate):
                return self._settings[candidate], candidate
            if any(setting.startswith(f"{candidate}__") for setting in self._settings):
                return None, candidate
        raise MissingSetting(f"no app setting describes the connection {connection!r}")

    def _service_uri(self, prefix: str, service: str) -> str:
        uri = self._settings.get(f"{prefix}__{service}ServiceUri")
        if uri:
            return uri
        uri = self._settings.get(f"{prefix}__serviceUri", "")
        if f".{service}." in uri:
            return uri
        account = self._settings.get(f"{prefix}__accountName")
        if account:
            return f"https://{account}.{service}.core.windows.net"
        raise MissingSetting(
            f"the connection {prefix!r} needs {prefix}__{service}ServiceUri or "
            f"{prefix}__accountName: this trigger uses the account's {service} service"
        )

    def _credential(self, prefix: str) -> TokenCredential:
        if self._settings.get(f"{prefix}__credential", "").lower() == "managedidentity":
            return ManagedIdentityCredential(client_id=self._settings.get(f"{prefix}__clientId"))
        return DefaultAzureCredential()


def _transport() -> RequestsTransport:
    """A transport with a connection for each thread; the default keeps ten and warns."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=IO_THREADS))
    return RequestsTransport(session=session, **_TIMEOUTS)


def _from_text(kind: type[Client], connection: str, text: str, options: dict[str, Any]) -> Client:
    try:
        return kind.from_connection_string(text, **options)
    except ValueError:
        # Not chained: the original can quote the connection string.
        raise SettingsError(f"the connection string in {connection!r} is malformed") from None
