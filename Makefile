# Everything runs in .venv, which the first target that needs it makes. Tested versions are in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --progress-bar off --constraint constraints.txt

.PHONY: demo test check bench help

help:  ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: .venv/demo  ## a fleet of 12 gateways learns on this machine; about two minutes, no torch
	@$(BIN)/python -m examples.turbofan.demo

test: .venv/dev  ## the tests, against a real Mosquitto and in a real tmux, which are installed if missing
	@packaging/install-test-programs
	@$(BIN)/python -m pytest --numprocesses auto --dist loadscope

check: .venv/dev  ## formatting, lint, types and floors
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/dev  ## the benchmarks; each prints a table and one JSON line
	@packaging/install-test-programs
	@for name in turbofan footprint; do $(BIN)/python -m benchmarks.$$name || exit 1; done

.venv/demo: pyproject.toml constraints.txt
	@echo "installing into .venv (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --editable '.[aggregator,embedded]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt
	@echo "installing the development tools into .venv (once; PyTorch among them)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --editable '.[aggregator,embedded,tui,build,simulate,dev]'
	@touch $@ .venv/demo
