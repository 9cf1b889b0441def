# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
TESTS ?= tests
# As many test processes as the machine has processors, and no more than its memory carries.
TEST_PROCESSES ?= auto

.PHONY: help setup demo run upload test lint faults bench check-infra clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.ready sandbox/node_modules/.ready ## install everything, once

# The Functions worker library asks for a newer Python than 3.11, which it also runs on; only the
# sandbox's local dispatcher uses it.
$(VENV)/.ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) $(PIP_INSTALL) -r requirements-dev.txt
	$(PY) $(PIP_INSTALL) --no-deps --ignore-requires-python azure-functions-runtime==1.3.0
	@touch $@

# Modzy's own SDK, which the tests compare with; its pins clash with ours.
.venv-sdk/.ready:
	$(PYTHON) -m venv .venv-sdk
	.venv-sdk/bin/python $(PIP_INSTALL) modzy-sdk==0.11.6
	@touch $@

sandbox/node_modules/.ready: sandbox/package-lock.json
	npm ci --prefix sandbox --no-audit --no-fund --loglevel=error
	@touch $@

demo: setup ## the main job, end to end, on the sample files; ends by itself
	$(PY) -m sandbox.demo

run: setup ## keep the relay and its stand-ins running for your own files
	$(PY) -m sandbox.demo --stay

upload: setup ## upload FILE to a relay that `make run` started
	$(PY) -m sandbox.demo --upload "$(FILE)"

lint: setup ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --strict sandbox

test: lint .venv-sdk/.ready ## lint, then all tests with coverage
	rm -f .coverage .coverage.*
	$(PY) -m coverage run -m pytest -n $(TEST_PROCESSES) --dist loadfile -q $(TESTS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

faults: setup ## the whole fault campaign, long; rewrites docs/fault-matrix.md
	$(PY) -m tests.faults
	$(PY) -m pytest -q -m faults tests/model

bench: setup ## ratios: import time, cost of an upload, cost of lookups, load of following
	$(PY) -m benchmarks.imports
	$(PY) -m benchmarks.upload
	$(PY) -m benchmarks.lookups
	$(PY) -m benchmarks.follow_load

# checkov brings 290 MB of packages, so it has an environment of its own.
.run/checkov/.ready:
	$(PYTHON) -m venv .run/checkov
	.run/checkov/bin/python $(PIP_INSTALL) checkov==3.3.30
	@touch $@

.run/kusto/.ready:
	npm install --prefix .run/kusto --no-audit --no-fund --loglevel=error @kusto/language-service-next@12.4.1
	@touch $@

check-infra: setup .run/checkov/.ready .run/kusto/.ready ## check infra/ with checkov's policies and Kusto's parser
	$(PY) tests/infra/tools/check_infra.py --checkov .run/checkov/bin/checkov --node-modules .run/kusto/node_modules

clean: ## remove what was installed and made
	rm -rf $(VENV) .venv-sdk sandbox/node_modules .run .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
