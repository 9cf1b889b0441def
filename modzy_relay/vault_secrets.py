"""Secrets from Azure Key Vault, cached, and safe to show."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from modzy_relay.errors import SecretUnavailableError
from modzy_relay.telemetry import Event, emit

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.keyvault.secrets import SecretClient

_TIME_TO_LIVE = 300.0
#: After a forced reading of a secret, and after one that failed: a storm of refused requests must
#: not become a storm on the vault.
_PAUSE = 10.0


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: str | None = field(default=None, repr=False)
    fresh_until: float = 0.0
    next_try: float = 0.0
    fault: str = ""


class VaultSecrets:
    """Reads secrets by name. Thread-safe: one thread reads a secret, the others wait for it.

    A value is used for five minutes. While the vault cannot be reached the last value is used;
    when the vault says that a secret is not there or not for this identity, it is not.

    Args:
        client: Key Vault client.
        ticks: Monotonic seconds.
    """

    def __init__(self, client: SecretClient, ticks: Callable[[], float]) -> None:
        self._client = client
        self._ticks = ticks
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> str:
        """The secret's value.

        Raises:
            SecretUnavailableError: It cannot be read now; the text tells the operator what to do.
        """
        entry = self._entry(name)
        with entry.lock:
            if self._ticks() >= entry.fresh_until:
                self._read(name, entry, forced=False)
            return self._value(entry)

    def refresh(self, name: str) -> str:
        """The value, read again unless somebody had that done moments ago. Raises like `get`."""
        entry = self._entry(name)
        with entry.lock:
            self._read(name, entry, forced=True)
            return self._value(entry)

    def _entry(self, name: str) -> _Entry:
        with self._lock:
            return self._entries.setdefault(name, _Entry())

    @staticmethod
    def _value(entry: _Entry) -> str:
        if entry.value is None:
            raise SecretUnavailableError(entry.fault)
        return entry.value

    def _read(self, name: str, entry: _Entry, *, forced: bool) -> None:
        now = self._ticks()
        if now < entry.next_try:
            return
        entry.next_try = now + _PAUSE
        vault = self._client.vault_url
        try:
            value = (self._client.get_secret(name).value or "").strip()
        except ResourceNotFoundError:
            self._lost(name, entry, f"Key Vault {vault} has no secret {name}: create it there")
        except HttpResponseError as error:
            if error.status_code in {401, 403}:
                self._lost(
                    name,
                    entry,
                    f"Key Vault {vault} answered {error.status_code} for secret {name}: "
                    "enable it, and give the app's identity the role Key Vault Secrets User",
                )
            else:
                self._unreachable(name, entry, f"status {error.status_code}")
        except AzureError as error:
            self._unreachable(name, entry, type(error).__name__)
        else:
            if not value:
                self._lost(name, entry, f"secret {name} in Key Vault {vault} is empty: set it")
                return
            entry.value, entry.fault = value, ""
            entry.fresh_until = self._ticks() + _TIME_TO_LIVE
            if not forced:
                entry.next_try = now

    def _lost(self, name: str, entry: _Entry, fault: str) -> None:
        entry.value, entry.fault = None, fault
        emit(Event.VAULT_UNAVAILABLE, secret=name, reason=fault, stale=False)

    def _unreachable(self, name: str, entry: _Entry, what: str) -> None:
        entry.fault = (
            f"Key Vault {self._client.vault_url} cannot be read ({what}): "
            "check KEY_VAULT_URI and the network path from the app to the vault"
        )
        emit(
            Event.VAULT_UNAVAILABLE,
            secret=name,
            reason=entry.fault,
            stale=entry.value is not None,
        )
