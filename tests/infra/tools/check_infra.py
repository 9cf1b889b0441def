"""The heavier checks of infra/, for `make check-infra`: policies and query languages.

Runs checkov (its own virtual environment, a large package) over the Bicep files, and Kusto's
language service (an npm package) over every query. Nothing is downloaded while checking.

    python tests/infra/tools/check_infra.py --checkov <path> --node-modules <path>
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from infra_bicep import FILES, INFRA
from infra_queries import queries


def main() -> int:
    """Run both checks; return the exit code."""
    parser = argparse.ArgumentParser(description="Check infra/ with checkov and Kusto's parser.")
    parser.add_argument("--checkov", required=True, help="path of the checkov program")
    parser.add_argument("--node-modules", required=True, help="where the npm package is")
    options = parser.parse_args()
    failures = [*_policies(options.checkov), *_queries(options.node_modules)]
    for failure in failures:
        sys.stderr.write(f"{failure}\n")
    return 1 if failures else 0


def _policies(checkov: str) -> list[str]:
    """Return what checkov finds; a file that it cannot parse counts, which its exit code hides."""
    done = subprocess.run(
        [
            checkov, "--directory", str(INFRA), "--framework", "bicep", "--skip-download",
            "--compact", "--quiet", "--output", "json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode not in {0, 1} or not done.stdout:
        return [f"checkov did not run: {done.stderr.strip()}"]
    report = json.loads(done.stdout)
    summary = report["summary"]
    sys.stdout.write(
        f"checkov: {summary['passed']} passed, {summary['failed']} failed, "
        f"{summary['skipped']} skipped with a reason, {len(FILES)} files\n"
    )
    found = [
        f"{check['file_path']} {check['resource']}: {check['check_id']} {check['check_name']}"
        for check in report["results"]["failed_checks"]
    ]
    if summary["parsing_errors"]:
        found.append(f"checkov could not parse {summary['parsing_errors']} file(s)")
    # A check that crashes is reported there only, and would count as passed.
    found += [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    return found


def _queries(node_modules: str) -> list[str]:
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("check_kql.cjs"))],
        input=json.dumps(queries()),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NODE_PATH": str(Path(node_modules).resolve())},
    )
    sys.stdout.write(f"kusto: {done.stdout}")
    return done.stderr.splitlines() if done.returncode else []


if __name__ == "__main__":
    sys.exit(main())
