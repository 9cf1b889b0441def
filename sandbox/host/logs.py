"""Log lines of the host and of the app, each with the invocation it belongs to."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, HttpResponseError
from azure_functions_runtime.utils.executor import (  # type: ignore[import-untyped]  # has no types
    invocation_id_cv,
)

if TYPE_CHECKING:
    from pathlib import Path

host_log = logging.getLogger("sandbox.host")

# The storage clients of this host share the process with the app. At INFO they write several lines
# a poll, and the worker library repeats what the invocation lines below already say.
_NOISY = ("azure.core.pipeline.policies.http_logging_policy", "azure.functions", "azure.identity")


class _InvocationFilter(logging.Filter):
    """Puts the current invocation's id on every record, ``-`` outside of invocations."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.invocation = invocation_id_cv.get() or "-"
        return True


def configure_logging(log_file: Path | None, level: str) -> None:
    """Send everything logged in this process to standard error and to ``log_file``."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s [%(invocation)s] %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    root = logging.getLogger()
    root.setLevel(level)
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(_InvocationFilter())
        root.addHandler(handler)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def describe(error: AzureError) -> str:
    """Name a storage failure without its text, which can quote an address with a signature."""
    if isinstance(error, HttpResponseError):
        return f"{error.status_code} {getattr(error, 'error_code', None) or error.reason}"
    return type(error).__name__
