"""The model check runs thousands of small worlds; watching each would only cost time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def silent_log() -> Iterator[None]:
    """No log lines while a module's worlds run."""
    logger = logging.getLogger("modzy_relay")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.fixture(autouse=True, scope="module")
def unmeasured() -> Iterator[None]:
    """No coverage: the same lines again and again, which other tests visit as well."""
    measurement = Coverage.current()
    if measurement is None:
        yield
        return
    measurement.stop()
    yield
    measurement.start()
