"""The model check runs thousands of small worlds; their log lines would only cost time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def silent_log() -> Iterator[None]:
    """No log lines while a module's worlds run."""
    logger = logging.getLogger("modzy_relay")
    logger.disabled = True
    yield
    logger.disabled = False
