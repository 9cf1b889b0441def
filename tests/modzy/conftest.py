"""Fixtures of the Modzy client's tests: a clean environment, servers, clients."""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from modzy_servers import API_KEY, RawServer, Script

from modzy_relay.modzy_api import HttpTransport, ModzyClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, CA bundle or ~/.netrc of this machine gets into a test."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Starts scripted servers; stops them after the test."""
    with contextlib.ExitStack() as stack:

        def start(script: Script, tls: ssl.SSLContext | None = None) -> RawServer:
            server = RawServer(script, tls)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., ModzyClient]]:
    """Makes clients with short time-outs; closes them after the test."""
    with contextlib.ExitStack() as stack:

        def make(
            url: str,
            *,
            connect_timeout: float = 5.0,
            read_timeout: float = 5.0,
            verify: bool | str = True,
        ) -> ModzyClient:
            transport = HttpTransport(connect_timeout, read_timeout, verify=verify)
            return stack.enter_context(ModzyClient(url, API_KEY, transport=transport))

        yield make


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority of these tests' own."""
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's side of TLS, for this machine and for one that does not exist."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "modzy.test").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def ca_bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a CA bundle that trusts the authority of these tests."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)
