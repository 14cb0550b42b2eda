"""Blending against a plain weighted average in float64 with a count map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernel_devices import Host
from scipy.special import softmax

from rmr_sdk.blend import Blender, BlendOutputs, ring_channels, schedule_rows
from rmr_sdk.tiles import TilePlan, plan_tiles

CLASSES, CHOSEN, GAIN, BIAS = 5, 4, 3.5, 0.25
CASES = {
    "many tiles": ((20, 27, 31), (8, 12, 16), 0.5),
    "one tile": ((8, 12, 16), (8, 12, 16), 0.5),
    "smaller than a tile": ((5, 7, 9), (8, 12, 16), 0.25),
    "smaller along one axis": ((20, 7, 31), (8, 12, 16), 0.5),
    "odd sizes": ((13, 17, 19), (5, 7, 9), 0.25),
    "no overlap": ((16, 24, 32), (8, 12, 16), 0.0),
    "no overlap, uneven": ((19, 25, 33), (8, 12, 16), 0.0),
    "much overlap": ((14, 15, 18), (8, 8, 8), 0.75),
}


@dataclass
class Predictions:
    """Random engine outputs for each tile of a plan."""

    probability: list[npt.NDArray[Any]]
    fused: list[npt.NDArray[Any]]


def predict(plan: TilePlan, rng: np.random.Generator, dtype: Any = np.float32) -> Predictions:
    shapes = [(CLASSES, *plan.tile_shape)] * len(plan.tiles)
    return Predictions(
        [softmax(3.0 * rng.standard_normal(shape), axis=0).astype(dtype) for shape in shapes],
        [rng.random(plan.tile_shape).astype(dtype) for _ in plan.tiles],
    )


def cover(shape: tuple[int, int, int], tile_shape: tuple[int, int, int], overlap: float) -> TilePlan:
    return plan_tiles((0, 0, 0), shape, shape, tile_shape, overlap)


def gaussian(size: int) -> npt.NDArray[np.float64]:
    centred = np.arange(size) - (size - 1) / 2
    return np.exp(-0.5 * (centred / (0.125 * size)) ** 2)


def weighted_average(plan: TilePlan, tiles: list[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Blend (..., D, H, W) predictions with 3-D Gaussian weights and divide by the sum of the weights."""
    lead = tiles[0].shape[:-3]
    total, weights = np.zeros((*lead, *plan.shape)), np.zeros(plan.shape)
    window = np.einsum("i,j,k->ijk", *(gaussian(size) for size in plan.tile_shape))
    for tile, values in zip(plan.tiles, tiles, strict=True):
        volume = tuple(slice(a, b) for a, b in zip(tile.low, tile.high, strict=True))
        inner = tuple(slice(a - o, b - o) for a, b, o in zip(tile.low, tile.high, tile.origin, strict=True))
        total[(..., *volume)] += window[inner] * values[(..., *inner)].astype(np.float64)
        weights[volume] += window[inner]
    return total / weights


