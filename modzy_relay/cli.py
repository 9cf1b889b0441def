"""The operator's command line: data on stdout, everything else on stderr.

Exit codes: 0 done, 1 refused, not found or faulty, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import re
import sys
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError

from modzy_relay.azure_clients import ticks
from modzy_relay.checks import app_checks, fault_of, run_checks
from modzy_relay.errors import RelayError
from modzy_relay.http_api import get_submission
from modzy_relay.identity import LedgerKey
from modzy_relay.lifecycle import Record, State, Submission
from modzy_relay.lookup import describe
from modzy_relay.modzy_api import ModzyError
from modzy_relay.operate import COMMAND, Action, Change, Operator
from modzy_relay.queue_outbox import QueueOutbox
from modzy_relay.settings import Settings, parse_duration
from modzy_relay.table_ledger import TableLedger
from modzy_relay.telemetry import logger
from modzy_relay.wiring import Services, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from modzy_relay.messages import CloudEvent

DONE, REFUSED = 0, 1
_MOST_ROWS = 1000
_LONGEST_SINCE = timedelta(days=366)
_JOB = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,199}")
_COLUMNS = ("id", "state", "job_status", "last_modified", "path", "reason")


class _DryLedger(TableLedger):
    """Reads the ledger, and lets every write seem to succeed."""

    def insert(self, row: Submission) -> tuple[Record, bool]:
        record = self.get(row.key)
        if record is not None:
            return record, False
        return Record(row, "dry-run", row.created_at, ticks(), ticks), True

    def replace(self, record: Record, row: Submission) -> Record:
        return dataclasses.replace(record, row=row)

    def index(self, row: Submission) -> None:
        pass

    def save_bookmark(self, name: str, values: Mapping[str, str]) -> None:
        pass


class _DryOutbox(QueueOutbox):
    """Counts messages, and sends none."""

    def announce(self, event: CloudEvent) -> None:
        pass

    def remind(self, key: LedgerKey, delay: timedelta) -> None:
        pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Wrong usage exits by itself, with 2."""
    parsed = _parser().parse_args(argv)
    # Like the Functions host: libraries read some of these from the environment themselves.
    os.environ.update(parsed.settings)
    dry = getattr(parsed, "dry_run", False)
    try:
        # Told here, in one message; wiring would log it as well.
        Settings.from_env(os.environ)
        services = (
            build(os.environ, ledger_type=_DryLedger, outbox_type=_DryOutbox)
            if dry
            else build(os.environ)
        )
        with _events_on_stderr(wanted=hasattr(parsed, "dry_run") and not dry):
            code: int = parsed.run(services, parsed)
    except (RelayError, ModzyError) as error:
        _say(f"refused: {error}")
        return REFUSED
    except AzureError as error:
        _say(f"failed: Azure: {fault_of(error)}. `{COMMAND} check` tells what is wrong.")
        return REFUSED
    return code


@contextlib.contextmanager
def _events_on_stderr(*, wanted: bool) -> Iterator[None]:
    """Show the events of commands that change something; others tell all on stdout."""
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if wanted else logging.CRITICAL)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _operator(services: Services) -> Operator:
    return Operator(
        uploads=services.uploads,
        ledger=services.ledger,
        outbox=services.outbox,
        modzy=services.modzy,
        relay=services.relay,
        timing=services.timing,
    )


# -- commands ----------------------------------------------------------------------------------


def _show(services: Services, parsed: argparse.Namespace) -> int:
    kinds, reason = ["path"], ""
    if _JOB.fullmatch(parsed.what):
        kinds.insert(0, "job")
    if LedgerKey.parse(parsed.what) is not None:
        kinds.insert(0, "id")
    for kind in kinds:
        status, body = get_submission(services.lookup, {kind: parsed.what})
        if status is HTTPStatus.OK:
            found = body.get("submissions", [body])
            _print(parsed, body, "\n\n".join(_details(row) for row in found))
            if "next" in body:
                _say(f"Only the newest {len(found)} versions are shown.")
            return DONE
        reason = body["error"]
    _say(f"not found: {reason}. Try `{COMMAND} list`.")
    return REFUSED


