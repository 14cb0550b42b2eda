"""The benchmark of the three claims: its rule, its pairing, and that no run is ever repeated."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from rmr_training.data import LabelMap
from tests.training.test_synthesis import phantom

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MICRO: dict[str, object] = {"steps": 2, "seeds": 1, "side": 32, "patches": 3, "validation": 2, "checkpoint-every": 1}


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """Give the benchmark's modules, which are scripts beside the packages."""
    sys.path.insert(0, str(BENCHMARKS))
    import bench_claims
    from claims import arms, measures, page, pool, training, verdicts

    yield SimpleNamespace(
        main=bench_claims.main,
        choose=bench_claims.choose,
        arms=arms,
        measures=measures,
        page=page,
        pool=pool,
        training=training,
        verdicts=verdicts,
    )
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((0.10, 0.11, 0.12), "holds"),
        ((-0.10, -0.11, -0.12), "does not hold here"),
        ((0.10, 0.11, -0.01), "undecided at this scale"),  # one seed disagrees
        ((0.01, 0.01, 0.20), "undecided at this scale"),  # all agree; the mean is 1.2 standard errors
        ((0.0, 0.0, 0.0), "undecided at this scale"),
        ((0.10,), "undecided at this scale"),  # no spread is known
        ((), "undecided at this scale"),
    ],
)
def test_the_rule(bench: SimpleNamespace, differences: tuple[float, ...], verdict: str) -> None:
    assert bench.verdicts.decide(differences) == verdict


def test_how_often_the_rule_is_wrong_as_stated(bench: SimpleNamespace) -> None:
    draws = np.random.default_rng(0).normal(size=(20_000, 3))
    share = np.mean([bench.verdicts.decide(tuple(row)) == "holds" for row in draws[:4000]])
    assert share == pytest.approx(0.09, abs=0.015)


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "undecided at this scale"], "undecided at this scale"),
        (["holds", "undecided at this scale", "does not hold here"], "does not hold here"),
        ([], "undecided at this scale"),
    ],
)
def test_a_claim_of_several_parts(bench: SimpleNamespace, parts: list[str], verdict: str) -> None:
    assert bench.verdicts.combine(parts) == verdict


def test_a_claim_with_a_part_that_was_not_run_is_undecided(bench: SimpleNamespace) -> None:
    runs = {
        (f"{kind}-dynunet", s): {"dice": {"lesion": d}} for kind, d in (("fused", 0.6), ("direct", 0.5)) for s in "12"
    }
    for (arm, seed), run in runs.items():
        run["dice"]["lesion"] += 0.01 * int(seed) * (arm == "fused-dynunet")
    runs |= {(f"{kind}-unet", seed): runs[f"{kind}-dynunet", seed] for kind in ("fused", "direct") for seed in "12"}
    found = [c for c in bench.verdicts._general(runs) if c.differences]
    assert [c.verdict for c in found] == ["holds", "holds"]
    assert bench.verdicts.claims(found) == {"c": "undecided at this scale"}, "no segresnet"
    runs |= {(f"{kind}-segresnet", seed): runs[f"{kind}-unet", seed] for kind in ("fused", "direct") for seed in "12"}
    assert bench.verdicts.claims([*bench.verdicts._general(runs)]) == {"c": "holds"}


def test_arms_bring_the_autoencoders_that_they_build_on(bench: SimpleNamespace) -> None:
    names = [
        [arm.name for arm in bench.choose(asked)] for asked in (["fused-dynunet"], ["plain-dynunet"], ["direct-unet"])
    ]
    assert names == [["autoencoder", "fused-dynunet"], ["autoencoder-plain", "plain-dynunet"], ["direct-unet"]]
    assert bench.choose(None) == list(bench.arms.ARMS)


