"""URLs of the API: which base addresses are safe, and which links stay below them."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from modzy_relay.modzy_api.errors import ForeignLinkError

if TYPE_CHECKING:
    from urllib.parse import SplitResult


def normalise_base_url(base_url: str) -> str:
    """The URL of the API, without a slash at its end.

    Raises:
        ValueError: it is not an address that a key may be sent to. The text leaves it out, since
            it may hold a password.
    """
    text = base_url.strip()
    if re.search(r"[\s\\\x00-\x1f\x7f]", text):
        raise ValueError("base_url holds a space, a backslash or a control character: remove it")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("base_url is not a URL: write https://<host>/api") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("base_url must start with https:// and name a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("base_url must not hold a user, a password, a query or a fragment")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(
            "base_url must start with https://: over http the API key would travel in the clear"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/")
    if not path.endswith("/api"):
        path += "/api"
    return urlunsplit((parts.scheme, host if port is None else f"{host}:{port}", path, "", ""))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_segment(text: str) -> str:
    """An identifier as one segment of a path.

    Raises:
        ValueError: it would not stay one.
    """
    if text in (".", "..") or not text.strip():
        raise ValueError("an identifier must not be blank, '.' or '..'")
    return quote(text, safe="")


def path_below(base: SplitResult, link: str) -> tuple[str, str]:
    """Path and query of a link to the API.

    Raises:
        ForeignLinkError: the link is not one. The text leaves the link out, which may be signed.
    """
    text = link.strip()
    try:
        parts = urlsplit(text)
        same_server = _origin(parts) == _origin(base)
    except ValueError:
        raise ForeignLinkError("the link is not a URL") from None
    if not same_server or "@" in parts.netloc:
        raise ForeignLinkError("the link leads to another server")
    segments = unquote(parts.path).split("/")
    if (
        not parts.path.startswith(f"{base.path}/")
        or re.search(r"[\\\x00-\x1f\x7f]", text)
        or not {".", ".."}.isdisjoint(segments)
    ):
        raise ForeignLinkError("the link leads out of the API")
    return parts.path, parts.query


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, default if parts.port is None else parts.port
