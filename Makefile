# `make repro` and `make test` do all their set-up; nothing else needs to be typed.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
RUN := PATH="$(BIN):$$PATH"
PORT ?= 5000

.PHONY: repro study ablations finetune test check bench ui readme notebook lock clean

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "gotorb needs Python 3.11 to 3.13; name one: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

# make repro                                        the embedded survey
# make repro SOURCE=archive DATA=folder             ready-made stamps
# make repro SOURCE=packets DATA=folder             alert packets
# make repro SOURCE=gotophoto                       a gotophoto database, by .env
# make repro SOURCE=own DATA=mysurvey.py            your own survey, see docs/own-survey.md
repro: $(READY)
	@$(RUN) python -m pipelines.repro $(if $(SOURCE),--source $(SOURCE)) $(if $(DATA),--data $(DATA))

# a larger survey, evaluated on other fields: tables in studies/large/
study: $(READY)
	@$(RUN) python -m pipelines.repro --source large

# worth of each part of the recipe, as DVC experiments of that study
ablations: $(READY)
	@$(RUN) python -m studies.ablations

# few stamps of another camera: trained on them alone, and starting from our model (ARCHIVE names a folder in sources/)
finetune: $(READY)
	@$(RUN) python -m studies.finetune --archive $(ARCHIVE) $(if $(PARENT),--parent $(PARENT))

test: $(READY)
	@$(RUN) python -m pytest

check: $(READY)
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

bench: $(READY)
	@$(RUN) python -m benchmarks

readme: $(READY)
	@$(RUN) python -m pipelines.readme

ui: $(READY)
	@$(RUN) gotorb ui --port $(PORT)

# run the notebook and keep its pictures
notebook: $(READY)
	@$(RUN) python -m pipelines.notebook notebooks/paper_figures.ipynb

lock: $(READY)
	$(RUN) uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --upgrade --output-file requirements.lock

clean:
	rm -rf $(VENV) data models sources .gotorb
