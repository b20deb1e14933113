# Needs python3 (3.11 or newer), git and make; everything else goes into .venv.
#   make lab    environment, one picture into demo/, then JupyterLab on the notebooks
#   make test   environment, then everything that continuous integration checks
# Windows, conda and plain pip: see README.md.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PROMPT ?= a red car in the city at night
WORKERS ?= 2

# Linux without an NVIDIA card takes torch's CPU wheel (0.2 GB) rather than PyPI's with CUDA (3 GB).
# `make lab TORCH_WHEELS=` takes whatever PyPI has.
ifeq ($(shell uname -s)$(shell command -v nvidia-smi 2>/dev/null),Linux)
TORCH_WHEELS ?= https://download.pytorch.org/whl/cpu
endif
TORCH_FROM := $(if $(TORCH_WHEELS),--extra-index-url $(TORCH_WHEELS) --retries 2)
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install lab demo student site badges test lint format pytest slow gpu chromium refresh \
	gallery screenshots claims glossary hooks clean

help:   ## this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */make \1\t/' | expand -t 16

# ---- the environment --------------------------------------------------------------------------
# Stamps: .torch (the venv with torch), .lab (runtime), .test (runtime, test and train extras).

$(VENV)/.torch: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "diffusionlab: no '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "diffusionlab: $$($(PYTHON) --version) is too old; 3.11 or newer is needed. Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "diffusionlab: this Python cannot make environments (venv or ensurepip is missing). Debian, Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps $(TORCH_FROM) $(TORCH)
	@touch $@

$(VENV)/.lab: $(VENV)/.torch pyproject.toml
	$(PIP) install -e . -c constraints.txt
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) install -e '.[test,train]' -c constraints.txt
	@touch $@ $(VENV)/.lab

install: $(VENV)/.test   ## .venv with everything that the tests need

# ---- use --------------------------------------------------------------------------------------

demo: $(VENV)/.lab   ## one picture, its filmstrip and its record in demo/
	$(BIN)/diffusionlab generate "$(PROMPT)" --seed 7 --steps 20 --sampler ddim --guidance 4 --out demo/

lab: demo   ## the same, then JupyterLab on the notebooks
	$(BIN)/diffusionlab lab

# ---- the course -------------------------------------------------------------------------------

.PHONY: student site badges

student: $(VENV)/.lab   ## the notebooks without solutions, into student/
	$(BIN)/python tools/student.py $(ARGS)

site: $(VENV)/.lab   ## run the course into site/, pages for a browser: make site ARGS=--no-run
	$(BIN)/python tools/pages $(ARGS)

badges: $(VENV)/.lab   ## Colab and Binder badges: make badges REPO=owner/name
	@$(BIN)/python tools/badges.py $(REPO)

# ---- checks -----------------------------------------------------------------------------------

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.test   ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Last, so that pytest's closing line is the last line of the output.
test: lint   ## lint and tests, as continuous integration runs them
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

pytest: $(VENV)/.test   ## the tests alone: make pytest ARGS="tests/test_cli.py -x"
	@$(BIN)/python -m pytest $(ARGS)

slow: $(VENV)/.test   ## the tests that take minutes
	@$(BIN)/python -m pytest -m "slow and not gpu"

gpu: $(VENV)/.test   ## the tests that need an accelerator
	@$(BIN)/python -m pytest -m gpu

chromium:   ## install Debian's Chromium where the browser tests have none
	@.ci/chromium

# ---- upkeep -----------------------------------------------------------------------------------

refresh: $(VENV)/.test   ## redraw everything that depends on the weights
	$(BIN)/python tools/refresh.py

gallery: $(VENV)/.test   ## draw every plot once, into docs/gallery
	$(BIN)/python tools/gallery

screenshots: $(VENV)/.test   ## photograph the views in Chromium, into docs/views
	$(BIN)/python tools/screenshots.py

claims: $(VENV)/.test   ## hold every claim against Toyland, into docs/claims.md
	$(BIN)/python tools/claims.py

glossary: $(VENV)/.test   ## the vocabulary as a page, docs/glossary.md
	$(BIN)/python tools/glossary.py

hooks: $(VENV)/.test   ## check before every commit (asks pre-commit to be installed)
	$(PIP) install pre-commit
	$(BIN)/pre-commit install

clean:   ## remove the environment and everything that can be made again
	rm -rf $(VENV) demo dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
