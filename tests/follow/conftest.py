"""Fixtures: one stack of stand-ins in each test process, and the app's use cases on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from follow_world import App

from modzy_relay import wiring
from modzy_relay.azure_clients import credential
from sandbox.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Azurite, Modzy and Key Vault; jobs take as long as a few requests."""
    with Stack(tmp_path_factory.mktemp("stack"), job_seconds=0.06) as running:
        yield running


@pytest.fixture(scope="session")
def shared_app(stack: Stack) -> Iterator[App]:
    """The use cases, wired as the functions get them."""
    # Made once in a process, of the environment at that time.
    credential.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        _point_at(stack, patch)
        app = App(stack, wiring.build(stack.settings))
    yield app
    credential.cache_clear()


@pytest.fixture(autouse=True)
def environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the identity is and whose certificates to trust, for as long as a test runs."""
    _point_at(stack, monkeypatch)


def _point_at(stack: Stack, patch: pytest.MonkeyPatch) -> None:
    for name, value in stack.vault.environment.items():
        patch.setenv(name, value)


@pytest.fixture
def app(shared_app: App) -> Iterator[App]:
    """The use cases; what a test orders the stand-in to do ends with it."""
    yield shared_app
    shared_app.stack.modzy.service.rules.replace([])
