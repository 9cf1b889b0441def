"""Errors of the relay's own making.

RelayError
    SettingsError           app settings are missing or wrong; all of them at once
    SecretUnavailableError  a secret cannot be read from Key Vault and no earlier value may be used
    ConflictError           a ledger row changed between reading and writing it
    LeaseOverError          a claim ran out before the request that it guards was sent

What Modzy answers has its own tree in :mod:`modzy_relay.modzy_api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class RelayError(Exception):
    """Base of the relay's own errors."""


class SettingsError(RelayError):
    """App settings are missing or wrong: one line that names every one of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        what = "1 app setting needs" if count == 1 else f"{count} app settings need"
        listed = " ".join(f"({n}) {text}" for n, text in enumerate(self.problems, 1))
        super().__init__(f"{what} attention: {listed}")


class SecretUnavailableError(RelayError):
    """A secret cannot be read; the text says why and what to do."""


class ConflictError(RelayError):
    """The row is no longer the one that was read: somebody else took the next step."""


class LeaseOverError(RelayError):
    """The claim ended before the request was sent, so the request was not sent."""
