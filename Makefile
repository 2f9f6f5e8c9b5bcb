# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Tests draw on a virtual screen where there is one to be had, so that no window ever opens over your work.
SCREEN = $(if $(shell command -v xvfb-run 2>/dev/null),QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX",)

TESTS := tests-of-the-window-a-to-l tests-of-the-commands tests-of-the-window-m-to-z tests-of-the-rest

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports tests $(TESTS) bench format clean

help:
	@echo "make demo     set up, then segment the bundled sample: opens napari, or writes demo_output/ without a display"
	@echo "make test     set up, then lint, types, import rules and every test"
	@echo "make bench    set up, then print the benchmark table"
	@echo "make format   rewrite the sources the way lint wants them"
	@echo "make clean    remove the environment and what was generated"

# Libraries are compiled as they are first imported. Where that may not be written down, as containers often have it,
# each of the many processes that tests start compiles them again, which takes it three times as long as its imports.
export PYTHONDONTWRITEBYTECODE :=

$(INSTALLED): pyproject.toml constraints.txt .ci/system-packages .ci/install
	sh .ci/system-packages "$(PYTHON)"
	"$(PYTHON)" -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	sh .ci/install $(BIN)/python --editable ".[cluster,dev,dicom,lora,onnx,text,video,zarr]"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/napari-sam-med demo --output demo_output

test: lint
	$(SIDE_BY_SIDE) $(TESTS) types imports

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

# Two runs at a time, of one thread each, one of the window beside one without: four at a time took two cores nearly half
# as long again. Their outputs come one after the other, where this make can.
UNMIXED := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target,)
SIDE_BY_SIDE = OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=2 $(UNMIXED)

PYTEST = $(SCREEN) $(BIN)/python -m pytest
COMMANDS := tests/cli tests/evaluation tests/training

tests: $(INSTALLED)
	$(SIDE_BY_SIDE) $(TESTS)

tests-of-the-window-a-to-l: $(INSTALLED)
	$(PYTEST) tests/gui --ignore-glob='*/gui/test_[m-z]*.py'

tests-of-the-window-m-to-z: $(INSTALLED)
	$(PYTEST) tests/gui --ignore-glob='*/gui/test_[a-l]*.py'

tests-of-the-commands: $(INSTALLED)
	$(PYTEST) $(COMMANDS)

tests-of-the-rest: $(INSTALLED)
	$(PYTEST) tests benchmarks --ignore=tests/gui $(COMMANDS:%=--ignore=%)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo_output .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
