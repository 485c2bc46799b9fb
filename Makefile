# `make demo` and `make test` do all the set-up they need: Python 3.11 or newer and make suffice.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := demo train dense data wandb mlflow ray hf export video web dev
ARGS ?=

# Nothing here downloads weights, and a missing network should say so at once.
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format type wheel wheel-test constraints clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14

setup: $(READY)  ## Make .venv with the pinned versions (about a minute, 6 GB).

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dartok needs Python >= 3.11; name one with PYTHON=...")'
	@echo "Setting up $(VENV): a minute or more, 6 GB."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
		--build-constraints constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## Run the main job: pictures, and two short trainings. ARGS=--quick for a minute.
	$(BIN)/dartok demo $(ARGS)

test: $(READY)  ## Run the tests, without the slow ones.
	$(BIN)/pytest $(ARGS)

test-slow: $(READY)  ## Run the slow tests only.
	$(BIN)/pytest -m slow $(ARGS)

lint: $(READY)  ## Check style and format.
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY)  ## Fix what can be fixed, and format.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

type: $(READY)  ## Check types.
	$(BIN)/mypy

wheel: $(READY)  ## Build the wheel into dist/.
	@rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist > /dev/null

# The tests are copied away from src/, so only what the wheel carries can be imported.
wheel-test: wheel  ## Install the wheel into a clean environment and run the tests against it.
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	$(BIN)/uv pip install --quiet --python "$$folder/venv/bin/python" -c constraints.txt \
		"$$(ls $(CURDIR)/dist/*.whl)[data,demo,dense,train,video,test]"; \
	cp -R tests conftest.py pyproject.toml "$$folder"; \
	cd "$$folder"; \
	env -u PYTHONPATH venv/bin/dartok env; \
	env -u PYTHONPATH venv/bin/pytest $(ARGS) tests

constraints: $(READY)  ## Pin the newest versions again.
	$(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
		--upgrade --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		$(EXTRAS:%=--extra %) -o constraints.txt pyproject.toml

clean:  ## Remove what these targets made.
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
