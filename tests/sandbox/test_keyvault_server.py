"""The real Key Vault and identity clients run unchanged against the stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient

from sandbox.keyvault_server import Fault, KeyVaultServer

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "modzy-api-key"
VALUE = "prefix.a-secret"

Connect = Callable[..., SecretClient]


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[KeyVaultServer]:
    """A vault with one secret."""
    with KeyVaultServer(tmp_path) as server:
        server.set_secret(NAME, VALUE)
        yield server


@pytest.fixture
def connect(vault: KeyVaultServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Makes clients with nothing but the vault's environment variables."""
    for name, value in vault.environment.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def make(client_id: str | None = None, read_timeout: float = 10) -> SecretClient:
            credential = stack.enter_context(ManagedIdentityCredential(client_id=client_id))
            client = SecretClient(
                vault.vault_uri, credential, retry_total=0, read_timeout=read_timeout
            )
            return stack.enter_context(client)

        yield make


def test_secret_is_read(vault: KeyVaultServer, connect: Connect) -> None:
    """One challenge and one token, then reads; the identifier leads back to vault and version."""
    client = connect()
    secret = client.get_secret(NAME)
    assert secret.value == VALUE
    assert secret.properties.vault_url == vault.vault_uri
    assert secret.properties.enabled
    client.get_secret(NAME)
    assert (vault.vault.challenges, vault.tokens.issued, vault.reads(NAME)) == (1, 1, 2)


def test_default_credential_works(vault: KeyVaultServer, connect: Connect) -> None:
    """The chained credential of a deployment finds the managed identity, too."""
    connect()
    with (
        DefaultAzureCredential(exclude_environment_credential=True) as credential,
        SecretClient(vault.vault_uri, credential, retry_total=0) as client,
    ):
        assert client.get_secret(NAME).value == VALUE


def test_versions(vault: KeyVaultServer, connect: Connect) -> None:
    """The newest version is the default; older ones can be asked for."""
    client = connect()
    first = client.get_secret(NAME).properties.version
    second = vault.set_secret(NAME, "prefix.rotated")
    assert client.get_secret(NAME).value == "prefix.rotated"
    assert client.get_secret(NAME).properties.version == second
    assert client.get_secret(NAME, first).value == VALUE
    with pytest.raises(ResourceNotFoundError):
        client.get_secret(NAME, "0" * 32)


def test_missing_disabled_and_deleted(vault: KeyVaultServer, connect: Connect) -> None:
    """Each has the error of the real vault."""
    client = connect()
    with pytest.raises(ResourceNotFoundError, match="SecretNotFound"):
        client.get_secret("other")
    vault.disable_secret(NAME)
    with pytest.raises(HttpResponseError, match="disabled") as disabled:
        client.get_secret(NAME)
    assert disabled.value.status_code == 403
    vault.delete_secret(NAME)
    with pytest.raises(ResourceNotFoundError):
        client.get_secret(NAME)


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault.REFUSED, ServiceRequestError, None),
        (Fault.UNAVAILABLE, HttpResponseError, 503),
        (Fault.FORBIDDEN, HttpResponseError, 403),
        (Fault.MISSING, ResourceNotFoundError, 404),
    ],
)
def test_faults_come_and_go(
    fault: Fault,
    error: type[Exception],
    status: int | None,
    vault: KeyVaultServer,
    connect: Connect,
) -> None:
    """A client meets the fault, and works again when it has ended."""
    client = connect()
    client.get_secret(NAME)
    vault.set_fault(fault)
    with pytest.raises(error) as raised:
        client.get_secret(NAME)
    assert getattr(raised.value, "status_code", None) == status
    vault.set_fault(None)
    assert client.get_secret(NAME).value == VALUE


def test_slow_vault(vault: KeyVaultServer, connect: Connect) -> None:
    """A slow vault outlasts a client's read timeout."""
    vault.set_fault(Fault.SLOW, seconds=30)
    with pytest.raises(ServiceResponseError):
        connect(read_timeout=0.2).get_secret(NAME)


def test_expiring_token_is_renewed(vault: KeyVaultServer, connect: Connect) -> None:
    """Tokens have the configured lifetime: near its end the credential asks for another."""
    client = connect()
    vault.tokens.lifetime = 1
    client.get_secret(NAME)
    client.get_secret(NAME)
    assert vault.tokens.issued == 2


