"""`make test-gpu`: the tests that need a GPU, and what they cover. Where there is none it says so, and fails.

python tests/on_gpu.py [options of pytest]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rmr_sdk import _C
from rmr_sdk.cuda import list_devices
from rmr_sdk.errors import DeviceError

COVERS = """These tests run on a GPU:
- every kernel (cutting, sampling, blending, clearing, foreground, resampling) on every voxel type and memory layout,
  against NumPy, and to the bit against the same arithmetic on the CPU;
- arrays that the kernels must refuse: host memory, null;
- the device pipeline on studies of all layouts and grids, to the bit against the CPU; fp16 inputs and outputs;
  arrays that are on the GPU already; 20 runs without a leak; a GPU without memory, and the run after it;
- TensorRT through the device pipeline, where it is installed, against the CPU;
- the engine with each TensorRT that is installed, in fp32, fp16 and int8, through pycuda and the driver's library:
  host and device tiles, recorded and not, against ONNX's reference; its cache; openings without a leak.
They do not measure speed: `make bench-gpu` does. For memory errors run them under compute-sanitizer (docs/cuda.md)."""

NOT_RUN = "The GPU tests did NOT run: {}\nNothing about the GPU has been shown on this machine."


def why_not() -> str | None:
    """Say why the tests cannot run here; None where they can."""
    if not _C.built_with_cuda:
        return "rmr_sdk was built without CUDA kernels; install it with RMR_CUDA=ON where nvcc is on the PATH."
    try:
        found = list_devices()
    except DeviceError as error:
        return str(error)
    if _C.cuda_device_count() == 0:
        return "the CUDA runtime finds no device that it can use."
    print("\n".join(f"{each.device}: {each.name}, compute capability {each.compute_capability / 10}" for each in found))
    return None


def main(arguments: list[str]) -> int:
    """Run them."""
    print(COVERS)
    reason = why_not()
    if reason is not None:
        print(NOT_RUN.format(reason), file=sys.stderr)
        return 5
    tests = Path(__file__).parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        *map(str, (tests / "kernels", tests / "device", tests / "engines")),
        *arguments,
    ]
    return subprocess.run(command, cwd=tests.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
