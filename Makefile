# Each command does all of its own set-up: a .venv from constraints.txt, made again when that or pyproject.toml changes.
#   make run    the main job on the bundled example      make test      the test suite
#   make lint   style and types                          make test-all  slow tests too
#   make bench  speed against stock LoRA and Opacus              make deploy    server, schedules and a worker, until Ctrl-C
#   make test-deploy  a deployment as a user has it: cron, kills, faults, a soak (half an hour; HUSHTUNE_SOAK_RUNS=50)

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test test-all lint bench deploy test-deploy deploy-soak deploy-rest setup
.DEFAULT_GOAL := run

run: setup
	@$(BIN)/hushtune run

test: setup
	@$(BIN)/python -m pytest

test-all: setup
	@$(BIN)/python -m pytest -m "slow or not slow" --ignore=tests/deployment

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

bench: setup
	@$(BIN)/hushtune bench train --shape nano --shape gpt2 --shape smollm2-135m --json

deploy: setup
	@$(BIN)/hushtune deploy --up

# The soak keeps the cores busy, and the others mostly wait for the clock: side by side they take little longer than one.
test-deploy: setup
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line deploy-soak deploy-rest

deploy-soak: setup
	@$(BIN)/python -m pytest -m slow -v tests/deployment/test_soak.py

deploy-rest: setup
	@$(BIN)/python -m pytest -m slow -v tests/deployment --ignore=tests/deployment/test_soak.py

setup: .venv/ready

.venv/ready: constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "hushtune needs Python 3.11, 3.12 or 3.13: install one, or name it: make PYTHON=…" >&2; exit 2; }
	@echo "Installing hushtune and its pinned dependencies into .venv (once; a few minutes) …" >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq -c constraints.txt setuptools
	@$(BIN)/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@
