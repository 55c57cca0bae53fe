# Two commands on a fresh machine: `make demo` and `make test`. Both set up first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The stamp holds what was installed: a changed pyproject.toml or constraints.txt installs again.
STAMP := $(VENV)/.installed

.PHONY: help setup demo test lint bench clean

help:
	@echo "make demo    set up, train an MLP with and without dropout on embedded data, say where the report is"
	@echo "make test    set up, then lint, types and all tests"
	@echo "make bench   set up, then every figure that the README claims"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove what the build and the runs left"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dropkit needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/dropkit compare mlp --out runs/demo --resume

test: setup lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/dropout.py

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache
