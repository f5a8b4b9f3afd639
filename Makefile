# Two commands do everything on a machine with Python and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test test-long test-faults audit tables clean

help:
	@echo "make demo         install into .venv and tune MarkerMap on real cells (minutes)"
	@echo "make test         install into .venv and run the linters and the tests (25 minutes)"
	@echo "make test-long    run the tests that take minutes each"
	@echo "make test-faults  kill, hang and fill up everything that a study needs, one after the other"
	@echo "make audit        look up known vulnerabilities of the pinned dependencies"
	@echo "make tables       update the tables of the README and of experiments/results"
	@echo "make clean        remove .venv and the demo's study"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing torch and mmlab into .venv (a few minutes)"
	$(PIP) torch
	$(PIP) --editable '.[test]'
	touch $@

demo: .venv/installed
	$(BIN)/mmlab tune --dataset citeseq --trials 8 --with-baselines

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not long" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: .venv/installed
	$(BIN)/pytest -m long

test-faults: .venv/installed
	$(BIN)/pytest tests/faults

audit:
	PYTHON=$(PYTHON) .ci/audit

tables: .venv/installed
	$(BIN)/python experiments/result_tables.py --write
	$(BIN)/python experiments/readme_tables.py --write

clean:
	rm -rf .venv .venv-audit mlflow.db mlflow.db-shm mlflow.db-wal mlartifacts
