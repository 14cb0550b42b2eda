"""Figures of a comparison, strain, and which layers go back to float, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import chain_model
from test_int8 import noise, peaks

from rmr_export.precision.compare import PERFECT_DB, Comparison
from rmr_export.precision.sensitivity import Cost, Trial, analyse, costs_table, fall_back, strain
from rmr_sdk.manifest import Accuracy, Limit


def test_figures_by_hand() -> None:
    found = Comparison()
    found.add_fused(np.array([0.0, 2.0]), np.array([0.1, 2.0]))
    found.add_fused(np.array([4.0, 1.0]), np.array([4.0, 0.7]))
    found.add_labels(np.array([0, 1, 4, 4, 0]), np.array([0, 1, 4, 2, 4]), lesion=4)
    figures = found.figures()
    assert figures["fused_psnr_db"] == pytest.approx(10 * np.log10(16 / ((0.01 + 0.09) / 4)))
    assert figures["fused_max_error"] == pytest.approx(0.3 / 4)
    assert figures["label_agreement"] == pytest.approx(2 / 4)
    assert figures["lesion_dice_to_fp32"] == pytest.approx(2 * 1 / 4)
    assert figures["lesion_volume_change"] == 0.0
    assert Comparison().figures() == {}
    same = Comparison()
    same.add_fused(np.ones(3), np.ones(3))
    assert same.psnr_db == PERFECT_DB
    flat = Comparison()
    flat.add_fused(np.ones(3), np.zeros(3))
    assert flat.psnr_db == -PERFECT_DB


@pytest.mark.parametrize(
    ("figures", "limit", "expected"),
    [
        ({"label_agreement": 0.99}, Limit(metric="label_agreement", minimum=0.995), 2.0),
        ({"label_agreement": 1.0}, Limit(metric="label_agreement", minimum=0.995), 0.0),
        ({"fused_psnr_db": 34.0}, Limit(metric="fused_psnr_db", minimum=40.0), 10**0.3),
        ({"fused_psnr_db": 60.0}, Limit(metric="fused_psnr_db", minimum=40.0), 0.1),
        ({"fused_max_error": 0.3}, Limit(metric="fused_max_error", maximum=0.1), 3.0),
        ({"lesion_dice_difference": -0.01}, Limit(metric="lesion_dice_difference", minimum=-0.005), 2.0),
        ({"lesion_dice_difference": 0.02}, Limit(metric="lesion_dice_difference", minimum=-0.005), 0.0),
        ({"lesion_volume_change": -0.2}, Limit(metric="lesion_volume_change", minimum=-0.1, maximum=0.1), 2.0),
        ({"label_agreement": 0.9}, Limit(metric="lesion_dice_to_fp32", minimum=0.9), 0.0),
    ],
)
def test_strain_by_hand(figures: dict[str, float], limit: Limit, expected: float) -> None:
    assert strain(figures, [limit]) == pytest.approx(expected)


def test_what_breaks_no_limit_strains_at_most_by_one() -> None:
    limit = Limit(metric="label_agreement", minimum=0.995)
    for value in (0.99, 0.995, 0.999):
        figure = Accuracy(precision="int8", study_set="s", studies=1, metric="label_agreement", value=value)
        assert (limit.problem(figure) is None) == (strain({"label_agreement": value}, [limit]) <= 1.0000001)


def test_the_costliest_layers_fall_back_first() -> None:
    model = chain_model()
    # Its last output is the fused image of this network.
    for node in model.graph.node:
        node.output[0] = node.output[0].replace("third", "fused")
    model.graph.output[0].name = "fused"
    ranges = peaks(model, noise("x"))
    ranges["leaky"] /= 3  # clipped far too early: the layer behind it must be the costliest
    trial = Trial(model, [noise("x")], [Limit(metric="fused_psnr_db", minimum=38.0)], None, threads=1)
    told: list[Cost] = []
    costs = analyse(model, ranges, trial, told=told.append)
    assert next(cost.group for cost in costs) == "third"
    assert {cost.group for cost in told} == {"first", "second", "third"}
    found = fall_back(model, ranges, trial, costs)
    assert found.excluded[0] == "third"
    assert found.steps[1] < found.steps[0]
    assert fall_back(model, ranges, trial, costs, target=1e9).excluded == ()
    assert len(fall_back(model, ranges, trial, costs, target=0.0).excluded) == 2
    assert costs_table(costs).splitlines()[1].startswith("third")
