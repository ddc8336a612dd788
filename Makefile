# `make repro` and `make test` do all their set-up; nothing else needs to be typed.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
RUN := PATH="$(BIN):$$PATH"
PORT ?= 5000

# Where this is set, every process compiles TensorFlow and all else that it imports again, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: repro study ablations finetune test test-all check docs dist bench ui readme notebook lock clean help

# The environment: one marker file for each step, so that `make repro` does not wait for what only tests need.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
TEST_READY := $(READY) $(VENV)/.ready-test
# Install one section of requirements.lock: set-up, run or test. uv is several times faster, so pip installs only uv
# itself, and everything where uv fails (--quiet twice: errors only).
section = sed -n '/^\# $(1)$$/,/^\# /p' requirements.lock
HASHED := install --quiet --no-deps --require-hashes --requirement /dev/stdin
EDITABLE := install --quiet --no-deps --no-build-isolation --editable .
with_pip = { $(call section,$(1)) | $(VENV)/bin/pip --quiet $(HASHED); }
with_uv = { $(call section,$(1)) | $(VENV)/bin/uv pip $(HASHED); }
install = $(with_uv) || { echo "set-up: uv failed; pip installs instead, which takes minutes"; $(with_pip); }

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 11))' \
		|| { echo "gotorb needs Python 3.11; name it: make PYTHON=python3.11"; exit 1; }
	@echo "set-up: installing requirements.lock into $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(call with_pip,set-up) || true
	@$(call install,run)
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@$(VENV)/bin/uv pip $(EDITABLE) || $(VENV)/bin/pip --quiet $(EDITABLE)
	@touch $@

$(VENV)/.ready-test: $(LOCKED)
	@echo "set-up: installing what only tests need"
	@$(call install,test)
	@touch $@

# make repro                                        the embedded survey
# make repro SOURCE=archive DATA=folder             ready-made stamps
# make repro SOURCE=packets DATA=folder             alert packets
# make repro SOURCE=gotophoto                       a gotophoto database, by .env
# make repro SOURCE=own DATA=mysurvey.py            your own survey, see docs/own-survey.md
repro: $(READY)  ## run the pipeline: survey, labels, data set, models, evaluation (SOURCE=... DATA=...)
	@$(RUN) python -m pipelines.repro $(if $(SOURCE),--source $(SOURCE)) $(if $(DATA),--data $(DATA))

study: $(READY)  ## repeat it with a larger survey, tested on other fields: tables in studies/large/
	@$(RUN) python -m pipelines.repro --source large

ablations: $(READY)  ## measure what each part of the recipe is worth, as DVC experiments of that study
	@$(RUN) python -m studies.ablations

finetune: $(READY)  ## compare training on few stamps of another camera with fine-tuning (ARCHIVE=... PARENT=...)
	@$(RUN) python -m studies.finetune --archive $(ARCHIVE) $(if $(PARENT),--parent $(PARENT))

test: $(TEST_READY)  ## run the tests
	@$(RUN) python -m pytest

test-all: $(TEST_READY)  ## run the tests and the long versions of them
	@$(RUN) python -m pytest -m ''

check: $(TEST_READY)  ## check style, types, docstrings and prose
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) numpydoc lint $$(git ls-files 'gotorb/*.py')
	@$(RUN) python -m tests.contract.prose

docs: $(TEST_READY)  ## build the documentation: docs/_build/index.html
	@$(RUN) COLUMNS=100 sphinx-build -W --keep-going -q -d .gotorb/doctrees docs docs/_build
	@$(RUN) python -m tests.contract.links docs/_build

dist: $(TEST_READY)  ## build the wheel and the sdist: dist/ (the same as python -m build)
	@$(RUN) uv build --quiet --no-build-isolation

bench: $(TEST_READY)  ## measure speed and memory: benchmarks/results.json, docs/benchmarks.md
	@$(RUN) python -m benchmarks

ui: $(READY)  ## show runs and models in the browser (PORT=5000)
	@$(RUN) gotorb ui --port $(PORT)

readme: $(READY)  ## write the measured parts of README and docs from the reports
	@$(RUN) python -m pipelines.readme

notebook: $(TEST_READY)  ## run the notebooks and keep their figures
	@$(RUN) python -m pipelines.notebook notebooks/*.ipynb

lock: $(READY)  ## write requirements.lock for pyproject.toml; its versions stay (UPGRADE=1: renew all)
	@$(RUN) python -m pipelines.lock $(if $(UPGRADE),--upgrade)

clean:  ## delete the environment and every product
	rm -rf $(VENV) data models sources dist build .gotorb

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
