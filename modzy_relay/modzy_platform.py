"""Modzy with this app's credentials: the client, the secrets, and what the relay asks of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from modzy_relay.modzy_api import (
    ForbiddenError,
    Job,
    ModzyClient,
    ModzyError,
    NotFoundError,
    Outcome,
    Results,
    UnauthorizedError,
)
from modzy_relay.telemetry import Event, emit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from modzy_relay.lifecycle import Submission
    from modzy_relay.modzy_api import ResultFile
    from modzy_relay.vault_secrets import VaultSecrets

_T = TypeVar("_T")


class InputNameNeededError(ModzyError):
    """The model version does not have exactly one input, so the route must name it."""

    outcome = Outcome.REFUSED


class ModzyPlatform:
    """Implements ``ports.Modzy``. Thread-safe.

    Args:
        url: Modzy's address.
        secrets: Key Vault.
        api_key_secret: Name of the secret with the API key.
        storage_key_secret: Name of the secret with the upload account's key.
        submit_timeout: Seconds that one request may take once it is begun.
    """

    def __init__(
        self,
        url: str,
        secrets: VaultSecrets,
        *,
        api_key_secret: str,
        storage_key_secret: str,
        submit_timeout: float,
    ) -> None:
        self._secrets = secrets
        self._api_key_secret = api_key_secret
        self._storage_key_secret = storage_key_secret
        self._client = ModzyClient(
            url,
            lambda: secrets.get(api_key_secret),
            connect_timeout=min(10.0, submit_timeout),
            read_timeout=submit_timeout,
        )
        self._input_names: dict[tuple[str, str], str] = {}

    def input_name(self, model: str, version: str) -> str:
        """The only input of a model version; asked for once in a process."""
        known = self._input_names.get((model, version))
        if known is not None:
            return known
        found = self._with_key(lambda: self._client.models.get_version(model, version))
        names = [entry.name for entry in found.inputs]
        if len(names) != 1:
            raise InputNameNeededError(
                f"model {model} {version} has {len(names)} inputs ({', '.join(names)}): "
                "name one in MODZY_INPUT_NAME or in the route's input"
            )
        self._input_names[model, version] = names[0]
        return names[0]

    def submit(self, row: Submission, input_name: str, before_send: Callable[[], None]) -> Job:
        """POST the job of a submission."""
        version = row.version
        source = {"container": version.container, "filePath": version.path}
        storage_key = self._secrets.get(self._storage_key_secret)
        return self._with_key(
            lambda: self._client.jobs.submit_azureblob(
                row.model,
                row.model_version,
                {row.item_key: {input_name: source}},
                version.account,
                storage_key,
                row.explain,
                timeout=row.timeout,
                before_send=before_send,
            )
        )

    def find(self, item_key: str, since: datetime) -> Sequence[Job]:
        """Every job with an input item key, oldest first."""
        return self._with_key(lambda: self._client.jobs.find_by_input(item_key, since))

    def job(self, job_identifier: str) -> Job | None:
        """Job details; None if Modzy does not know it."""
        try:
            return self._with_key(lambda: self._client.jobs.get(job_identifier))
        except NotFoundError:
            return None

    def cancel(self, job_identifier: str) -> None:
        """Cancel a job."""
        self._with_key(lambda: self._client.jobs.cancel(job_identifier))

    def results(self, job_identifier: str) -> Results | None:
        """The results document; None while there is none."""
        try:
            return self._with_key(lambda: self._client.results.get(job_identifier))
        except NotFoundError:
            return None

    def open_file(self, url: str) -> AbstractContextManager[ResultFile]:
        """A linked result file, to be read piece by piece."""
        return self._client.results.open_file(url)

    def close(self) -> None:
        """Give up all connections."""
        self._client.close()

    def _with_key(self, call: Callable[[], _T]) -> _T:
        """Make a call; if its key is refused and the vault has another by now, once more.

        401 and 403 say that nothing was done, so even a POST may be repeated.
        """
        used = self._secrets.get(self._api_key_secret)
        try:
            return call()
        except (UnauthorizedError, ForbiddenError) as error:
            if self._secrets.refresh(self._api_key_secret) == used:
                self._alarm(error)
                raise
        try:
            return call()
        except (UnauthorizedError, ForbiddenError) as error:
            self._alarm(error)
            raise

    def _alarm(self, error: ModzyError) -> None:
        emit(
            Event.UNAUTHORIZED,
            status=error.status,
            reason=f"{error}; check secret {self._api_key_secret} and the key's roles and quota",
        )
