# Two commands matter: make demo, make test. Both make .venv first, from what is pinned.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

API_PORT ?=
ANNOUNCE_PORT ?=
PORTS := $(if $(API_PORT),--api-port $(API_PORT)) $(if $(ANNOUNCE_PORT),--announce-port $(ANNOUNCE_PORT))

STORE ?=
OPTIONS := $(PORTS) $(if $(STORE),--store $(STORE))

.PHONY: help install demo serve test check bench lock clean

help: ## Show what there is.
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

install: $(VENV)/.installed ## Make .venv, from what is pinned.

demo: $(VENV)/.installed ## Announce two sample versions on this machine (ONCE=1: then exit; STORE=firestore).
	@$(RUN) scripts/local.py --samples $(if $(ONCE),--once) $(OPTIONS)

serve: $(VENV)/.installed ## Run the whole system on this machine (STORE=firestore: on its emulator).
	@$(RUN) scripts/local.py $(OPTIONS)

test: $(VENV)/.installed ## Run every test that this machine can run.
	$(RUN) -m pytest --cov --cov-report=term

check: $(VENV)/.installed ## Lint, format, types, import rules.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PYTHONPATH=functions $(VENV)/bin/lint-imports
	@terraform/check.sh

bench: $(VENV)/.installed ## Measure (ONLY=section: some of it; LONG=1: all of it).
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@$(RUN) tests/benchmarks/bench.py $(ONLY) $(if $(LONG),--long)

lock: $(VENV)/.installed ## Pin in requirements.txt all that pyproject.toml's dependencies bring along (UPGRADE=1: anew).
	@$(RUN) -m pip install --quiet --disable-pip-version-check uv==0.13.9
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
		$(if $(UPGRADE),--upgrade) pyproject.toml --output-file requirements.txt

clean: ## Remove what was made here.
	rm -rf $(VENV) .local .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
