# Everything works without root, Docker or a GPU; `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A dot per package instead of pip's lines; its warnings are left out, its errors shown.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PIP := $(BIN)/python -m pip install --disable-pip-version-check --root-user-action=ignore --progress-bar off
DOTS := awk '/^(Collecting|Building|Installing)/ {printf "."; fflush()} /^ERROR/ {print} END {print ""}'
.PHONY: demo test test-all test-faults test-gpu benchmarks examples wheels release-docs check format docs clean

demo: $(READY)
	$(BIN)/recon demo

# Each test computes with one thread: as many at once as there are processors, up to four.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: check
	$(PYTEST)

test-all: check
	$(PYTEST) -m ""

# Breaks a deployment of its own in every way, for some minutes, and writes docs/reliability.md and .json.
test-faults: $(READY)
	$(BIN)/python -m tests.faults --out docs

# Every CUDA path against the CPU in one table, some minutes; says so where there is no GPU.
test-gpu: $(READY)
	$(BIN)/python -m tests.gpu

# The benchmarks behind the documents; each prints its own rows: make benchmarks RUN="quality --data DATA --out docs/benchmarks"
RUN ?= --help
benchmarks: $(READY)
	$(BIN)/python -m tests.benchmarks $(RUN)

# Runs the examples and writes them as pages and notebooks.
examples: $(READY)
	$(BIN)/python -m examples.gallery --out docs/gallery

# Wheels of a release, each below the package index's limit, and the pages made from cards and metadata.
wheels: $(READY)
	$(BIN)/python -m tools.release.wheels --out dist

release-docs: $(READY)
	$(BIN)/python -m tools.release.model_cards > docs/reference/model-cards.md
	$(BIN)/python -m tools.release.licences > docs/reference/licences.md

# The documentation, in build/docs/index.html: reference from the code, then the site, without a network; warnings are errors.
DOCS_READY := $(VENV)/.docs-ready
docs: $(DOCS_READY)
	$(BIN)/python -m tools.documents
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "the documentation: $(CURDIR)/build/docs/index.html"

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.language

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes, once"
	@$(PIP) -c constraints.txt -e '.[server,dev,bench]' 2> >(grep -v ^WARNING >&2) | $(DOTS)
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache demo build
