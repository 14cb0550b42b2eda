"""Statistics of activations, and where they are clipped, against numpy on all values at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import Builder, chain_model, linear_model
from test_int8 import noise, peaks, run_onnxruntime

from rmr_export.errors import PrecisionError
from rmr_export.precision.bias import correct_biases
from rmr_export.precision.calibration import calibrate
from rmr_export.precision.equalise import channel_scales, equalise, find_pairs
from rmr_export.precision.int8 import quantise
from rmr_export.precision.observe import Observer
from rmr_export.precision.ranges import BINS, METHODS, Statistics, divergence, squared_error
from rmr_sdk.errors import ConfigError


def gathered(*tiles: np.ndarray) -> Statistics:
    found = Statistics()
    for tile in tiles:
        found.add(tile.astype(np.float32), channel_axis=1)
    return found


def draw(scale: float, seed: int = 0, shape: tuple[int, ...] = (1, 4, 20, 20, 20)) -> np.ndarray:
    return (np.random.default_rng(seed).laplace(size=shape) * scale).astype(np.float32)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5))
def test_tiles_one_by_one_are_as_all_at_once(scales: list[float]) -> None:
    tiles = [draw(scale, seed, (1, 3, 4, 5, 6)) for seed, scale in enumerate(scales)]
    found, everything = gathered(*tiles), np.concatenate(tiles)
    assert found.maximum == pytest.approx(np.abs(everything).max())
    np.testing.assert_allclose(found.peaks, np.abs(everything).max(axis=(0, 2, 3, 4)))
    np.testing.assert_allclose(found.means, everything.mean(axis=(0, 2, 3, 4), dtype=np.float64), atol=1e-5)
    assert found.counts.sum() == everything.size
    edges = np.linspace(0, found.limit, BINS + 1)
    wanted, _ = np.histogram(np.abs(everything), bins=edges)
    # A value on the edge of a bin may fall on either side of it.
    assert np.abs(np.cumsum(found.counts) - np.cumsum(wanted)).max() <= 2


def test_percentile() -> None:
    values = draw(1.0)
    assert gathered(values).clip("percentile") == pytest.approx(np.percentile(np.abs(values), 99.99), rel=0.05)


def test_the_squared_error_is_that_of_all_values() -> None:
    values = draw(1.0)
    found = gathered(values)
    for clip in (2.0, 5.0, found.maximum):
        step = clip / 127
        real = float(np.mean((np.clip(np.round(np.abs(values) / step), 0, 127) * step - np.abs(values)) ** 2))
        assert squared_error(found.counts, found.limit, clip) == pytest.approx(real, rel=0.1)
    clips = np.linspace(0.5, found.maximum, 40)
    best = clips[np.argmin([squared_error(found.counts, found.limit, clip) for clip in clips])]
    assert found.clip("mse") == pytest.approx(best, rel=0.15)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_a_single_outlier_is_clipped(method: str) -> None:
    values = np.random.default_rng(0).normal(size=(1, 2, 40, 40, 40)).astype(np.float32)
    values[0, 0, 0, 0, 0] = 60.0  # one in 128,000
    assert gathered(values).clip("max") == 60.0
    assert 2.0 < gathered(values).clip(method) < 45.0


def test_divergence_grows_with_what_is_lost() -> None:
    counts = np.exp(-np.linspace(0, 8, 2048)) * 1e6
    assert divergence(counts, 2048) == pytest.approx(0, abs=1e-3)
    assert divergence(counts, 256) > divergence(counts, 1024) >= 0


@pytest.mark.parametrize("method", METHODS)
def test_an_activation_that_is_always_zero(method: str) -> None:
    assert gathered(np.zeros((1, 2, 3, 3, 3))).clip(method) == 0.0


def test_calibration_clips_no_input_of_the_graph() -> None:
    model, inputs = chain_model(), noise("x")
    inputs["x"][0, 0, 0, 0, 0] = 50.0
    found = calibrate(model, iter([("one", inputs), ("two", noise("x"))]), threads=1)
    assert (found.tiles, found.sources, found.inputs) == (2, ("one", "two"), {"x"})
    ranges = found.ranges("percentile")
    assert ranges["x"] == 50.0
    assert 0 < ranges["leaky"] <= found.statistics["leaky"].maximum
    with pytest.raises(ConfigError, match='no calibration method "best"'):
        found.ranges("best")


def test_a_graph_is_watched_in_parts_without_a_difference() -> None:
    model, inputs = chain_model(), noise("x")
    names = ["x", "p", "leaky", "norm"]
    whole, parts = Observer(model, names, threads=1), Observer(model, names, max_bytes=1, threads=1)
    assert (whole.runs, parts.runs) == (1, 3)
    wanted = {name: values.copy() for name, values in whole.run(inputs)}
    for name, values in parts.run(inputs):
        np.testing.assert_allclose(values, wanted[name], atol=1e-5)


def test_a_tile_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmr_export.precision.observe.MAX_TENSOR_BYTES", 1000)
    with pytest.raises(ConfigError, match="the tile is too large to calibrate on"):
        Observer(chain_model(), ["p"])


def test_what_cannot_be_calibrated_on() -> None:
    with pytest.raises(ConfigError, match="no tile to calibrate on"):
        calibrate(chain_model(), iter([]), threads=1)
    with pytest.raises(PrecisionError, match='study "sub-03" makes values in "x" that are not finite'):
        calibrate(chain_model(), iter([("sub-03", {"x": np.full((1, 16, 6, 8, 6), np.nan, np.float32)})]), threads=1)


@pytest.mark.parametrize(("make", "shape", "output"), [(chain_model, None, "third"), (linear_model, (40, 16), "two")])
def test_equalisation_changes_nothing_but_the_ranges(make, shape, output) -> None:  # type: ignore[no-untyped-def]
    model = make()
    inputs = noise("x") if shape is None else noise("x", shape=shape)
    found = calibrate(model, iter([("one", inputs)]), threads=1)
    made = equalise(model, found.statistics)
    wanted = run_onnxruntime(model, inputs)[output]
    np.testing.assert_allclose(run_onnxruntime(made, inputs)[output], wanted, atol=1e-4)
    after = calibrate(made, iter([("one", inputs)]), threads=1).statistics
    pairs = find_pairs(model)
    assert {pair.source for pair in pairs} == ({"first", "norm"} if shape is None else {"norm"})
    for pair in pairs:
        before, evened = (
            found.statistics[pair.readers[0].layer.activation].peaks,
            after[pair.readers[0].layer.activation].peaks,
        )
        assert evened.max() / evened.min() != pytest.approx(before.max() / before.min(), rel=1e-3)


def test_equalisation_goes_through_a_concat() -> None:
    made = Builder()
    one = made.prelu(made.conv("x", "a", 16, bias=True), "pa")
    two = made.node("ConvTranspose", ["x", made.weight("b.weight", 16, 8, 1, 1, 1)], "b", kernel_shape=[1] * 3)
    joined = made.node("Concat", [two, one], "joined", axis=1)
    third = made.prelu(made.conv(joined, "c", 24), "pc")
    model = made.model(["x"], made.conv(made.node("Concat", [third, joined], "all", axis=1), "out", 40))
    pairs = {pair.source: [(r.layer.name, r.first) for r in pair.readers] for pair in find_pairs(model)}
    assert pairs == {"a": [("c", 8), ("out", 24)], "b": [("c", 0), ("out", 16)], "c": [("out", 0)]}
    inputs = noise("x")
    changed = equalise(model, calibrate(model, iter([("one", inputs)]), threads=1).statistics)
    wanted = run_onnxruntime(model, inputs)["out"]
    np.testing.assert_allclose(run_onnxruntime(changed, inputs)["out"], wanted, atol=1e-3)
    assert not all(
        a.raw_data == b.raw_data for a, b in zip(model.graph.initializer, changed.graph.initializer, strict=True)
    )


def test_scales_of_channels_by_hand() -> None:
    scales = channel_scales(np.array([4.0, 1.0, 0.0], np.float32), np.array([1.0, 1.0, 1.0], np.float32))
    np.testing.assert_allclose(scales, [2**0.5, 2**-0.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize(("make", "shape", "output"), [(chain_model, None, "third"), (linear_model, (40, 16), "two")])
def test_bias_correction_takes_the_mean_error_away(make, shape, output) -> None:  # type: ignore[no-untyped-def]
    model = make()
    inputs = {"x": (noise("x") if shape is None else noise("x", shape=shape))["x"] + 1.5}
    found = calibrate(model, iter([("one", inputs)]), threads=1)
    ranges = {name: value * 1.001 for name, value in peaks(model, inputs).items()}
    exclude = ["second", "third", "two"]
    tensor = "first" if shape is None else "one_biased"

    def error(graph) -> float:  # type: ignore[no-untyped-def]
        def values(each):  # type: ignore[no-untyped-def]
            return dict(Observer(each, [tensor], threads=1).run(inputs))[tensor].copy()

        difference = values(quantise(graph, ranges, exclude=exclude)) - values(model)
        return float(np.abs(difference.mean(axis=(0, 2, 3, 4) if shape is None else 0)).mean())

    assert error(correct_biases(model, found.statistics, exclude)) < 0.6 * error(model)
