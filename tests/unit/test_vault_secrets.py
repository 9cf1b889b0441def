"""Secrets are cached, renewed and lost by rule; the vault is spared, and its values never shown."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
)

from modzy_relay.errors import SecretUnavailableError
from modzy_relay.testing import ManualClock
from modzy_relay.vault_secrets import VaultSecrets

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "upload-storage-key"
TIME_TO_LIVE = timedelta(minutes=5)
PAUSE = timedelta(seconds=10)


class FakeVault:
    """Stands for ``SecretClient``: one value for every name, or a fault."""

    vault_url = "https://kv-sample.vault.azure.net"

    def __init__(self) -> None:
        self.value: str | None = "first"
        self.fault: Exception | None = None
        self.reads = 0

    def get_secret(self, name: str) -> SimpleNamespace:
        """Answer, or raise the fault."""
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        return SimpleNamespace(name=name, value=self.value)


def answered(status: int) -> HttpResponseError:
    """An error answer of the vault."""
    error = HttpResponseError("the vault's own words")
    error.status_code = status
    return error


@pytest.fixture
def clock() -> ManualClock:
    """Time that moves when told to."""
    return ManualClock()


@pytest.fixture
def vault() -> FakeVault:
    """A vault in order."""
    return FakeVault()


@pytest.fixture
def secrets(vault: FakeVault, clock: ManualClock) -> VaultSecrets:
    """Secrets of that vault."""
    return VaultSecrets(vault, clock.ticks)  # type: ignore[arg-type]  # as far as it is used


def test_a_value_is_read_once_in_its_time_to_live(
    secrets: VaultSecrets, vault: FakeVault, clock: ManualClock
) -> None:
    """Uploads do not each ask the vault."""
    for _ in range(100):
        assert secrets.get(NAME) == "first"
    clock.advance(TIME_TO_LIVE - timedelta(seconds=1))
    assert secrets.get(NAME) == "first"
    assert vault.reads == 1


def test_a_changed_value_is_used_after_the_time_to_live(
    secrets: VaultSecrets, vault: FakeVault, clock: ManualClock
) -> None:
    """A rotated storage key is in use within five minutes, without a restart."""
    secrets.get(NAME)
    vault.value = "second"
    assert secrets.get(NAME) == "first"
    clock.advance(TIME_TO_LIVE)
    assert secrets.get(NAME) == "second"


def test_refresh_reads_again_but_not_in_a_storm(secrets: VaultSecrets, vault: FakeVault) -> None:
    """A hundred refused requests ask the vault once, also right after the first reading."""
    secrets.get(NAME)
    vault.value = "second"
    assert {secrets.refresh(NAME) for _ in range(100)} == {"second"}
    assert vault.reads == 2


@pytest.mark.parametrize("fault", [ServiceRequestError("no route"), answered(503), answered(429)])
def test_the_last_value_is_used_while_the_vault_is_away(
    secrets: VaultSecrets,
    vault: FakeVault,
    clock: ManualClock,
    fault: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An outage of the vault stops nothing that has run before, and asks it every ten seconds."""
    secrets.get(NAME)
    vault.fault = fault
    clock.advance(TIME_TO_LIVE)
    assert [secrets.get(NAME) for _ in range(50)] == ["first"] * 50
    assert vault.reads == 2
    assert '"stale": true' in caplog.messages[-1]
    clock.advance(PAUSE)
    vault.fault, vault.value = None, "second"
    assert secrets.get(NAME) == "second"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ResourceNotFoundError("gone"), f"has no secret {NAME}: create it there"),
        (answered(403), "the role Key Vault Secrets User"),
        (answered(401), "the role Key Vault Secrets User"),
    ],
)
def test_a_secret_that_was_taken_away_is_not_used_any_more(
    secrets: VaultSecrets, vault: FakeVault, clock: ManualClock, fault: Exception, words: str
) -> None:
    """Disabling a key in the vault disables it here, and the error says what to do."""
    secrets.get(NAME)
    vault.fault = fault
    clock.advance(TIME_TO_LIVE)
    for _ in range(2):
        with pytest.raises(SecretUnavailableError) as raised:
            secrets.get(NAME)
        assert words in str(raised.value)
        assert vault.vault_url in str(raised.value)


@pytest.mark.parametrize(
    "fault", [ServiceRequestError("no route"), ClientAuthenticationError("no token")]
)
def test_a_vault_that_never_answered_is_explained(
    secrets: VaultSecrets, vault: FakeVault, fault: Exception
) -> None:
    """Without an earlier value there is none, and the error names the setting to check."""
    vault.fault = fault
    with pytest.raises(SecretUnavailableError, match="check KEY_VAULT_URI"):
        secrets.get(NAME)


@pytest.mark.parametrize("value", ["", " \n", None])
def test_an_empty_secret_is_none(
    secrets: VaultSecrets, vault: FakeVault, value: str | None
) -> None:
    """An empty value would be sent as a key and refused in a way that explains nothing."""
    vault.value = value
    with pytest.raises(SecretUnavailableError, match="is empty: set it"):
        secrets.get(NAME)


def test_line_ends_are_not_part_of_a_secret(secrets: VaultSecrets, vault: FakeVault) -> None:
    """Values that were piped into the vault end in one."""
    vault.value = "first\n"
    assert secrets.get(NAME) == "first"


def test_threads_share_one_reading(secrets: VaultSecrets, vault: FakeVault) -> None:
    """Sixteen uploads at the start of a process ask the vault once."""
    begin = threading.Barrier(16)
    read: list[str] = []

    def get() -> None:
        begin.wait()
        read.append(secrets.get(NAME))

    run_all(get, 16)
    assert read == ["first"] * 16
    assert vault.reads == 1


def run_all(work: Callable[[], None], count: int) -> None:
    """Run it on many threads, and wait for them."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_no_value_is_shown(
    secrets: VaultSecrets, vault: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a repr nor a log line has the value in it."""
    vault.value = "the-value-itself"
    secrets.get(NAME)
    vault.fault = answered(500)
    secrets.refresh(NAME)
    shown = repr(secrets) + repr(secrets._entries) + caplog.text
    assert "the-value-itself" not in shown