def test_token_is_checked_on_every_call(vault: KeyVaultServer) -> None:
    """A made-up token, an expired one and one for another resource are all challenged."""
    elsewhere, _ = vault.tokens.issue("https://storage.azure.com")
    good, _ = vault.tokens.issue(vault.vault.resource)
    vault.tokens.lifetime = -1
    expired, _ = vault.tokens.issue(vault.vault.resource)
    url = f"{vault.vault_uri}/secrets/{NAME}?api-version=7.4"
    for token, status in ((elsewhere, 401), (expired, 401), ("a.b.c", 401), (good, 200)):
        answer = requests.get(
            url, headers={"Authorization": f"Bearer {token}"}, verify=str(vault.ca_file), timeout=10
        )
        assert answer.status_code == status
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert vault.reads(NAME) == 1


def test_certificate_is_checked(vault: KeyVaultServer) -> None:
    """Without the sandbox's authority the connection is not trusted; the vault serves on."""
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(vault.vault_uri, timeout=10)
    assert requests.get(vault.vault_uri, verify=str(vault.ca_file), timeout=10).status_code == 401


def test_identity_endpoint_asks_for_its_header(
    vault: KeyVaultServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong IDENTITY_HEADER and an unknown client_id get no token."""
    with pytest.raises(ClientAuthenticationError):
        connect(client_id="11111111-2222-3333-4444-555555555555").get_secret(NAME)
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    with pytest.raises(ClientAuthenticationError):
        connect().get_secret(NAME)
    assert vault.tokens.issued == 0


def test_user_assigned_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token request that names the configured client_id is served."""
    client_id = "11111111-2222-3333-4444-555555555555"
    with KeyVaultServer(tmp_path, client_id=client_id) as vault:
        vault.set_secret(NAME, VALUE)
        for name, value in vault.environment.items():
            monkeypatch.setenv(name, value)
        with (
            ManagedIdentityCredential(client_id=client_id) as credential,
            SecretClient(vault.vault_uri, credential) as client,
        ):
            assert client.get_secret(NAME).value == VALUE


def test_nothing_secret_is_shown(
    vault: KeyVaultServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither log nor evidence has secret values, tokens or the identity header."""
    caplog.set_level("DEBUG", logger="sandbox")
    connect().get_secret(NAME)
    shown = caplog.text + repr(vault.vault_service.requests) + repr(vault.vault._secrets)
    shown += repr(vault.identity_service.requests)
    assert f"/secrets/{NAME}" in shown
    (token,) = vault.tokens._issued
    for secret in (VALUE, token, vault.identity_header):
        assert secret not in shown


def test_bad_secret_name_is_refused(vault: KeyVaultServer) -> None:
    """A name that Key Vault would not take is an error here, too."""
    with pytest.raises(ValueError, match="letters"):
        vault.set_secret("modzy_api_key", VALUE)


def test_process_is_steered_and_ends_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints what clients need, obeys the admin routes and ends with 0 on SIGTERM."""
    log = tmp_path / "vault.log"
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "sandbox.keyvault_server", "--dir", str(tmp_path)),
            *("--secret", "made-up=value", "--secret-env", f"{NAME}=THE_KEY", "--log", str(log)),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"THE_KEY": VALUE},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = dict(process.stdout.readline().strip().split("=", 1) for _ in range(4))
        for name, value in printed.items():
            monkeypatch.setenv(name, value)
        admin = printed["IDENTITY_ENDPOINT"].replace("/msi/token", "/_sandbox")
        with (
            ManagedIdentityCredential() as credential,
            SecretClient(printed["KEY_VAULT_URI"], credential, retry_total=0) as client,
        ):
            assert client.get_secret("made-up").value == "value"
            assert client.get_secret(NAME).value == VALUE
            changed = requests.put(f"{admin}/secrets/{NAME}", json={"value": "new"}, timeout=10)
            assert changed.json()["reads"] == {"made-up": 1, NAME: 1}
            assert client.get_secret(NAME).value == "new"
            for fault in ("refused", None):
                requests.put(f"{admin}/fault", json={"fault": fault}, timeout=10)
                if fault:
                    with pytest.raises(ServiceRequestError):
                        client.get_secret(NAME)
            assert client.get_secret(NAME).value == "new"
            requests.post(f"{admin}/secrets/{NAME}/disable", timeout=10)
            with pytest.raises(HttpResponseError, match="disabled"):
                client.get_secret(NAME)
            assert requests.delete(f"{admin}/secrets/other", timeout=10).status_code == 404
            unknown = requests.put(f"{admin}/fault", json={"fault": "odd"}, timeout=10)
            assert unknown.status_code == 400
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert VALUE not in log.read_text()
