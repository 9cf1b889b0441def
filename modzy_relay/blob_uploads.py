"""The watched container on Azure Blob Storage. No method reads a blob's content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from azure.core.exceptions import ResourceNotFoundError

from modzy_relay.azure_clients import ServiceTime
from modzy_relay.identity import plain_etag
from modzy_relay.ports import BlobFacts, Listing

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, BlobServiceClient

_PAGE = 5000


class BlobUploads:
    """Implements ``ports.Uploads``. Thread-safe.

    Args:
        service: Blob client of the watched account.
        account: Its name, as Modzy needs it.
        container: The watched container.
    """

    def __init__(self, service: BlobServiceClient, account: str, container: str) -> None:
        self._container = service.get_container_client(container)
        self.account = account
        self.container = container

    def head(self, path: str) -> BlobFacts | None:
        """One HEAD request; None if there is no such blob."""
        time = ServiceTime()
        try:
            properties = self._container.get_blob_client(path).get_blob_properties(
                raw_response_hook=time
            )
        except ResourceNotFoundError:
            return None
        return _facts(path, properties, time)

    def list_page(self, marker: str | None) -> Listing:
        """One page of the flat listing, up to 5,000 blobs."""
        time = ServiceTime()
        pages = self._container.list_blobs(
            include=["metadata"], results_per_page=_PAGE, raw_response_hook=time
        ).by_page(continuation_token=marker)
        blobs = list(next(pages, []))
        following: str | None = pages.continuation_token  # type: ignore[attr-defined] # of PageIterator
        return Listing(
            blobs=[_facts(blob.name, blob, time) for blob in blobs],
            marker=following or None,
            as_of=time.as_of,
        )


def _facts(path: str, properties: BlobProperties, time: ServiceTime) -> BlobFacts:
    return BlobFacts(
        path=path,
        etag=plain_etag(properties.etag),
        last_modified=properties.last_modified,
        size=properties.size,
        metadata=properties.metadata or {},
        as_of=time.as_of,
    )
