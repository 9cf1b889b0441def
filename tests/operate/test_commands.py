"""The operator's commands, typed: real storage, a Modzy and a Key Vault that really answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from modzy_relay.cli import main
from modzy_relay.identity import LedgerKey
from modzy_relay.lifecycle import State
from modzy_relay.wiring import build
from sandbox.keyvault_server import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Desk

AN_ID = "2026-11-23-a.0123456789abcdef01234567"
A_JOB = "fd2c6f8b-4f33-4e52-a995-ad7671de31e5"


# -- show and list -----------------------------------------------------------------------------


def test_show_finds_a_submission_by_id_job_and_path(desk: Desk) -> None:
    """Whatever an operator has in hand leads to the same submission."""
    key = desk.upload("show/Grüße 1.txt")
    desk.follow(key)
    by_id = desk.show(key)
    assert (by_id["id"], by_id["state"]) == (str(key), "SUBMITTED")
    assert desk.show(by_id["job_identifier"]) == by_id
    assert desk.show("show/Grüße 1.txt")["submissions"] == [by_id]
    text = desk.run("show", str(key)).out
    assert "Grüße 1.txt" in text
    assert by_id["job_identifier"] in text


def test_show_says_what_it_did_not_find(desk: Desk) -> None:
    """Not found is exit code 1, with the next step."""
    for what in (AN_ID, A_JOB, "no/such.txt", "no/such\n.txt"):
        ran = desk.run("show", what)
        assert (ran.code, ran.out) == (1, "")
        assert "list" in ran.err


def test_a_blob_name_cannot_write_on_the_terminal(desk: Desk) -> None:
    """Uploaders choose names; an operator's terminal is not theirs."""
    desk.upload("show/\x9b31mred\u202e.txt")
    ran = desk.run("list")
    assert "\x9b" not in ran.out
    assert "\u202e" not in ran.out
    assert "\\x9b31mred" in ran.out


def test_list_filters_and_is_bounded(desk: Desk) -> None:
    """States and a limit choose rows, and what was left out is said."""
    keys = {str(desk.upload(f"list/{n}.txt")) for n in range(3)}
    empty = desk.upload("list/empty.txt", b"")
    skipped = desk.run("list", "--state", "skipped", "--json").json
    assert str(empty) in {row["id"] for row in skipped}
    assert {row["state"] for row in skipped} == {"SKIPPED"}
    everything = desk.run("list", "--since", "1h", "--limit", "1000", "--json")
    assert keys | {str(empty)} <= {row["id"] for row in everything.json}
    assert everything.err == ""
    cut = desk.run("list", "--limit", "2", "--json")
    assert len(cut.json) == 2
    assert "more than 2" in cut.err
    assert desk.run("list", "--state", "GONE").out == "no submissions\n"


# -- retry -------------------------------------------------------------------------------------


def test_retry_takes_the_route_that_is_set_now(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong model is corrected in the settings, and the file gets its one job."""
    monkeypatch.setenv("MODZY_MODEL_VERSION", "9.9.9")
    desk.services = build(os.environ)
    key = desk.upload("retry/a.txt")
    assert desk.show(key)["state"] == "REJECTED"
    desk.reminders()
    monkeypatch.setenv("MODZY_MODEL_VERSION", "1.0.1")
    desk.services = build(os.environ)

    dry = desk.run("retry", str(key), "--dry-run", "--json")
    assert (dry.code, dry.json["after"]["state"]) == (0, "DEFERRED")
    assert "nothing was changed" in dry.err
    assert "operator.changed" not in dry.err
    assert desk.show(key)["state"] == "REJECTED"
    assert desk.reminders() == []

    ran = desk.run("retry", str(key), "--json")
    assert (ran.code, ran.json["before"]["state"], ran.json["dry_run"]) == (0, "REJECTED", False)
    assert ran.json["after"]["model"] == {"identifier": "ed542963de", "version": "1.0.1"}
    assert '"action": "retry", "state": "DEFERRED"' in ran.err
    assert desk.reminders() == [str(key)]
    desk.services.relay.advance(key)
    desk.follow(key)
    found = desk.show(key)
    assert (found["state"], found["job_status"]) == ("SUBMITTED", "COMPLETED")
    assert desk.jobs(key) == [found["job_identifier"]]
    # The job is found by its own name although its path was indexed when it was rejected.
    assert desk.services.ledger.find_by_job(found["job_identifier"]) == key


def test_retry_is_refused_without_a_route(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that could only end as it did before is not begun."""
    key = desk.upload("retry/b.txt")
    desk.force(key, State.ABANDONED, "not accepted in time", job_identifier=None, job_status=None)
    monkeypatch.setenv("MODZY_MODEL_ID", "")
    monkeypatch.setenv("MODZY_MODEL_VERSION", "")
    ran = desk.run("retry", str(key))
    assert ran.code == 1
    assert "MODZY_ROUTES" in ran.err
    assert desk.show(key)["state"] == "ABANDONED"


@pytest.mark.parametrize(
    "command", [("retry",), ("replay",), ("resolve", "--no-job"), ("resolve", "--job", A_JOB)]
)
def test_no_command_touches_what_is_under_way(desk: Desk, command: tuple[str, ...]) -> None:
    """A job that is being followed is in no command's reach."""
    key = desk.upload(f"busy/{'-'.join(command)}.txt")
    before = desk.show(key)
    ran = desk.run(command[0], str(key), *command[1:])
    assert ran.code == 1
    assert "needs no command" in ran.err
    assert desk.show(key) == before
    assert desk.run(command[0], AN_ID, *command[1:]).code == 1


# -- resolve -----------------------------------------------------------------------------------


def test_resolve_adopts_the_job_and_sends_no_other(desk: Desk) -> None:
    """The job that an operator found is announced, followed and kept; nothing is paid twice."""
    key, job = desk.uncertain("uncertain/a.txt", accepted=True)
    assert job is not None
    ran = desk.run("resolve", str(key), "--job", job, "--json")
    assert (ran.code, ran.json["after"]["state"]) == (0, "SUBMITTING")
    desk.services.relay.advance(key)
    desk.follow(key)
    found = desk.show(key)
    assert (found["job_identifier"], found["job_status"]) == (job, "COMPLETED")
    assert found["result_location"]
    assert desk.jobs(key) == [job]
    assert desk.show(job)["id"] == str(key)


def test_resolve_refuses_a_job_of_another_file(desk: Desk) -> None:
    """A mistyped job does not become a file's result."""
    other = desk.show(desk.upload("uncertain/other.txt"))["job_identifier"]
    key, _ = desk.uncertain("uncertain/b.txt", accepted=True)
    for job, reason in ((other, "is not that of"), (A_JOB, "Modzy has no job")):
        ran = desk.run("resolve", str(key), "--job", job)
        assert ran.code == 1
        assert reason in ran.err
    assert desk.show(key)["state"] == "UNCERTAIN"


def test_resolve_does_not_believe_that_there_is_no_job(desk: Desk) -> None:
    """Modzy's history is asked; a job that is there is named instead of paid for again."""
    key, job = desk.uncertain("uncertain/c.txt", accepted=True)
    ran = desk.run("resolve", str(key), "--no-job")
    assert ran.code == 1
    assert f"resolve {key} --job {job}" in ran.err
    assert desk.show(key)["state"] == "UNCERTAIN"


def test_resolve_sends_again_when_there_is_no_job(desk: Desk) -> None:
    """Once operator and history agree that there is no job, the file gets its one."""
    key, _ = desk.uncertain("uncertain/d.txt", accepted=False)
    ran = desk.run("resolve", str(key), "--no-job")
    assert ran.code == 0
    desk.services.relay.advance(key)
    found = desk.show(key)
    assert found["state"] == "SUBMITTED"
    assert desk.jobs(key) == [found["job_identifier"]]


def test_resolve_changes_nothing_while_modzy_is_away(desk: Desk) -> None:
    """What cannot be asked is not guessed."""
    key, job = desk.uncertain("uncertain/e.txt", accepted=True)
    assert job is not None
    desk.stack.modzy.misbehave(
        {"do": "status", "status": 503}, method="GET", path_regex="^/api/jobs/", count=None
    )
    for answer in (("--no-job",), ("--job", job)):
        ran = desk.run("resolve", str(key), *answer)
        assert ran.code == 1
        assert "503" in ran.err
        assert "nothing was changed" in ran.err
    assert desk.show(key)["state"] == "UNCERTAIN"


# -- replay ------------------------------------------------------------------------------------


def test_replay_makes_the_next_generation(desk: Desk) -> None:
    """The same content gets a second job of its own, and the first one's row stays."""
    key = desk.upload("replay/a.txt")
    desk.follow(key)
    before = desk.show(key)
    dry = desk.run("replay", str(key), "--dry-run", "--json")
    assert (dry.code, dry.json["after"]["generation"]) == (0, 1)
    assert desk.run("show", dry.json["after"]["id"]).code == 1
    desk.reminders()

    ran = desk.run("replay", str(key), "--json")
    assert ran.code == 0
    assert "another job" in ran.err
    second = LedgerKey.parse(ran.json["after"]["id"])
    assert second is not None
    assert desk.reminders() == [str(second)]
    assert [it["generation"] for it in desk.show("replay/a.txt")["submissions"]] == [1, 0]
    assert desk.run("replay", str(key)).code == 1  # the second is not at its end
    desk.services.relay.advance(second)
    desk.follow(second)
    assert desk.show(key) == before
    found = desk.show("replay/a.txt")["submissions"]
    assert [row["generation"] for row in found] == [1, 0]
    assert found[0]["job_identifier"] != before["job_identifier"]
    assert desk.jobs(second) == [found[0]["job_identifier"]]

    again = desk.run("replay", str(key))
    assert again.code == 1
    assert str(second) in again.err
    assert desk.run("replay", str(second), "--json").json["after"]["generation"] == 2


def test_replay_is_refused_when_the_content_is_another(desk: Desk) -> None:
    """A replay never submits what its row does not name."""
    key = desk.upload("replay/b.txt")
    desk.follow(key)
    newer = desk.upload("replay/b.txt", b"another day")
    ran = desk.run("replay", str(key))
    assert ran.code == 1
    assert str(newer) in ran.err
    desk.stack.uploads.delete_blob("replay/b.txt")
    ran = desk.run("replay", str(key))
    assert ran.code == 1
    assert "is gone" in ran.err
    empty = desk.upload("replay/empty.txt", b"")
    ran = desk.run("replay", str(empty))
    assert ran.code == 1
    assert "skipped again" in ran.err


# -- check and sweep ---------------------------------------------------------------------------


def test_check_finds_nothing_wrong_with_a_sound_app(desk: Desk) -> None:
    """Everything that the app needs is looked at, and a sound one passes."""
    ran = desk.run("check")
    assert ran.code == 0
    assert ran.err == ""
    assert "FAULT" not in ran.out
    for what in ("table", "queue", "container", "secret", "Modzy", "route"):
        assert f"ok     {what}" in ran.out


def test_check_tells_every_fault(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults of different services are all told in one run, each with what to do."""
    monkeypatch.setenv("SUBMISSIONS_TABLE", "NoSuchTable")
    monkeypatch.setenv("DUE_QUEUE", "no-such-queue")
    monkeypatch.setenv("UPLOAD_CONTAINER", "no-such-container")
    monkeypatch.setenv("UPLOAD_STORAGE_KEY_SECRET", "no-such-secret")
    monkeypatch.setenv("MODZY_MODEL_VERSION", "9.9.9")
    monkeypatch.setenv(
        "MODZY_ROUTES",
        '[{"match": "*.png", "model": "2b9a6e04d1", "version": "2.1.0"},'
        ' {"match": "*.txt", "model": "ed542963de", "version": "1.0.1", "input": "inptu.txt"}]',
    )
    ran = desk.run("check", "--json")
    faults = {it["name"]: it["fault"] for it in ran.json if it["fault"]}
    assert ran.code == 1
    assert all(it["advice"] for it in ran.json if it["fault"])
    told = "\n".join(f"{name}: {fault}" for name, fault in faults.items())
    for evidence in (
        "TableNotFound",
        "QueueNotFound",
        "ContainerNotFound",
        "no secret no-such-secret",
        "404",
        "the route must name one",
        "inptu.txt is not among",
    ):
        assert evidence in told
    assert len(faults) == 7


def test_check_goes_on_without_vault_and_modzy(desk: Desk) -> None:
    """The fault of one service does not hide the state of another."""
    desk.stack.vault.set_fault(Fault.FORBIDDEN)
    ran = desk.run("check")
    assert ran.code == 1
    assert "403" in ran.out
    assert "ok     table" in ran.out
    desk.stack.vault.set_fault(None)
    desk.stack.modzy.set_api_keys(["another.key"])
    try:
        ran = desk.run("check")
    finally:
        desk.stack.modzy.set_api_keys([desk.stack.api_key])
    assert ran.code == 1
    assert "401" in ran.out
    assert "ok     secret modzy-api-key" in ran.out


def test_sweep_finds_what_is_overdue_and_when_dry_leaves_it(desk: Desk) -> None:
    """A dry sweep sees the same and leaves ledger, bookmark and queue as they are."""
    key = desk.upload("sweep/a.txt")
    lost = datetime.now(UTC) - timedelta(hours=1)
    desk.force(key, State.SUBMITTED, "its reminder was lost", next_attempt_at=lost)
    desk.reminders()
    before = list(desk.stack.table.list_entities())
    dry = desk.run("sweep", "--dry-run", "--json")
    assert (dry.code, dry.json["rows_overdue"], dry.json["pass_complete"]) == (0, 1, True)
    assert list(desk.stack.table.list_entities()) == before
    assert desk.reminders() == []
    ran = desk.run("sweep", "--json")
    assert (ran.code, ran.json) == (0, dry.json)
    assert "sweep.completed" in ran.err
    assert desk.reminders() == [str(key)]


# -- the command line itself -------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("retry",),
        ("retry", "letters/a.txt"),
        ("resolve", AN_ID),
        ("resolve", AN_ID, "--job", A_JOB, "--no-job"),
        ("resolve", AN_ID, "--job", "../jobs"),
        ("list", "--state", "LOST"),
        ("list", "--since", "soon"),
        ("list", "--since", "9999d"),
        ("list", "--limit", "0"),
        ("list", "--settings", "no-such-file.json"),
    ],
)
def test_wrong_usage_is_found_while_parsing(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be meant is exit code 2, before anything is asked or changed."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


def test_all_wrong_settings_are_told_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message names every setting that needs attention."""
    monkeypatch.setenv("MODZY_URL", "ftp://modzy")
    monkeypatch.setenv("DUE_QUEUE", "Due Queue")
    ran = desk.run("check")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert "MODZY_URL" in ran.err
    assert "DUE_QUEUE" in ran.err


def test_storage_that_is_away_is_no_traceback(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is told in a line that says what to do, without the SDK's own words."""
    monkeypatch.setenv("SUBMISSIONS_TABLE", "NoSuchTable")
    ran = desk.run("list")
    assert ran.code == 1
    assert "TableNotFound" in ran.err
    assert "check" in ran.err
    assert "Traceback" not in ran.err


def test_it_runs_as_a_program_with_a_settings_file(desk: Desk, tmp_path: Path) -> None:
    """`python -m modzy_relay` takes all it needs from a settings file."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"Values": desk.stack.settings}), "utf-8")
    environment = {
        name: value for name, value in os.environ.items() if name not in desk.stack.settings
    }
    ran = subprocess.run(
        [sys.executable, "-m", "modzy_relay", "check", "--settings", str(settings)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "ok     Modzy" in ran.stdout
