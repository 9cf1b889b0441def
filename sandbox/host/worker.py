"""Drives Microsoft's Python worker library inside this process.

The library (``azure_functions_runtime.handle_event``) keeps its state in module globals, so there
is one app in a process. Synchronous functions run in the library's thread pool, ``async`` ones on
the event loop of this process: a blocking call in one stops everything, as it does when deployed.
"""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

# The library carries no type information.
from azure_functions_runtime import handle_event  # type: ignore[import-untyped]
from azure_functions_runtime.utils import threadpool  # type: ignore[import-untyped]
from azure_functions_runtime.utils.executor import (  # type: ignore[import-untyped]
    invocation_id_cv,
)

from sandbox.host import protos
from sandbox.host.protos import ParameterBinding, StatusResult, TypedData

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class AppFailed(RuntimeError):  # noqa: N818 - the name states the fact
    """The app could not be imported or indexed; carries its stack trace."""


@dataclass(frozen=True)
class IndexedFunction:
    """A function as the worker describes it, references to settings unresolved."""

    name: str
    function_id: str
    bindings: tuple[dict[str, Any], ...]
    has_retry_policy: bool


@dataclass(frozen=True)
class WorkerResult:
    """The outcome of an invocation.

    Attributes:
        error: the exception with its stack trace, None for success.
        value: the returned value, if the function has one.
    """

    error: str | None
    value: TypedData | None = None


async def load_app(folder: Path) -> list[IndexedFunction]:
    """Import the app in ``folder`` and list its functions.

    Raises:
        AppFailed: importing or indexing it failed, or there is no script file.
    """
    sys.path.insert(0, str(folder))
    threadpool.start_threadpool_executor()
    init = await handle_event.worker_init_request(
        SimpleNamespace(
            request=SimpleNamespace(
                worker_init_request=SimpleNamespace(
                    capabilities={}, function_app_directory=str(folder)
                )
            ),
            properties={"host": "127.0.0.1", "protos": protos},
        )
    )
    if init.result.status != StatusResult.Success:
        raise AppFailed(init.result.exception.stack_trace)
    answer = await handle_event.functions_metadata_request(SimpleNamespace())
    if answer.function_metadata_results is None:
        raise AppFailed(f"there is no function app in {folder}")
    return [
        IndexedFunction(
            name=metadata.name,
            function_id=metadata.function_id,
            bindings=tuple(json.loads(binding) for binding in metadata.raw_bindings),
            has_retry_policy=metadata.retry_options is not None,
        )
        for metadata in answer.function_metadata_results
    ]


async def invoke(
    function_id: str,
    invocation_id: str,
    parameter: str,
    value: TypedData,
    metadata: Mapping[str, TypedData],
) -> WorkerResult:
    """Run a function once; its exceptions are part of the result.

    Args:
        function_id: the worker's id of the function.
        invocation_id: a new id.
        parameter: the parameter that receives ``value``.
        value: the trigger's value.
        metadata: the trigger's metadata.
    """
    invocation_id_cv.set(invocation_id)  # the library does so for synchronous functions only
    request = SimpleNamespace(
        invocation_id=invocation_id,
        function_id=function_id,
        input_data=[ParameterBinding(name=parameter, data=value)],
        trigger_metadata=dict(metadata),
        trace_context=SimpleNamespace(
            trace_parent=f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-00",
            trace_state="",
            attributes={},
        ),
        retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
    )
    try:
        response = await handle_event.invocation_request(
            SimpleNamespace(request=SimpleNamespace(invocation_request=request))
        )
    except SystemExit as leave:  # the library lets it through, and it would end this host
        return WorkerResult(error=f"SystemExit: {leave.code}")
    if response.result.status != StatusResult.Success:
        exception = response.result.exception
        return WorkerResult(error=f"{exception.message}\n{exception.stack_trace}".rstrip())
    return WorkerResult(error=None, value=response.return_value)
