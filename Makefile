# Each target says what it does: `make help`.
PYTHON ?= python3
VENV := .venv
# Test processes: each may start a Ray, an MLflow and a service of its own.
WORKERS ?= 2
# A file's tests share a process, and with it what they start; the order is that of tests/conftest.py.
SHARE := --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# DVC unpickles what lies there; its default, /var/tmp/dvc, is open to every user (CVE-2025-69872).
DVC_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rootstock-dvc
# Nothing phones home, whichever tool a target starts.
export DVC_NO_ANALYTICS := 1
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export ORT_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := true

.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo docs test test-fast test-browser lint format serve bench mutation clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.run-ready ## create .venv with the pinned requirements
setup-test: $(VENV)/.test-ready

$(VENV)/.run-ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Rootstock needs Python 3.11 or newer; name one with make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing about 7 GB of packages into $(VENV); this takes some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve]'
	mkdir -p -m 700 "$(DVC_CACHE)" && $(BIN)/dvc config --quiet --local core.site_cache_dir "$(DVC_CACHE)"
	touch $@

$(VENV)/.test-ready: $(VENV)/.run-ready tests/interop/alone.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,test,interop]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/interop \
	  -r tests/interop/alone.txt
	touch $@

demo: setup ## digits as PNG files -> dvc repro -> a champion, with what to do next
	$(BIN)/python -m pipelines.demo

test: setup-test lint ## lint, then every test that needs no GPU and no minutes
	$(BIN)/python -m pytest -m "not slow and not gpu" -n $(WORKERS) $(SHARE)

test-fast: setup-test ## the unit tests only: no server, no Ray, no MLflow, no DVC
	$(BIN)/python -m pytest -m "not integration and not slow and not gpu" -n $(WORKERS) $(SHARE)

test-browser: setup-test ## drive the pages of the studio in Chromium, which has to be installed
	BROWSER_REQUIRED=1 $(BIN)/python -m pytest tests/studio/test_browser.py

docs: setup-test ## build the documentation as a site with search, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html, or: $(BIN)/python -m http.server --directory site 8080"

lint: setup-test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-test ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: setup ## serve the champion on http://127.0.0.1:8000
	$(BIN)/rootstock serve

bench: setup-test ## the long checks and the benchmarks (see docs/benchmarks.md)
	$(BIN)/python -m pytest -m "slow or gpu"
	$(BIN)/python benchmarks/default_backbone.py
	$(BIN)/python benchmarks/head.py
	$(BIN)/python benchmarks/estimators.py

mutation: setup-test ## how many small changes to the code a test notices; half an hour or more
	nice -n 10 $(BIN)/python benchmarks/mutation.py

clean: ## remove what can be made again (never data/, mlflow.db or mlruns/)
	rm -rf artifacts reports .rootstock .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
