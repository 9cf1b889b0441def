"""Whether everything that the app needs is there and lets it in; nothing is changed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modzy_relay.azure_clients import blob_service, queue_service, table_service
from modzy_relay.errors import RelayError
from modzy_relay.modzy_api import ModzyClient, ModzyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from modzy_relay.routing import Route
    from modzy_relay.settings import Settings
    from modzy_relay.vault_secrets import VaultSecrets


class MismatchError(RelayError):
    """A route and its model version do not fit together."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be right. ``ping`` raises when it is not; ``advice`` says what to do.

    What ``ping`` returns is not looked at: it may be a secret.
    """

    name: str
    ping: Callable[[], object]
    advice: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: ``fault`` is None if all is well."""

    name: str
    fault: str | None
    advice: str | None


def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """Run every check, whatever the others find."""
    findings = []
    for check in checks:
        try:
            check.ping()
        except Exception as error:  # noqa: BLE001 - every fault is what is looked for
            findings.append(Finding(check.name, fault_of(error), check.advice))
        else:
            findings.append(Finding(check.name, None, None))
    return findings


def fault_of(error: Exception) -> str:
    """An error in one line. Azure's own texts are left out: some quote the signed request."""
    if isinstance(error, RelayError | ModzyError):
        return str(error)
    status = getattr(error, "status_code", None)
    code = getattr(error, "error_code", None)
    facts = [str(getattr(fact, "value", fact)) for fact in (status, code) if fact]
    return " ".join(facts) or f"could not be asked ({type(error).__name__})"


def check_input(route: Route, names: Sequence[str]) -> None:
    """Raise MismatchError unless a route's input is one of its model version's inputs."""
    offered = ", ".join(names) or "none"
    if route.input_name is None and len(names) != 1:
        raise MismatchError(f"the model version's inputs are {offered}: the route must name one")
    if route.input_name is not None and route.input_name not in names:
        raise MismatchError(
            f"{route.input_name} is not among the model version's inputs: {offered}"
        )


def app_checks(settings: Settings, secrets: VaultSecrets) -> list[Check]:
    """One check for each thing that the app needs, with clients of their own."""
    relay, uploads = settings.relay_storage, settings.upload_storage
    table = table_service(relay).get_table_client(settings.submissions_table)
    queues, blobs = queue_service(relay), blob_service(relay)
    modzy = ModzyClient(settings.modzy_url, lambda: secrets.get(settings.modzy_api_key_secret))
    checks = [
        Check(
            f"table {settings.submissions_table} ({relay.account})",
            lambda: list(table.query_entities("PartitionKey eq '-'")),
            f"Create it; the role is Storage Table Data Contributor. Setting: {relay.name}.",
        )
    ]
    checks += [
        Check(
            f"queue {name} ({relay.account})",
            queues.get_queue_client(name).get_queue_properties,
            f"Create it; the role is Storage Queue Data Contributor. Setting: {relay.name}.",
        )
        for name in (settings.jobs_queue, settings.due_queue)
    ]
    containers = [(blob_service(uploads), settings.upload_container, uploads, "Reader")]
    if settings.results_container:
        containers.append((blobs, settings.results_container, relay, "Contributor"))
    checks += [
        Check(
            f"container {name} ({connection.account})",
            service.get_container_client(name).get_container_properties,
            f"Create it; the role is Storage Blob Data {role}. Setting: {connection.name}.",
        )
        for service, name, connection, role in containers
    ]
    checks += [
        Check(
            f"secret {name}",
            functools.partial(secrets.get, name),
            f"Set it in {settings.key_vault_uri}; the role is Key Vault Secrets User.",
        )
        for name in (settings.modzy_api_key_secret, settings.upload_storage_key_secret)
    ]
    checks.append(
        Check(
            f"Modzy at {settings.modzy_url}, with the key",
            lambda: next(modzy.jobs.history(datetime.now(UTC), per_page=1), None),
            "See whether MODZY_URL is right, and the key may submit jobs and read their history.",
        )
    )
    checks += [
        Check(
            f"route {route.match}: model {route.model} {route.version}, "
            f"input {route.input_name or 'looked up'}",
            functools.partial(_check_route, modzy, route),
            "Correct MODZY_ROUTES, or MODZY_MODEL_ID, MODZY_MODEL_VERSION and MODZY_INPUT_NAME.",
        )
        for route in settings.routes
    ]
    return checks


def _check_route(modzy: ModzyClient, route: Route) -> None:
    version = modzy.models.get_version(route.model, route.version)
    check_input(route, [entry.name for entry in version.inputs])
