"""The keys of a function app, kept where the host keeps them.

After the host's ``SecretManager``. Keys are in the ``azure-webjobs-secrets`` container of the
host's account, in clear: it is an emulator's account. They are read once, at start.
"""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ResourceExistsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from azure.storage.blob import ContainerClient

SECRETS_CONTAINER = "azure-webjobs-secrets"
SYSTEM_KEY_NAME = "blobs_extension"


class KeyLevel(IntEnum):
    """What a presented key allows."""

    NONE = 0
    OTHER = 1
    """A key of this app, but not for what is asked."""
    FUNCTION = 2
    SYSTEM = 3
    ADMIN = 4


@dataclass(frozen=True)
class AppKeys:
    """All keys of one app; hidden from ``repr``."""

    master: str = field(repr=False)
    host: frozenset[str] = field(repr=False)
    system: str = field(repr=False)
    functions: dict[str, frozenset[str]] = field(repr=False)

    def level(self, key: str | None, function_name: str | None = None) -> KeyLevel:
        """What ``key`` allows, for one function or, without a name, for the extension webhook."""
        if not key:
            return KeyLevel.NONE
        if _same(key, self.master):
            return KeyLevel.ADMIN
        if function_name is None and _same(key, self.system):
            return KeyLevel.SYSTEM
        own = self.functions.get(function_name or "", frozenset())
        if function_name is not None and any(_same(key, known) for known in self.host | own):
            return KeyLevel.FUNCTION
        known_elsewhere = {self.system, *self.host}.union(*self.functions.values())
        if any(_same(key, known) for known in known_elsewhere):
            return KeyLevel.OTHER
        return KeyLevel.NONE


def load_keys(
    container: ContainerClient,
    host_id: str,
    function_names: Iterable[str],
    *,
    master_key: str | None,
    function_key: str | None,
) -> AppKeys:
    """Read the keys of an app, making those that do not exist yet.

    Args:
        container: where they are kept.
        host_id: the app.
        function_names: each gets a key of its own.
        master_key: use this one, whatever is stored.
        function_key: accept this one for every function, beside what is stored.

    Raises:
        azure.core.exceptions.AzureError: storage did not answer.
    """
    stored = _load_or_create(
        container,
        f"{host_id}/host.json",
        {
            "masterKey": _new_key("master"),
            "functionKeys": [_new_key("default")],
            "systemKeys": [_new_key(SYSTEM_KEY_NAME)],
        },
    )
    functions = {
        name: _values(
            _load_or_create(
                container, f"{host_id}/{name.lower()}.json", {"keys": [_new_key("default")]}
            )["keys"]
        )
        for name in function_names
    }
    given = frozenset({function_key} if function_key else ())
    return AppKeys(
        master=master_key or stored["masterKey"]["value"],
        host=_values(stored["functionKeys"]) | given,
        system=next(iter(_values(stored["systemKeys"]))),
        functions=functions,
    )


def _load_or_create(container: ContainerClient, name: str, new: dict[str, Any]) -> dict[str, Any]:
    blob = container.get_blob_client(name)
    try:
        blob.upload_blob(json.dumps(new), overwrite=False)
    except ResourceExistsError:
        content: dict[str, Any] = json.loads(blob.download_blob().readall())
        return content
    return new


def _new_key(name: str) -> dict[str, Any]:
    return {"name": name, "value": secrets.token_urlsafe(40), "encrypted": False}


def _values(keys: Iterable[dict[str, Any]]) -> frozenset[str]:
    return frozenset(key["value"] for key in keys)


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())
