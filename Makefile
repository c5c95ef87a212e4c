# Everything a person needs: make quickstart, make test, make check. Each installs into .venv first if need be.
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install quickstart test test-all faults check lint format quality benchmarks clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(INSTALLED)  ## the main job on the bundled backbone and data; goes on where it was stopped
	$(BIN)/softprompt run quickstart --out runs/quickstart --resume

test: $(INSTALLED)  ## the default tests
	$(BIN)/pytest -n 2

test-all: $(INSTALLED)  ## the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m ""

faults: $(INSTALLED)  ## kills, damage, full disks, signals at full size, each with its number: minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -m faults -s

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check:  ## what CI does: a fresh environment, the README's commands, lint and types
	bash .ci/run

quality: $(INSTALLED)  ## gazette over three seeds: the numbers of docs/results.md
	$(BIN)/python benchmarks/quality.py --seeds 1 2 3

clean:
	rm -rf $(VENV) runs build dist
