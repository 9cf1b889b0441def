"""HTTP route templates: literals, ``{name}``, ``{name?}``, ``{*rest}`` and simple constraints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from sandbox.host.settings import SettingsError

_PARAMETER = re.compile(r"\{(\*?)([A-Za-z_]\w*)(?::(\w+))?(\?)?\}")
_CONSTRAINTS = {
    None: "[^/]+",
    "int": r"-?\d+",
    "long": r"-?\d+",
    "bool": "true|false",
    "alpha": "[A-Za-z]+",
    "guid": "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
}


@dataclass(frozen=True)
class Route:
    """A parsed template.

    Attributes:
        rank: sorts routes by precedence: segment by segment, literals before parameters before
            the one that takes the rest.
    """

    template: str
    rank: tuple[int, ...]
    _pattern: re.Pattern[str]

    @classmethod
    def parse(cls, template: str) -> Self:
        """Read a template without leading slash, prefix included.

        Raises:
            SettingsError: it uses what this host does not know.
        """
        expression = ""
        rank = []
        for segment in template.split("/"):
            piece, order = _compile_segment(template, segment)
            expression += piece
            rank.append(order)
        return cls(template, tuple(rank), re.compile(f"{expression}/?", re.IGNORECASE))

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters of a decoded path (leading slash); None when it does not match."""
        match = self._pattern.fullmatch(path)
        if match is None:
            return None
        return {name: value for name, value in match.groupdict().items() if value is not None}


def _compile_segment(template: str, segment: str) -> tuple[str, int]:
    parameter = _PARAMETER.fullmatch(segment)
    if parameter is None:
        if "{" in segment or "}" in segment:
            raise SettingsError(f"the route {template!r} is not understood at {segment!r}")
        return f"/{re.escape(segment)}", 0
    rest, name, constraint, optional = parameter.groups()
    if constraint not in _CONSTRAINTS:
        raise SettingsError(f"the route {template!r} has an unknown constraint {constraint!r}")
    if rest:
        return f"(?:/(?P<{name}>.*))?", 2
    piece = f"/(?P<{name}>{_CONSTRAINTS[constraint]})"
    return (f"(?:{piece})?" if optional else piece), 1
