"""Writes what a campaign found, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faults.outage import OutageReport
    from tests.faults.verdict import Verdict

_HEAD = """# Fault matrix

Written by `make faults` (`python -m tests.faults`); do not edit. The app runs in real processes
over real sockets: Microsoft's Functions worker library, the Azurite storage emulator, and
stand-ins for Modzy and Key Vault. A proxy between the app and these services strikes at the exact
effect (`sandbox/fault_proxy.py`); the cases are in `tests/faults/cases.py`.

*Before* an effect means that the service has not seen the request, *after* that it has answered
and the app has not heard it. The effects, in order: HEAD of the blob, insert of the row, POST of
the job, announcement, reminder, record of the job identifier. After the fault whatever died is
started again, everything comes to its end (the job's end included), and then is counted:

- **tries**: blob versions that met the fault;
- **jobs**: jobs that Modzy accepted for each version that should have one (where none should:
  how many);
- **lost**: versions that did not end in the state that they should have;
- **repeated**: announcements that were sent again with the same event id, as consumers must expect.

Durations are those of production but for these: SUBMIT_TIMEOUT is 2 s and HISTORY_SETTLE 3 s, so
that a claim is taken over after 16 s; the cases that need the sweep shorten its grace and overdue
times from 10 min to seconds. Clocks are set inside the app process (`tests/faults/child/`).

In every case it was also checked that no row was recorded as SUBMITTED before its announcement
and its reminder had been sent, and that no secret is in a log.
"""


def report(verdicts: Sequence[Verdict], outages: Sequence[OutageReport], minutes: float) -> str:
    """The whole page."""
    return "\n".join(_page(verdicts, outages, minutes)) + "\n"


def _page(
    verdicts: Sequence[Verdict], outages: Sequence[OutageReport], minutes: float
) -> Iterator[str]:
    merged = _merged(verdicts)
    held = [verdict for verdict in merged if not verdict.argued]
    argued = [verdict for verdict in merged if verdict.argued]
    yield _HEAD
    yield from _totals(held, argued, minutes)
    yield "\n## Cases that are held to exactly one job\n"
    yield from _table(held)
    if argued:
        yield "\n## Cases that cannot be held to it in principle\n"
        yield from _table(argued, cancelled=True)
        yield ""
        for verdict in argued:
            yield f"- **{_capital(verdict.case)}.** {verdict.argued}"
    yield from _outage_section(outages)
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    if faults:
        yield "\n## What went wrong\n"
        yield from (f"- {fault}" for fault in faults)


def _merged(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """One verdict for all of the same name."""
    by_name: dict[str, Verdict] = {}
    for verdict in verdicts:
        known = by_name.get(verdict.case)
        by_name[verdict.case] = verdict if known is None else known.with_more(verdict)
    return list(by_name.values())


def _totals(held: Sequence[Verdict], argued: Sequence[Verdict], minutes: float) -> Iterator[str]:
    expected = sum(verdict.expected_jobs for verdict in held)
    jobs = sum(verdict.jobs for verdict in held)
    most = max((verdict.most_jobs for verdict in held), default=0)
    yield "| total | |\n| --- | ---: |"
    yield f"| cases | {len(held)} + {len(argued)} argued |"
    yield f"| versions | {sum(verdict.tries for verdict in held)} |"
    yield f"| jobs per version that should have one | {jobs / expected if expected else 0:.3f} |"
    yield f"| most jobs of one version | {most} |"
    yield f"| lost | {sum(verdict.lost for verdict in [*held, *argued])} |"
    yield f"| repeated announcements | {sum(verdict.repeated for verdict in held)} |"
    yield f"| faults found | {sum(len(verdict.faults) for verdict in [*held, *argued])} |"
    yield "| seed | " + _seeds(held) + " |"
    yield f"| duration | {minutes:.0f} min |"


def _seeds(verdicts: Sequence[Verdict]) -> str:
    found = [remark for verdict in verdicts for remark in verdict.remarks if "seed" in remark]
    return ", ".join(remark.removeprefix("seed ") for remark in found) or "-"


def _table(verdicts: Sequence[Verdict], *, cancelled: bool = False) -> Iterator[str]:
    extra = " cancelled | alarms |" if cancelled else ""
    yield f"| case | tries | jobs | rows by state | lost | repeated |{extra}"
    yield "| --- | ---: | ---: | --- | ---: | ---: |" + (" ---: | ---: |" if cancelled else "")
    for verdict in verdicts:
        states = ", ".join(f"{state} {count}" for state, count in sorted(verdict.states.items()))
        remarks = "; ".join(verdict.remarks)
        name = f"{verdict.case} ({remarks})" if remarks else verdict.case
        cells = [
            name,
            str(verdict.tries),
            f"{verdict.jobs_per_version:.3f}" if verdict.expected_jobs else str(verdict.jobs),
            states,
            str(verdict.lost),
            str(verdict.repeated),
        ]
        if cancelled:
            cells += [str(verdict.cancelled), str(verdict.alarms)]
        yield "| " + " | ".join(cells) + " |"


def _outage_section(outages: Sequence[OutageReport]) -> Iterator[str]:
    if not outages:
        return
    yield (
        "\n## Modzy away for 60 s under load\n\n"
        "Uploads at a steady rate before, during and after. Parking is an upload's whole "
        "invocation while the breaker is open, by the host's own log: HEAD, reminder, insert. "
        "The line of each outage in the table above shows that none was lost or doubled.\n"
    )
    yield (
        "| outage | uploads | parked | median | 95 % | longest | calls in vain | "
        "last one submitted after |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for outage in outages:
        yield "| " + " | ".join(outage.lines()) + " |"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