def _list(services: Services, parsed: argparse.Namespace) -> int:
    rows, more = _operator(services).find(parsed.state or list(State), parsed.since, parsed.limit)
    found = [describe(row) for row in rows]
    table = [_COLUMNS, *([row[name] for name in _COLUMNS] for row in found)]
    _print(parsed, found, _columns(table) if found else "no submissions")
    if more:
        _say(f"There are more than {parsed.limit}: raise --limit, or narrow --since and --state.")
    return DONE


def _retry(services: Services, parsed: argparse.Namespace) -> int:
    return _changed(parsed, Action.RETRY, _operator(services).retry(parsed.id))


def _resolve(services: Services, parsed: argparse.Namespace) -> int:
    if parsed.job is None:
        return _changed(parsed, Action.RESEND, _operator(services).resend(parsed.id))
    return _changed(parsed, Action.ADOPT, _operator(services).adopt(parsed.id, parsed.job))


def _replay(services: Services, parsed: argparse.Namespace) -> int:
    change = _operator(services).replay(parsed.id)
    _say("This costs another job at Modzy.")
    return _changed(parsed, Action.REPLAY, change)


def _changed(parsed: argparse.Namespace, action: Action, change: Change) -> int:
    before, after = describe(change.before), describe(change.after)
    document = {"action": action, "dry_run": parsed.dry_run, "before": before, "after": after}
    _print(parsed, document, _details(after))
    if parsed.dry_run:
        _say("Dry run: nothing was changed; this is what it would be.")
    elif change.reminded:
        _say(f"Done. See what becomes of it: {COMMAND} show {after['id']}")
    else:
        _say("Done, but the relay could not be told: the next sweep will. `sweep` runs one now.")
    return DONE


def _check(services: Services, parsed: argparse.Namespace) -> int:
    findings = run_checks(app_checks(services.settings, services.secrets))
    lines = ["ok     settings"]
    for finding in findings:
        lines.append(f"{'ok   ' if finding.fault is None else 'FAULT'}  {_plain(finding.name)}")
        if finding.fault is not None:
            lines += [f"       {_plain(finding.fault)}", f"       {finding.advice}"]
    _print(parsed, [dataclasses.asdict(finding) for finding in findings], "\n".join(lines))
    faults = sum(finding.fault is not None for finding in findings)
    if faults:
        _say(f"{faults} of {len(findings) + 1} checks found a fault.")
    return REFUSED if faults else DONE


def _sweep(services: Services, parsed: argparse.Namespace) -> int:
    report = dataclasses.asdict(services.sweeper.run())
    _print(parsed, report, _columns([(name, str(value)) for name, value in report.items()]))
    if parsed.dry_run:
        _say("Dry run: nothing was changed; this is what it would find.")
    elif not report["pass_complete"]:
        _say("The listing goes on where this run stopped: run it again, or wait for the timer.")
    return DONE


# -- output ------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(_plain(text), file=sys.stderr)


def _print(parsed: argparse.Namespace, document: object, text: str) -> None:
    # ASCII: a blob name may hold what no terminal can show and no encoding can carry.
    print(json.dumps(document, indent=2) if parsed.json else text)


def _details(row: Mapping[str, Any]) -> str:
    row = dict(row)
    history = row.pop("history")
    model = row.pop("model")
    if model is not None:
        row["model"] = f"{model['identifier']} {model['version']}"
    facts = [(name, value) for name, value in row.items() if value is not None]
    moves = [(change["at"], change["state"], change["reason"]) for change in history]
    return f"{_columns(facts)}\nhistory\n{_columns(moves, indent='  ')}"


