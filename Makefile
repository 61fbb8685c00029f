# make demo: set up, train on a small photo set in a real ComfyUI, leave pictures in demo/output/
# make test: set up, run all tests; test-unit, test-training, test-host: one tier; test-nightly: what only a long run can show
# make check: lint, types and the checks of the page's code; needs Node.js
PYTHON ?= python3
PORT ?= 8188
VENV_PYTHON = $(if $(filter Windows_NT,$(OS)),.venv/Scripts/python,.venv/bin/python)
# Two processes, each with one thread, use two cores better than one process with two; each has a server of its own.
PARALLEL = -n 2 --dist loadfile
export PORT

.PHONY: setup demo test test-unit test-training test-host test-nightly check
setup:
	@$(PYTHON) tools/setup.py

demo: setup
	@$(VENV_PYTHON) -m demo.run

test: setup
	@$(VENV_PYTHON) -m pytest $(PARALLEL)

test-unit: setup
	@$(VENV_PYTHON) -m pytest $(PARALLEL) -m "unit and not nightly"

test-training: setup
	@$(VENV_PYTHON) -m pytest $(PARALLEL) -m "training and not nightly"

test-host: setup
	@$(VENV_PYTHON) -m pytest $(PARALLEL) -m "host and not nightly"

test-nightly: setup
	@$(VENV_PYTHON) -m pytest -m nightly --timeout 7200

check: setup node_modules
	@$(VENV_PYTHON) -m ruff check . && $(VENV_PYTHON) -m ruff format --check .
	@npm run --silent check

node_modules: package-lock.json
	@npm ci --silent && touch node_modules
