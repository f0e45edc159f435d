# Two commands do the work: `make demo` and `make test`. Each creates .venv and installs what is missing.
SHELL   := /bin/bash
PYTHON  ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
LOG     := $(VENV)/install.log
# One line that counts packages while pip works; everything pip says is in the log.
PROGRESS := awk '/^(Collecting|Building wheel|Installing collected)/ { n++; printf "\r  %3d  %-60.60s", n, $$0; fflush() } END { print "" }'
# `make bench` writes a dataset here and keeps it
BENCH   := build/bench
# `make hub` keeps its repositories here
HUB     := build/hub

.PHONY: help setup hub demo test test-slow faults lint format bench docs parity clean

help:
	@echo "make demo     a dataset and what the package does with it, on this machine"
	@echo "make test     the test suite, some minutes"
	@echo "make test-slow  the tests that take long: compilers, many kills, whole clusters"
	@echo "make faults   runs that are killed, ten times over at other moments (TIMES=3)"
	@echo "make lint     ruff and mypy, as CI runs them"
	@echo "make format   let ruff rewrite the code"
	@echo "make docs     the documentation, in site/"
	@echo "make bench    data throughput of this machine (ARGS='--seconds 20')"
	@echo "make hub      a Hub on this machine, to push to and resume from without a network (ARGS='--port 0')"
	@echo "make parity   tests against LeRobot itself: make parity PEER_PYTHON=<python with lerobot 0.6.1>"
	@echo "make setup    .venv with the pinned packages; the others call it"
	@echo "make clean    remove .venv and everything built"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The pinned packages need Python 3.11 or newer. Give one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); } || \
	  { rm -rf $(VENV); echo "No virtual environment could be made. On Debian: apt install python3-venv"; exit 1; }
	@echo "Installing the pinned packages into $(VENV); the first time takes some minutes."
	@set -o pipefail; \
	$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable ".[dev,cluster]" 2>&1 \
	  | tee $(LOG) | $(PROGRESS) || { tail -n 25 $(LOG); echo "Installation failed; the whole story is in $(LOG)."; exit 1; }
	@touch $(STAMP)

demo: setup
	@$(BIN)/python -m lerobot_ray.demo

test: setup
	@$(BIN)/pytest

test-slow: setup
	@$(BIN)/pytest -m slow

faults: setup
	@for seed in $$(seq $(or $(TIMES),10)); do \
	  FAULT_SEED=$$seed $(BIN)/pytest -m slow tests/on_ray/test_faults.py tests/on_ray/test_nodes_come_and_go.py || exit 1; done

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup
	@test -d $(BENCH) || $(BIN)/python benchmarks/bench_dataset.py --root $(BENCH)
	@$(BIN)/python benchmarks/data_throughput.py --root $(BENCH) $(ARGS)

hub: setup
	@$(BIN)/python tests/hub_server --root $(HUB) --port 8765 --token hf_loopback $(ARGS)

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "site/index.html"

parity: setup
	@test -n "$(PEER_PYTHON)" || { echo "Name an interpreter with lerobot 0.6.1: make parity PEER_PYTHON=…/bin/python"; exit 1; }
	@PEER_PYTHON="$(PEER_PYTHON)" $(BIN)/pytest -m lerobot

clean:
	rm -rf $(VENV) build dist site demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
