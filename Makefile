# Thin on purpose: the work is in Python (scripts/bootstrap.py, `llamabda`), so that it goes without make as well.
PYTHON ?= python3
BIN := .venv/bin
BOOTSTRAP := $(PYTHON) scripts/bootstrap.py
FILES := layers functions tests scripts benchmarks llama-layer-build

.DEFAULT_GOAL := help
.PHONY: help setup demo serve opensearch local invoke e2e template sbom audit test lint types bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with everything for running (the first time: minutes)
	@$(BOOTSTRAP) local

demo: ## from nothing to a cited answer
	@$(BOOTSTRAP) local
	@$(BIN)/llamabda demo

serve: ## the local server
	@$(BOOTSTRAP) local
	@$(BIN)/llamabda serve

opensearch: ## a local OpenSearch server in a container (or what OPENSEARCH_HOST names)
	@$(PYTHON) scripts/opensearch.py

local: ## the bundle in containers: functions, OpenSearch and what stands in for AWS
	@$(PYTHON) scripts/local/engine.py
	@$(BOOTSTRAP) local
	@$(BIN)/python scripts/local/stack.py run

e2e: ## the same, asked and fed from outside, then taken down
	@$(PYTHON) scripts/local/engine.py
	@$(BOOTSTRAP) dev
	@$(BIN)/python scripts/local/stack.py test -- $(ARGS)

invoke: ## one event to its function: make invoke EVENT=events/created.json (while `make local` runs)
	@$(BIN)/python scripts/local/stack.py invoke $(EVENT)

sbom: ## what is in each image that `sam build` made: build/sbom
	@$(BOOTSTRAP) dev
	@$(BIN)/python -m scripts.supply.sbom $(ARGS)

audit: ## known vulnerabilities of the locks; 3: nothing is known, but not all could be looked up
	@$(BOOTSTRAP) dev
	@$(BIN)/python -m scripts.supply.audit $(ARGS)

test: ## all tests
	@$(BOOTSTRAP) dev
	@$(BIN)/pytest $(ARGS)

template: ## template.yaml as AWS would take it: SAM, cfn-lint, checkov, and every combination of conditions
	@$(BOOTSTRAP) dev
	@$(BIN)/python scripts/template/check.py

lint: ## ruff: rules and format
	@$(BOOTSTRAP) dev
	@$(BIN)/ruff check $(FILES)
	@$(BIN)/ruff format --check $(FILES)

types: ## mypy, strict
	@$(BOOTSTRAP) dev
	@$(BIN)/mypy

bench: ## side by side with the naive stack: benchmarks/results
	@$(BOOTSTRAP) dev
	-@$(BIN)/python scripts/bench_env.py
	@$(BIN)/python -m benchmarks $(ARGS)

lock: ## resolve the dependencies anew and write all of locks/ (needs the network)
	@$(BOOTSTRAP) dev
	@$(BIN)/python scripts/lock.py
	@git diff --stat -- locks

clean: ## remove what was made here (not the caches of models and wheels)
	rm -rf .venv .venv-sam .venv-checks .venv-audit .aws-sam .demo build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info \
		layers/shared/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
