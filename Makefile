# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SOURCES := provider tests harness demo benchmarks examples dags compose docs lint

# Behind a proxy that re-signs TLS, the system knows its certificate; uv asks the system only when this is set.
export UV_SYSTEM_CERTS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs dist bench up down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv sync --locked --quiet --inexact
	@touch $(READY)

demo: $(READY) ## the main job on this machine: two services, an approval, a rollback (APPROVE=1: unattended)
	@$(BIN)/python -m demo

# Most tests wait for Airflow most of the time: more than two cores.
JOBS ?= 4
# CD_COVERAGE=1 reports which lines and branches the tests' own processes run; Airflow's are not measured.
COVERAGE := $(if $(CD_COVERAGE),--cov --cov-report=term --cov-report=xml)

test: $(READY) ## the tests; what is missing here, or left out (CD_TEST_ALL=1 runs it), is named at the end
	$(BIN)/pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(COVERAGE)

lint: $(READY) ## style, types, words, and the floors of the house
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell $(SOURCES) changelog.d *.md
	$(BIN)/python lint/words.py

# -E: references are generated from the package, so pages can differ although no page changed.
docs: $(READY) ## the documentation site in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs docs/_build/html

dist: $(READY) ## wheel and source distribution in dist/, checked as a package index would
	rm -rf dist
	$(BIN)/uv build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/pytest -q tests/architecture/test_distribution.py

bench: $(READY) ## benchmarks, as ratios within one run (JSON=file keeps the results)
	$(BIN)/python -m benchmarks $(if $(JSON),--json $(JSON))

COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

up: ## Airflow for a team in containers: docker-compose.yaml; writes .env with generated secrets once
	@$(PYTHON) compose/write_secrets.py .env
	$(COMPOSE) up --build --detach

down: ## stop it; its data stay (`docker compose down --volumes` removes them)
	$(COMPOSE) down

clean: ## remove the virtual environment and what the demonstration left
	rm -rf .venv .demo docs/_build
