# `make train` and `make test` set everything up in .venv first; nothing else is needed but Python ≥ 3.11.
#   make train ENV=Acrobot-v1 ALGO=ac ARGS="--seed 1"     make install PYTHON=python3.12 TORCH_INDEX=
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help train test test-slow random faults coverage notebooks lint docs docs-build bench install clean

PYTHON ?= python3
VENV ?= .venv
ENV ?= CartPole-v1
ALGO ?= a3c
ARGS ?=
STAMP := $(VENV)/.installed
DOCS ?= .venv-docs
DOCS_STAMP := $(DOCS)/.installed

# On Linux the torch of the default index brings gigabytes of CUDA packages, so PyTorch's own CPU index is asked
# first. TORCH_INDEX= (empty, as in CI) takes torch from wherever pip looks anyway, with CUDA where there is any.
ifeq ($(shell uname -s)$(CI),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */make \1\t/' | expand -t 18

train: $(STAMP)  ## Train A3C (or ALGO=...) on CartPole-v1 (or ENV=...), evaluate the best agent, write the report
	$(VENV)/bin/limelight train $(ENV) --algo $(ALGO) $(ARGS)

test: $(STAMP)  ## Run the tests in parallel, without the slow ones (ARGS="tests/algo -k gae": some of them)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

test-slow: $(STAMP)  ## Run the slow tests, one after the other: they start clusters and count processes
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

random: $(STAMP)  ## Run a thousand random environments and a thousand random settings
	$(VENV)/bin/python -m pytest -m random $(ARGS)

faults: $(STAMP)  ## Break runs at many random moments, for minutes: kills, signals, hangs, full disks
	$(VENV)/bin/python -m pytest -m faults $(ARGS)

coverage: $(STAMP)  ## Run all tests in one process; fails under 90 % coverage
	$(VENV)/bin/python -m pytest -m "" --cov --cov-report=term-missing:skip-covered --cov-fail-under=90 $(ARGS)

notebooks: $(STAMP)  ## Execute the lessons of notebooks/, in both languages; their files stay as they are
	$(VENV)/bin/python -m pytest --nbmake --nbmake-timeout=600 -W default $(or $(ARGS),notebooks)

lint: $(STAMP)  ## Check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python docs/check_translations.py

docs: $(DOCS_STAMP)  ## Serve the documentation as a site on http://127.0.0.1:8000
	$(DOCS)/bin/mkdocs serve

docs-build: $(DOCS_STAMP)  ## Build that site into build/site; warnings are errors
	$(DOCS)/bin/mkdocs build --strict

bench: $(STAMP)  ## Measure throughput and startup times on this machine
	$(VENV)/bin/python benchmarks/throughput.py --peer auto --seconds 1 --repeats 3 --output runs/bench/throughput.json
	$(VENV)/bin/python benchmarks/startup.py --repeats 5 --seeds 3 --output runs/bench/startup.json

install: $(STAMP)  ## Set up .venv; again only when pyproject.toml or constraints.txt have changed

clean:  ## Remove .venv, .venv-docs, build/ and caches (never runs/)
	rm -rf $(VENV) $(DOCS) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo >&2 \
	  "limelight needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true); try: make PYTHON=python3.12 install"; exit 2; }
	@echo "setting up $(VENV); the first time takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@if [ -n "$(TORCH_INDEX)" ]; then \
	  echo "pip install torch (CPU)"; \
	  $(VENV)/bin/pip install -q --retries 1 -c constraints.txt --index-url "$(TORCH_INDEX)" torch 2>/dev/null \
	    || echo "no CPU-only torch from $(TORCH_INDEX); taking the default one"; \
	fi
	@echo "pip install limelight"
	@$(VENV)/bin/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

$(DOCS_STAMP): pyproject.toml
	@echo "setting up $(DOCS)"
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/pip install -q $$($(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])")
	@touch $@
