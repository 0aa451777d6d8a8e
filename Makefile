# make setup      .venv with everything, the command .venv/bin/prosma included
# make demo       one click on Segment on the bundled sample, in a headless Slicer; results in demo/
# make screenshots  the pictures of the panel in Resources/, and the record of what they show
# make test       the fast tests; make test-slow: the long ones
# make test-slicer SLICER_SOURCE=DIR  the panel's tests with Slicer's own Python files, from a checkout of Slicer in DIR
# make test-nnunet  the bridge to nnU-Net, with nnU-Net installed into .venv/nnunet
# make lint       ruff, mypy, and which room imports which
# make mutation   how many small faults in the code the tests notice; MUTATION_ARGS="gate loss --sample 60"
# make schema    docs/model.schema.json, made again
# make cmake-lists  the list of files that the extension installs, made again
# make clean      remove what the targets above wrote, except .venv
# make setup PYTHON=python3.12 picks the interpreter (3.10 to 3.13).

VENV := .venv
PY := $(VENV)/bin/python
PROCESSES ?= 2
# Tests start hundreds of processes; without compiled files on disk each compiles the package anew, a sixth of its time.
unexport PYTHONDONTWRITEBYTECODE
STAMP := $(VENV)/.installed
REQUIREMENTS := Testing/requirements.txt Testing/constraints.txt training/pyproject.toml

# The first interpreter that starts and has the right version; looked for only when .venv must be made.
RIGHT_VERSION := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c '$(RIGHT_VERSION)' 2>/dev/null && echo $$python && break; done)

.PHONY: setup demo screenshots test test-slow test-slicer test-nnunet mutation lint schema cmake-lists clean

setup: $(STAMP)
	@:

$(PY):
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 was found. Install one, or name it: make setup PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c '$(RIGHT_VERSION)' || { echo "'$(PYTHON)' does not start or is no Python 3.10 to 3.13."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, and is pinned, so that no other requirement can replace its build.
$(STAMP): $(REQUIREMENTS) | $(PY)
	@echo "Installing PyTorch (the largest part, some minutes on a slow line) ..."
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint Testing/constraints.txt torch
	@echo "Installing the engine, training, and what the tests need ..."
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint Testing/constraints.txt \
		--requirement Testing/requirements.txt --editable 'training[train]'
	@$(PY) Testing/system_libraries.py
	@touch $@

demo: setup
	$(PY) Testing/demo.py $(DEMO_ARGS)

screenshots: setup
	$(PY) Testing/screenshots.py

# Two processes of one thread each take half the time of one process with two threads; the tests of a file stay together.
test: setup
	$(PY) -m pytest --numprocesses $(PROCESSES) --dist loadfile $(PYTEST_ARGS)

# Base classes, parameter node, packaging, translation, Sample Data and effects of that Slicer in place of the stand-ins.
test-slicer: setup
	@test -d "$(SLICER_SOURCE)/Base/Python/slicer" || { echo "Name a checkout of Slicer: make test-slicer SLICER_SOURCE=/path/to/Slicer"; exit 1; }
	SLICER_SOURCE="$(SLICER_SOURCE)" $(PY) -m pytest Testing/headless_slicer Testing/module $(PYTEST_ARGS)

test-slow: setup
	$(PY) -m pytest -m slow $(PYTEST_ARGS)

# An environment of its own on top of .venv: nnU-Net is large and brings torchvision, whose build may not suit that of torch.
NNUNET := $(VENV)/nnunet
PURELIB := import sysconfig; print(sysconfig.get_path('purelib'))

test-nnunet: setup
	$(PY) -m venv $(NNUNET)
	$(PY) -c "$(PURELIB)" > "$$($(NNUNET)/bin/python -c "$(PURELIB)")/beneath.pth"
	$(NNUNET)/bin/python -m pip install --quiet --disable-pip-version-check --constraint Testing/constraints.txt "nnunetv2>=2.8,<2.9"
	$(NNUNET)/bin/python -m pytest -m "" Testing/engine/learning/test_nnunet_bridge.py $(PYTEST_ARGS)

# Faults are put into the code in memory; no file changes. A few minutes for each subject.
mutation: setup
	$(PY) Testing/mutation/run.py --least 0.85 $(MUTATION_ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) Testing/packaging/arrows.py

# The published schema of model.json, from the dataclasses that check it.
schema: setup
	$(PY) -c "from prosma.package.schema import published_schema; print(published_schema(), end='')" > docs/model.schema.json

# The list of files that the extension installs.
cmake-lists: setup
	$(PY) Testing/packaging/write_cmake_lists.py

clean:
	rm -rf demo build dist .pytest_cache .ruff_cache .hypothesis
	find ProSMASegmentation Testing training -name __pycache__ -type d -prune -exec rm -rf {} +
