# `make demo` and `make test` are all a newcomer needs: both set everything up by themselves.

SHELL := /bin/sh
.DEFAULT_GOAL := help

venv := .venv
python := $(venv)/bin/python
stamp := $(venv)/.set-up

# The first interpreter that is new enough. make setup PYTHON=… overrides.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
endif

# Suites and benchmarks start hundreds of interpreters: each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

# Three workers, on two cores: for half of its time a slow test waits. Each takes a file at a time, so that the server of
# its tests is started once, in the order of tests/conftest.py.
side_by_side := -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# What `make test` says first: how long setting up took is part of the wait.
begun := $(shell date +%s)

.PHONY: other help setup demo test test-fast check bench sim sim-mutants clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(stamp)  ## .venv with everything in it; does nothing when nothing changed
	@echo "ready: . $(venv)/bin/activate"

# Of another interpreter than the one that was named: made anew.
which := import sys; print(*sys.version_info, sys.base_prefix)
other := $(if $(findstring command line,$(origin PYTHON)),$(shell \
	test "$$("$(PYTHON)" -c '$(which)' 2>&1)" = "$$($(python) -c '$(which)' 2>&1)" || echo other))

# Installed editable, so only a changed pyproject.toml needs a new install.
$(stamp): pyproject.toml $(other)
	@test -z "$(other)" && $(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "Swell needs Python 3.11 or newer; here is $$("$(or $(PYTHON),python3)" --version 2>/dev/null \
			| grep '^Python' || echo "none at $(or $(PYTHON),python3)")." >&2; \
		echo "On Debian 12 or Ubuntu 24.04: apt-get install python3 python3-venv" >&2; \
		echo "On Ubuntu 22.04:              apt-get install python3.11 python3.11-venv" >&2; \
		echo "Or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its venv module is packed separately." >&2; \
		echo "Try: apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }; \
	echo "making $(venv) with $$($(PYTHON) --version)"; \
	$(PYTHON) -m venv --clear $(venv); }
	@$(venv)/bin/uv --version >/dev/null 2>&1 || $(python) -m pip install --quiet --disable-pip-version-check uv
	@$(venv)/bin/uv pip install --quiet --python $(python) -e '.[dev,bench]'
	@touch $@

demo: $(stamp)  ## a model wakes from zero: deploy, prove zero, call, park, call, zero, stop
	@$(python) examples/demo.py

test: $(stamp)  ## the whole suite, quick tests first; a skipped test is a failed one
	@echo "setup took $$(( $$(date +%s) - $(begun) )) s"
	@$(python) -m pytest --minutes --durations 20 --durations-min 5 --no-skips $(side_by_side)

test-fast: $(stamp)  ## what runs in under a minute
	@$(python) -m pytest -q --minutes --no-skips -m "not slow" $(side_by_side)

check: $(stamp)  ## lint, format, types, import contracts, tidiness
	@$(venv)/bin/ruff check
	@$(venv)/bin/ruff format --check
	@$(venv)/bin/mypy
	@$(venv)/bin/lint-imports
	@$(python) tests/tidy.py

# make bench PARTS=echo,wake QUICK=1
bench: $(stamp)  ## measure: one table, and bench/out/bench.json
	@$(python) -m bench $(if $(PARTS),--parts $(PARTS)) $(if $(QUICK),--quick)

# make sim SEEDS=100-199: the tests run again what broke a promise
sim: $(stamp)  ## seeded clusters and queues: killed processes, cut power, lost and repeated messages
	@$(python) -m swell sim $(if $(SEEDS),--seeds $(SEEDS)) --keep $(or $(KEEP),tests/sim/kept)

sim-mutants: $(stamp)  ## defects that are planted one by one: does the simulator notice each?
	@$(python) tests/sim/mutants.py $(MUTANTS)

clean:  ## remove what was built or measured here (.venv too)
	@rm -rf $(venv) build dist bench/out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
