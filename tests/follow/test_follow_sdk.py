"""Modzy's own SDK reads from the stand-in what the app stored."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from follow_world import App

HERE = Path(__file__).parent
SDK_PYTHON = HERE.parent.parent / ".venv-sdk" / "bin" / "python"


def test_the_sdk_reads_what_was_stored(app: App) -> None:
    """Job, status and results document are the same for the SDK's user and the relay's."""
    if not SDK_PYTHON.exists():
        reason = "the SDK's environment is missing: make .venv-sdk/.ready"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    row = app.finish("sdk.txt", b"a great and lovely day", binary_result=64, link_newline=True)
    spec = {
        "base_url": f"{app.stack.modzy.url}/api",
        "api_key": app.stack.api_key,
        "job": row.job_identifier,
    }
    run = subprocess.run(
        [SDK_PYTHON, HERE / "sdk_reads.py"],
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    read = json.loads(run.stdout)
    stored = app.document(row)
    link = stored["results"][row.item_key]["digest.bin"]
    assert read["job"]["jobIdentifier"] == row.job_identifier
    assert read["job"]["status"] == row.job_status == "COMPLETED"
    assert read["job"]["model"]["identifier"] == row.model
    assert read["results"] == stored
    assert link.endswith("/digest.bin\n")
    assert list(app.stored(row)) == ["digest.bin", "results.json"]
