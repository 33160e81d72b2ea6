# Needs only Python >= 3.11, git and make. The first target that runs sets up .venv from requirements.lock;
# set-up runs again when the lock or pyproject.toml changes. Choose an interpreter with `make PYTHON=/path/to/python3`.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
STAMP := $(VENV)/.set-up
BENCH_STAMP := $(VENV)/.set-up-bench
ZOO_STAMP := $(VENV)/.set-up-zoo
RUNTIMES_STAMP := $(VENV)/.set-up-runtimes
DOCS_STAMP := $(VENV)/.set-up-docs
BIN := $(VENV)/bin
SEEDS ?= 3
TIMES ?= 2000
PYTHON ?= python3.11 python3.12 python3.13 python3
EXTRAS := hub onnx optuna plots timm
LOCK_OPTIONS := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url

# Threads that spin while they wait make a busy machine hundreds of times slower.
export OMP_WAIT_POLICY ?= PASSIVE
# What Python compiled is kept: without, every process of the tests compiles torch and sympy anew, ten seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-slow test-runtimes check format docs zoo zoo-foreign bench bench-criteria bench-cifar bench-ablation bench-recover bench-train bench-recipes bench-damage bench-other bench-nb201 bench-size bench-trials bench-sparse bench-supernet bench-export bench-int8 bench-latency bench-new-user bench-fuzz bench-kills lock clean

help: ## what can be made
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## create .venv from requirements.lock

$(STAMP): requirements.lock requirements-uv.lock pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  for candidate in $(PYTHON); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      echo "creating $(VENV) with $$candidate ($$("$$candidate" --version))"; \
	      "$$candidate" -m venv $(VENV); break; \
	    fi; \
	  done; \
	  if [ ! -x $(BIN)/python ]; then \
	    echo "make: no Python >= 3.11 with the venv and ensurepip modules among: $(PYTHON)." >&2; \
	    echo "make: install one (on Debian also its python3-venv package) or run: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	fi
	@uv=$(BIN)/uv; \
	if [ ! -x "$$uv" ] && ! $(BIN)/python -m pip --version >/dev/null 2>&1; then uv=$$(command -v uv); fi; \
	if [ ! -x "$$uv" ]; then $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.lock; fi; \
	"$$uv" pip sync --quiet --python $(BIN)/python requirements.lock; \
	"$$uv" pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP) ## train, search, fine-tune and compare a small net on real digits
	@$(BIN)/nasprune demo

test: $(STAMP) ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(STAMP) ## the tests that take minutes
	$(BIN)/pytest -m slow

$(RUNTIMES_STAMP): requirements-runtimes.lock $(STAMP)
	@uv=$(BIN)/uv; if [ ! -x "$$uv" ]; then uv=uv; fi; \
	"$$uv" pip install --quiet --python $(BIN)/python --requirement requirements-runtimes.lock
	@touch $(RUNTIMES_STAMP)

test-runtimes: $(RUNTIMES_STAMP) ## OpenVINO and ExecuTorch, which `make test` does without: files for them, run by them
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/deploy

check: $(STAMP) ## ruff, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## sort imports and format
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

$(DOCS_STAMP): requirements-docs.lock $(STAMP)
	@uv=$(BIN)/uv; if [ ! -x "$$uv" ]; then uv=uv; fi; \
	"$$uv" pip install --quiet --python $(BIN)/python --requirement requirements-docs.lock
	@touch $(DOCS_STAMP)

docs: $(DOCS_STAMP) ## the docs site, in build/site; a dead link ends it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html; with its search: $(BIN)/python -m http.server --directory build/site"

zoo: $(STAMP) ## trace, cut and prove every torchvision model
	$(BIN)/python benchmarks/zoo.py

# What other packages' networks need stands beside the rest, too.
$(ZOO_STAMP): requirements-zoo.lock $(STAMP)
	@uv=$(BIN)/uv; if [ ! -x "$$uv" ]; then uv=uv; fi; \
	"$$uv" pip install --quiet --python $(BIN)/python --requirement requirements-zoo.lock
	@touch $(ZOO_STAMP)

zoo-foreign: $(ZOO_STAMP) ## whole networks of other packages: searched, proved, saved, loaded anew, trained a step
	$(BIN)/python -m benchmarks.zoo_foreign --jobs 2

bench: $(STAMP) ## speed of cost prediction and of tracing; what the checks of a search cost
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python -m benchmarks.checks

bench-criteria: $(STAMP) ## seconds and memory of every criterion on ResNet-50
	$(BIN)/python benchmarks/criteria.py

# A new set-up removes what the benchmarks add, so it is older than theirs or theirs is done again.
$(BENCH_STAMP): requirements-bench.lock $(STAMP)
	@uv=$(BIN)/uv; if [ ! -x "$$uv" ]; then uv=uv; fi; \
	"$$uv" pip install --quiet --python $(BIN)/python --requirement requirements-bench.lock
	@touch $(BENCH_STAMP)

