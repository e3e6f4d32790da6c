# Everything runs from a bare clone: the first target that needs it makes the virtual environment.
#
#   make demo     the clip pipeline on a sample store it generates; then `make ui`
#   make demo-memes  the meme pipeline on generated memes, beside it
#   make demo-songs  the song pipeline on generated songs, likewise
#   make test     the tests
#   make test-ray the tests on a Ray cluster of two nodes here; installs the extra `ray`
#   make costs    what a clip costs, counted: a short part of the tests
#   make chaos    kills, faults and restarts for five minutes, and a proof that nothing was lost
#   make fuzz     a minute of coverage-guided fuzzing a parser; installs the extra `fuzz`
#   make check    lint + tests, as CI does

PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= .demo
PORT ?= 3000
PYTEST_ARGS ?=
# A further package index for torch alone; its CPU build for Linux, without CUDA, is at
# https://download.pytorch.org/whl/cpu. Empty: the torch of pip's own index.
TORCH_INDEX ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The demo's deployment: a folder store, SQLite, stand-in encoders, no server, no hub.
demo demo-memes demo-songs ui: export DAGSTER_HOME := $(abspath $(DEMO_DIR))/dagster
demo demo-memes demo-songs ui: export CLIPFARM_STORE := $(abspath $(DEMO_DIR))/store
demo demo-memes demo-songs ui: export CLIPFARM_ENCODERS := demo
demo demo-memes demo-songs ui: export CLIPFARM_START_DATE := 2026-02-05
demo demo-memes demo-songs ui: export CLIPFARM_END_DATE := 2026-02-07
demo demo-memes demo-songs ui: export HF_HUB_OFFLINE := 1

.PHONY: install demo demo-memes demo-songs ui test test-ray costs chaos fuzz lint check clean
.DEFAULT_GOAL := check

install: $(INSTALLED)

# torch first and alone: its pinned build decides what everything else resolves to.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"Python 3.11 or 3.12 is needed, found {v[0]}.{v[1]}: set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,postgres]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -m clipfarm_assets.demo

demo-memes: $(INSTALLED)
	$(BIN)/python -m clipfarm_assets.demo.memes

demo-songs: $(INSTALLED)
	$(BIN)/python -m clipfarm_assets.demo.songs

ui: $(INSTALLED)
	mkdir -p $(DAGSTER_HOME)
	test -f $(DAGSTER_HOME)/dagster.yaml || cp deploy/dagster.yaml $(DAGSTER_HOME)/
	$(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $(PORT)

# Compiled modules are kept, whatever the caller's environment says: the tests start many processes, each of
# which would compile the package again.
test test-ray costs chaos demo demo-memes demo-songs ui: export PYTHONDONTWRITEBYTECODE :=

# Three processes for two cores, with one torch thread each: one of them mostly waits for a server. Files
# stay together: their fixtures are costly. In the order of collection, slow files first: at the end
# of a run they would have the other processes wait.
test: export OMP_NUM_THREADS := 1
test: $(INSTALLED)
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m 'not ray' $(PYTEST_ARGS)

# A cluster is half a dozen processes a node, each of which imports much: three minutes of a core.
test-ray: export OMP_NUM_THREADS := 1
test-ray: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/pytest -m ray $(PYTEST_ARGS)

# A small one is part of `make test`; CHAOS_ARGS, e.g. '--minutes 30 --seed 8'. It needs PostgreSQL.
CHAOS_ARGS ?=
chaos: export OMP_NUM_THREADS := 1
chaos: $(INSTALLED)
	$(BIN)/python -m benchmarks.chaos $(CHAOS_ARGS)

# What ends it lies in .fuzz/ as crash-…; inputs that reached new branches are kept there for the next time.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= npy npz csv parquet transcript schema_lock models_lock video_id
fuzz: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	set -e; for target in $(FUZZ_TARGETS); do $(BIN)/python -m clipfarm_assets_tests.fuzz $$target --seconds $(FUZZ_SECONDS); done

# What a clip costs, counted (requests, forwards, decoded packets, statements), and that however the
# work is spread the bytes are the same. A part of `make test`; by itself it takes seconds.
costs: export OMP_NUM_THREADS := 1
costs: $(INSTALLED)
	$(BIN)/pytest clipfarm_assets_tests/costs clipfarm_assets_tests/pipelines/test_same_bytes.py $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) $(DEMO_DIR) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
