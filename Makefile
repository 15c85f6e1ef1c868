# `make demo` and `make test` set up .venv and do everything; `make help` lists the rest.
SHELL := /bin/sh

# The first of these that is Python 3.11, 3.12 or 3.13; `make PYTHON=/path/to/python3.12 ...` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test gpu gpu-report bench figures lint format clean
help:
	@echo "make demo     data set, pretraining, fine-tuning, votes, submission.json: about 5 minutes on 2 cores"
	@echo "make test     every test, at most 8 minutes on 2 cores"
	@echo "make gpu      the tests that need a CUDA device"
	@echo "make gpu-report  all that a GPU can show, in one file: at most 25 minutes"
	@echo "make bench    what is fast, measured on this machine: at most 10 minutes on 2 cores"
	@echo "make figures  the drawings of docs/figures; RUN=runs/demo and CURVES=FOLDER draw those of runs too"
	@echo "make lint     ruff and mypy"
	@echo "make format   let ruff rewrite"
	@echo "make clean    remove .venv and caches, keep data and runs"

# Touched only when everything is installed, so that a set-up that was cut off goes on.  A .venv that is there is kept,
# for example one with PyTorch's CPU build.
$(READY): pyproject.toml
	@$(if $(PYTHON),$(PYTHON),false) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
		{ echo "error: $(or $(PYTHON),python3) is not Python 3.11, 3.12 or 3.13: install one of these, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) cannot make virtual environments: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	@echo "setting up .venv with $$($(PYTHON) --version): minutes the first time, PyTorch is large"
	$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

demo: $(READY)
	$(BIN)/python demo.py

# Most tests wait for scripts that they start, so that two at a time keep two cores busy.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

gpu-report: $(READY)
	$(BIN)/python -m benchmarks.gpu_report

bench: $(READY)
	$(BIN)/python -m benchmarks.run

figures: $(READY)
	$(BIN)/python -m docs.figures $(if $(RUN),--run $(RUN)) $(if $(CURVES),--curves $(CURVES))

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(READY)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
