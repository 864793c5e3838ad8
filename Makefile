# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
# Test processes: each may start its Ray, MLflow, and service.
WORKERS ?= 2
# A file's tests share a process and the servers in it; tests/conftest.py sets the order.
SHARE := --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# DVC unpickles files from its cache; the default, /var/tmp/dvc, is open to every user (CVE-2025-69872).
DVC_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rootstock-dvc
# Turns off telemetry in every tool.
export DVC_NO_ANALYTICS := 1
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export ORT_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := true
# Python must keep what it compiles: the packages are installed uncompiled, and many containers set
# this variable, with which every process would compile all modules that it imports again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo docs test test-fast test-browser lint format serve bench mutation clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.run-ready ## create .venv with the pinned requirements
setup-test: $(VENV)/.test-ready

$(VENV)/.run-ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Rootstock needs Python 3.11 or newer; choose one with make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing about 7 GB of packages into $(VENV); this takes several minutes"
	# Python compiles a module when it is first imported: compiling all of them takes a minute.
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[train,serve]'
	mkdir -p -m 700 "$(DVC_CACHE)" && $(BIN)/dvc config --quiet --local core.site_cache_dir "$(DVC_CACHE)"
	touch $@

$(VENV)/.test-ready: $(VENV)/.run-ready tests/interop/alone.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,test,interop]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/interop \
	  -r tests/interop/alone.txt
	touch $@

demo: setup ## run the pipeline on handwritten digits, and print what to try next
	$(BIN)/python -m pipelines.demo

test: setup-test lint ## lint, then all tests except slow and GPU tests
	$(BIN)/python -m pytest -m "not slow and not gpu" -n $(WORKERS) $(SHARE)

test-fast: setup-test ## unit tests only: no server, Ray, MLflow, or DVC
	$(BIN)/python -m pytest -m "not integration and not slow and not gpu" -n $(WORKERS) $(SHARE)

test-browser: setup-test ## test the studio's pages in Chromium, which must be installed
	BROWSER_REQUIRED=1 $(BIN)/python -m pytest tests/studio/test_browser*.py tests/studio/test_editors.py

docs: setup-test ## build the documentation as a site with search, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html, or: $(BIN)/python -m http.server --directory site 8080"

lint: setup-test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-test ## format and fix the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: setup ## serve the champion on http://127.0.0.1:8000
	$(BIN)/rootstock serve

bench: setup-test ## run the slow checks and the benchmarks (see docs/benchmarks.md)
	$(BIN)/python -m pytest -m "slow or gpu"
	$(BIN)/python benchmarks/default_backbone.py
	$(BIN)/python benchmarks/head.py
	$(BIN)/python benchmarks/estimators.py

mutation: setup-test ## run mutation tests; takes at least half an hour
	nice -n 10 $(BIN)/python benchmarks/mutation.py

clean: ## remove generated files (never data/, mlflow.db, or mlruns/)
	rm -rf artifacts reports .rootstock .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
