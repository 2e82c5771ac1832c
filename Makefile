# make demo   the Iris walkthrough in a scratch repository
# make test   the tests
# make lint   ruff and mypy
# make bench  the benchmarks
# make clean  remove what this file made
#
# The first of them makes .venv and installs gitpipe into it.  Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test lint bench clean

demo: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/demo.sh

# Many tests race with real processes, and a slow machine may lose such a race: what fails is run once more, and the
# summary names it as RERUN.  Whoever sees one there has a bug to look for, in gitpipe or in the test.
test: $(INSTALLED) $(VENV)/.podman
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -q --reruns 1 -raR $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python bench/run.py $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# bubblewrap is wanted, not needed: without it stages run unsandboxed, and `gitpipe status` says so.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "gitpipe needs Python 3.10 or newer, and '$(PYTHON)' is not: name another, as in 'make PYTHON=python3.12'" >&2; \
	  exit 1; }
	@[ -x $(BIN)/pip ] || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { \
	  echo "'$(PYTHON) -m venv' does not work here: install it first (Debian, Ubuntu: apt-get install python3-venv)" >&2; \
	  exit 1; }
	@command -v bwrap >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1 || { \
	  echo "installing bubblewrap, the sandbox for stages"; \
	  apt-get install -y -qq bubblewrap || { apt-get update -qq && apt-get install -y -qq bubblewrap; } \
	  || echo "no bubblewrap: stages run without a sandbox"; } >/dev/null 2>&1
	@echo "installing gitpipe and what it needs into $(VENV) (once, a few minutes)"
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

# For the tests of containers, which are skipped without it.
$(VENV)/.podman: $(INSTALLED)
	@command -v podman >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1 || { \
	  wanted="podman runc"; command -v busybox || wanted="$$wanted busybox-static"; \
	  apt-get install -y -qq --no-install-recommends $$wanted || { apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends $$wanted; } || true; } >/dev/null 2>&1
	@touch $@
