# Everything runs in .venv, which the first target that needs it makes. Tested versions are in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --progress-bar off --constraint constraints.txt

.PHONY: demo test check bench lock sbom audit help

help:  ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: .venv/demo  ## a fleet of 12 gateways learns on this machine; about two minutes, no torch
	@$(BIN)/python -m examples.turbofan.demo

test: .venv/dev  ## the tests, against a real Mosquitto and in a real tmux, which are installed if missing
	@packaging/install-test-programs
	@$(BIN)/python -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder

check: .venv/dev  ## formatting, lint, types and floors
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/dev  ## the benchmarks; each prints a table and one JSON line
	@packaging/install-test-programs
	@for name in turbofan footprint; do $(BIN)/python -m benchmarks.$$name || exit 1; done

lock: .venv/supply  ## packaging/*.lock: what a gateway and the machine beside the broker install, with hashes
	@for which in node:enroll aggregator:aggregator,tui; do \
		CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url \
			--no-emit-trusted-host --no-emit-find-links --constraint constraints.txt --extra "$${which#*:}" \
			--output-file "packaging/$${which%:*}.lock" pyproject.toml || exit 1; done

sbom: .venv/supply  ## dist/*.cdx.json: what is in them, as CycloneDX
	@mkdir -p dist
	@for each in node aggregator; do $(BIN)/cyclonedx-py requirements "packaging/$$each.lock" --pyproject pyproject.toml \
		--output-reproducible --of JSON -o "dist/fieldfold-$$each.cdx.json" || exit 1; done

audit: .venv/supply  ## bandit on our code; known weaknesses of what the locks install, which asks pypi.org
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml fieldfold node_app aggregator broker_config
	@for each in node aggregator; do $(BIN)/pip-audit --strict --disable-pip --require-hashes -r "packaging/$$each.lock" || exit 1; done

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

.venv/supply: pyproject.toml constraints.txt
	@echo "installing the tools of the supply chain into .venv (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) '.[supply]'
	@touch $@
