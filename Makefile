# Every target makes its own environment in .venv; nothing is installed outside this folder.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

.DEFAULT_GOAL := help
# many processes are started: each would compile all modules anew
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test test-slow torture check format bench bench-large lock wheel clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "VxData needs Python 3.11 or newer; try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.ready: requirements.lock pyproject.toml $(shell find tests/plugin -type f -name '*.toml' 2>/dev/null) | $(UV)
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e tests/plugin
	@touch $@

demo: $(VENV)/.ready ## build a lake from the public IDC index and ask it three questions
	@$(BIN)/vxdata demo

# two processes share the cores: more threads in each would only wait for each other
ONE_THREAD := POLARS_MAX_THREADS=1 TOKIO_WORKER_THREADS=1

test: $(VENV)/.ready ## run the whole test-suite (local folder and S3 servers of its own)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not torture"

test-slow: $(VENV)/.ready ## the longer runs: the full IDC releases, long state machines
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# eight processes that contend leave no time to others: they run alone
torture: $(VENV)/.ready ## the long proofs; VXDATA_TORTURE_MINUTES (30) for each, with figures at the end
	@failed=0; \
	$(BIN)/python -m pytest -m torture tests/test_contention.py || failed=1; \
	$(BIN)/python -m pytest -n 2 --dist worksteal -m torture --ignore tests/test_contention.py || failed=1; \
	exit $$failed

check: $(VENV)/.ready ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready ## apply the formatter and safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready ## ratios against named peers, S3 request counts
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-bench.lock
	$(BIN)/python -m benchmarks

bench-large: $(VENV)/.ready ## the same questions of 10 million generated volumes (some minutes)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-bench.lock
	$(BIN)/python -m benchmarks large upkeep-large

lock: $(UV) ## resolve the dependencies anew
	$(UV) pip compile pyproject.toml --upgrade --group dev --all-extras --universal --generate-hashes --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -q -o requirements.lock
	echo 'duckdb>=2  # idc-index asks for less; the benchmarks run it on the DuckDB of the tests' | \
		$(UV) pip compile pyproject.toml --override - --group dev --group bench --all-extras --universal --generate-hashes --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -q -c requirements.lock -o requirements-bench.lock

wheel: $(VENV)/.ready ## build the wheel into dist/
	$(UV) build --quiet --python $(BIN)/python --wheel --no-build-isolation

clean: ## remove the environment and all caches
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo
