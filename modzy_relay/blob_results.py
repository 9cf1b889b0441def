"""The results container on Azure Blob Storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from azure.storage.blob import BlobServiceClient


class BlobResults:
    """Implements ``ports.ResultStore``. Thread-safe."""

    def __init__(self, service: BlobServiceClient, container: str) -> None:
        self._container = service.get_container_client(container)
        self.container = container

    def put(self, name: str, content: bytes | Iterable[bytes], content_type: str) -> None:
        """Write a blob, replacing what is there; an iterable is streamed in blocks."""
        from azure.storage.blob import ContentSettings

        self._container.upload_blob(
            name,
            content,
            overwrite=True,
            content_settings=ContentSettings(content_type=content_type),
        )
