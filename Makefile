# RMR SDK: every command a developer needs. `make demo` and `make test` work on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?=
OUT ?= demo_output
# Of `make wheelhouse`: the folder to make, extras of the SDK to bring along, options of packaging/wheelhouse.py.
WHEELHOUSE ?= dist/wheelhouse
EXTRAS ?=
WHEELHOUSE_OPTIONS ?=
# Torch is pinned here and only here: an open range would pull its CUDA packages into a CPU environment.
TORCH := torch==2.13.0
# TorchIO would pull torch's other packages: it and what it needs are named one by one.
TORCHIO := torchio==1.2.1 deprecated wrapt humanize jaxtyping wadler-lindig typer shellingham

# The same with nnU-Net, whose sliding window needs few of the packages it asks for.
NNUNET := nnunetv2==2.8.1 acvl_utils batchgenerators dynamic-network-architectures threadpoolctl blosc2 numexpr ndindex pandas httpx

# The bindings of TensorRT alone, whose signatures a test reads: its libraries are not on PyPI, and nothing imports it.
TENSORRT_BINDINGS := tensorrt_cu13_bindings==11.4.0.106; platform_machine == 'x86_64'

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check format bench bench-paper release-model model-card pareto quantisation cuda test-gpu bench-gpu kernel-resources wheelhouse test-wheelhouse clean

demo: $(VENV)/.runtime  ## install the runtime and run the main job; STUDY=DIR runs a study of yours
	$(BIN)/rmr demo $(STUDY) --out $(OUT)

test: check $(VENV)/.dependency-wheels  ## static checks and the whole test suite; installing compiled CUDA for every architecture where nvcc is
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest tests

check: $(VENV)/.dev $(VENV)/.packaging  ## formatting, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc include examples tests/capi -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/shellcheck .ci/run packaging/offline/*.sh
	$(BIN)/hadolint docker/Dockerfile.*

wheelhouse: $(VENV)/.packaging  ## one folder that installs without a network (docs/offline.md); EXTRAS=align brings an extra
	$(BIN)/python packaging/wheelhouse.py --out $(WHEELHOUSE) --extras $(EXTRAS) $(WHEELHOUSE_OPTIONS)

test-wheelhouse: $(VENV)/.dev $(VENV)/.dependency-wheels  ## what `make test` leaves out of packaging: minutes, and the package index
	RMR_TEST_WHEELHOUSE=1 $(BIN)/python -m pytest tests/packaging

format: $(VENV)/.dev  ## rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc include examples tests/capi -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format -i

cuda: $(VENV)/.dev  ## compile the CUDA kernels for every architecture, warnings as errors; needs nvcc, no GPU
	@if command -v nvcc >/dev/null; then \
		$(BIN)/cmake -S . -B build/cuda -G Ninja -DRMR_CUDA=ON -DRMR_WERROR=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python) >build/cuda.log && \
		$(BIN)/cmake --build build/cuda --target rmr_cuda; \
	else echo "nvcc is not installed: the CUDA kernels were not compiled"; fi

test-gpu: $(VENV)/.dev  ## the tests that need an NVIDIA GPU; says so and fails where there is none (docs/cuda.md)
	$(BIN)/python tests/on_gpu.py

bench-gpu: $(VENV)/.dev  ## kernels against a copy, and the device pipeline against torch and MONAI, on an NVIDIA GPU (docs/cuda.md)
	$(BIN)/python benchmarks/bench_cuda.py

kernel-resources: $(VENV)/.dev  ## take the registers and shared memory of the compiled kernels as csrc/resources.json; no GPU
	$(BIN)/python benchmarks/kernel_resources.py --write

bench: $(VENV)/.bench  ## run the benchmarks, write benchmarks/results and the tables of the README
	$(BIN)/python benchmarks/bench_kernels.py
	$(BIN)/python benchmarks/bench_pipeline.py
	$(BIN)/python benchmarks/bench_engines.py
	$(BIN)/python benchmarks/bench_peers.py
	$(BIN)/python benchmarks/bench_accuracy.py
	$(BIN)/python benchmarks/bench_alignment.py
	$(BIN)/python benchmarks/bench_memory.py
	$(BIN)/python benchmarks/bench_dicom.py
	$(BIN)/python benchmarks/tables.py README.md
	$(BIN)/python benchmarks/tables.py docs/benchmarking.md
	$(BIN)/python benchmarks/tables.py docs/engines.md
	$(BIN)/python benchmarks/model_card.py

bench-paper: $(VENV)/.bench  ## the paper preset against torch eager and MONAI, and the table of docs/engines.md; needs RMR_DATA
	$(BIN)/python benchmarks/bench_paper.py
	$(BIN)/python benchmarks/tables.py docs/engines.md

release-model: $(VENV)/.dev  ## from models/*.pth to the shipped bundle, its figures, tables and card; needs RMR_DATA
	$(BIN)/python benchmarks/release.py
	$(MAKE) model-card
	$(BIN)/python benchmarks/tables.py README.md

model-card: $(VENV)/.dev  ## what the card shows beside accuracy, and docs/model-card.md itself; needs RMR_DATA
	$(BIN)/python benchmarks/bench_failures.py
	$(BIN)/python benchmarks/bench_heads.py
	$(BIN)/python benchmarks/bench_confidence.py
	$(BIN)/python benchmarks/model_card.py

quantisation: $(VENV)/.dev  ## clipping methods and groups of layers in int8, measured: five minutes; needs RMR_DATA
	$(BIN)/python benchmarks/bench_quantise.py
	$(BIN)/python benchmarks/tables.py docs/quantisation.md

pareto: $(VENV)/.dev  ## train and measure three sizes of the network: an hour on a CPU, goes on where it stopped; needs RMR_DATA
	$(BIN)/python benchmarks/bench_pareto.py
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
	$(BIN)/pip install -q --no-deps "$(TENSORRT_BINDINGS)"
	touch $@

$(VENV)/.packaging: packaging/requirements.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -r packaging/requirements.txt
	touch $@

# The tests install a delivery from files alone, so these are brought while there is a network.
$(VENV)/.dependency-wheels: pyproject.toml $(VENV)/.packaging
	$(BIN)/python packaging/wheelhouse.py --dependencies build/dependency-wheels
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install -q --no-deps $(TORCHIO) $(NNUNET)
	touch $@

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist demo_output *.egg-info rmr_sdk/_C*.so
