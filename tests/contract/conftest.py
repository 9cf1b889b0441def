"""One Azurite for a test process, fresh names for each test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stores import AzuriteStores, MemoryStores, Stores

from sandbox.storage import Azurite

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A running storage emulator. Without node it is skipped on a laptop and fails on CI."""
    if shutil.which("node") is None and not os.environ.get("CI"):
        pytest.skip("node is not installed, so there is no storage emulator")
    with Azurite(Path(tmp_path_factory.mktemp("azurite")), in_memory=True) as azurite:
        yield azurite


@pytest.fixture
def azurite_stores(azurite: Azurite) -> Iterator[AzuriteStores]:
    """The real edge classes on the emulator."""
    stores = AzuriteStores(azurite.connection_string())
    yield stores
    stores.close()


@pytest.fixture(params=["memory", "azurite"])
def stores(request: pytest.FixtureRequest) -> Stores:
    """Each test runs with the doubles and with the real edge classes."""
    if request.param == "memory":
        return MemoryStores()
    real: AzuriteStores = request.getfixturevalue("azurite_stores")
    return real
