# Each target does all of its own set-up: a .venv is made once and again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test lint

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest
