# Two commands do the work: `make demo` and `make test`. Each creates .venv and installs what is missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint format bench docs parity clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,cluster]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist site demo .mypy_cache .ruff_cache .pytest_cache
