# Every target sets up .venv/ first; `make help` lists them.
PYTHON   ?= python3.11
VENV     := .venv
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.ready

MANIFEST ?= manifests/sample/objects.jsonl
OUT      ?= out
PROFILE  ?= quick
SHARD    ?=
ARGS     ?=

.DEFAULT_GOAL := help
.PHONY: help setup fit-shard test test-pythons fuzz lint format bench-raster bench-step bench-counts bench-fit bench-fit512 bench-ranking bench-atlas bench-gates bench-pose-gate bench-precision bench-reduce bench-pipeline bench-gpu bench-reader bench-store bench-startup bench-sh docs constraints clean bench-paper bench-recipe bench-opensplat bench-pilot bench-versions bench-page bench-inputs bench-learning bench-sensitivity bench-representation

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install into .venv/, compile the kernels, check the machine (once)

$(STAMP): pyproject.toml constraints.txt setup.py build_backend.py $(wildcard fitter/native/src/*)
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found. Install Python 3.11 (Debian, Ubuntu: apt-get install python3.11 python3.11-venv), or name another one of at least 3.11: make $(or $(MAKECMDGOALS),setup) PYTHON=python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 is the least. Name a newer one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make environments, for which it needs its modules venv and ensurepip (Debian, Ubuntu: apt-get install python3.$$($(PYTHON) -c 'import sys; print(sys.version_info[1])')-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[build,render,meshes,dev]'
	$(BIN)/gaussianverse doctor --ray-address local
	@touch $@

fit-shard: $(STAMP) ## fit objects, build their atlases, publish shards: MANIFEST= OUT= PROFILE= SHARD=
	$(BIN)/gaussianverse fit-shard --manifest $(MANIFEST) --out $(OUT) --profile $(PROFILE) $(if $(SHARD),--shard $(SHARD)) $(ARGS)

test: $(STAMP) ## run the tests; ARGS=--run-slow adds those that take minutes
	$(BIN)/python -m pytest $(ARGS)

test-pythons: $(STAMP) ## fit the sample and run a part of the tests on Python 3.12 and 3.13, if they are here
	.ci/pythons

fuzz: $(STAMP) ## run the hypothesis tests on new inputs, and read 3,300 damaged files (five minutes)
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=search $(ARGS)

lint: $(STAMP) ## run ruff (lint, format), import-linter (who may import whom) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

format: $(STAMP) ## format and sort imports with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-raster: $(STAMP) ## compare the CPU rasteriser with a tiled torch renderer
	$(BIN)/python -m bench.raster $(ARGS)

bench-step: $(STAMP) ## compare a native training step with autograd, per instruction set
	$(BIN)/python -m bench.step $(ARGS)

bench-ranking: $(STAMP) ## compare visibility rankings (an hour)
	$(BIN)/python -m bench.ranking $(ARGS)

bench-atlas: $(STAMP) ## measure transport and whole atlases: CPU seconds, memory, gap; ARGS=--scipy compares
	$(BIN)/python -m bench.atlas $(ARGS)

bench-counts: $(STAMP) ## compare fits whose count follows the object with fits at the bound (an hour); needs EGL
	$(BIN)/python -m bench.counts $(ARGS)

bench-fit: $(STAMP) ## measure PSNR and CPU seconds of fits
	$(BIN)/python -m bench.fit $(ARGS)

bench-fit512: $(STAMP) ## measure PSNR and CPU seconds of fits at 512 px; needs EGL
	$(BIN)/python -m bench.fit512 $(ARGS)

bench-recipe: $(STAMP) ## measure what each part of profile `quick` is worth (an hour); ARGS=--slow: the costly ones
	$(BIN)/python -m bench.recipe $(ARGS)

bench-pilot: $(STAMP) ## take 247 meshes to a verified dataset (an hour); ARGS='--folder MESHES --out FOLDER'
	$(BIN)/python -m bench.pilot $(ARGS)

bench-page: $(STAMP) ## measure the page of `report`: samples, 10,000 objects, in chromium (ten minutes); ARGS='--samples OUT'
	$(BIN)/python -m bench.page $(ARGS)

bench-paper: $(STAMP) ## fit two meshes by the paper's settings on the CPU, once (an hour); ARGS='--fits FOLDER'
	$(BIN)/python -m bench.paper $(ARGS)

bench-gates: $(STAMP) ## test the gates on injected errors (five minutes)
	$(BIN)/python -m bench.gates $(ARGS)

bench-pose-gate: $(STAMP) ## test the pose gate on right and wrong sets of views (half an hour); needs EGL
	$(BIN)/python -m bench.pose_gate $(ARGS)

bench-reduce: $(STAMP) ## compare rules for objects with more Gaussians than cells (five minutes); needs EGL
	$(BIN)/python -m bench.reduce $(ARGS)

bench-precision: $(STAMP) ## compare atlases in float16 and float32: ARGS='FIT.npz ..'
	$(BIN)/python -m bench.precision $(ARGS)

bench-pipeline: $(STAMP) ## measure the driver without fits, the commands at 10 million rows (an hour); ARGS='--only rows'
	$(BIN)/python -m bench.pipeline $(ARGS)

bench-gpu: $(STAMP) ## compare gsplat with the CPU kernels, measure the GPU profiles (eight minutes); ARGS=--dry: without a GPU
	$(BIN)/python -m bench.gpu $(ARGS)

bench-reader: $(STAMP) ## compare AtlasLoader with webdataset, raw reads and, ARGS='--others PYTHON', MDS and litdata
	PYTHONPATH=tests $(BIN)/python -m bench.reader $(ARGS)

bench-store: $(STAMP) ## compare CPU time of range reads from S3: our store, boto3, awscrt, obstore, pyarrow
	PYTHONPATH=tests $(BIN)/python -m bench.store $(ARGS)

bench-inputs: $(STAMP) ## measure what fetching the views of small objects costs, and how long fits wait for them
	PYTHONPATH=tests $(BIN)/python -m bench.inputs $(ARGS)

bench-learning: $(STAMP) ## train small diffusion models of atlases and compare samples with the objects (two hours)
	$(BIN)/python -m bench.learning $(ARGS)

bench-sensitivity: $(STAMP) ## measure renders of atlases of which groups of channels are disturbed: ARGS=DATASET
	$(BIN)/python -m bench.sensitivity $(ARGS)

bench-representation: $(STAMP) ## compare small trainings of atlases in other representations (an hour): ARGS=DATASET
	$(BIN)/python -m bench.representation $(ARGS)

bench-startup: $(STAMP) ## measure CPU seconds of `import gaussianverse` and `gaussianverse --help`
	$(BIN)/python -m bench.startup $(ARGS)

bench-versions: $(STAMP) ## measure `extend --dry-run` and opening of a million made-up objects: CPU seconds, memory
	$(BIN)/python -m bench.versions $(ARGS)

bench-sh: $(STAMP) ## measure what baking view-dependent colour keeps against dropping it
	$(BIN)/python -m bench.sh $(ARGS)

bench-opensplat: $(STAMP) ## compare fits with OpenSplat's in equal CPU seconds (half an hour); ARGS='--opensplat PROGRAM'
	$(BIN)/python -m bench.opensplat $(ARGS)

docs: $(STAMP) ## write the API pages, made from the docstrings, to build/api/
	$(BIN)/python docs/api/build.py build/api

constraints: $(STAMP) ## write the installed versions to constraints.txt
	(head -n 1 constraints.txt; $(BIN)/pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu//' | sort -f) > constraints.new
	mv constraints.new constraints.txt

clean: ## remove the environment and caches; never touches OUT
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