def expect(plan: TilePlan, predictions: Predictions, outputs: BlendOutputs) -> None:
    """Compare with the oracle; labels where the two best scores differ by more than rounding."""
    scores = weighted_average(plan, predictions.probability)
    if outputs.probability is not None:
        np.testing.assert_allclose(outputs.probability, scores[CHOSEN], rtol=0, atol=1e-6)
    if outputs.fused is not None:
        fused = weighted_average(plan, predictions.fused) * GAIN + BIAS
        np.testing.assert_allclose(outputs.fused, fused, rtol=0, atol=1e-6 * GAIN)
    best = np.sort(scores, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(outputs.labels[clear], scores.argmax(axis=0)[clear])


def run_on_device(
    device: Host, plan: TilePlan, predictions: Predictions, complement: bool, chosen: int = CHOSEN, padded: bool = False
) -> BlendOutputs:
    """Blend through the native target, which is the same for host and device memory.

    With `padded` rows of the ring leave room for whole words.
    """
    schedule = schedule_rows(plan)
    channels = ring_channels(CLASSES, chosen, complement)
    width = (plan.shape[2] + 6) // 4 * 4 if padded else plan.shape[2]
    outputs = BlendOutputs.allocate(plan.shape)
    handles = [device.put(array) for array in (outputs.labels, outputs.probability, outputs.fused)]
    target = device.ops.BlendTarget(
        *(device.put(array) for array in (schedule.slot, schedule.first, schedule.last)),
        device.put(np.full((schedule.slots, channels, width), np.nan, np.float32)),
        *handles,
        shape=plan.shape,
        classes=CLASSES,
        chosen_class=chosen,
        complement=complement,
        gain=GAIN,
        bias=BIAS,
    )
    for index, tile in enumerate(plan.tiles):
        target.blend(
            device.put(predictions.probability[index]),
            device.put(predictions.fused[index]),
            *(device.put(window) for window in tile.windows),
            tile=index,
            origin=tile.origin,
            low=tile.low,
            high=tile.high,
        )
    return BlendOutputs(*(device.get(handle) for handle in handles))


def run_blender(plan: TilePlan, predictions: Predictions, threads: int = 1, complement: bool = True) -> BlendOutputs:
    blender = Blender(
        plan,
        BlendOutputs.allocate(plan.shape),
        classes=CLASSES,
        chosen_class=CHOSEN,
        complement=complement,
        gain=GAIN,
        bias=BIAS,
        threads=threads,
    )
    for index in range(len(plan.tiles)):
        blender.add(index, predictions.fused[index][None, None], predictions.probability[index][None])
    return blender.finish()


@pytest.mark.parametrize("complement", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_blend_equals_a_weighted_average(device: Host, rng: np.random.Generator, case: str, complement: bool) -> None:
    plan = cover(*CASES[case])
    predictions = predict(plan, rng)
    expect(plan, predictions, run_on_device(device, plan, predictions, complement))


@pytest.mark.parametrize("case", ["many tiles", "smaller than a tile"])
def test_blend_takes_half_precision(device: Host, rng: np.random.Generator, case: str) -> None:
    plan = cover(*CASES[case])
    predictions = predict(plan, rng, np.float16)
    expect(plan, predictions, run_on_device(device, plan, predictions, complement=False))


def test_half_precision_is_read_exactly(device: Host) -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(16, 16, 256)
    plan = cover(every.shape, every.shape, 0.0)
    fused = device.put(np.empty(every.shape, np.float32))
    schedule = schedule_rows(plan)
    target = device.ops.BlendTarget(
        *(device.put(array) for array in (schedule.slot, schedule.first, schedule.last)),
        *(None, None, None, fused),
        shape=every.shape,
        classes=0,
        chosen_class=-1,
        complement=False,
        gain=1.0,
        bias=0.0,
    )
    ones = [device.put(np.ones(size, np.float32)) for size in every.shape]
    target.blend(None, device.put(every), *ones, tile=0, origin=(0, 0, 0), low=(0, 0, 0), high=every.shape)
    np.testing.assert_array_equal(device.get(fused), every.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("complement", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_device_and_host_agree_to_the_bit(
    device: Host, rng: np.random.Generator, case: str, padded: bool, complement: bool, dtype: Any
) -> None:
    plan = cover(*CASES[case])
    predictions = predict(plan, rng, dtype)
    ours = run_blender(plan, predictions, complement=complement)
    theirs = run_on_device(device, plan, predictions, complement, padded=padded)
    for name in ("labels", "probability", "fused"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("complement", [True, False])
def test_blend_does_not_depend_on_threads(rng: np.random.Generator, complement: bool) -> None:
    plan = cover(*CASES["many tiles"])
    predictions = predict(plan, rng)
    reference = run_blender(plan, predictions, 1, complement)
    for threads in (2, 3, 4):
        outputs = run_blender(plan, predictions, threads, complement)
        for name in ("labels", "probability", "fused"):
            np.testing.assert_array_equal(getattr(outputs, name), getattr(reference, name))


def test_skipped_tiles_count_as_background(rng: np.random.Generator) -> None:
    shape, tile_shape = (24, 20, 30), (8, 8, 12)
    full = cover(shape, tile_shape, 0.5)
    keep = [index for index in range(len(full.tiles)) if index % 3 != 1]
    plan = TilePlan(shape, tile_shape, tuple(full.tiles[i] for i in keep), len(full.tiles) - len(keep))
    predictions = predict(full, rng)
    for index in set(range(len(full.tiles))) - set(keep):
        predictions.probability[index] = np.zeros_like(predictions.probability[index])
        predictions.probability[index][0] = 1.0
        predictions.fused[index] = np.zeros_like(predictions.fused[index])
    kept = Predictions([predictions.probability[i] for i in keep], [predictions.fused[i] for i in keep])
    expect(full, predictions, run_blender(plan, kept))


def test_what_no_tile_covers_is_background(rng: np.random.Generator) -> None:
    shape = (20, 24, 28)
    plan = plan_tiles((4, 6, 8), (14, 20, 21), shape, (8, 8, 8), 0.5)
    outputs = run_blender(plan, predict(plan, rng))
    outside = np.ones(shape, bool)
    outside[4:14, 6:20, 8:21] = False
    assert not outputs.labels[outside].any()
    assert not outputs.probability[outside].any()
    np.testing.assert_array_equal(outputs.fused[outside], np.float32(BIAS))
    assert outputs.labels[~outside].any()


def test_rows_that_no_tile_covers_can_be_cleared(device: Host, rng: np.random.Generator) -> None:
    shape = (20, 24, 29)
    plan = plan_tiles((4, 6, 8), (14, 20, 21), shape, (8, 8, 8), 0.5)
    schedule = schedule_rows(plan)
    handles = [device.put(np.full(shape, 7, dtype)) for dtype in (np.uint8, np.float32, np.float32)]
    rows = [device.put(array) for array in (schedule.slot, schedule.first, schedule.last)]
    ring = device.put(np.empty((schedule.slots, 1, 32), np.float32))
    facts = {"shape": shape, "classes": 3, "chosen_class": 2, "complement": True, "gain": 2.0, "bias": BIAS}
    device.ops.BlendTarget(*rows, ring, *handles, **facts).clear()
    covered = np.broadcast_to((schedule.first >= 0)[..., None], shape)
    assert covered.any()
    for handle, background in zip(handles, (0, 0.0, BIAS), strict=True):
        np.testing.assert_array_equal(device.get(handle), np.where(covered, 7, np.float32(background)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("complement", [True, False])
def test_flaws_are_found_where_they_count(device: Host, value: float, complement: bool, dtype: Any) -> None:
    shape = (6, 7, 9)
    plan = cover(shape, shape, 0.0)
    schedule = schedule_rows(plan)
    rows = [device.put(array) for array in (schedule.slot, schedule.first, schedule.last)]
    windows = [device.put(window) for window in plan.tiles[0].windows]
    facts = {"shape": shape, "classes": 3, "chosen_class": 2, "complement": complement, "gain": 1.0, "bias": 0.0}
    for spoilt, expected in (
        (None, (0, 0)),
        ("fused", (1, 0)),
        (0, (0, int(not complement))),
        (1, (0, 1)),
        (2, (0, 1)),
    ):
        probability, fused = np.full((3, *shape), 1 / 3, dtype), np.ones(shape, dtype)
        if spoilt is not None:
            (fused if spoilt == "fused" else probability[spoilt])[5, 6, 8] = value
        outputs = BlendOutputs.allocate(shape)
        handles = [device.put(array) for array in (outputs.labels, outputs.probability, outputs.fused)]
        ring = device.put(np.empty((schedule.slots, ring_channels(3, 2, complement), 12), np.float32))
        flaws = device.put(np.zeros(2, np.int32))
        target = device.ops.BlendTarget(*rows, ring, *handles, **facts)
        place = {"tile": 0, "origin": (0, 0, 0), "low": (0, 0, 0), "high": shape}
        target.blend(device.put(probability), device.put(fused), *windows, **place, flaws=flaws)
        assert tuple(device.get(flaws)) == expected


def test_a_plan_without_tiles_is_all_background() -> None:
    shape = (3, 4, 5)
    plan = plan_tiles((0, 0, 0), (0, 0, 0), shape, (8, 8, 8), 0.5)
    outputs = run_blender(plan, Predictions([], []))
    assert not outputs.labels.any()
    assert not outputs.probability.any()
    assert (outputs.fused == BIAS).all()


def test_fused_alone_takes_no_ring(rng: np.random.Generator) -> None:
    plan = cover(*CASES["many tiles"])
    predictions = predict(plan, rng)
    blender = Blender(plan, BlendOutputs.allocate(plan.shape, labels=False, probability=False), gain=GAIN, bias=BIAS)
    for index, fused in enumerate(predictions.fused):
        blender.add(index, fused)
    expected = weighted_average(plan, predictions.fused) * GAIN + BIAS
    np.testing.assert_allclose(blender.finish().fused, expected, rtol=0, atol=1e-6 * GAIN)
    assert blender.memory_bytes == 3 * 4 * plan.shape[0] * plan.shape[1]


def test_labels_without_a_chosen_class(rng: np.random.Generator) -> None:
    plan = cover(*CASES["odd sizes"])
    predictions = predict(plan, rng)
    outputs = BlendOutputs.allocate(plan.shape, probability=False, fused=False)
    blender = Blender(plan, outputs, classes=CLASSES, complement=False)
    for index, probability in enumerate(predictions.probability):
        blender.add(index, probability=probability)
    expect(plan, predictions, blender.finish())


def test_predictions_may_be_views_of_a_larger_array(rng: np.random.Generator) -> None:
    plan = cover(*CASES["many tiles"])
    predictions = predict(plan, rng)
    reference = run_blender(plan, predictions)
    larger = [np.pad(p, ((0, 0), (1, 2), (3, 0), (2, 2)))[:, 1:-2, 3:, 2:-2] for p in predictions.probability]
    outputs = run_blender(plan, Predictions(larger, predictions.fused))
    np.testing.assert_array_equal(outputs.probability, reference.probability)
    np.testing.assert_array_equal(outputs.labels, reference.labels)


def test_planes_are_final_once_no_later_tile_covers_them(rng: np.random.Generator) -> None:
    plan = cover((30, 20, 20), (8, 12, 12), 0.5)
    predictions = predict(plan, rng)
    complete = run_blender(plan, predictions)
    blender = Blender(
        plan, BlendOutputs.allocate(plan.shape), classes=CLASSES, chosen_class=CHOSEN, gain=GAIN, bias=BIAS
    )
    seen = [blender.finished_planes]
    for index in range(len(plan.tiles)):
        blender.add(index, predictions.fused[index], predictions.probability[index])
        seen.append(blender.finished_planes)
        done = slice(0, seen[-1])
        np.testing.assert_array_equal(blender.outputs.labels[done], complete.labels[done])
        np.testing.assert_array_equal(blender.outputs.fused[done], complete.fused[done])
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 30
    assert len(set(seen)) > 3


def test_each_row_owns_its_place_in_the_ring() -> None:
    plan = cover((40, 30, 20), (8, 12, 20), 0.5)
    schedule = schedule_rows(plan)
    for index in range(len(plan.tiles)):
        open_rows = (schedule.first <= index) & (schedule.last >= index)
        slots = schedule.slot[open_rows]
        assert len(np.unique(slots)) == len(slots) <= schedule.slots


def test_memory_stays_far_below_the_volume() -> None:
    shape = (182, 218, 182)
    for tile_shape, most_mib in (((32, 128, 128), 13), ((96, 96, 96), 34)):
        plan = cover(shape, tile_shape, 0.5)
        outputs = BlendOutputs.allocate(shape, fused=False)
        memory = Blender(plan, outputs, classes=CLASSES, chosen_class=CHOSEN).memory_bytes
        assert memory < most_mib * 2**20
