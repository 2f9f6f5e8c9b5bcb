# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Tests draw on a virtual screen where there is one to be had, so that no window ever opens over your work.
SCREEN = $(if $(shell command -v xvfb-run 2>/dev/null),QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX",)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports tests tests-of-the-window tests-of-the-rest bench format clean

help:
	@echo "make demo     set up, then segment the bundled sample: opens napari, or writes demo_output/ without a display"
	@echo "make test     set up, then lint, types, import rules and every test"
	@echo "make bench    set up, then print the benchmark table"
	@echo "make format   rewrite the sources the way lint wants them"
	@echo "make clean    remove the environment and what was generated"

$(INSTALLED): pyproject.toml constraints.txt .ci/system-packages
	sh .ci/system-packages "$(PYTHON)"
	"$(PYTHON)" -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,dicom,lora,onnx,text,video]"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/napari-sam-med demo --output demo_output

test: lint types imports tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

# the outputs of the two runs one after the other, where this make can
UNMIXED = $(if $(filter output-sync,$(.FEATURES)),--output-sync=target,)

# two runs side by side, one core each, of about the same length
tests: $(INSTALLED)
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=2 $(UNMIXED) tests-of-the-window tests-of-the-rest

tests-of-the-window: $(INSTALLED)
	$(SCREEN) $(BIN)/python -m pytest tests/gui --ignore-glob='*/test_wo*.py'

tests-of-the-rest: $(INSTALLED)
	$(SCREEN) $(BIN)/python -m pytest tests benchmarks --ignore-glob='*/gui/test_[!w]*.py' --ignore-glob='*/gui/test_w[!o]*.py'

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo_output .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
