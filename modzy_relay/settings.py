"""App settings, read once from a mapping, with every problem reported together.

The names are those of ``local.settings.sample.json`` and of the app settings in ``infra/``;
``tests/test_consistency.py`` holds the three together.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from modzy_relay.errors import SettingsError
from modzy_relay.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Defaults of the settings that may be left out. Those which a trigger names as ``%SETTING%``
#: must be present in the app all the same: the Functions host knows no defaults.
DEFAULTS: dict[str, str] = {
    "UPLOAD_CONTAINER": "uploads",
    "BLOB_TRIGGER_SOURCE": "EventGrid",
    "MODZY_API_KEY_SECRET": "modzy-api-key",
    "UPLOAD_STORAGE_KEY_SECRET": "upload-storage-key",
    "SUBMISSIONS_TABLE": "ModzySubmissions",
    "JOBS_QUEUE": "modzy-jobs",
    "DUE_QUEUE": "modzy-relay-due",
    "RESULTS_CONTAINER": "modzy-results",
    "SWEEP_SCHEDULE": "0 */15 * * * *",
    "SWEEP_LOOKBACK": "2d",
    "GIVE_UP_AFTER": "7d",
    "SUBMIT_TIMEOUT": "30s",
    "HISTORY_SETTLE": "2m",
    "FOLLOW_FOR": "7d",
}

#: Every setting this program reads. The three storage connections are prefixes as well.
SETTING_NAMES: frozenset[str] = frozenset(DEFAULTS) | {
    "AzureWebJobsStorage",
    "UploadStorage",
    "RelayStorage",
    "KEY_VAULT_URI",
    "MODZY_URL",
    "MODZY_MODEL_ID",
    "MODZY_MODEL_VERSION",
    "MODZY_INPUT_NAME",
    "MODZY_EXPLAIN",
    "MODZY_JOB_TIMEOUT",
    "MODZY_ROUTES",
}

TRIGGER_SOURCES = ("EventGrid", "LogsAndContainerScan")
_HOST_STORAGE = "AzureWebJobsStorage"
_RELAY_STORAGE = "RelayStorage"

_CONTAINER_OR_QUEUE = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(-[a-z0-9]+)*")
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}")
_SECRET_NAME = re.compile(r"[0-9A-Za-z-]{1,127}")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_ROUTE_KEYS = {"match", "model", "version", "input", "explain", "timeout"}


@dataclass(frozen=True)
class StorageConnection:
    """How to reach one storage account: by connection string, or by address and identity.

    Attributes:
        name: The setting (prefix) it was read from.
        account: Account name, as Modzy needs it.
        connection_string: None with an identity-based connection.
        service_uris: ``blob``, ``queue``, ``table`` to address; those known.
        client_id: Client id of a user-assigned identity, or None.
    """

    name: str
    account: str
    connection_string: str | None = field(default=None, repr=False)
    service_uris: Mapping[str, str] = field(default_factory=dict)
    client_id: str | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that can be set; see the README's table for what each setting means."""

    upload_storage: StorageConnection
    relay_storage: StorageConnection
    upload_container: str
    trigger_source: str
    key_vault_uri: str
    modzy_api_key_secret: str
    upload_storage_key_secret: str
    modzy_url: str
    routes: tuple[Route, ...]
    submissions_table: str
    jobs_queue: str
    due_queue: str
    results_container: str | None
    sweep_lookback: timedelta
    give_up_after: timedelta
    submit_timeout: timedelta
    history_settle: timedelta
    follow_for: timedelta

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: Names every missing or wrong setting, and what it should be.
        """
        return _Reader(env).read()


def trigger_source(env: Mapping[str, str]) -> str:
    """The blob trigger's source, which the Functions host reads at import time.

    A wrong value falls back to the default: it must not keep the functions from being
    registered, and ``Settings.from_env`` reports it.
    """
    text = env.get("BLOB_TRIGGER_SOURCE", "").strip()
    return text if text in TRIGGER_SOURCES else DEFAULTS["BLOB_TRIGGER_SOURCE"]


def relay_connection_name(env: Mapping[str, str]) -> str:
    """The connection setting of the account with ledger and queues."""
    separate = any(
        value and (name == _RELAY_STORAGE or name.startswith(_RELAY_STORAGE + "__"))
        for name, value in env.items()
    )
    return _RELAY_STORAGE if separate else _HOST_STORAGE


def parse_duration(text: str) -> timedelta:
    """Read ``2d``, ``1d12h``, ``15m``, ``90s`` or plain seconds.

    Raises:
        ValueError: Not of that form, or zero.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise ValueError(text)
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    try:
        value = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError as error:
        raise ValueError(text) from error
    if not value:
        raise ValueError(text)
    return value


