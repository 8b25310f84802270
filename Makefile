# Everything starts here. On a machine with Python 3.11+ and make, `make demo` and `make test` do all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint types docs bench eval-feedback lock all clean

help: ## show the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv from requirements.lock (hashed) and install Tilth into it, editable

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Tilth needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## run the main job on the sample logs and look at the result
	$(BIN)/tilth demo

test: $(STAMP) ## every test that needs no GPU
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

test-fast: $(STAMP) ## the tests that take no time
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow and not prefect"

lint: $(STAMP) ## ruff and the layer rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## basedpyright
	$(BIN)/basedpyright

docs: $(STAMP) ## run what the README and the docs show
	$(BIN)/python -m pytest -q tests/docs

bench: $(STAMP) ## what speed and memory claims rest on
	$(BIN)/python benchmarks/observed.py

eval-feedback: $(STAMP) ## how well the feedback rules do on the labelled sample
	$(BIN)/python -m tilth.transforms.feedback.evaluate samples/feedback_labelled.jsonl

lock: ## resolve requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --group dev --extra dask --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-strip-extras --custom-compile-command "make lock" -o requirements.lock

all: lint types test ## lint, types, test

clean: ## remove what make and the tests made
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache .demo .bench tilth-workspace dist build
