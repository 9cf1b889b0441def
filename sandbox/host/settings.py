"""App settings: where they come from, ``%NAME%`` references, and disabled functions.

After the WebJobs SDK's ``NameResolverExtensions`` and ``HostListenerFactory``.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_REFERENCE = re.compile(r"%([^%]*)%")


class SettingsError(ValueError):
    """A settings file or a setting cannot be used; the text names it, never its value."""


class MissingSetting(SettingsError):  # noqa: N818 - the name states the fact
    """A binding refers to a setting that does not exist."""


def load_into_environment(settings_file: Path) -> None:
    """Add the ``Values`` of a ``local.settings.json`` to the environment, which wins.

    The app reads its settings from the environment too, as it does when deployed.

    Raises:
        SettingsError: the file is not JSON, is encrypted, or holds a value that is not a text.
    """
    try:
        content = json.loads(settings_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{settings_file.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{settings_file.name} must hold a JSON object")
    if content.get("IsEncrypted"):
        raise SettingsError(f"{settings_file.name} is encrypted, which this host cannot read")
    for name, value in content.get("Values", {}).items():
        if not isinstance(value, str):
            raise SettingsError(f"{settings_file.name}: the value of {name} must be a text")
        os.environ.setdefault(name, value)


def resolve(text: str, settings: Mapping[str, str]) -> str:
    """Replace every ``%NAME%`` in a binding attribute by that setting's value.

    Raises:
        MissingSetting: the setting does not exist or is empty.
    """

    def value_of(reference: re.Match[str]) -> str:
        name = reference.group(1)
        value = settings.get(name)
        if not value:
            raise MissingSetting(f"the setting {name!r} of {text!r} is missing")
        return value

    return _REFERENCE.sub(value_of, text)


def is_disabled(function_name: str, settings: Mapping[str, str]) -> bool:
    """Whether the app settings switch a function off."""
    names = (f"AzureWebJobs.{function_name}.Disabled", f"AzureWebJobs_{function_name}_Disabled")
    return any(settings.get(name, "").lower() in {"true", "1"} for name in names)
