# Two commands do everything on a machine that has Python 3.11 or later, make and git:
#   make run    a server for trying things out, at http://localhost:8008
#   make test   every check and every test

PYTHON ?= python3
PORT ?= 8008
JOBS ?= 2
BIN := .venv/bin
JS := tests/clients/js

.PHONY: run test check readme bench bench-quick bench-growth bench-profile bench-soak \
	bench-pages clean
.DELETE_ON_ERROR:

run: .venv/installed
	@$(BIN)/inglenook quickstart data --port $(PORT)

test: .venv/installed-test .venv-synapse/tried $(JS)/node_modules/tried postgresql chromium check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -rs

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The README's table of operations, from the tables that route them.
readme: .venv/installed-test
	$(BIN)/python -m tests.operations

# Our server and Synapse side by side, on both engines (docs/benchmarks.md).
bench: .venv/installed-test .venv-synapse/tried postgresql
	$(BIN)/python -m bench

# How costs grow with members, rooms, events, waiting clients and destinations.
bench-growth: .venv/installed-test .venv-synapse/tried
	$(BIN)/python -m bench growth

# Where the processor time of each hot path goes (docs/performance.md).
bench-profile: .venv/installed-test
	$(BIN)/python -m bench profile

# What was kept of these, into docs/ and the README.
bench-pages: .venv/installed-test
	$(BIN)/python -m bench pages

# Half an hour of everyday work: memory and latency have to stay as they are.
bench-soak: .venv/installed-test
	$(BIN)/python -m bench soak

# The same work, a little of each: a few minutes.
bench-quick: .venv/installed-test .venv-synapse/tried postgresql
	$(BIN)/python -m bench --quick

# Leaves data/ (the server's own) alone.
clean:
	rm -rf .venv .venv-synapse $(JS)/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ .venv/installed

# Tests of what could not be installed here are skipped, and pytest -rs says so with the reason.
.PHONY: postgresql chromium
postgresql:
	@.ci/postgresql

chromium:
	@.ci/chromium

.venv-synapse/tried:
	@.ci/synapse $(PYTHON)

$(JS)/node_modules/tried: $(JS)/package-lock.json
	@.ci/matrix-js-sdk
