# make demo     the whole way on two CPU ranks: data, four stages, conversion, live stream, report
# make test     the tests            make lint   style and import table      make types   static types
# make test-cluster   launching on a real Slurm and on hosts in network namespaces; needs root, and Debian's packages
#                     slurmctld slurmd slurm-client munge iproute2
# make install  .venv with the package and its tools; the others do it by themselves
#
# Variables: PYTHON (3.11 or newer), VENV (.venv), TORCH (a pip requirement), TORCH_INDEX (a further package index for torch),
# DEMO_ARGS, PYTEST_ARGS, WORKERS (test processes).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV ?= .venv
EXTRAS ?= dev,demo
WORKERS ?= 2

# Without a CUDA driver a fixed CPU build, elsewhere whatever the user's index gives or has installed already.
CUDA := $(shell { [ -e /proc/driver/nvidia/version ] || nvidia-smi -L; } >/dev/null 2>&1 && echo yes || true)
TORCH ?= $(if $(CUDA),torch>=2.11,torch==2.13.0)
TORCH_INDEX ?=

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install demo test test-cluster lint types check clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

install: $(STAMPS)/package $(STAMPS)/lmms

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is older than 3.11; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "make: $(PYTHON) cannot make environments; install its venv package (Debian: apt install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/torch: | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/package: pyproject.toml $(STAMPS)/torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

# lmms-eval in a folder of its own, which only its tests' process looks into: its requirements would replace av and wandb.
LMMS := tests/inference/evaluation/lmms/requirements.txt
$(STAMPS)/lmms: $(LMMS) | $(STAMPS)/package
	rm -rf $(VENV)/lmms
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-compile --target $(VENV)/lmms -r $(LMMS)
	rm -rf $(VENV)/lmms/pandas/tests $(VENV)/lmms/pyarrow/tests $(VENV)/lmms/pyarrow/include
	@touch $@

demo: $(STAMPS)/package
	$(BIN)/moss demo $(DEMO_ARGS)

# A test process that dies ends the run: pytest-xdist would hand the finished tests to the new process and wait for them for ever.
test: install
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup --max-worker-restart 0 $(PYTEST_ARGS)

test-cluster: install
	MOSS_CLUSTER_TESTS=1 $(BIN)/python -m pytest -q tests/cluster $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