def test_figures_are_kept_for_the_real_studies_they_are_of(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = next(arm for arm in bench.arms.ARMS if arm.name == "direct-unet")
    monkeypatch.setattr(bench.measures, "_figures", lambda arm, network, material: {"real": dict(material.real)})

    def measure(*names: str) -> Any:
        material = bench.measures.Material([], dict.fromkeys(names, 1))
        return bench.measures.measure(arm, None, material, tmp_path / "kept.json")

    (tmp_path / "kept.json").write_text('{"real": {"unknown": 1}}')
    assert measure() == {"real": {}}
    assert measure("one") == {"real": {"one": 1}}
    monkeypatch.setattr(bench.measures, "_figures", None)
    assert measure("one") == {"real": {"one": 1}}, "measured once"


def test_a_pool_is_of_its_donors(bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        """Starts alike whatever the maps."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def sample(self, index: int) -> list[torch.Tensor]:
            return [torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.uint8)]

    monkeypatch.setattr(bench.pool, "SyntheticPatches", Stream)
    labels = np.ones((4, 4, 4), np.uint8)
    maps = [LabelMap(f"patient{n}", n, 1.0, labels, np.argwhere(labels == 4)) for n in ("01", "02", "03")]

    def name(*chosen: LabelMap) -> str:
        return str(bench.pool.open_pool(tmp_path, chosen, 4, 1, 7).name)

    first = name(*maps[:2])
    assert name(*maps[:2]) == first
    assert name(maps[0], maps[2]) != first
    monkeypatch.setattr(bench.pool, "RANGES", replace(bench.pool.RANGES, look_alikes=0.5))
    assert name(*maps[:2]) != first


def test_comparisons_are_paired_and_point_the_way_of_the_claim(bench: SimpleNamespace) -> None:
    def run(dice: float, damaged: float) -> dict[str, Any]:
        row = {"dice": {"lesion": damaged, "tissues": 0.8}, "image_change": 0.1}
        names = bench.verdicts.DEGRADED
        return {"dice": {"lesion": dice, "tissues": 0.9}, "degraded": dict.fromkeys(names, row)}

    runs = {("fused-dynunet", s): run(0.60 + s / 10, 0.58 + s / 10) for s in range(3)}
    runs |= {("direct-dynunet", s): run(0.50 + s / 10, 0.40) for s in range(3)}
    runs |= {("plain-dynunet", s): run(0.60, 0.50) for s in range(2)}
    found = {c.what: c for c in bench.verdicts.compare(runs)}
    assert found["lesion Dice, dynunet: fused features - directly"].differences == pytest.approx((0.1, 0.1, 0.1))
    # The drop is 0.10 without and 0.02 with constraints, in the seeds that have both.
    assert found["drop of lesion Dice under blur: without - with constraints"].differences == pytest.approx(
        (0.08, 0.08)
    )
    assert not [c for c in found.values() if "unet:" in c.what and "dynunet" not in c.what], "nothing to compare"


def test_direct_and_fused_heads_start_alike(bench: SimpleNamespace) -> None:
    arms = {arm.name: arm for arm in bench.arms.ARMS}
    for head in bench.arms.HEADS:
        fused, direct = (bench.arms.build(arms[f"{kind}-{head}"], 3).head for kind in ("fused", "direct"))
        pairs = zip(fused.state_dict().values(), direct.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert 0.1e6 < sum(p.numel() for p in fused.parameters()) < 0.3e6


def test_the_large_control_costs_what_the_fused_network_does(bench: SimpleNamespace) -> None:
    arms = {arm.name: arm for arm in bench.arms.ARMS}
    large, fused = (bench.arms.cost(arms[name])[1] for name in ("direct-large", "fused-dynunet"))
    assert 1.0 <= large / fused < 1.25


def test_no_voxel_is_lost_on_the_way_to_a_direct_head(bench: SimpleNamespace) -> None:
    x = torch.arange(2 * 4 * 4 * 6.0).view(1, 2, 4, 4, 6)
    blocks = bench.arms.blocks_to_channels(x, 2)
    assert blocks.shape == (1, 16, 2, 2, 3)
    assert sorted(blocks.flatten().tolist()) == x.flatten().tolist()
    assert blocks[0, :8, 1, 0, 2].tolist() == x[0, 0, 2:4, 0:2, 4:6].flatten().tolist()


def test_overlap_is_that_of_all_patches_together(bench: SimpleNamespace) -> None:
    truth = [torch.zeros(1, 2, 2, 2, dtype=torch.uint8) for _ in range(2)]
    truth[0][0, 0, 0, 0] = truth[1][0, 0] = 4
    found = [x.clone() for x in truth]
    found[1][0, 0, 0, :] = 0
    dice = bench.measures.dice_by_class(found, truth)
    assert dice["lesion"] == pytest.approx(2 * 3 / (3 + 5))
    assert dice["csf"] == dice["tissues"] == 1.0, "in neither"


@pytest.fixture(scope="module")
def labelmaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelmaps")
    for name in ("patient01", "patient05"):
        nib.save(nib.Nifti1Image(phantom(), np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def test_micro_budget_end_to_end(
    bench: SimpleNamespace, labelmaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cache, result = tmp_path / "runs", tmp_path / "cache", tmp_path / "result.json"
    options = MICRO | {"held-out": "05", "labelmaps": labelmaps, "out": out, "cache": cache, "result": result}
    arguments = ["--no-real", *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
    step = bench.training._Run._take_step
    taken: list[tuple[str, int]] = []

    def interrupted(self: Any, batch: Any) -> float:
        if self.arm.name == "fused-dynunet" and self.step == 1 and len(taken) == 5:
            raise KeyboardInterrupt
        taken.append((self.arm.name, self.step))
        return float(step(self, batch))

    monkeypatch.setattr(bench.training._Run, "_take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.main(arguments)
    assert taken[-1] == ("fused-dynunet", 0)
    taken.append(("fused-dynunet", -1))
    assert bench.main(arguments) == 0
    steps = [sum(bench.training.Budget(steps=2, autoencoder_steps=2).steps_of(arm) for arm in bench.arms.ARMS)]
    assert sorted(taken) == sorted(set(taken)), "no step is taken twice"
    assert len(taken) - 1 == steps[0]
    report = json.loads(result.read_text())
    assert {run["arm"] for run in report["runs"]} == {arm.name for arm in bench.arms.ARMS}
    assert set(report["claims"]) == {"a", "b", "c"}
    assert set(report["claims"].values()) == {"undecided at this scale"}, "one seed decides nothing"

    monkeypatch.setattr(bench.training._Run, "_take_step", None)
    assert bench.main(arguments) == 0, "everything is there"
    again = json.loads(result.read_text())
    assert again["runs"] == report["runs"]
    with pytest.raises(SystemExit, match="runs of other settings"):
        bench.main([*arguments, "--rate", "0.1"])
    assert json.loads((out / "settings.json").read_text())["held_out"] == ["05"]
    _render(bench, report, tmp_path)


def _render(bench: SimpleNamespace, report: dict[str, Any], folder: Path) -> None:
    document = folder / "claims.md"
    source = (BENCHMARKS.parent / "docs" / "claims.md").read_text()
    document.write_text(source)
    bench.page.render(report, document, folder / "claims.png")
    assert "32^3" in document.read_text()
    assert (folder / "claims.png").stat().st_size > 5000


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    pool = bench.training.Pool(
        "noise",
        generator.random((3, 2, 32, 32, 32), np.float32).astype(np.float16),
        generator.integers(0, 5, (3, 32, 32, 32)).astype(np.uint8),
    )
    budget = bench.training.Budget(steps=4, autoencoder_steps=4, side=32, checkpoint_every=2)
    arm = next(arm for arm in bench.arms.ARMS if arm.name == "direct-unet")
    places = [bench.training.Place(tmp_path / name, torch.device("cpu")) for name in ("whole", "parts")]
    for place in places:
        place.folder.mkdir()
    whole = bench.training.train(arm, 1, budget, pool, places[0])
    step = bench.training._Run._take_step

    def stop(self: Any, batch: Any) -> float:
        if self.step == 3:
            raise KeyboardInterrupt
        return float(step(self, batch))

    monkeypatch.setattr(bench.training._Run, "_take_step", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.training.train(arm, 1, budget, pool, places[1])
    monkeypatch.setattr(bench.training._Run, "_take_step", step)
    parts = bench.training.train(arm, 1, budget, pool, places[1])
    assert (whole["resumed"], parts["resumed"]) == (0, 2)
    assert whole["losses"] == parts["losses"]
    weights = [bench.training.load_run(arm, 1, place).state_dict() for place in places]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not list(places[1].folder.glob("*.part.pth"))
