"""The model check runs thousands of small worlds; watching each would only cost time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEARCHES = ("runTest", "test_the_check_finds_a_seeded_mistake")


@pytest.fixture(autouse=True, scope="module")
def silent_log() -> Iterator[None]:
    """No log lines while a module's worlds run."""
    logger = logging.getLogger("modzy_relay")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.fixture(autouse=True)
def unmeasured(request: pytest.FixtureRequest) -> Iterator[None]:
    """No coverage of the searches: the same lines again and again, which other tests visit."""
    measurement = Coverage.current()
    if measurement is None or not request.node.name.startswith(_SEARCHES):
        yield
        return
    measurement.stop()
    yield
    measurement.start()
