"""The one place where settings become clients and clients become use cases."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modzy_relay.azure_clients import (
    blob_service,
    credential,
    queue_service,
    table_service,
    ticks,
)
from modzy_relay.blob_results import BlobResults
from modzy_relay.blob_uploads import BlobUploads
from modzy_relay.errors import SettingsError
from modzy_relay.lifecycle import Timing
from modzy_relay.modzy_platform import ModzyPlatform
from modzy_relay.queue_outbox import QueueOutbox
from modzy_relay.settings import Settings
from modzy_relay.table_ledger import TableLedger
from modzy_relay.telemetry import Event, emit
from modzy_relay.use_cases import UseCases, assemble
from modzy_relay.vault_secrets import VaultSecrets

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Services(UseCases):
    """The use cases, ready to be called from any thread, and what they are made of."""

    settings: Settings
    timing: Timing
    secrets: VaultSecrets
    uploads: BlobUploads
    ledger: TableLedger
    outbox: QueueOutbox
    modzy: ModzyPlatform


_lock = threading.Lock()
_services: Services | None = None


def services() -> Services:
    """The process's use cases, built on first use: a bad setting must not unregister functions.

    Raises:
        SettingsError: Settings are missing or wrong. The next call reads them again.
    """
    global _services
    if _services is None:
        with _lock:
            if _services is None:
                _services = build(os.environ)
    return _services


def build(
    env: Mapping[str, str],
    *,
    ledger_type: type[TableLedger] = TableLedger,
    outbox_type: type[QueueOutbox] = QueueOutbox,
) -> Services:
    """Wire everything from app settings; sends nothing.

    Args:
        env: App settings.
        ledger_type: Another for a dry run, which writes nothing.
        outbox_type: Likewise.

    Raises:
        SettingsError: Names every setting that is missing or wrong.
    """
    from azure.keyvault.secrets import SecretClient

    try:
        settings = Settings.from_env(env)
    except SettingsError as error:
        emit(Event.SETTINGS_INVALID, problems=error.problems)
        raise
    timing = Timing(
        submit=settings.submit_timeout,
        settle=settings.history_settle,
        give_up=settings.give_up_after,
        follow=settings.follow_for,
    )
    secrets = VaultSecrets(
        SecretClient(
            settings.key_vault_uri,
            credential(None),
            retry_total=1,
            retry_backoff_factor=0.4,
            connection_timeout=5,
            read_timeout=10,
        ),
        ticks,
    )
    modzy = ModzyPlatform(
        settings.modzy_url,
        secrets,
        api_key_secret=settings.modzy_api_key_secret,
        storage_key_secret=settings.upload_storage_key_secret,
        submit_timeout=settings.submit_timeout.total_seconds(),
    )
    uploads = BlobUploads(
        blob_service(settings.upload_storage),
        settings.upload_storage.account,
        settings.upload_container,
    )
    ledger = ledger_type(
        table_service(settings.relay_storage).get_table_client(settings.submissions_table)
    )
    uploads_queues = (
        queue_service(settings.upload_storage)
        if settings.upload_storage.connection_string
        or "queue" in settings.upload_storage.service_uris
        else None
    )
    outbox = outbox_type(
        queue_service(settings.relay_storage),
        uploads_queues,
        jobs_queue=settings.jobs_queue,
        due_queue=settings.due_queue,
    )
    results = (
        BlobResults(blob_service(settings.relay_storage), settings.results_container)
        if settings.results_container
        else None
    )
    use_cases = assemble(
        uploads=uploads,
        ledger=ledger,
        outbox=outbox,
        modzy=modzy,
        results=results,
        routes=settings.routes,
        timing=timing,
        lookback=settings.sweep_lookback,
        ticks=ticks,
    )
    return Services(
        relay=use_cases.relay,
        follower=use_cases.follower,
        sweeper=use_cases.sweeper,
        lookup=use_cases.lookup,
        settings=settings,
        timing=timing,
        secrets=secrets,
        uploads=uploads,
        ledger=ledger,
        outbox=outbox,
        modzy=modzy,
    )
