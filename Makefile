# Two commands on a fresh machine: `make demo` and `make test`. Both set up first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The stamp holds what was installed: a changed pyproject.toml or constraints.txt installs again.
STAMP := $(VENV)/.installed

.PHONY: help setup browser demo test quick lint bench gpu gpu-dry wheel clean

help:
	@echo "make demo    set up, train an MLP with and without dropout on embedded data, answer whether it helped"
	@echo "make test    set up, then lint, types and all tests"
	@echo "make quick   the tests that start no processes, compile and train nothing: a minute and a half on two cores"
	@echo "make bench   set up, then every figure that the README claims"
	@echo "make gpu     everything that needs a GPU, in less than 8 minutes; make gpu-dry goes through it without one"
	@echo "make lint    ruff and mypy"
	@echo "make browser install Chromium, if there is no browser, for the tests of pages (as root, with apt)"
	@echo "make wheel   build sdist and wheel, try the wheel with NumPy alone"
	@echo "make fuzz, test-sanitize, test-neon, callgrind    the kernels beyond the tests: see kernels.mk"
	@echo "make clean   remove what the build and the runs left"

setup: $(STAMP)

KERNELS := $(wildcard src/dropkit/kernels/cpu/*.*)

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(KERNELS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dropkit needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy jax
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' \
	    -C cmake.define.DROPKIT_XLA_INCLUDE="$$($(BIN)/python -c 'import jax; print(jax.ffi.include_dir())')"
	@touch $@

# The page of `dropkit explain` is tested in a real browser. Without one those tests skip, and where CI is set they fail.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	    || { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q --no-install-recommends chromium; } \
	    || echo "No browser: the tests of pages will skip. Install one with: sudo apt-get install chromium"

# What a newcomer reads last is the answer, in a sentence, and what to type for a model of their own.
demo: setup
	$(BIN)/dropkit compare mlp --strategies none,fixed --out runs/demo --resume
	@echo
	@$(BIN)/python -c 'import json, shutil, textwrap; print(textwrap.fill("In short: " \
	    + json.load(open("runs/demo/result.json"))["verdict"][0], shutil.get_terminal_size().columns, \
	    break_long_words=False, break_on_hyphens=False))'
	@echo "Next, your own model on your own data:"
	@echo "$(BIN)/dropkit compare my_model:make --data my_data.csv --target label"

# A worker for each core, four at most, since each takes some 2 GB. One thread in each: the tensors are small, and on a
# busy machine threads mostly wait for each other. Tests that are about threads ask for theirs.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test: setup lint browser
	$(PYTEST)

# What shows most mistakes soonest: no processes, no compilers, no training.
quick: setup
	$(PYTEST) --quick

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/dropout.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/jax_dropout.py
	$(BIN)/python benchmarks/jax_compile.py
	$(BIN)/python benchmarks/compile.py
	$(BIN)/python benchmarks/huggingface.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/known_answers.py
	$(BIN)/python benchmarks/depth.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/overhead.py mlp cnn nnx
	for backend in torch jax tensorflow; do \
	    OMP_NUM_THREADS=1 KERAS_BACKEND=$$backend $(BIN)/python benchmarks/overhead.py keras --rounds 20 || exit 1; done
	$(BIN)/python benchmarks/blocks.py

# No setup: a machine with a GPU may have no network. Any Python with torch and Triton will do.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu_run.py

gpu-dry: setup
	DROPKIT_GPU_DRY=1 $(BIN)/python benchmarks/gpu_run.py --budget 900

# What a user gets: sdist and wheel, the wheel tried in an environment of its own with NumPy alone.
# `build` alone is needed to build it, in an environment of its own, and no framework.
wheel:
	rm -rf build/dist build/wheel-venv
	test -x build/builder/bin/python || $(PYTHON) -m venv build/builder
	build/builder/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build
	build/builder/bin/python -m build --outdir build/dist .
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet --disable-pip-version-check build/dist/*.whl
	cd build && wheel-venv/bin/python ../tests/wheel.py

include kernels.mk

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache
