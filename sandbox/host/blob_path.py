"""The ``path`` of a blob trigger: a container and a pattern for blob names.

After the storage extension's ``ParameterizedBlobPathSource``: the container is literal, the pattern
is anchored and case-sensitive, and each ``{x}`` matches greedily across ``/``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from sandbox.host.settings import SettingsError

_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


@dataclass(frozen=True)
class BlobPath:
    """A parsed path.

    Attributes:
        container: the container's name.
        prefix: the text every matching blob name starts with.
    """

    container: str
    prefix: str
    _pattern: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``container`` or ``container/pattern``, settings already resolved.

        Raises:
            SettingsError: the container is missing or not literal, or braces do not match.
        """
        container, _, pattern = text.partition("/")
        if not container or "{" in container or "}" in container:
            raise SettingsError(f"the path {text!r} must start with a literal container name")
        if not pattern:
            return cls(container, "", re.compile("(?s:.*)"))
        expression, prefix = _compile(text, pattern)
        # With parameters the host compares the container regardless of case; containers are
        # lower-case in storage.
        literal = prefix is None
        return cls(
            container if literal else container.lower(),
            pattern if prefix is None else prefix,
            re.compile(f"(?s:{expression})"),
        )

    def match(self, blob_name: str) -> dict[str, str] | None:
        """The values of the pattern's parameters, None when the name does not match."""
        match = self._pattern.fullmatch(blob_name)
        return None if match is None else match.groupdict()


def _compile(text: str, pattern: str) -> tuple[str, str | None]:
    """Return the regular expression and the literal text before the first parameter, if any."""
    expression = literal = ""
    prefix: str | None = None
    position = 0
    for token in _TOKEN.finditer(pattern):
        literal += pattern[position : token.start()]
        position = token.end()
        if token.group() in {"{{", "}}"}:
            literal += token.group()[0]
        elif token.group(1) is None:
            raise SettingsError(f"the path {text!r} has an unmatched brace or a dotted name")
        else:
            prefix = literal if prefix is None else prefix
            expression += re.escape(literal) + f"(?P<{token.group(1)}>.*)"
            literal = ""
    return expression + re.escape(literal + pattern[position:]), prefix