class _WrongError(ValueError):
    """One setting is wrong; the text says how."""


class _Reader:
    """Collects problems while it reads, so that all of them are told at once."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._problems: list[str] = []

    def read(self) -> Settings:
        upload_storage = self._storage("UploadStorage", "blob")
        relay_storage = self._storage(relay_connection_name(self._env), "table", "queue", "blob")
        values: dict[str, Any] = {
            "upload_container": self._value("UPLOAD_CONTAINER", _container_or_queue),
            "trigger_source": self._value("BLOB_TRIGGER_SOURCE", _known_trigger_source),
            "key_vault_uri": self._required(
                "KEY_VAULT_URI", _vault_uri, "the vault's address, https://<name>.vault.azure.net"
            ),
            "modzy_api_key_secret": self._value("MODZY_API_KEY_SECRET", _secret_name),
            "upload_storage_key_secret": self._value("UPLOAD_STORAGE_KEY_SECRET", _secret_name),
            "modzy_url": self._required(
                "MODZY_URL", modzy_url, "your Modzy's address, for example https://app.modzy.com"
            ),
            "routes": self._routes(),
            "submissions_table": self._value("SUBMISSIONS_TABLE", _table),
            "jobs_queue": self._value("JOBS_QUEUE", _container_or_queue),
            "due_queue": self._value("DUE_QUEUE", _container_or_queue),
            # Present and empty means: do not store results.
            "results_container": (
                None
                if self._env.get("RESULTS_CONTAINER") == ""
                else self._value("RESULTS_CONTAINER", _container_or_queue)
            ),
            "sweep_lookback": self._value("SWEEP_LOOKBACK", _duration),
            "give_up_after": self._value("GIVE_UP_AFTER", _duration),
            "submit_timeout": self._value("SUBMIT_TIMEOUT", _duration),
            "history_settle": self._value("HISTORY_SETTLE", _duration),
            "follow_for": self._value("FOLLOW_FOR", _duration),
        }
        self._check_combinations(values)
        if self._problems:
            raise SettingsError(self._problems)
        assert upload_storage is not None  # noqa: S101 - None always comes with a problem
        assert relay_storage is not None  # noqa: S101 - as above
        return Settings(upload_storage=upload_storage, relay_storage=relay_storage, **values)

    def _check_combinations(self, values: Mapping[str, Any]) -> None:
        queues = (values["jobs_queue"], values["due_queue"])
        if queues[0] is not None and queues[0] == queues[1]:
            self._problems.append("JOBS_QUEUE and DUE_QUEUE must be two different queues.")
        if values["submit_timeout"] and values["submit_timeout"] > timedelta(minutes=5):
            self._problems.append(
                "SUBMIT_TIMEOUT may be 5m at most: a claim has to outlast it, and the function too."
            )

    def _get(self, name: str) -> str:
        return self._env.get(name, "").strip()

    def _required(
        self, name: str, check: Callable[[str], Any], meaning: str
    ) -> Any:  # the check decides the type
        if not self._get(name):
            self._problems.append(f"{name} is missing: {meaning}.")
            return None
        return self._checked(name, self._get(name), check)

    def _value(self, name: str, check: Callable[[str], Any]) -> Any:
        return self._checked(name, self._get(name) or DEFAULTS[name], check)

    def _checked(self, name: str, text: str, check: Callable[[str], Any]) -> Any:
        try:
            return check(text)
        except _WrongError as wrong:
            self._problems.append(f"{name} {wrong}.")
            return None

    # -- storage ---------------------------------------------------------------------------

    def _storage(self, name: str, *services: str) -> StorageConnection | None:
        text = self._get(name)
        try:
            if text:
                return _from_connection_string(name, text)
            return self._from_identity(name, services)
        except _WrongError as wrong:
            self._problems.append(f"{name} {wrong}.")
            return None

    def _from_identity(self, name: str, services: tuple[str, ...]) -> StorageConnection:
        uris = {
            service: self._get(f"{name}__{service}ServiceUri").rstrip("/")
            for service in ("blob", "queue", "table")
            if self._get(f"{name}__{service}ServiceUri")
        }
        if "blob" not in uris and self._get(f"{name}__serviceUri"):
            uris["blob"] = self._get(f"{name}__serviceUri").rstrip("/")
        account = self._get(f"{name}__accountName")
        if account:
            if not _ACCOUNT.fullmatch(account):
                raise _WrongError(f"__accountName is not a storage account name: {_shown(account)}")
            for service in ("blob", "queue", "table"):
                uris.setdefault(service, f"https://{account}.{service}.core.windows.net")
        if not uris:
            raise _WrongError(
                "is missing: a connection string, or "
                f"{name}__accountName or {name}__{services[0]}ServiceUri with an identity"
            )
        missing = [f"{name}__{service}ServiceUri" for service in services if service not in uris]
        if missing:
            raise _WrongError(f"is incomplete: set {' and '.join(missing)} as well")
        for service, uri in uris.items():
            parts = _split(uri)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise _WrongError(f"__{service}ServiceUri is not an address: {_shown(uri)}")
            if parts.query or parts.username:
                raise _WrongError(f"__{service}ServiceUri must be an address without credentials")
        return StorageConnection(
            name=name,
            account=account or _account_of(next(iter(uris.values()))),
            service_uris=uris,
            client_id=self._get(f"{name}__clientId") or None,
        )

    # -- routes ----------------------------------------------------------------------------

    def _routes(self) -> tuple[Route, ...]:
        before = len(self._problems)
        routes = self._listed_routes()
        default = self._default_route()
        if default is not None:
            routes.append(default)
        if not routes and len(self._problems) == before:
            self._problems.append(
                "MODZY_MODEL_ID is missing: set it with MODZY_MODEL_VERSION, or set MODZY_ROUTES."
            )
        return tuple(routes)

    def _listed_routes(self) -> list[Route]:
        text = self._get("MODZY_ROUTES")
        if not text:
            return []
        try:
            listed = json.loads(text)
        except ValueError as error:
            self._problems.append(f"MODZY_ROUTES is not JSON: {error}.")
            return []
        if not isinstance(listed, list):
            self._problems.append("MODZY_ROUTES must be a JSON list of routes.")
            return []
        routes = []
        for number, entry in enumerate(listed):
            try:
                routes.append(_route(entry))
            except _WrongError as wrong:
                self._problems.append(f"MODZY_ROUTES[{number}] {wrong}.")
        return routes

    def _default_route(self) -> Route | None:
        model, version = self._get("MODZY_MODEL_ID"), self._get("MODZY_MODEL_VERSION")
        if bool(model) != bool(version):
            missing = "MODZY_MODEL_VERSION" if model else "MODZY_MODEL_ID"
            self._problems.append(
                f"{missing} is missing: a default route needs both model and version."
            )
            return None
        explain = self._checked("MODZY_EXPLAIN", self._get("MODZY_EXPLAIN") or "false", _boolean)
        timeout_text = self._get("MODZY_JOB_TIMEOUT")
        timeout = (
            self._checked("MODZY_JOB_TIMEOUT", timeout_text, _seconds) if timeout_text else None
        )
        if not model:
            return None
        return Route(
            match="**",
            model=model,
            version=version,
            input_name=self._get("MODZY_INPUT_NAME") or None,
            explain=bool(explain),
            timeout=timeout,
        )


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise _WrongError(f"is {_shown(text)}: not an address") from None


def _shown(text: str) -> str:
    return json.dumps(text[:80])


def _account_of(uri: str) -> str:
    """The account in a storage address: a path segment at an emulator, else a host label."""
    parts = _split(uri)
    first_segment = parts.path.strip("/").partition("/")[0]
    return first_segment or (parts.hostname or "").partition(".")[0]


def _from_connection_string(name: str, text: str) -> StorageConnection:
    if text.strip().rstrip(";").lower() == "usedevelopmentstorage=true":
        # The SDKs know this account's name and key; the addresses are Azurite's defaults.
        raise _WrongError(
            "is UseDevelopmentStorage=true: write the emulator's connection string out in full, "
            "as local.settings.sample.json does"
        )
    fields = {
        part.partition("=")[0].strip().lower(): part.partition("=")[2].strip()
        for part in text.split(";")
    }
    account = fields.get("accountname", "")
    if not account and "blobendpoint" in fields:
        account = _account_of(fields["blobendpoint"])
    if not account or not fields.get("accountkey"):
        # The text is not shown: it holds, or was meant to hold, an account key. A shared access
        # signature would be part of every request's URL, and URLs end up in error texts.
        raise _WrongError(
            "is not a storage connection string with AccountName and AccountKey; "
            "copy it from the account's 'Access keys' page"
        )
    return StorageConnection(name=name, account=account, connection_string=text)


def _container_or_queue(text: str) -> str:
    if not _CONTAINER_OR_QUEUE.fullmatch(text):
        raise _WrongError(
            f"is {_shown(text)}: 3 to 63 lower-case letters, digits and single hyphens are allowed"
        )
    return text


def _table(text: str) -> str:
    if not _TABLE.fullmatch(text):
        raise _WrongError(
            f"is {_shown(text)}: 3 to 63 letters and digits, a letter first, are allowed"
        )
    return text


def _secret_name(text: str) -> str:
    if not _SECRET_NAME.fullmatch(text):
        # Not shown: somebody may have put the secret itself here.
        raise _WrongError(
            "must be the name of a Key Vault secret (letters, digits, hyphens), not the secret"
        )
    return text


def _known_trigger_source(text: str) -> str:
    if text not in TRIGGER_SOURCES:
        raise _WrongError(f"is {_shown(text)}: use {' or '.join(TRIGGER_SOURCES)}")
    return text


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError:
        raise _WrongError(
            f"is {_shown(text)}: write a duration such as 2d, 12h, 15m or 30s"
        ) from None


def _seconds(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise _WrongError(f"is {_shown(text)}: a whole number of seconds is needed")
    return int(text)


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise _WrongError(f"is {_shown(text)}: use true or false")
    return text.lower() in {"true", "1"}


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _vault_uri(text: str) -> str:
    parts = _split(text)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
        raise _WrongError(f"is {_shown(text)}: it should look like https://<name>.vault.azure.net")
    return text.rstrip("/")


def modzy_url(text: str) -> str:
    """Check the address of a Modzy: https, plain http only to this machine."""
    parts = _split(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise _WrongError(
            "must be an address without user, query or fragment; the key is in the vault"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _WrongError(f"is {_shown(text)}: it should look like https://app.modzy.com")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise _WrongError(f"is {_shown(text)}: use https, the API key would travel in clear")
    return text


def _route(entry: object) -> Route:
    if not isinstance(entry, dict):
        raise _WrongError("is not a JSON object")
    unknown = sorted(set(entry) - _ROUTE_KEYS)
    if unknown:
        raise _WrongError(
            f"has unknown keys {', '.join(unknown)}; known: {', '.join(sorted(_ROUTE_KEYS))}"
        )

    def text(key: str, *, required: bool) -> str | None:
        value = entry.get(key)
        if value is None and not required:
            return None
        if not isinstance(value, str) or not value:
            raise _WrongError(f"needs {key} as a text that is not empty")
        return value

    def wrong(message: str) -> NoReturn:
        raise _WrongError(message)

    explain = entry.get("explain", False)
    timeout = entry.get("timeout")
    if not isinstance(explain, bool):
        wrong("needs explain as true or false")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 1
    ):
        wrong("needs timeout as a whole number of seconds")
    return Route(
        match=text("match", required=True) or "",
        model=text("model", required=True) or "",
        version=text("version", required=True) or "",
        input_name=text("input", required=False),
        explain=explain,
        timeout=timeout,
    )
