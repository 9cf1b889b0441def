# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help setup demo test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: .venv/.ready sandbox/node_modules/.ready ## install everything, once

# The Functions worker library asks for a newer Python than 3.11, which it also runs on; it is
# only used by the sandbox's local dispatcher.
.venv/.ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python azure-functions-runtime==1.3.0
	@touch $@

sandbox/node_modules/.ready: sandbox/package-lock.json
	npm ci --prefix sandbox --no-audit --no-fund --loglevel=error
	@touch $@
