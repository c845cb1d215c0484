# Each target makes what it needs by scripts/setup. Up to `check` none needs root.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
# dockerd, ip and nginx are in folders that a root from `su` does not have on its path.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: help
help: ## List these targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 15

.PHONY: setup
setup: ## Make .venv with this package and what its development needs
	@scripts/setup

.PHONY: lint
lint: setup ## Check style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

.PHONY: unit
unit: setup ## Run the tests that need no server and no root; takes seconds
	.venv/bin/pytest --unit -n 2 -rfE

.PHONY: check
check: lint unit ## Check style and types, and run the tests of `unit`; for each commit

.PHONY: servers
servers: ## Set up the programs that the tests run; installs missing ones, as root
	@scripts/setup test
	@scripts/fetch-consul || { [[ -z $${CI:-} ]] && echo 'Going on; what needs Consul is skipped.'; }
	@scripts/fetch-python || { [[ -z $${CI:-} ]] && echo 'Going on; what needs the image is skipped.'; }

.PHONY: test
test: servers lint ## Set up everything, check style and types, run all tests
	.venv/bin/pytest -n 3 --dist loadfile

# STAY=1 leaves it running until Ctrl-C, to look at the page and to try things.
.PHONY: demo
demo: ## Show what a registry holds while containers come and go; cleans up after itself
	@scripts/setup demo
	@exec .venv/bin/python scripts/demo.py

.PHONY: image
image: ## Build registrator:latest, from the python:3.14-slim that the engine has or pulls
	docker build --build-arg VERSION=$$(sed -nE 's/^__version__ = "(.*)"/\1/p' registrator/__init__.py) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || true) -t registrator:latest .

.PHONY: examples
examples: servers ## Run what the examples' READMEs say, on an engine and in a network of their own
	.venv/bin/pytest tests/project/test_examples.py

# make faults SEEDS=200 FIRST=0 REGISTRY=etcd; a seed that diverged runs again with SEEDS=1 FIRST=it.
# The times are taken where it is all registries' turn, since they make up one table.
SEEDS ?= 20
FIRST ?= 0
MINUTES ?= 60
watched = cd tests && ../.venv/bin/python -m faults.watched --minutes $(MINUTES)
campaign = cd tests && ../.venv/bin/python -m faults $(if $(REGISTRY),--registry $(REGISTRY))

.PHONY: faults
faults: servers ## Random faults by seed on real clusters, and how long each fault and a stop take
	$(if $(REGISTRY),,cd tests && ../.venv/bin/python -m faults.ends)
	$(if $(REGISTRY),,cd tests && ../.venv/bin/python -m faults.maintenance)
	$(if $(REGISTRY),,cd tests && ../.venv/bin/python -m faults.rolling)
	$(campaign) --seeds $(SEEDS) --first $(FIRST) $(if $(REGISTRY),,--timings)

.PHONY: rolling
rolling: servers ## Ten rolling updates under load, with and without the options; counts failed requests
	cd tests && ../.venv/bin/python -m faults.rolling

# make mutants MODULE=sync/plan; without MODULE it takes hours.
.PHONY: mutants
mutants: setup ## Change the core in one place at a time; shows what no test notices
	.venv/bin/python scripts/mutants.py $(MODULE)

.PHONY: soak
soak: servers ## An agent for MINUTES in ordinary use, and then under faults; its memory has to stay level
	$(if $(REGISTRY),,$(watched))
	$(campaign) --minutes $(MINUTES)

.PHONY: watched
watched: servers ## Ordinary use for MINUTES under the eyes of Chromium and Prometheus; no alert may fire
	$(watched)

.PHONY: fuzz
fuzz: setup ## Spoil the engine's answers, templates and requests in random places for MINUTES
	@end=$$((SECONDS + 60 * $(MINUTES))); while ((SECONDS < end)); do \
		FUZZ_EXAMPLES=5000 .venv/bin/pytest -q tests/engine/test_fuzz.py \
			tests/templates/test_template_fuzz.py tests/listener/test_spoilt_requests.py \
			--timeout=0 --hypothesis-seed=$$RANDOM$$RANDOM; done

# make compatibility ONLY=etcd-3.6.8; ONLY=etcd is all of etcd.
.PHONY: compatibility
compatibility: servers ## Run the suites against other versions of servers, engines and Python
	.venv/bin/python -m compatibility $(ONLY)

# make bench PEER=COMMAND measures another registrator beside this one.
.PHONY: bench
bench: servers ## Measure the figures of docs/performance.md; BENCH=--quick for a look
	.venv/bin/python -m benchmarks $(if $(PEER),--peer '$(PEER)') $(BENCH)

.PHONY: clean
clean: ## Remove all that these commands have made here
	rm -rf .venv .cache build dist *.egg-info .*_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
