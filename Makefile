# RMR SDK: every command a developer needs. `make demo` and `make test` work on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?=
OUT ?= demo_output
# Torch is pinned here and only here: an open range would pull its CUDA packages into a CPU environment.
TORCH := torch==2.13.0
# TorchIO would pull torch's other packages: it and what it needs are named one by one.
TORCHIO := torchio==1.2.1 deprecated wrapt humanize jaxtyping wadler-lindig typer shellingham

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check format bench release-model model-card pareto cuda clean

demo: $(VENV)/.runtime  ## install the runtime and run the main job; STUDY=DIR runs a study of yours
	$(BIN)/rmr demo $(STUDY) --out $(OUT)

test: check  ## static checks and the whole test suite; installing compiled CUDA for every architecture where nvcc is
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest tests

check: $(VENV)/.dev  ## formatting, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.dev  ## rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format -i

cuda: $(VENV)/.dev  ## compile the CUDA kernels for every architecture, warnings as errors; needs nvcc, no GPU
	@if command -v nvcc >/dev/null; then \
		$(BIN)/cmake -S . -B build/cuda -G Ninja -DRMR_CUDA=ON -DRMR_WERROR=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python) >build/cuda.log && \
		$(BIN)/cmake --build build/cuda --target rmr_cuda; \
	else echo "nvcc is not installed: the CUDA kernels were not compiled"; fi

bench: $(VENV)/.bench  ## run the benchmarks, write benchmarks/results and the tables of the README
	$(BIN)/python benchmarks/bench_kernels.py
	$(BIN)/python benchmarks/bench_pipeline.py
	$(BIN)/python benchmarks/bench_accuracy.py
	$(BIN)/python benchmarks/bench_alignment.py
	$(BIN)/python benchmarks/bench_memory.py
	$(BIN)/python benchmarks/bench_dicom.py
	$(BIN)/python benchmarks/tables.py README.md
	$(BIN)/python benchmarks/model_card.py

release-model: $(VENV)/.dev  ## from models/*.pth to the shipped bundle, its figures, tables and card; needs RMR_DATA
	$(BIN)/python benchmarks/release.py
	$(MAKE) model-card
	$(BIN)/python benchmarks/tables.py README.md

model-card: $(VENV)/.dev  ## what the card shows beside accuracy, and docs/model-card.md itself; needs RMR_DATA
	$(BIN)/python benchmarks/bench_failures.py
	$(BIN)/python benchmarks/bench_heads.py
	$(BIN)/python benchmarks/model_card.py

pareto: $(VENV)/.dev  ## train and measure three sizes of the network: hours on a CPU, goes on where it stopped
	$(BIN)/python benchmarks/bench_pareto.py
	$(BIN)/python benchmarks/tables.py README.md
	$(BIN)/python benchmarks/model_card.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml CMakeLists.txt setup.py $(shell find csrc rmr_sdk -type f -not -name '*.pyc' -not -name '*.so') | $(VENV)/bin/python
	@# An environment for development runs the tree itself; a copy would hide it.
	test -e $(VENV)/.dev || RMR_CUDA=OFF $(BIN)/pip install -q .
	touch $@

$(VENV)/.dev: pyproject.toml CMakeLists.txt setup.py training/pyproject.toml export/pyproject.toml $(shell find csrc -type f) | $(VENV)/bin/python
	$(BIN)/pip install -q $(TORCH)
	RMR_CUDA=AUTO RMR_WERROR=ON RMR_EMULATE=ON $(BIN)/pip install -q -e '.[dev]'
	$(BIN)/pip install -q -e ./training -e ./export
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install -q --no-deps $(TORCHIO)
	touch $@

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist demo_output *.egg-info rmr_sdk/_C*.so
