# Every command of developers and CI.  `make help` lists them from their ## comments.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
PYTHON ?= $(shell command -v python3)
BIN := .venv/bin
UV := .tools/uv-$(UV_VERSION)/bin/uv
# A machine behind a proxy trusts it through the system's certificates, which uv does not look at by itself.
UV_TRUST := $(if $(wildcard /etc/ssl/certs/ca-certificates.crt),--system-certs)
RUN_ARGS ?=
PYTEST_ARGS ?=
SOURCES := core services operator cli images monitoring scripts tests $(wildcard bench)

.PHONY: help setup run test test-cluster check images test-unit test-contract test-simulation test-integration test-apiserver ledger limits bench bench-egress bench-operator simulate-day servers docs dashboards chart-docs test-chart format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.stamp ## the virtual environment from the lock file (nothing to do when it is up to date)

.venv/.stamp: uv.lock pyproject.toml $(wildcard */pyproject.toml services/*/pyproject.toml) $(UV)
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --no-python-downloads --python "$(PYTHON)" .venv
	@$(UV) sync --quiet --frozen --no-python-downloads $(UV_TRUST)
	@touch $@

$(UV):
	@bash scripts/bootstrap.sh "$(PYTHON)" "$(UV_VERSION)" ".tools/uv-$(UV_VERSION)"

run: setup ## start everything on this machine; RUN_ARGS="--deliver" sends to the real world
	@exec $(BIN)/mailfleet run $(RUN_ARGS)

test: setup servers ## all tests; the servers they need are installed where that is allowed
	@$(BIN)/python -m pytest -m "not cluster" $(PYTEST_ARGS) tests

test-cluster: setup servers ## a real Kubernetes on this machine, with a mail world around it (root; builds it once; long)
	@$(BIN)/python -m pytest -m cluster $(PYTEST_ARGS) tests/cluster

test-unit: setup ## decisions, parsers, wire format
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/unit

test-contract: setup ## each port's promises on all of its adapters
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/contract

test-simulation: setup ## the whole system in one process, with a fake clock and crashes
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/simulation

test-integration: setup servers ## real processes, real servers
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/integration

test-apiserver: setup ## the operator on a real API server (scripts/tools.sh kube-apiserver builds it; etcd from the distribution)
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/apiserver

servers: setup ## install the servers that tests need (root and apt), or say what is left out
	@bash scripts/servers.sh

ledger: setup servers ## nothing lost: steady mail while processes are killed (long)
	@PYTHONPATH=tests $(BIN)/python -m exam.ledger $(LEDGER_ARGS)

limits: setup servers ## no limit exceeded: receivers that count and block, routers that are killed (7 minutes)
	@PYTHONPATH=tests $(BIN)/python -m exam.limits $(LIMITS_ARGS)

simulate-day: setup ## a day of 5 million mails in virtual time (half an hour); DAY_ARGS="--automation off" to compare
	@PYTHONPATH=tests $(BIN)/python -m simulation.day --into docs/simulated-day $(DAY_ARGS)

images: setup ## images of this checkout as OCI archives in build/images, without a registry (root and mmdebstrap)
	@PYTHONPATH=images $(BIN)/python -m mailfleet_images --uv $(UV) $(IMAGES_ARGS)

bench: setup servers ## speed, in ratios to Postfix, Exim and Haraka on this machine
	@$(BIN)/python bench/bench_delivery.py $(BENCH_ARGS)

bench-router: setup ## the router alone: cost of a mail, long queues, a new owner, lateness (long)
	@$(BIN)/python bench/bench_router.py
	@$(BIN)/python bench/bench_queue.py $(BENCH_ARGS)

bench-egress: setup ## the egress proxy: connections and bytes through it beside the same without it, CPU a connection
	@$(BIN)/python bench/bench_egress.py $(BENCH_ARGS)

bench-operator: setup ## the operator with 1,000 addresses and 200 pools on a real API server: memory, time, API calls (15 minutes)
	@scripts/tools.sh kube-apiserver >/dev/null
	@PYTHONPATH=tests $(BIN)/python bench/bench_operator.py $(BENCH_ARGS)

check: setup ## format, lint, types, who imports whom, stale documents
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m mailfleet_cli.documents --check docs
	@PYTHONPATH=monitoring $(BIN)/python -m mailfleet_monitoring --check
	@$(BIN)/python scripts/chart_documents.py --check

docs: setup ## write what is generated in docs/ anew: references, tables, pictures, what commands print
	@$(BIN)/python -m mailfleet_cli.documents docs

dashboards: setup ## write Grafana's dashboards into the chart
	@PYTHONPATH=monitoring $(BIN)/python -m mailfleet_monitoring

chart-docs: setup ## write the chart's README, schema and topics anew, from values.yaml and the code
	@$(BIN)/python scripts/chart_documents.py

test-chart: setup ## the chart: lint, template tests, what holds for every pod, a real API server (builds its tools once)
	@scripts/tools.sh helm helm-unittest kubeconform kube-score kube-apiserver >/dev/null
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -m cluster tests/chart

pictures: setup ## draw the dashboards from a running Mailfleet into docs/pictures (needs prometheus and chromium)
	@PYTHONPATH=tests:monitoring $(BIN)/python -m support.pictures $(PICTURES_ARGS)

format: setup ## let ruff write the code its way
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

clean: ## remove what make made (not var/, which holds mail)
	@rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
