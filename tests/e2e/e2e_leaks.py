"""Looks for secrets in everything that a run wrote, in the disguises that encodings give them."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from sandbox.storage import HOST_ACCOUNT, UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandbox.stack import Stack

Text = tuple[str, str]
_KEYS_OF_THE_HOST = "azure-webjobs-secrets"  # holds function keys, on purpose and in clear
_LARGEST_BLOB = 1024 * 1024


def disguises(secret: str) -> set[str]:
    """A secret as it looks in clear, in a URL, and in base64 of a longer text around it."""
    found = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
    raw = secret.encode()
    for offset in range(3):  # of its first byte in a group of three
        encoded = base64.b64encode(b"\0" * offset + raw).decode()
        # Only characters that all of their six bits have from the secret.
        inside = encoded[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]
        found |= {inside, inside.replace("+", "-").replace("/", "_")}
    return found


def findings(texts: Iterable[Text], secrets: Iterable[str]) -> list[str]:
    """The places in which a secret can be read; never the secret itself."""
    wanted = [form for secret in secrets for form in disguises(secret)]
    return [where for where, text in texts if any(form in text for form in wanted)]


def secrets_of(stack: Stack) -> list[str]:
    """Everything that must stay secret: keys of both sides, and the tokens that were issued."""
    tokens = list(stack.vault.tokens._issued)
    signatures = [token.rpartition(".")[2] for token in tokens]
    return [*stack.known_secrets, *tokens, *signatures, stack.vault.identity_header]


def everything_written(stack: Stack) -> Iterator[Text]:
    """Files, rows, messages and results of a stack; messages are taken from their queues."""
    for file in sorted(stack.folder.rglob("*")):
        if file.is_file():
            yield file.name, file.read_text("utf-8", "replace")
    for entity in stack.table.list_entities():
        yield f"row {entity['PartitionKey']}.{entity['RowKey']}", repr(entity)
    for account in (HOST_ACCOUNT, UPLOAD_ACCOUNT):
        yield from _messages(stack.azurite.connection_string(account))
        yield from _blobs(stack.azurite.connection_string(account), stack.uploads.container_name)


def _messages(connection: str) -> Iterator[Text]:
    with QueueServiceClient.from_connection_string(connection) as service:
        for properties in service.list_queues():
            queue = service.get_queue_client(properties.name)
            # Received, not only peeked at: a peek shows 32 messages and no more.
            for message in queue.receive_messages(messages_per_page=32, visibility_timeout=600):
                yield f"message in {properties.name}", message.content
                yield f"message in {properties.name}", _decoded(message.content)


def _decoded(content: str) -> str:
    try:
        return base64.b64decode(content, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return ""


def _blobs(connection: str, uploads: str) -> Iterator[Text]:
    with BlobServiceClient.from_connection_string(connection) as service:
        for properties in service.list_containers():
            if properties.name == _KEYS_OF_THE_HOST:
                continue
            container = service.get_container_client(properties.name)
            for blob in container.list_blobs(include=["metadata"]):
                place = f"blob {properties.name}/{blob.name}"
                yield f"name of {place}", blob.name
                yield f"metadata of {place}", repr(blob.metadata)
                # What users upload is theirs, and may be as large as they like.
                if properties.name != uploads and blob.size <= _LARGEST_BLOB:
                    try:
                        content = container.download_blob(blob.name).readall()
                    except ResourceNotFoundError:
                        continue  # a lock or receipt that the host has just removed
                    yield place, content.decode("utf-8", "replace")
