"""Secrets that change or cannot be read, and storage that is away as a whole."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from modzy_relay.lifecycle import State
from sandbox.fault_proxy import Effect
from sandbox.keyvault_server import Fault as VaultFault
from sandbox.storage import SECOND_UPLOAD_KEY
from tests.faults.lane import API_KEY_SECRET, STORAGE_KEY_SECRET
from tests.faults.script import AFTER, Scripts, go_on_for, kill_once, until_in

if TYPE_CHECKING:
    from tests.faults.lane import Lane

SCRIPTS = Scripts()


@SCRIPTS.add()
def api_key_rotated(lane: Lane) -> None:
    """Under a stream of uploads: first Modzy has the new key, then the vault has it first."""
    case = lane.case("API key rotated twice under 24 uploads, wrong for some seconds each time")
    for number in range(24):
        lane.upload(case, f"key-{number:02}.txt")
        time.sleep(0.5)
        if number == 5:
            lane.new_api_key()
            lane.modzy.set_api_keys([lane.api_key])
        if number == 10:
            lane.vault.set_secret(API_KEY_SECRET, lane.api_key)
        if number == 14:
            lane.new_api_key()
            lane.vault.set_secret(API_KEY_SECRET, lane.api_key)
        if number == 18:
            lane.modzy.set_api_keys([lane.api_key])


@SCRIPTS.add(seconds=420)
def storage_key_rotated(lane: Lane) -> None:
    """The vault gets the account's other key; it is used within the cache's five minutes."""
    case = lane.case("storage key rotated under a stream of uploads, without a restart")
    number = 0

    def upload_one() -> None:
        nonlocal number
        lane.upload(case, f"rotation-{number:03}.txt")
        number += 1

    def keys_used() -> set[str | None]:
        return {seen.detail for seen in lane.journal.sightings if seen.effect is Effect.POST}

    upload_one()
    lane.until("the first key is used", lambda: len(keys_used()) == 1)
    lane.vault.set_secret(STORAGE_KEY_SECRET, SECOND_UPLOAD_KEY)
    deadline = time.monotonic() + 330
    while len(keys_used()) < 2 and time.monotonic() < deadline:
        upload_one()
        time.sleep(6)
    case.remarks.append(f"{len(keys_used())} storage keys seen in POSTs")


@SCRIPTS.add()
def vault_away(lane: Lane) -> None:
    """No vault when the process starts; and no vault later, when values are known."""
    lane.vault.set_fault(VaultFault.REFUSED)
    first = lane.case("vault away from the start, for 12 s")
    lane.upload(first, "no-vault-yet.txt")
    go_on_for(lane, 12)
    lane.vault.set_fault(None)
    until_in(lane, "no-vault-yet.txt", State.SUBMITTED)
    later = lane.case("vault away while its values are known")
    lane.vault.set_fault(VaultFault.UNAVAILABLE)
    for number in range(4):
        lane.upload(later, f"cached-{number}.txt")
    restarted = lane.case("vault answers 503, process restarted meanwhile")
    kill_once(lane, restarted, Effect.POST, AFTER, "restarted.txt")
    go_on_for(lane, 12)
    lane.vault.set_fault(None)


@SCRIPTS.add()
def slow_secrets(lane: Lane) -> None:
    """Two secrets that take longer to read than the lease lasts: no POST may start after that."""
    lane.vault.set_fault(VaultFault.SLOW, seconds=8.0)
    case = lane.case("the vault takes 8 s for each secret, longer than the lease in all")
    for number in range(2):
        lane.upload(case, f"slow-{number}.txt")
    lane.until("both have their rows", lambda: len(lane.rows()) == 2)
    go_on_for(lane, 20)
    lane.vault.set_fault(None)


@SCRIPTS.add(own_storage=True, hosts=2)
def storage_freezes(lane: Lane) -> None:
    """All of storage stands still for a while, for the host as well as for the app."""
    case = lane.case("storage as a whole stands still for 12 s, twice, under 20 uploads")
    for number in range(20):
        lane.upload(case, f"frozen-{number:02}.txt")
        if number % 10 == 5:
            lane.azurite.pause()
            time.sleep(12)
            lane.azurite.resume()


@SCRIPTS.add(own_storage=True, sweep_seconds=4.0, sweep=True)
def storage_restarts(lane: Lane) -> None:
    """Storage is gone and comes back with what was written, while uploads are on their way."""
    case = lane.case("storage as a whole goes away for 8 s, twice, under 20 uploads")
    for number in range(20):
        lane.upload(case, f"restart-{number:02}.txt")
        if number % 10 == 5:
            lane.azurite.stop()
            time.sleep(8)
            lane.azurite.start()
