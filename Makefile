# Two variables may be given, by the environment or on the command line:
#   PYTHON  the Python (3.11 or newer) that makes the environment
#   VENV    the folder of the environment, so that every Python can have its own:
#           make test PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3
VENV ?= .venv

# More words for pytest: make test PYTEST_ARGS="-k ledger"
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help migrate test test-slow lint format clean

BIN := $(VENV)/bin

# The tests wait for disks, locks, servers and processes of their own, too: two more workers than cores.
WORKERS := $(shell echo $$((2 + $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1))))
# Compiled files are kept, also where the environment says otherwise, as in many containers: each worker would rewrite all
# tests, and each process that a test starts would compile the package.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8

# `compat` installs a plain .pth file. The finder that setuptools installs otherwise doubles Python's start-up time.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

migrate: $(VENV)/.installed ## bring the database to the newest version and show where it stands
	$(BIN)/flask --app financial_agent db migrate
	$(BIN)/flask --app financial_agent db status

test: $(VENV)/.installed-test ## run the tests, except the slow ones
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-test ## run the slow tests
	@# pytest's exit code 5 says that no test was selected: there need not be a slow one.
	$(PYTEST) -m slow $(PYTEST_ARGS) || [ $$? -eq 5 ]

lint: $(VENV)/.installed-dev ## check format, style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict financial_agent

format: $(VENV)/.installed-dev ## format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove environments, caches and build results (never a database)
	@# An environment outside this folder (VENV=...) stays: it may serve something else too.
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find financial_agent tests instance -name __pycache__ -prune -exec rm -rf {} +

# The environment. Each stamp says what is installed, and is older than setup.cfg when that must happen again.

$(VENV)/.installed: $(VENV)/.made setup.cfg pyproject.toml
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made setup.cfg pyproject.toml
	$(INSTALL) '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: $(VENV)/.made setup.cfg pyproject.toml
	$(INSTALL) '.[dev]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $@

$(VENV)/.made:
	@$(PYTHON) -c '' || { echo '$(PYTHON) does not run. Install Python 3.11 or newer, or name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "financial_agent needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo '$(PYTHON) cannot make an environment: its venv module is missing. On Debian and Ubuntu: apt-get install python3-venv (for a named version: python3.12-venv)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
