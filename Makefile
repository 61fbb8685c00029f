# make demo: set up, train on a small photo set in a real ComfyUI, leave pictures in demo/output/
# make test: set up, run all tests
PYTHON ?= python3
PORT ?= 8188
VENV_PYTHON = $(if $(filter Windows_NT,$(OS)),.venv/Scripts/python,.venv/bin/python)
export PORT

.PHONY: setup demo test
setup:
	@$(PYTHON) demo/setup.py

demo: setup
	@$(VENV_PYTHON) -m demo.run

test: setup
	@$(VENV_PYTHON) -m ruff check . && $(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m pytest
