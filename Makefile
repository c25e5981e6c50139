# `make lab` and `make test` on a fresh machine need this file, Python and make (GNU make 3.81 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BROWSER := $(VENV)/.browser
DESK := $(VENV)/.desk
SITE := $(VENV)/.site
OLDEST := .venv-oldest
NEWEST := .venv-newest
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root) # in a container; Lab refuses otherwise

# One thread per process and kernel: small tensors on two spinning threads are 2-64 times slower.
export OMP_NUM_THREADS := 1

.PHONY: help lab test test-browser test-site test-desk test-oldest test-newest lint format clean
.PHONY: student assignment site bench claims checkpoints

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

lab: $(READY) ## open JupyterLab on the lectures
	env -u OMP_NUM_THREADS $(BIN)/jupyter lab --notebook-dir=notebooks $(AS_ROOT) notebooks/00_start.ipynb

test: lint ## check style, run the unit tests and every notebook
	$(BIN)/python -m pytest

test-browser: $(BROWSER) ## move each lecture's control in JupyterLab in a real browser
	$(BIN)/python -m pytest -m browser --dist load --maxschedchunk 1 tests --ignore tests/test_site.py

test-site: $(BROWSER) $(SITE) ## build the site and look at each page in a real browser
	$(BIN)/python -m pytest -m browser -n 0 tests/test_site.py # which builds the site once

test-desk: $(DESK) ## grade a small class with nbgrader
	$(BIN)/python -m pytest -m desk -n 0 tests

test-oldest: ## run the unit tests on the oldest packages allowed, under Python 3.11
	@mkdir -p build
	$(PYTHON) .ci/oldest.py > build/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -c build/oldest.txt -e '.[lab,test]'
	$(OLDEST)/bin/python -m pytest tests

test-newest: ## run the unit tests on the newest packages there are
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[lab,test]'
	$(NEWEST)/bin/python -m pytest tests

student: $(READY) ## write the notebooks without solutions to build/student
	$(BIN)/python .ci/student.py

assignment: $(DESK) ## write an nbgrader course of all exercises to build/course
	$(BIN)/python .ci/assignment.py

site: $(SITE) ## build the site to read, from the stored outputs, in build/site
	$(BIN)/python site/build.py

bench: $(READY) ## measure the speed figures (several minutes, nothing else running)
	$(BIN)/python -m benchmarks | tee benchmarks/speed.txt

claims: $(READY) ## run the slow controls of the lectures' claims again (four hours)
	$(BIN)/python -m benchmarks.claims

checkpoints: $(READY) ## train the bundled checkpoints again
	$(BIN)/python data/make_checkpoints.py

lint: $(READY) ## check the style of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## format code and notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environments and everything built
	rm -rf $(VENV) $(OLDEST) $(NEWEST) build dist .pytest_cache .ruff_cache

# Brought up to date in place whenever what it should contain has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "minigen needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is `$(PYTHON) --version 2>&1`." \
	    "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt -e '.[lab,test]'
	@# no pop-up over the lecture that asks to fetch news
	$(BIN)/jupyter labextension disable "@jupyterlab/apputils-extension:announcements" >/dev/null 2>&1
	@touch $@

$(BROWSER): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]' || \
	  echo "playwright could not be installed: the browser tests will be skipped" >&2
	@touch $@

$(DESK): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[teach]'
	@touch $@

$(SITE): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[site]'
	@touch $@
