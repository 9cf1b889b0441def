"""What several files must say alike: settings, limits, imports, and what is deployed."""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modzy_relay.settings import DEFAULTS, SETTING_NAMES, Settings
from sandbox.storage import ACCOUNT_KEYS, HOST_ACCOUNT, UPLOAD_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modzy_relay"
#: Of the sample: read by the Functions host and the worker.
HOST_SETTINGS = {"FUNCTIONS_WORKER_RUNTIME", "PYTHON_THREADPOOL_THREAD_COUNT"}
#: Of the deployment, beside those: read by the platform's telemetry and by azure-identity.
PLATFORM_SETTINGS = {
    "PYTHON_THREADPOOL_THREAD_COUNT",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "AZURE_CLIENT_ID",
}
CONNECTIONS = {"AzureWebJobsStorage", "UploadStorage", "RelayStorage"}
PURE = ("identity", "routing", "lifecycle", "backoff", "messages", "errors", "settings", "ports")
USE_CASES = ("relay", "follow", "sweep", "lookup", "results", "http_api", "breaker", "telemetry")
#: The relay's own threads: sweep and one HTTP request, beside what the two triggers may run.
OTHER_INVOCATIONS = 2


def sample() -> dict[str, str]:
    """The values of the sample settings."""
    values: dict[str, str] = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    return values


def readme_settings() -> dict[str, str]:
    """Default by name, as in the README's table of settings."""
    section = (ROOT / "README.md").read_text("utf-8").partition("\n## Settings\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.+) \|$", section, re.MULTILINE)
    return {name: default.strip("`") for name, default in rows}


def deployed_settings() -> set[str]:
    """Names of the app settings in infra/; of a connection only its name."""
    text = (ROOT / "infra/modules/function-app.bicep").read_text("utf-8")
    names = re.findall(r"^ +\{ name: '(\w+)', value:", text, re.MULTILINE)
    return {name.partition("__")[0] for name in names}


def test_the_sample_names_every_setting_and_no_other() -> None:
    """Who copies the sample has all settings before their eyes."""
    assert set(sample()) == SETTING_NAMES | HOST_SETTINGS


def test_the_readme_names_every_setting_and_no_other() -> None:
    """The table is complete, and nothing in it is history."""
    assert set(readme_settings()) == SETTING_NAMES


def test_the_readme_tells_the_true_defaults() -> None:
    """What the table promises is what the app does."""
    told = {name: default for name, default in readme_settings().items() if name in DEFAULTS}
    assert told == DEFAULTS


def test_the_deployment_sets_every_setting_and_no_other() -> None:
    """A setting that is renamed in one place is found here."""
    assert deployed_settings() - PLATFORM_SETTINGS == SETTING_NAMES - {"RelayStorage"}


def test_the_sample_is_accepted_and_repeats_the_defaults() -> None:
    """The sample is valid as it stands, and differs from the defaults only in polling."""
    values = sample()
    assert Settings.from_env(values).trigger_source == "LogsAndContainerScan"
    differing = {name for name in DEFAULTS if values[name] != DEFAULTS[name]}
    assert differing == {"BLOB_TRIGGER_SOURCE"}


@pytest.mark.parametrize(
    ("setting", "account"),
    [("AzureWebJobsStorage", HOST_ACCOUNT), ("UploadStorage", UPLOAD_ACCOUNT)],
)
def test_the_samples_keys_are_those_of_the_sandbox(setting: str, account: str) -> None:
    """The sample opens the emulator and nothing else."""
    fields = dict(part.split("=", 1) for part in sample()[setting].split(";") if part)
    assert (fields["AccountName"], fields["AccountKey"]) == (account, ACCOUNT_KEYS[account])


def test_no_invocation_waits_for_a_thread() -> None:
    """host.json lets in no more at a time than the worker has threads."""
    extensions = json.loads((ROOT / "host.json").read_text())["extensions"]
    queues = extensions["queues"]["batchSize"] + extensions["queues"]["newBatchThreshold"]
    blobs = extensions["blobs"]["maxDegreeOfParallelism"]
    threads = int(sample()["PYTHON_THREADPOOL_THREAD_COUNT"])
    assert blobs + queues + OTHER_INVOCATIONS <= threads


# -- imports -----------------------------------------------------------------------------------


