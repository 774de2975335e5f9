# `make run` starts a cluster, `make test` runs every test, `make verify` only checks, `make fix` only rewrites.
PY := .venv/bin/python
DATA ?= ./data

COUNTS ?= ./counts
SEED ?= 1
PROFILE ?= long

.PHONY: help run test verify fix golden protos bench test-long sim campaign nightly report setup setup-dev clean

help: ## Lists the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Makes .venv ready for running
	@scripts/setup run

setup-dev: ## Makes .venv ready for developing
	@scripts/setup dev

run: setup ## Sets everything up and starts a three-node cluster on loopback (data under ./data)
	@.venv/bin/kvstore local --nodes 3 --data $(DATA)

test: setup-dev ## Sets everything up and runs the tests (all but the long campaigns)
	@scripts/test

test-long: setup-dev ## All that is marked slow: long campaigns, check perf, every transport (an hour and more)
	$(PY) -m pytest -m slow --timeout 1800

sim: setup-dev ## Runs one seed of the simulator again: make sim SEED=7 [PROFILE=short] [SIM="--log --upto 900"]
	$(PY) -m tests.sim.run --seed $(SEED) --profile $(PROFILE) $(SIM)

campaign: setup-dev ## Every proof at the size of a change to be merged (about an hour); counts in ./counts
	@rm -f $(COUNTS)/*.json
	KVSTORE_COUNTS=$(COUNTS) KVSTORE_SIM_PAIRS=10 $(PY) -m pytest -m "slow or sim" --timeout 0 \
	  tests/sim tests/linear tests/fuzz tests/process
	@$(PY) -m tests.sim.report $(COUNTS) --html $(COUNTS)/report.html --title "Campaign"

nightly: setup-dev ## As long as MINUTES says (default 90): fresh seeds, every proof; counts in ./counts
	@rm -f $(COUNTS)/*.json
	KVSTORE_COUNTS=$(COUNTS) $(PY) -m tests.sim.nightly --minutes $(or $(MINUTES),90)
	@$(PY) -m tests.sim.report $(COUNTS) --html $(COUNTS)/report.html --title "Nightly"

report: setup-dev ## The report of what ./counts holds, as text and as ./counts/report.html
	@$(PY) -m tests.sim.report $(COUNTS) --html $(COUNTS)/report.html

verify: setup-dev ## Format, lint, types, generated code, import layers, fast tests; writes nothing
	$(PY) -m ruff format --check raft kvstore tests protos benchmarks
	$(PY) -m ruff check raft kvstore tests protos benchmarks
	$(PY) -m mypy
	$(PY) protos/generate.py --check
	$(PY) -m pytest -m "not slow and not compat and not process and not sim"

fix: setup-dev ## Rewrites formatting and what lint can mend
	$(PY) -m ruff check --fix raft kvstore tests protos benchmarks
	$(PY) -m ruff format raft kvstore tests protos benchmarks

bench: setup-dev ## Ours and etcd in turn under one load: make bench BENCH="--only put --nodes 3 --pairs 5" (all: hours)
	$(PY) -m benchmarks $(BENCH)

golden: setup-dev ## Rewrites the golden files; read the diff before committing it
	KVSTORE_GOLDEN=rewrite $(PY) -m pytest tests/golden

protos: setup-dev ## Regenerates kvstore/pb from protos/
	$(PY) protos/generate.py

clean: ## Removes the virtual environment and caches (not ./data)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
