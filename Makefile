# Two commands matter to a newcomer: `make conformance` and `make test`. Both set up what they need.
# Everything runs in .venv, which tools/bootstrap makes and keeps up to date.

BIN := .venv/bin
REPORT ?= report

# What does I/O around the core: its coverage is reported, the core's is held.
AROUND_CORE := */qmig/__main__.py,*/qmig/_nursery.py,*/qmig/qmp.py,*/qmig/builds/*,*/qmig/cli/*,*/qmig/peers/*,*/qmig/spec/*,*/qmig/testing/*

.DEFAULT_GOAL := help
.PHONY: help env test lint unit spec spec-check live model soak conformance self-check matrix flakes bench

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

env: ## set up .venv (all other targets do this first)
	@sh tools/bootstrap

test: lint unit spec-check ## everything that has to be green: lint, types, tests with coverage, specification

lint: env ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: env ## all tests; the core's branches are all covered
	$(BIN)/python -m pytest -n auto --cov --cov-report=
	@echo; echo 'Coverage around the core:'
	$(BIN)/coverage report --include='$(AROUND_CORE)'
	@echo; echo 'Coverage of the core:'
	$(BIN)/coverage report --omit='$(AROUND_CORE)' --fail-under=100

spec-check: env ## ids, registries, vectors, links, generated parts
	$(BIN)/qmig spec check

spec: env ## rewrite the generated parts of the specification
	$(BIN)/qmig spec render

live: env ## every migration with every build there is, our peer on either side; writes protocol/LIVE.md (5 minutes)
	PYTHONPATH=tools $(BIN)/python -m pytest -q -n 2 -p live_table --live-table protocol/LIVE.md \
		-m 'live or not live' protocol/tests/live

model: env ## explore both state tables of protocol v2 in full; figures go into protocol/MODEL.md (10 minutes)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -q -s protocol/tests/test_handshake_model.py

soak: env ## 500 migrations in a row with a real QEMU, nothing left behind; writes protocol/SOAK.md (5 minutes)
	$(BIN)/python tools/soak.py --record

conformance: env ## run the suite on a real QEMU, or on our own peers where none can be had
	$(BIN)/qmig conformance run --report $(REPORT)

self-check: env ## the suite held to peers with seeded faults; writes conformance/SELF-CHECK.md (half a minute)
	$(BIN)/qmig conformance self-check --report $(REPORT) --table conformance/SELF-CHECK.md

matrix: env ## devices from build to build, all that are installed; writes conformance/MATRIX.md (5 minutes)
	$(BIN)/qmig conformance matrix --report $(REPORT) --table conformance/MATRIX.md

flakes: env ## the suite 20 times on a loaded machine, verdicts compared; writes conformance/FLAKES.md (half an hour)
	$(BIN)/python tools/flakes.py --record

bench: env ## speed of walk, decode and extraction beside dd, cp and QEMU's own script (see bench/README.md)
	$(BIN)/python bench/run.py $(BENCH_ARGS)
