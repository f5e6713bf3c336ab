# Everything the project does, each target from nothing: it makes .venv when needed.
#
#     make design   propose, check and relax new crystals -> build/report.html
#     make lab      open the book's chapters as notebooks in JupyterLab
#     make test     the tests          make check   lint and types
#     make book     the book -> _build/html/index.html
#     make clean    remove what was built (make distclean: .venv too)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# One process per core, one thread each: workers must not fight over cores.
WORKERS ?= logical
MARKS ?= not slow and not gpu

.DEFAULT_GOAL := help
.PHONY: help design test check lab book clean distclean

help:
	@sed -n 's/^#     \(make .*\)/  \1/p' Makefile

# The mark .building stands while pip works: where it is found at the start, the last
# run was interrupted, so the half-made environment is made anew.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' comes without its venv module."; \
	  echo "On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@if [ -e $(VENV)/.building ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Making $(VENV) with $$($(PYTHON) --version) ..."; \
	  $(PYTHON) -m venv --clear $(VENV); fi
	@rm -f $@ && touch $(VENV)/.building
	@echo "Installing (once, a few minutes) ..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@mv $(VENV)/.building $@

design: $(READY)
	$(BIN)/python -m matdesign.cli design

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 \
	  --dist loadfile --no-loadscope-reorder --durations 15 --durations-min 2 -m "$(MARKS)"

check: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m mypy

# JupyterLab listens on this machine only and asks for the token in the printed address;
# so it may also run as root, which is who one is in a container.
lab: $(READY)
	$(BIN)/python scripts/chapters.py
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/python -m jupyter lab --ip=127.0.0.1 \
	  $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --ServerApp.root_dir=notebooks notebooks/chapters/index.ipynb

book: $(READY)
	$(BIN)/python scripts/build_book.py

clean:
	rm -rf build dist _build book/_static/vendor
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
