# make help lists the targets. A target that needs the environment builds it first.
.DEFAULT_GOAL := help
.PHONY: help demo frontier test bench lint types ui lock clean setup
PYTHON := .venv/bin/python
STAMP := .venv/.complete
PORT ?= 5000
JOBS ?= 2
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMP) ## four pipelines on real digits: an accuracy/privacy frontier in about two minutes
	@$(PYTHON) -m pipelines.run -m experiment=digits_frontier

frontier: $(STAMP) ## re-run a recipe and compare with its record: RECIPE=digits_frontier; FORM=quick takes two minutes
	@$(PYTHON) -m pipelines.reproduce experiments/$(RECIPE) $(addprefix --,$(filter-out check,$(FORM))) --uri "sqlite:///$$PWD/mlflow.db"

# Otherwise the threads of each test process spin while they wait for a core that the other process uses.
test: export OMP_WAIT_POLICY := PASSIVE
test: $(STAMP) ## the whole test suite in parallel; ARGS="-k name" selects, ARGS="-m thorough" runs the long tests
	@$(PYTHON) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

bench: $(STAMP) ## build the peers' environments and measure them and ours: half an hour; ARGS="federated --repeats 5"
	@experiments/speed/peers/setup
	@$(PYTHON) -m experiments.speed $(ARGS)

lint: $(STAMP) ## ruff: style and format
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

types: $(STAMP) ## mypy
	@$(PYTHON) -m mypy

ui: $(STAMP) ## the MLflow UI on 127.0.0.1; PORT=5000
	@umask 077; MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(PYTHON) -m mlflow ui --backend-store-uri "$$($(PYTHON) -m pipelines.tracking.address)" --host 127.0.0.1 --port $(PORT) --workers 1

setup: $(STAMP) ## only build the environment

lock: ## renew requirements.lock from pyproject.toml
	@.ci/setup lock

clean: ## remove the environment and caches; runs in mlflow.db stay
	@rm -rf .venv .bench .uv .mypy_cache .pytest_cache .ruff_cache *.egg-info

$(STAMP): requirements.lock pyproject.toml .ci/setup
	@.ci/setup
	@touch $@
