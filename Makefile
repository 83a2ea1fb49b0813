# Everything runs in one .venv at the repository root, made from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# Two test processes share two cores: one thread each is several times faster than two.
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: help install demo test test-slow parity lint format bench fuzz clean

help:
	@echo "make install    .venv with pointlift in it"
	@echo "make demo       train on procedural shapes, score, write runs/demo/report.html (replaces an earlier runs/demo)"
	@echo "make test       all tests but the slow ones"
	@echo "make test-slow  the slow ones (kill and resume 20 times, several processes)"
	@echo "make parity     only the comparison with the released systems' tensors"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make fuzz       100,000 damaged files against every reader"
	@echo "make bench      operations against the usual formulation and the best installed peer"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

install: .venv/installed

demo: .venv/installed
	rm -rf runs/demo
	$(BIN)/pointlift demo --out runs/demo

test: .venv/installed
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: .venv/installed
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow

parity: .venv/installed
	$(BIN)/python -m pytest tests/parity

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed
	$(BIN)/python -m benchmarks.ops

fuzz: .venv/installed
	$(ONE_THREAD) $(BIN)/python -m fuzz --cases 100000

clean:
	rm -rf .venv build dist src/*.egg-info runs/demo
