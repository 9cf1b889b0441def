"""The message classes that the Python worker library expects, without gRPC.

The library takes its messages as an object with these names; this module is that object. A class
does what the library does with it (keyword construction, attribute access) and no more, so a
message kind that this host never handles fails on sight.
"""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any


class WorkerInitResponse(SimpleNamespace):
    """The answer to the request that imports and indexes the app."""


class WorkerMetadata(SimpleNamespace):
    """What the worker says about itself."""


class FunctionMetadataResponse(SimpleNamespace):
    """The list of indexed functions."""


class RpcFunctionMetadata(SimpleNamespace):
    """One indexed function; ``raw_bindings`` holds its bindings as JSON texts."""


class RpcRetryOptions(SimpleNamespace):
    """The retry policy of a function."""


class InvocationResponse(SimpleNamespace):
    """The outcome of one invocation."""

    return_value: TypedData | None = None


class ParameterBinding(SimpleNamespace):
    """A named value, going into a function or coming out of it."""

    def WhichOneof(self, _group: str) -> str:  # noqa: N802 - protobuf's name
        """Name the kind of value held; values in shared memory do not occur here."""
        return "data"


class RpcException(SimpleNamespace):
    """An exception of the app: ``message`` and ``stack_trace``."""


class StatusResult(SimpleNamespace):
    """Success or failure, with the exception of a failure."""

    Failure = 0
    Success = 1
    Cancelled = 2

    exception: RpcException | None = None


class BindingInfo(SimpleNamespace):
    """Type and direction of a binding; the enum values sit on the class as in protobuf."""

    out = 1
    inout = 2
    undefined = 0


setattr(BindingInfo, "in", 0)  # a keyword in Python, so it cannot be written in the class body


class TypedData:
    """One value of one kind, such as ``string``, ``bytes``, ``json`` or ``http``."""

    def __init__(self, **kind: Any) -> None:
        if len(kind) > 1:
            raise TypeError(f"one kind of data at most, not {sorted(kind)}")
        self._kind = next(iter(kind), None)
        vars(self).update(kind)

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - protobuf's name
        """Name the kind of data held, None for no data."""
        return self._kind


class RpcHttp(SimpleNamespace):
    """An HTTP request or response."""


class RpcHttpCookie(SimpleNamespace):
    """One Set-Cookie of a response."""

    # The library names the unset value "None", which only the functional form can spell.
    SameSite = Enum("SameSite", [("None", 0), ("Lax", 1), ("Strict", 2), ("ExplicitNone", 3)])


class NullableString(SimpleNamespace):
    """A text that is set."""


class NullableBool(SimpleNamespace):
    """A truth value that is set."""


class NullableDouble(SimpleNamespace):
    """A number that is set."""


class Timestamp(SimpleNamespace):
    """Whole seconds since 1970, as ``seconds``."""


class NullableTimestamp(SimpleNamespace):
    """A point in time that is set."""
