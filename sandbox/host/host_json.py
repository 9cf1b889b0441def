"""``host.json`` as far as this host obeys it, with the Functions host's defaults.

After the storage extension's ``QueuesOptions`` and ``BlobsOptions`` and the host's
``HostJsonFileConfigurationSource`` and ``ScriptJobHostOptionsSetup``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandbox.host.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_OVERRIDE_PREFIX = "azurefunctionsjobhost__"
_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})")
_MAX_BATCH = 32  # the storage service hands out no more messages at once
_DEFAULT_BATCH = 16
_DEVELOPMENT_POLLING = timedelta(seconds=2)  # what the environment Development changes 60 s to
_DEFAULT_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class HostJson:
    """The values of one ``host.json``.

    Attributes:
        queue_batch_size: messages taken at once by a queue trigger.
        queue_new_batch_threshold: running messages at which the next batch is fetched.
        queue_max_polling: longest pause between two looks at an empty queue.
        queue_max_dequeue_count: attempts before a message is poison.
        queue_release: how long a failed message stays hidden.
        queue_base64: whether message bodies are base64.
        blob_max_parallelism: blob invocations at once, all blob functions together.
        blob_poison_threshold: attempts before a blob is poison.
        route_prefix: first segment of HTTP routes, may be empty.
        function_timeout: longest invocation, None without limit.
    """

    queue_batch_size: int
    queue_new_batch_threshold: int
    queue_max_polling: timedelta
    queue_max_dequeue_count: int
    queue_release: timedelta
    queue_base64: bool
    blob_max_parallelism: int
    blob_poison_threshold: int
    route_prefix: str
    function_timeout: timedelta | None


def load_host_json(path: Path, settings: Mapping[str, str], *, cores: int) -> HostJson:
    """Read the file; a missing one is the empty one. App settings override it.

    Args:
        path: the file.
        settings: ``AzureFunctionsJobHost__a__b`` replaces the value at ``a.b``.
        cores: processor cores, which some defaults multiply.

    Raises:
        SettingsError: the file is not valid, or asks for what this host does not do.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = {"version": "2.0"}
    except ValueError as error:
        raise SettingsError(f"{path.name} is not JSON: {error}") from error
    values = _flatten(content) | _overrides(settings)
    if values.get("version") != "2.0":
        raise SettingsError(f'{path.name}: "version" must be "2.0"')
    if str(values.get("concurrency.dynamicconcurrencyenabled", False)).lower() == "true":
        raise SettingsError(f"{path.name}: dynamic concurrency is not supported by this host")
    return _host_json(values, cores)


def _host_json(values: Mapping[str, Any], cores: int) -> HostJson:
    batch = _whole_number(values, "extensions.queues.batchsize", _DEFAULT_BATCH, 1, _MAX_BATCH)
    encoding = str(values.get("extensions.queues.messageencoding", "base64")).lower()
    if encoding not in {"base64", "none"}:
        raise SettingsError("host.json: extensions.queues.messageEncoding is base64 or none")
    return HostJson(
        queue_batch_size=batch,
        queue_new_batch_threshold=_whole_number(
            values, "extensions.queues.newbatchthreshold", batch // 2 * cores, 0
        ),
        queue_max_polling=_time_span(
            values, "extensions.queues.maxpollinginterval", _DEVELOPMENT_POLLING
        ),
        queue_max_dequeue_count=_whole_number(values, "extensions.queues.maxdequeuecount", 5, 1),
        queue_release=_time_span(values, "extensions.queues.visibilitytimeout", timedelta()),
        queue_base64=encoding == "base64",
        blob_max_parallelism=_whole_number(
            values, "extensions.blobs.maxdegreeofparallelism", 8 * cores, 1
        ),
        blob_poison_threshold=_whole_number(values, "extensions.blobs.poisonblobthreshold", 5, 1),
        route_prefix=str(values.get("extensions.http.routeprefix", "api")).strip("/"),
        function_timeout=_function_timeout(values),
    )


def _flatten(content: object, prefix: str = "") -> dict[str, Any]:
    """Turn nested objects into ``a.b.c`` keys, lower-cased: the host ignores case."""
    if not isinstance(content, dict):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flatten(value, f"{prefix}.{name.lower()}" if prefix else name.lower())
    return flat


def _overrides(settings: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower().removeprefix(_OVERRIDE_PREFIX).replace("__", "."): value
        for name, value in settings.items()
        if name.lower().startswith(_OVERRIDE_PREFIX)
    }


def _whole_number(
    values: Mapping[str, Any], name: str, default: int, least: int, most: int | None = None
) -> int:
    try:
        number = int(values.get(name, default))
    except (TypeError, ValueError):
        raise SettingsError(f"host.json: {name} must be a whole number") from None
    if number < least or (most is not None and number > most):
        raise SettingsError(f"host.json: {name} is out of range")
    return number


def _time_span(values: Mapping[str, Any], name: str, default: timedelta) -> timedelta:
    text = values.get(name)
    if text is None:
        return default
    span = parse_time_span(str(text))
    if span is None:
        raise SettingsError(f'host.json: {name} must be written as "hh:mm:ss"')
    return span


def _function_timeout(values: Mapping[str, Any]) -> timedelta | None:
    if str(values.get("functiontimeout")) == "-1":
        return None
    return _time_span(values, "functiontimeout", _DEFAULT_TIMEOUT)


def parse_time_span(text: str) -> timedelta | None:
    """Read ``[days.]hh:mm:ss``; None when the text is something else."""
    match = _TIME_SPAN.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
