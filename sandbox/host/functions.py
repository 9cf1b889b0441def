"""From the worker's metadata to the functions that this host serves.

After the host's ``WorkerFunctionDescriptorProvider`` (when an SDK type is sent) and the WebJobs
SDK's ``NameResolverExtensions`` (which attributes refer to settings).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.host.blob_path import BlobPath
from sandbox.host.ncrontab import Schedule, parse_schedule
from sandbox.host.routes import Route
from sandbox.host.settings import SettingsError, is_disabled, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandbox.host.connections import Connections
    from sandbox.host.worker import IndexedFunction

SCAN = "LogsAndContainerScan"
EVENT_GRID = "EventGrid"


class UnsupportedBinding(ValueError):  # noqa: N818 - the name states the fact
    """The app uses what this host cannot serve; the text names function and binding."""


@dataclass(frozen=True)
class Function:
    """What every kind of function has.

    Attributes:
        name: the function's name.
        worker_id: what the worker library calls it.
        parameter: the Python parameter that receives the trigger's value.
        enabled: whether its listener runs; a disabled one can still be run by an administrator.
    """

    name: str
    worker_id: str
    parameter: str
    enabled: bool

    @property
    def full_id(self) -> str:
        """The id that the host uses in messages, receipts, locks and webhooks."""
        return f"Host.Functions.{self.name}"


@dataclass(frozen=True)
class BlobFunction(Function):
    """A function that runs for blobs matching ``path`` in the account of ``connection``."""

    path: BlobPath
    connection: str
    source: str


@dataclass(frozen=True)
class QueueFunction(Function):
    """A function that runs for messages of one queue."""

    queue_name: str
    connection: str


@dataclass(frozen=True)
class TimerFunction(Function):
    """A function that runs on a schedule."""

    schedule: Schedule
    run_on_startup: bool
    use_monitor: bool


@dataclass(frozen=True)
class HttpFunction(Function):
    """A function that answers HTTP requests; no methods means all."""

    route: Route
    methods: frozenset[str]
    level: str


@dataclass
class FunctionIndex:
    """The functions of an app.

    Attributes:
        errors: why a function could not be indexed, by function name.
    """

    blobs: list[BlobFunction] = field(default_factory=list)
    queues: list[QueueFunction] = field(default_factory=list)
    timers: list[TimerFunction] = field(default_factory=list)
    http: list[HttpFunction] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    def all(self) -> Iterable[Function]:
        """Every indexed function."""
        return (*self.blobs, *self.queues, *self.timers, *self.http)


def index_functions(
    indexed: Iterable[IndexedFunction],
    settings: Mapping[str, str],
    connections: Connections,
    route_prefix: str,
) -> FunctionIndex:
    """Sort the worker's functions by trigger, with every reference to a setting resolved.

    A function with a wrong or missing setting is left out and named in ``errors``; the others
    go on, as in the host.

    Raises:
        UnsupportedBinding: lists every binding of the app that this host cannot serve. The app
            as a whole is refused, since half of it would look as if it worked.
    """
    index = FunctionIndex()
    unsupported: list[str] = []
    for function in indexed:
        try:
            _Indexer(function, settings, connections, route_prefix).add_to(index)
        except UnsupportedBinding as error:
            unsupported.append(str(error))
        except SettingsError as error:
            index.errors[function.name] = str(error)
    if unsupported:
        raise UnsupportedBinding("; ".join(unsupported))
    return index


class _Indexer:
    """Indexes one function."""

    def __init__(
        self,
        function: IndexedFunction,
        settings: Mapping[str, str],
        connections: Connections,
        route_prefix: str,
    ) -> None:
        self._function = function
        self._settings = settings
        self._connections = connections
        self._route_prefix = route_prefix

    def add_to(self, index: FunctionIndex) -> None:
        trigger = self._trigger()
        match trigger["type"]:
            case "blobTrigger":
                index.blobs.append(self._blob(trigger))
            case "queueTrigger":
                index.queues.append(self._queue(trigger))
            case "timerTrigger":
                index.timers.append(self._timer(trigger))
            case "httpTrigger":
                index.http.append(self._http(trigger))
            case _:
                raise self._unsupported(trigger, "this host serves blob, queue, timer and HTTP")

    def _trigger(self) -> dict[str, Any]:
        triggers = [b for b in self._function.bindings if b["type"].endswith("Trigger")]
        if len(triggers) != 1:
            raise UnsupportedBinding(f"function {self._function.name}: one trigger is needed")
        for binding in self._function.bindings:
            is_response = triggers[0]["type"] == "httpTrigger" and binding["type"] == "http"
            if binding is not triggers[0] and not is_response:
                raise self._unsupported(binding, _second_binding_problem(binding))
        if self._function.has_retry_policy:
            raise self._unsupported(triggers[0], "retry policies are not carried out")
        return triggers[0]

    def _unsupported(self, binding: Mapping[str, Any], reason: str) -> UnsupportedBinding:
        return UnsupportedBinding(
            f"function {self._function.name}: the binding {binding.get('name')!r} of type "
            f"{binding['type']!r} is not supported: {reason}"
        )

    def _common(self, trigger: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "name": self._function.name,
            "worker_id": self._function.function_id,
            "parameter": trigger["name"],
            "enabled": not is_disabled(self._function.name, self._settings),
        }

    def _resolved(self, trigger: Mapping[str, Any], attribute: str) -> str:
        return resolve(str(trigger.get(attribute) or ""), self._settings)

    def _blob(self, trigger: Mapping[str, Any]) -> BlobFunction:
        if not (trigger.get("properties") or {}).get("SupportsDeferredBinding"):
            raise self._unsupported(
                trigger, "annotate the parameter with an SDK type; contents are not sent here"
            )
        # `source` is not resolved by the host: a %NAME% arrives here as it was written.
        source = str(trigger.get("source") or SCAN)
        if source not in {SCAN, EVENT_GRID}:
            raise self._unsupported(trigger, f"its source {source!r} does not exist")
        function = BlobFunction(
            **self._common(trigger),
            path=BlobPath.parse(self._resolved(trigger, "path")),
            connection=self._resolved(trigger, "connection"),
            source=source,
        )
        # The poison queue is in the watched account, so its queue service is needed as well.
        self._connections.blob_service(function.connection)
        self._connections.queue_service(function.connection)
        return function

    def _queue(self, trigger: Mapping[str, Any]) -> QueueFunction:
        function = QueueFunction(
            **self._common(trigger),
            queue_name=self._resolved(trigger, "queueName").lower(),
            connection=self._resolved(trigger, "connection"),
        )
        if "{" in function.queue_name:
            raise SettingsError(f"queueName {function.queue_name!r} must not contain {{...}}")
        self._connections.queue_service(function.connection)
        return function

    def _timer(self, trigger: Mapping[str, Any]) -> TimerFunction:
        return TimerFunction(
            **self._common(trigger),
            schedule=parse_schedule(self._resolved(trigger, "schedule")),
            run_on_startup=_flag(trigger.get("runOnStartup"), default=False),
            use_monitor=_flag(trigger.get("useMonitor"), default=True),
        )

    def _http(self, trigger: Mapping[str, Any]) -> HttpFunction:
        template = str(trigger.get("route") or self._function.name)
        level = str(trigger.get("authLevel") or "function").lower()
        if level not in {"anonymous", "function", "admin"}:
            raise self._unsupported(trigger, f"its level {level!r} does not exist")
        return HttpFunction(
            **self._common(trigger),
            route=Route.parse(f"{self._route_prefix}/{template.strip('/')}".strip("/")),
            methods=frozenset(str(method).upper() for method in trigger.get("methods") or ()),
            level=level,
        )


def _second_binding_problem(binding: Mapping[str, Any]) -> str:
    """Say why a binding beside the trigger is refused.

    With ``{...}`` in it the host itself would send a blob trigger as plain text, and a parameter
    of an SDK type would then fail with "unexpected type of data".
    """
    if any("{" in value for value in binding.values() if isinstance(value, str)):
        return "with {...} in it, the host would not send the trigger as an SDK type either"
    return "only triggers are served, use the SDK for input and output"


def _flag(value: object, *, default: bool) -> bool:
    return default if value is None else str(value).lower() == "true"