def imports_of(file: Path) -> set[str]:
    """Dotted names of everything that a file imports anywhere, types included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} has a relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top_levels(file: Path) -> set[str]:
    """The first parts of these names."""
    return {name.partition(".")[0] for name in imports_of(file)}


def package_files() -> list[Path]:
    """The modules that are deployed with the app."""
    return [file for file in sorted(PACKAGE.rglob("*.py")) if not is_ignored(file)]


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_know_no_input_or_output(module: str) -> None:
    """Rules can be tested and trusted without a service."""
    allowed = {"modzy_relay", *sys.stdlib_module_names} - {"os", "socket", "http", "subprocess"}
    assert top_levels(PACKAGE / f"{module}.py") <= allowed


@pytest.mark.parametrize("module", USE_CASES)
def test_use_cases_know_ports_and_not_services(module: str) -> None:
    """The order of effects is decided where no client library is in sight."""
    file = PACKAGE / f"{module}.py"
    assert not {"azure", "azurefunctions", "requests", "urllib3", "os"} & top_levels(file)


def test_only_the_entry_file_knows_the_functions_host() -> None:
    """The package could serve another host: nothing in it imports azure.functions."""
    for file in package_files():
        known = {name for name in imports_of(file) if name.startswith("azure")}
        assert not {name for name in known if "functions" in name}, file.name
    assert "azure.functions" in imports_of(ROOT / "function_app.py")


def test_the_product_needs_no_part_of_its_tests() -> None:
    """Nothing that is deployed imports the sandbox, the doubles or a test library."""
    test_only = {"sandbox", "tests", "pytest", "hypothesis", "trustme", "coverage"}
    for file in [ROOT / "function_app.py", *package_files()]:
        assert not test_only & top_levels(file), file.name
        doubles = [name for name in imports_of(file) if name.startswith("modzy_relay.testing")]
        assert not doubles, file.name


def test_requirements_are_pinned_and_needed() -> None:
    """Each requirement has one version, and something that is deployed imports it."""
    lines = (ROOT / "requirements.txt").read_text().split()
    pinned = dict(line.split("==") for line in lines)
    names = {
        name for file in [ROOT / "function_app.py", *package_files()] for name in imports_of(file)
    }
    imported = {name.replace(".", "/") for name in names}
    for requirement in pinned:
        files = importlib.metadata.files(requirement) or []
        packages = {file.parent.as_posix() for file in files if file.name == "__init__.py"}
        assert packages & imported, f"nothing imports {requirement}"


# -- what is deployed --------------------------------------------------------------------------


def ignored_patterns() -> list[str]:
    """The lines of .funcignore."""
    return [line for line in (ROOT / ".funcignore").read_text().splitlines() if line]


def is_ignored(file: Path) -> bool:
    """Whether .funcignore keeps a file out, by the rules of .gitignore that it uses."""
    relative = file.relative_to(ROOT)
    places = [*reversed(relative.parents[:-1]), relative]
    return any(_matches(pattern, place) for pattern in ignored_patterns() for place in places)


def _matches(pattern: str, place: Path) -> bool:
    if pattern.endswith("/") and not (ROOT / place).is_dir():
        return False
    pattern = pattern.rstrip("/")
    anchored = "/" in pattern  # such a pattern is of the whole path, others of any part
    return fnmatch.fnmatch(place.as_posix() if anchored else place.name, pattern)


def needed_files(file: Path, seen: set[Path]) -> Iterator[Path]:
    """A file and every file of the package that it needs, however indirectly."""
    if file in seen:
        return
    seen.add(file)
    yield file
    for name in imports_of(file):
        place = ROOT / name.replace(".", "/")
        for candidate in (place.with_suffix(".py"), place / "__init__.py"):
            if candidate.is_file() and candidate.is_relative_to(PACKAGE):
                yield from needed_files(candidate, seen)


def test_the_deployment_has_all_that_the_entry_file_needs() -> None:
    """A module that .funcignore took away would be an app without functions."""
    needed = set(needed_files(ROOT / "function_app.py", set()))
    assert PACKAGE / "relay.py" in needed
    assert not {file for file in needed if is_ignored(file)}
    for name in ("host.json", "requirements.txt"):
        assert not is_ignored(ROOT / name)


def test_the_deployment_has_nothing_that_only_developers_need() -> None:
    """Tests, stand-ins, infrastructure, documents and local settings stay where they are."""
    kept_out = ["tests", "sandbox", "infra", "docs", "README.md", "local.settings.sample.json"]
    kept_out += ["modzy_relay/testing", "requirements-dev.txt", "pyproject.toml", "Makefile"]
    assert not [name for name in kept_out if not is_ignored(ROOT / name)]
