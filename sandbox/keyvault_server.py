"""A stand-in for Key Vault and the managed identity of an App Service.

Two loopback servers: the vault (HTTPS, with a certificate of its own authority) and the identity
endpoint (plain HTTP, as on App Service). ``azure-keyvault-secrets`` and ``azure-identity`` run
against them unchanged, given the environment variables of ``KeyVaultServer.environment``.

Protocols: https://learn.microsoft.com/azure/app-service/overview-managed-identity (REST endpoint
reference, 2019-08-01) and https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret.

Admin routes, on the identity endpoint's port, so that they work while the vault is refusing::

    PUT    /_sandbox/secrets/{name}           {"value": "..."}: add a version
    DELETE /_sandbox/secrets/{name}
    POST   /_sandbox/secrets/{name}/disable
    PUT    /_sandbox/fault                    {"fault": "refused", "seconds": 2.0} or null
    GET    /_sandbox/reads                    answered reads by secret, and tokens issued

The routes of ``sandbox.http_service`` set rules for either server at its own port.

Run it with ``python -m sandbox.keyvault_server --help``.
"""

from __future__ import annotations

import argparse
import base64
import collections
import dataclasses
import enum
import hmac
import json
import logging
import os
import re
import secrets
import ssl
import threading
import time
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import trustme

