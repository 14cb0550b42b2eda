"""The golden tile: one tile whose outputs every engine must reproduce before it is trusted.

Owns the layout of `golden.npz`, how the tile is recorded at export and how far an engine's outputs are from it. Does
not run engines: `rmr_sdk.engines` does.

    golden.npz    input.<name>   float16 (1, 1, D, H, W)   one per contrast, in lower case
                  voxels         int32   (n,)              positions in the flattened (D, H, W) tile, ascending
                  output.<name>  float32 (channels, n)     "fused" and, with classes, "probability"
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.errors import BundleError
from rmr_sdk.manifest import Manifest

FloatArray = NDArray[np.float32]
Tensors = Mapping[str, FloatArray]

VOXELS = 4096
_UNREADABLE = (ValueError, KeyError, EOFError, OSError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far outputs are from the golden ones, over all outputs.

    Each output is measured in units of its largest golden magnitude, or of 1 where that is smaller.
    """

    maximum: float
    rms: float


@dataclass(frozen=True, slots=True, eq=False)
class GoldenTile:
    """Inputs of one tile, and the reference outputs at `voxels`."""

    inputs: Mapping[str, NDArray[np.float16]]
    voxels: NDArray[np.int32]
    outputs: Tensors

    def network_inputs(self) -> dict[str, FloatArray]:
        """Give the inputs as an engine takes them: float32 (1, 1, D, H, W), freshly allocated."""
        return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in self.inputs.items()}

    def deviation(self, outputs: Tensors) -> Deviation:
        """Compare an engine's outputs with the golden ones.

        Args:
            outputs: Name -> (1, channels, D, H, W).

        Returns:
            The worst of the outputs; infinite where an output is not finite.
        """
        maximum = rms = 0.0
        for name, golden in self.outputs.items():
            found = _at(outputs[name], self.voxels)
            difference = (found - golden) / max(1.0, float(np.abs(golden).max()))
            if not np.isfinite(difference).all():
                return Deviation(np.inf, np.inf)
            maximum = max(maximum, float(np.abs(difference).max()))
            rms = max(rms, float(np.sqrt(np.square(difference, dtype=np.float64).mean())))
        return Deviation(maximum, rms)


def record_golden(inputs: Tensors, run: Callable[[dict[str, FloatArray]], Tensors]) -> GoldenTile:
    """Run the reference network on one tile and keep what the golden file needs.

    Args:
        inputs: Name -> normalised tile (1, 1, D, H, W); rounded to float16 before `run` sees it.
        run: The reference network in fp32: inputs -> outputs (1, channels, D, H, W).

    Returns:
        The tile with its outputs at up to 4,096 voxels, drawn with a fixed seed.
    """
    half = {name: np.asarray(array, dtype=np.float16) for name, array in inputs.items()}
    outputs = run({name: array.astype(np.float32) for name, array in half.items()})
    count = next(iter(half.values())).size
    drawn = np.random.default_rng(0).choice(count, size=min(VOXELS, count), replace=False)
    voxels = np.sort(drawn).astype(np.int32)
    return GoldenTile(half, voxels, {name: _at(array, voxels) for name, array in outputs.items()})


def encode_golden(golden: GoldenTile) -> bytes:
    """Give the bytes of `golden.npz`; the same for the same tile."""
    arrays: dict[str, NDArray[Any]] = {f"input.{name}": array for name, array in golden.inputs.items()}
    arrays["voxels"] = golden.voxels
    arrays |= {f"output.{name}": array for name, array in golden.outputs.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # mistakes an array for `allow_pickle`
    return buffer.getvalue()


def decode_golden(data: bytes, manifest: Manifest) -> GoldenTile:
    """Read `golden.npz` and check it against the manifest.

    Args:
        data: The bytes of the file.
        manifest: Says which inputs and outputs there must be, and their shapes.

    Returns:
        The golden tile.

    Raises:
        BundleError: Not such a file, or arrays that do not fit the manifest.
    """
    extent = int(np.prod(manifest.tile_shape))
    try:
        _refuse_bomb(data, limit=len(manifest.contrasts) * extent * 2 + 4 * VOXELS * 300)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            voxels = file["voxels"]
            inputs = {name: file[f"input.{name}"] for name in manifest.input_names}
            outputs = {name: file[f"output.{name}"] for name in manifest.output_names}
    except _UNREADABLE as error:
        raise _misfit(f"cannot be read ({type(error).__name__}: {error})") from error
    _check("voxels", voxels, np.int32, (voxels.size,))
    if voxels.size == 0 or voxels.min() < 0 or voxels.max() >= extent:
        raise _misfit("has voxels outside the tile")
    for name, array in inputs.items():
        _check(f"input.{name}", array, np.float16, (1, 1, *manifest.tile_shape))
    for name, array in outputs.items():
        _check(f"output.{name}", array, np.float32, (manifest.output_channels[name], voxels.size))
    return GoldenTile(inputs, voxels, outputs)


def _at(output: FloatArray, voxels: NDArray[np.int32]) -> FloatArray:
    return np.asarray(output[0].reshape(output.shape[1], -1)[:, voxels], dtype=np.float32)


def _check(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise _misfit(f"has {name} as {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    if not np.isfinite(array).all():
        raise _misfit(f"has values in {name} that are not finite")


def _refuse_bomb(data: bytes, limit: int) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    if claimed > limit:
        raise ValueError(f"{claimed} bytes unpacked, and at most {limit} fit the manifest")


def _misfit(problem: str) -> BundleError:
    return BundleError(f"The golden tile {problem}.", "Export the bundle again.")
