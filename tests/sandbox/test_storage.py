"""The emulator launcher."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from sandbox.processes import ManagedProcess, ProcessFailed
from sandbox.storage import HOST_ACCOUNT, UPLOAD_ACCOUNT, Azurite

REPOSITORY = Path(__file__).resolve().parents[2]


def test_both_accounts_serve_blobs_queues_and_tables(tmp_path: Path) -> None:
    """A connection string opens all three services, and accounts do not share content."""
    with Azurite(tmp_path, in_memory=True) as azurite:
        for account in (HOST_ACCOUNT, UPLOAD_ACCOUNT):
            text = azurite.connection_string(account)
            with (
                BlobServiceClient.from_connection_string(text) as blobs,
                QueueServiceClient.from_connection_string(text) as queues,
                TableServiceClient.from_connection_string(text) as tables,
            ):
                blobs.create_container("shared-name")
                queues.create_queue("shared-name")
                tables.create_table("SharedName")
                assert blobs.account_name == account


def test_restart_keeps_ports_and_content(tmp_path: Path) -> None:
    """An outage is a stop and a start: the same connection string finds the same content."""
    with Azurite(tmp_path) as azurite:
        text = azurite.connection_string()
        with BlobServiceClient.from_connection_string(text, retry_total=0) as blobs:
            blobs.create_container("kept")
            azurite.stop()
            with pytest.raises((ServiceRequestError, ServiceResponseError)):
                blobs.get_service_properties()
        azurite.start()
        assert azurite.connection_string() == text
        with BlobServiceClient.from_connection_string(text) as blobs:
            assert [container.name for container in blobs.list_containers()] == ["kept"]


def test_paused_emulator_does_not_answer(tmp_path: Path) -> None:
    """A pause makes requests time out; after it they are served again."""
    with (
        Azurite(tmp_path, in_memory=True) as azurite,
        QueueServiceClient.from_connection_string(
            azurite.connection_string(), retry_total=0, read_timeout=0.3
        ) as queues,
    ):
        azurite.pause()
        with pytest.raises((ServiceRequestError, ServiceResponseError)):
            queues.get_service_properties()
        azurite.resume()
        queues.create_queue("again")


def test_stop_ends_a_paused_emulator(tmp_path: Path) -> None:
    """No emulator is left behind, even one that is paused."""
    azurite = Azurite(tmp_path, in_memory=True)
    azurite.start()
    pid = azurite.pid
    azurite.pause()
    azurite.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """A parent that has no time to clean up leaves no child behind."""
    program = """
import pathlib, sys, time
from sandbox.processes import ManagedProcess
child = ManagedProcess("child", ["sh", "-c", "echo started; exec sleep 60"],
                       log_file=pathlib.Path(sys.argv[1]))
child.start()
child.wait_for_line("started", timeout_seconds=10)
print("child", child.pid, flush=True)
time.sleep(60)
"""
    parent = ManagedProcess(
        "parent",
        [sys.executable, "-c", program, str(tmp_path / "child.log")],
        log_file=tmp_path / "parent.log",
        environment={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    parent.start()
    child = Path("/proc") / parent.wait_for_line("child ", timeout_seconds=20)
    assert child.exists()
    parent.kill()
    deadline = time.monotonic() + 10
    while child.exists() and "State:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_failed_child_is_reported_with_its_output(tmp_path: Path) -> None:
    """A child that ends before it is ready says why in the error."""
    child = ManagedProcess(
        "sample", ["sh", "-c", "echo no luck; exit 3"], log_file=tmp_path / "log"
    )
    child.start()
    with pytest.raises(ProcessFailed, match=r"(?s)exit code 3.*no luck"):
        child.wait_for_line("ready", timeout_seconds=10)
