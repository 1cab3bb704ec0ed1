# Two commands: `make run` and `make test`. Both make .venv and install what is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test dream

run: $(VENV)/runtime
	@$(BIN)/python bot.py

test: $(VENV)/development
	@$(BIN)/python -m tests

# make dream PROMPT="a cat on a red background" [SEED=7]
export PROMPT
dream: $(VENV)/runtime
	@$(BIN)/python -m engine dream $(if $(SEED),--seed $(SEED)) -- "$$PROMPT"

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Reverie needs Python 3.11 or newer; name one with: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/runtime: requirements.txt constraints.txt | $(VENV)/python
	$(PIP) install -r requirements.txt
	@touch $@

$(VENV)/development: requirements-dev.txt $(VENV)/runtime
	$(PIP) install -r requirements-dev.txt
	@touch $@