bench-cifar: $(BENCH_STAMP) ## accuracy at equal FLOPs on CIFAR ResNets, beside Torch-Pruning and ModelOpt (SEEDS=3)
	$(BIN)/python -m benchmarks.cifar --seeds $(SEEDS) --jobs 2 --threads 1

bench-ablation: $(STAMP) ## the same for each criterion, with and without reconstruction, on one net
	$(BIN)/python -m benchmarks.cifar --ablation --seeds 2 --jobs 2 --threads 1

bench-size: $(STAMP) ## ImageNet-sized nets with data: seconds and memory of each phase, the refit on all images and on few; sweeps; folders of 100,000 files
	$(BIN)/python -m benchmarks.size
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.many_files

bench-sparse: $(STAMP) ## zeros inside of weights without labels on CIFAR ResNets, beside magnitude and torch's prune (SEEDS=3)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sparse --seeds $(SEEDS) --threads 1
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sparse_mnist --seeds $(SEEDS) --threads 1
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sparse_points --seeds $(SEEDS) --threads 1

bench-trials: $(STAMP) ## whether more trials ever hurt, or more time: 1 to 64, and 2 to 8 minutes (SEEDS=3)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.cifar --trials --seeds $(SEEDS) --jobs 2 --threads 1

bench-recover: $(BENCH_STAMP) ## accuracy back: refit, polish, fine-tuning beside Torch-Pruning, with their seconds; of a detector, too (SEEDS=3)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.recover --seeds $(SEEDS) --tune 8 --jobs 2 --threads 1
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.detector --seeds $(SEEDS) --threads 1

bench-train: $(STAMP) ## whether fine-tuning hurts, strategies at equal cost, trainings killed at random moments (SEEDS=3)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.finetune --jobs 2 --threads 1
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.strategies --seeds $(SEEDS) --jobs 2 --threads 1
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kills_training

bench-recipes: $(STAMP) ## which recipe of fine-tuning comes nearest to the dense net, on training images set apart (SEEDS=3)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.recipes --seeds $(SEEDS) --jobs 2 --threads 1

bench-damage: $(STAMP) ## whether estimated damages order decisions as slow measurement does
	$(BIN)/python -m benchmarks.damage

bench-other: $(BENCH_STAMP) ## accuracy at equal FLOPs on nets that are trained on the spot, and seconds on torchvision's
	$(BIN)/python -m benchmarks.other

bench-nb201: $(STAMP) ## scores of operations judged by the table of NAS-Bench-201: published ones, and every scorer here
	$(BIN)/python -m benchmarks.nb201
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.nb201_trims
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.nb201_trims --typed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scoring_times
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.digits_judge

bench-supernet: $(STAMP) ## trimmed supernets on digits, trained for real, in about half an hour (SEEDS=3)
	$(BIN)/python -m benchmarks.supernet --seeds $(SEEDS)

bench-export: $(RUNTIMES_STAMP) ## cut networks in every format of `nasprune export`, and how near each comes to PyTorch
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.exports

bench-int8: $(STAMP) ## cut CIFAR ResNets in 8-bit integers: bytes, time, accuracy, beside floating point
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.int8

bench-latency: $(STAMP) ## whether budgets of latency are kept, beside the best FLOPs budget in equal time; on a quiet machine
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.latency

bench-new-user: $(STAMP) ## what a new user types with the built wheel, and how long each line takes
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.new_user

bench-fuzz: $(STAMP) ## 2,000 damaged files of every kind: none may run code, hang, or load as another net (TIMES=2000)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --times $(TIMES)

bench-kills: $(STAMP) ## searches killed at random moments, and two writers in one folder: the same plan, bit for bit
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kills

lock: ## compile the locks: of pyproject.toml, of what benchmarks add, of uv itself
	@uv=$(BIN)/uv; if [ ! -x "$$uv" ]; then uv=uv; fi; \
	"$$uv" pip compile --quiet pyproject.toml $(EXTRAS:%=--extra %) --group dev $(LOCK_OPTIONS) -o requirements.lock; \
	"$$uv" pip compile --quiet --group bench -c requirements.lock $(LOCK_OPTIONS) -o requirements-bench.lock; \
	"$$uv" pip compile --quiet --group docs -c requirements.lock $(LOCK_OPTIONS) -o requirements-docs.lock; \
	"$$uv" pip compile --quiet --group zoo -c requirements.lock $(LOCK_OPTIONS) -o requirements-zoo.lock; \
	"$$uv" pip compile --quiet pyproject.toml --extra openvino --extra executorch -c requirements.lock $(LOCK_OPTIONS) -o requirements-runtimes.lock; \
	echo uv | "$$uv" pip compile --quiet $(LOCK_OPTIONS) -o requirements-uv.lock -

clean: ## remove .venv, caches and built files (not runs/)
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