def _columns(rows: Sequence[Sequence[object]], indent: str = "") -> str:
    texts = [[_plain("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(indent + "  ".join(map(str.ljust, row, widths)).rstrip() for row in texts)


def _plain(text: str) -> str:
    """A text without what would move a terminal's cursor or cannot be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# -- arguments ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="The operator's commands of the Modzy blob relay.",
        epilog="Settings come from the environment, or from --settings. Exit codes: 0 done, "
        "1 refused, not found or faulty (stderr says why, and what next), 2 wrong usage.\n"
        "Each command has examples: `retry --help`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str,
        run: Callable[[Services, argparse.Namespace], int],
        summary: str,
        *examples: str,
        changes: bool = False,
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="examples:\n" + "\n".join(f"  {COMMAND} {name} {text}" for text in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="print JSON")
        added.add_argument(
            "--settings",
            type=_settings_file,
            default={},
            metavar="FILE",
            help="settings from a file like local.settings.json; they win over the environment",
        )
        if changes:
            added.add_argument("--dry-run", action="store_true", help="show it, change nothing")
        return added

    an_id = "2026-11-23-a.0123456789abcdef01234567"
    a_job = "fd2c6f8b-4f33-4e52-a995-ad7671de31e5"
    show = command("show", _show, "Show submissions.", an_id, a_job, '"letters/a file.txt"')
    show.add_argument("what", metavar="ID|JOB|PATH", help="a submission, its job, or its file")

    listing = command(
        "list",
        _list,
        "List the submissions of files written lately, newest day first.",
        "--state REJECTED --state ABANDONED",
        "--since 12h --json",
    )
    listing.add_argument(
        "--state", type=_state, action="append", help=f"one of {', '.join(State)}; repeatable"
    )
    listing.add_argument(
        "--since",
        type=_since,
        default=timedelta(days=7),
        help="how long ago the file was written at most, such as 30m, 12h or 7d (default: 7d)",
    )
    listing.add_argument(
        "--limit", type=_limit, default=50, help=f"rows at most, up to {_MOST_ROWS} (default: 50)"
    )

    retry = command(
        "retry",
        _retry,
        "Try a REJECTED or ABANDONED submission again, with the model that the settings name now.",
        f"{an_id} --dry-run",
        an_id,
        changes=True,
    )
    resolve = command(
        "resolve",
        _resolve,
        "Settle an UNCERTAIN submission: name its job, or say that there is none.",
        f"{an_id} --job {a_job}",
        f"{an_id} --no-job",
        changes=True,
    )
    answer = resolve.add_mutually_exclusive_group(required=True)
    answer.add_argument("--job", type=_job, help="this job of Modzy is the submission's")
    answer.add_argument(
        "--no-job", action="store_true", help="there is none: send it, if the history has none too"
    )
    replay = command(
        "replay",
        _replay,
        "Submit the same version once more. This costs another job.",
        f"{an_id} --dry-run",
        an_id,
        changes=True,
    )
    for changing in (retry, resolve, replay):
        changing.add_argument("id", type=_ledger_key, metavar="ID", help="as `list` shows it")

    command("check", _check, "Check settings, storage, secrets, Modzy and the models.", "--json")
    command("sweep", _sweep, "Run one slice of the sweep now.", "--dry-run", changes=True)
    return parser


def _ledger_key(text: str) -> LedgerKey:
    key = LedgerKey.parse(text)
    if key is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no submission id; `{COMMAND} show PATH` has it"
        )
    return key


def _job(text: str) -> str:
    if not _JOB.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no job identifier")
    return text


def _state(text: str) -> State:
    try:
        return State(text.upper())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(State)}") from None


def _since(text: str) -> timedelta:
    try:
        value = parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 12h or 7d") from None
    if value > _LONGEST_SINCE:
        raise argparse.ArgumentTypeError(f"at most {_LONGEST_SINCE.days}d")
    return value


def _limit(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text) or int(text) > _MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST_ROWS}")
    return int(text)


def _settings_file(text: str) -> dict[str, str]:
    try:
        values = json.loads(Path(text).read_text("utf-8"))["Values"]
        return {name: str(value) for name, value in values.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise argparse.ArgumentTypeError(
            f'{text} cannot be read as {{"Values": {{...}}}}'
        ) from None
