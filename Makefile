# Each target does all of its own set-up: a .venv is made once, and again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
# Of what it installs, most is never imported: Python compiles the rest when it is.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable

.PHONY: quickstart test lint docs clean

quickstart: .venv/.installed
	$(BIN)/blocklab quickstart

# Two files at a time, with a thread each: half the time on two cores. In their order, as those of
# few tests, which xdist would leave to the end, are the long ones.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: .venv/.installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning docs docs/_build

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) .
	touch $@

.venv/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) '.[dev]'
	touch $@ .venv/.installed

.venv/.installed-docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) '.[docs]'
	touch $@ .venv/.installed

clean:
	rm -rf .venv docs/_build