from sandbox.http_service import (
    LOOPBACK,
    LoopbackService,
    RefusedError,
    Request,
    Response,
    Rule,
    serve_until_signal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_TENANT = "72f2a1c4-3f0e-4b52-9c1d-8a7e6b5d4c3f"
_SECRET_NAME = re.compile(r"[0-9A-Za-z-]{1,127}")  # Key Vault's own rule


class Fault(enum.StrEnum):
    """What can be wrong with the vault."""

    REFUSED = "refused"  # nothing listens
    UNAVAILABLE = "unavailable"  # 503
    FORBIDDEN = "forbidden"  # 403, a role assignment is missing
    MISSING = "missing"  # 404 for every secret
    SLOW = "slow"  # every answer is late


_FAULT_ACTIONS: Mapping[Fault, Mapping[str, Any]] = {
    Fault.UNAVAILABLE: {"do": "status", "status": 503, "headers": {"Retry-After": "1"}},
    Fault.FORBIDDEN: {"do": "status", "status": 403},
    Fault.MISSING: {"do": "status", "status": 404},
}


@dataclasses.dataclass(slots=True)
class SecretVersion:
    """One version of a secret; times in seconds since the epoch."""

    version: str
    created: int
    value: str = dataclasses.field(repr=False)
    enabled: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """What an issued access token is good for; the token itself is the key it is kept under."""

    resource: str
    expires_on: float


class Tokens:
    """Access tokens issued by the identity endpoint and checked by the vault."""

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._issued: dict[str, Token] = {}

    @property
    def issued(self) -> int:
        """How many there have been."""
        return len(self._issued)

    def issue(self, resource: str) -> tuple[str, Token]:
        """Make a token for a resource: random, in the form of a JWT, good for ``lifetime`` s."""
        token = Token(resource, time.time() + self.lifetime)
        header = _base64url(json.dumps({"typ": "JWT", "alg": "RS256"}).encode())
        claims = {"aud": resource, "exp": int(token.expires_on), "jti": str(uuid.uuid4())}
        payload = _base64url(json.dumps(claims).encode())
        text = f"{header}.{payload}.{_base64url(secrets.token_bytes(64))}"
        self._issued[text] = token
        return text, token

    def accepts(self, authorization: str, resource: str) -> bool:
        """Whether an Authorization header has a token for the resource that has not expired."""
        scheme, _, text = authorization.partition(" ")
        token = self._issued.get(text)
        return (
            scheme == "Bearer"
            and token is not None
            and token.resource == resource
            and token.expires_on > time.time()
        )


class Vault:
    """The vault's secrets and its REST answers."""

    def __init__(self, tokens: Tokens) -> None:
        self.reads: collections.Counter[str] = collections.Counter()
        self.challenges = 0
        self.uri = ""
        self.resource = ""
        self._tokens = tokens
        self._secrets: dict[str, list[SecretVersion]] = {}
        self._lock = threading.Lock()

    def locate(self, port: int) -> None:
        """Take on the address at which the vault is served.

        The client's check of the challenge asks that the vault's host ends in "." and the
        resource's host, as ``myvault.vault.azure.net`` does in ``vault.azure.net``; it compares
        text, port included. ``127.0.0.1:PORT`` ends in ``.0.0.1:PORT``, so ``0.0.1`` passes for
        the domain of a vault named ``127``, and no name has to be resolved: nobody ever
        connects to the resource, it only names what the token is for.
        """
        self.uri = f"https://{LOOPBACK}:{port}"
        self.resource = f"https://{LOOPBACK.partition('.')[2]}:{port}"

    def set_secret(self, name: str, value: str) -> str:
        """Add a version, which becomes the current one; returns its identifier.

        Raises:
            ValueError: Key Vault would not take the name.
        """
        if not _SECRET_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a secret: letters, digits and hyphens")
        version = SecretVersion(uuid.uuid4().hex, int(time.time()), value)
        with self._lock:
            self._secrets.setdefault(name, []).append(version)
        return version.version

    def delete_secret(self, name: str) -> None:
        """Remove a secret with all versions; KeyError when there is none."""
        with self._lock:
            del self._secrets[name]

    def disable_secret(self, name: str) -> None:
        """Disable the current version; KeyError when there is no such secret."""
        with self._lock:
            self._secrets[name][-1].enabled = False

    def answer(self, request: Request) -> Response:
        """Answer a request of the vault's REST API: reading secrets, nothing else."""
        if not self._tokens.accepts(request.headers.get("authorization", ""), self.resource):
            self.challenges += 1
            return self._challenge()
        if "api-version" not in request.query:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "api-version must be specified")
        match (request.method, request.segments()):
            case ("GET", ["secrets", name, *version]) if len(version) <= 1:
                return self._read(name, version[0] if version else None)
            case _:
                raise RefusedError(
                    HTTPStatus.FORBIDDEN, "the caller may read secrets and nothing else"
                )

    def administer(self, request: Request) -> Response:
        """The vault's own port has no admin routes beyond those of the service."""
        raise RefusedError(
            HTTPStatus.NOT_FOUND, f"{request.path}: ask the identity endpoint's port"
        )

    def error(self, status: int, message: str) -> Response:
        """An error in Key Vault's form."""
        codes = {403: "Forbidden", 404: "SecretNotFound", 503: "ServiceUnavailable"}
        content = {"error": {"code": codes.get(status, "BadParameter"), "message": message}}
        return Response.of_json(content, status)

    def _challenge(self) -> Response:
        authorization = f"{self.uri}/{_TENANT}"
        challenge = f'Bearer authorization="{authorization}", resource="{self.resource}"'
        refusal = self.error(HTTPStatus.UNAUTHORIZED, "a Bearer token is required")
        headers = {**refusal.headers, "WWW-Authenticate": challenge}
        return dataclasses.replace(refusal, headers=headers)

    def _read(self, name: str, wanted: str | None) -> Response:
        with self._lock:
            versions = self._secrets.get(name, [])
            found = [known for known in versions if wanted in {None, known.version}]
            self.reads[name] += 1
        if not found:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{name} was not found in this key vault")
        current = found[-1]
        if not current.enabled:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "Operation get is not allowed on a disabled secret."
            )
        attributes = {
            "enabled": True,
            "created": current.created,
            "updated": current.created,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": 90,
        }
        identifier = f"{self.uri}/secrets/{name}/{current.version}"
        return Response.of_json(
            {"value": current.value, "id": identifier, "attributes": attributes, "tags": {}}
        )


class KeyVaultServer:
    """Vault and identity endpoint as a whole; also a context manager.

    Args:
        folder: the certificate authority's bundle is written to ``ca.pem`` in it.
        port: of the vault; 0 for a free one.
        identity_port: of the identity endpoint and the admin routes; 0 for a free one.
        identity_header: the secret that the identity endpoint asks for; random when None.
        client_id: of a user-assigned identity; a request that names another one is refused.
        token_lifetime: in seconds. Credentials renew a token some minutes before its end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        identity_port: int = 0,
        identity_header: str | None = None,
        client_id: str | None = None,
        token_lifetime: float = 86400,
    ) -> None:
        self.ca_file = folder / "ca.pem"
        self.identity_header = identity_header or secrets.token_hex(16)
        self.tokens = Tokens(token_lifetime)
        self.vault = Vault(self.tokens)
        self._client_id = client_id
        self.vault_service = LoopbackService(
            "keyvault", self.vault, port=port, tls=self._make_certificate()
        )
        self.identity_service = LoopbackService("identity", self, port=identity_port)

    @property
    def vault_uri(self) -> str:
        """What clients take as the vault's URL."""
        return self.vault.uri

    @property
    def identity_endpoint(self) -> str:
        """What clients take as IDENTITY_ENDPOINT."""
        return f"{self.identity_service.url}/msi/token"

    @property
    def admin_url(self) -> str:
        """Base URL of the admin routes."""
        return f"{self.identity_service.url}/_sandbox"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a process that is to use this vault."""
        return {
            "KEY_VAULT_URI": self.vault_uri,
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
            "IDENTITY_ENDPOINT": self.identity_endpoint,
            "IDENTITY_HEADER": self.identity_header,
        }

    def start(self) -> Self:
        """Serve.

        Raises:
            OSError: a port is taken.
        """
        self.vault_service.start()
        self.vault.locate(self.vault_service.port)
        self.identity_service.start()
        return self

    def stop(self) -> None:
        """Stop both servers; every thread has ended when this returns."""
        self.vault_service.stop()
        self.identity_service.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def set_secret(self, name: str, value: str) -> str:
        """Add a version of a secret; returns the version's identifier."""
        return self.vault.set_secret(name, value)

    def delete_secret(self, name: str) -> None:
        """Remove a secret; KeyError when there is none."""
        self.vault.delete_secret(name)

    def disable_secret(self, name: str) -> None:
        """Disable a secret's current version; KeyError when there is no such secret."""
        self.vault.disable_secret(name)

    def reads(self, name: str) -> int:
        """How often the vault was asked for this secret with a good token, found or not."""
        return self.vault.reads[name]

    def set_fault(self, fault: Fault | None, *, seconds: float = 1.0) -> None:
        """Make the vault faulty, or with None sound again; ``seconds`` is how slow SLOW is.

        The vault's rules are replaced.
        """
        if fault is Fault.REFUSED:
            self.vault_service.refuse_connections()
            return
        action = _FAULT_ACTIONS.get(fault) if fault else None
        if fault is Fault.SLOW:
            action = {"do": "delay", "before": seconds}
        self.vault_service.rules.replace([Rule(action, path_regex="^/secrets/")] if action else [])
        self.vault_service.accept_connections()

    def answer(self, request: Request) -> Response:
        """Answer the App Service identity protocol."""
        header = request.headers.get("x-identity-header", "")
        if not hmac.compare_digest(header.encode(), self.identity_header.encode()):
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "X-IDENTITY-HEADER is missing or wrong")
        if request.path != "/msi/token" or request.query.get("api-version") != "2019-08-01":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "api-version 2019-08-01 is served here")
        resource = request.query.get("resource")
        client_id = request.query.get("client_id", self._client_id)
        if not resource or client_id != self._client_id:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, "resource is missing, or no identity has this client_id"
            )
        text, token = self.tokens.issue(resource)
        return Response.of_json(
            {
                "access_token": text,
                "expires_on": str(int(token.expires_on)),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": client_id or _TENANT,
            }
        )

    def error(self, status: int, message: str) -> Response:
        """An error in the identity endpoint's form."""
        return Response.of_json({"statusCode": status, "message": message}, status)

    def administer(self, request: Request) -> Response:
        """Answer the admin routes of this module's docstring."""
        match (request.method, request.segments()[1:]):
            case ("PUT", ["secrets", name]):
                _usable(lambda: self.set_secret(name, request.json()["value"]))
            case ("DELETE", ["secrets", name]):
                _usable(lambda: self.delete_secret(name))
            case ("POST", ["secrets", name, "disable"]):
                _usable(lambda: self.disable_secret(name))
            case ("PUT", ["fault"]):
                _usable(lambda: self._set_fault_from(request.json()))
            case ("GET", ["reads"]):
                pass
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, "no such admin route")
        return Response.of_json({"reads": self.vault.reads, "tokens": self.tokens.issued})

    def _set_fault_from(self, wanted: Mapping[str, Any]) -> None:
        fault = Fault(wanted["fault"]) if wanted["fault"] else None
        self.set_fault(fault, seconds=wanted.get("seconds", 1.0))

    def _make_certificate(self) -> ssl.SSLContext:
        authority = trustme.CA()
        self.ca_file.parent.mkdir(parents=True, exist_ok=True)
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(LOOPBACK).configure_cert(context)
        return context


def _usable(action: Callable[[], object]) -> None:
    """Do what an admin asked for.

    Raises:
        RefusedError: 404, there is no such secret; 400, what was sent cannot be used.
    """
    try:
        action()
    except KeyError as error:
        raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"cannot be used: {error}") from error


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return name, value


def _initial_secrets(parsed: argparse.Namespace) -> Iterable[tuple[str, str]]:
    """Secrets of the command line: values, environment variables, a JSON file."""
    yield from parsed.secret
    for name, variable in parsed.secret_env:
        yield name, os.environ[variable]
    if parsed.secrets_file is not None:
        yield from json.loads(parsed.secrets_file.read_text(encoding="utf-8")).items()


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.keyvault_server",
        description="A stand-in for Key Vault and a managed identity. Prints the environment"
        " variables that clients need as NAME=VALUE lines, then serves until SIGTERM or SIGINT."
        " IDENTITY_HEADER, when set in its own environment, is kept; else it is made up.",
    )
    parser.add_argument("--dir", type=Path, required=True, help="folder for ca.pem")
    parser.add_argument("--port", type=int, default=0, help="of the vault; default: a free one")
    parser.add_argument(
        "--identity-port", type=int, default=0, help="of identity and admin; default: a free one"
    )
    parser.add_argument(
        "--secret",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a made-up value: others on this machine can read command lines",
    )
    parser.add_argument(
        "--secret-env",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VARIABLE",
        help="a value taken from an environment variable",
    )
    parser.add_argument("--secrets-file", type=Path, help="JSON object of names and values")
    parser.add_argument("--token-seconds", type=float, default=86400, help="lifetime of a token")
    parser.add_argument("--log", type=Path, help="file for one line a request; default: stderr")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stand-in as a process."""
    parsed = _arguments(arguments)
    logging.basicConfig(
        filename=parsed.log, format="%(asctime)s %(message)s", level=logging.WARNING
    )
    logging.getLogger("sandbox").setLevel(logging.INFO)
    server = KeyVaultServer(
        parsed.dir,
        port=parsed.port,
        identity_port=parsed.identity_port,
        identity_header=os.environ.get("IDENTITY_HEADER"),
        token_lifetime=parsed.token_seconds,
    )
    for name, value in _initial_secrets(parsed):
        server.set_secret(name, value)

    def start() -> None:
        server.start()
        for name, value in server.environment.items():
            print(f"{name}={value}", flush=True)

    serve_until_signal(start, server.stop)


if __name__ == "__main__":
    main()
