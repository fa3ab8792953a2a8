# make demo   set everything up and do the main job: text → tokenizer → plan → training → samples
# make test   set everything up and pass the tests
# make fix    format and mend what can be mended
# make docs   write the pages that come from the code: keys, commands, what fits where
# make bench  measure against nanoGPT: make bench NANOGPT=path/to/a/clone

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NANOGPT ?=

.PHONY: demo test fix docs bench setup

demo: $(VENV)/installed
	$(BIN)/ganeum demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not campaign and not slow" -n 2 --dist loadfile

fix: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/installed
	$(BIN)/python -m ganeum.config.reference
	$(BIN)/python -m ganeum.cli.reference
	$(BIN)/python -m ganeum.plan.page.what_fits
	$(BIN)/python -m ganeum.doctor.causes
	$(BIN)/python -m ganeum.cli.examples docs/plan.md docs/backwards.md docs/emit.md docs/gpus.md docs/doctor.md

bench: $(VENV)/installed
	$(BIN)/python benchmarks/throughput.py $(if $(NANOGPT),--nanogpt $(NANOGPT))

setup: $(VENV)/installed-dev

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt $(VENV)/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
