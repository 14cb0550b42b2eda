"""The golden tile: recorded on half-precision inputs, the same bytes each time, and a measure of deviation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from tiny_bundle import make_golden, make_graph, make_manifest, random_tile

from rmr_sdk.golden import FloatArray, GoldenTile, decode_golden, encode_golden, record_golden


@pytest.fixture(scope="module")
def golden() -> GoldenTile:
    return make_golden(make_graph().SerializeToString())


def full(golden: GoldenTile) -> dict[str, FloatArray]:
    """Give outputs of the tile's shape that agree with the golden ones, which cover every voxel of the tiny tile."""
    shape = golden.inputs["t1w"].shape[2:]
    return {name: array.reshape(1, -1, *shape).copy() for name, array in golden.outputs.items()}


def test_bytes_are_the_same_and_come_back(golden: GoldenTile) -> None:
    data = encode_golden(golden)
    assert encode_golden(make_golden(make_graph().SerializeToString())) == data
    again = decode_golden(data, make_manifest())
    assert again.deviation(full(golden)).maximum == 0
    for name, array in golden.inputs.items():
        np.testing.assert_array_equal(again.inputs[name], array)


def test_the_reference_sees_the_inputs_that_are_stored() -> None:
    seen: dict[str, FloatArray] = {}

    def run(inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        seen.update(inputs)
        return {"fused": inputs["t1w"]}

    golden = record_golden(random_tile(3), run)
    for name, array in golden.network_inputs().items():
        np.testing.assert_array_equal(array, seen[name])
        assert array.dtype == np.float32


def test_at_most_4096_voxels_are_kept() -> None:
    tile = {"t1w": np.zeros((1, 1, 20, 20, 20), np.float32)}
    golden = record_golden(tile, lambda inputs: {"fused": inputs["t1w"]})
    assert golden.voxels.shape == (4096,)
    assert len(set(golden.voxels.tolist())) == 4096


def test_deviation_is_measured_in_units_of_the_output(golden: GoldenTile) -> None:
    outputs = full(golden)
    assert golden.deviation(outputs).maximum == 0
    outputs["probability"] += 0.25
    found = golden.deviation(outputs)
    assert found.maximum == pytest.approx(0.25, rel=1e-5)
    assert found.rms == pytest.approx(0.25, rel=1e-5)
    large = {name: array * 100 for name, array in golden.outputs.items()}
    scaled = GoldenTile(golden.inputs, golden.voxels, large)
    assert scaled.deviation({name: a * 101 for name, a in full(golden).items()}).maximum == pytest.approx(
        0.01, rel=1e-3
    )


def test_values_that_are_not_finite_deviate_without_limit(golden: GoldenTile) -> None:
    outputs = full(golden)
    outputs["fused"][0, 0, 0, 0, 0] = np.nan
    assert golden.deviation(outputs).rms == np.inf
