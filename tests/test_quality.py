"""Quality checks: each one sees what it is for in a head that was spoiled on purpose, and nothing in a good one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_location import TISSUE, template_labels

from rmr_sdk.atlas.fit import fit_atlas
from rmr_sdk.atlas.order import compare_orders
from rmr_sdk.geometry import Grid
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.quality import CLIPPED_PERCENT, Examined, check_quality, quality_warnings
from rmr_sdk.resample import resample
from rmr_sdk.result import Lesion, QualityCheck
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

MEANS = {"T1w": (0, 40, 75, 100, 80), "FLAIR": (0, 30, 110, 100, 140)}
NOISE = 4.0
ALL = {
    "slice thickness",
    "clipped voxels",
    "brain in the field of view",
    "white matter over noise",
    "change between slices",
    "grey over white matter",
    "brain volume",
    "tissue like the atlas",
    "lesions cut off",
    "lesions outside the brain",
}


@pytest.fixture(scope="module")
def head() -> Examined:
    """Give a head that nothing is wrong with, on a grid of 1.8 mm; the template is larger than most."""
    labels, grid = template_labels()
    grid = Grid(grid.shape, np.diag([0.9, 0.9, 0.9, 1.0]) @ grid.affine)
    rng = np.random.default_rng(0)
    contrasts = {
        name: Volume(
            rng.normal(np.array(means, np.float32)[labels], NOISE * (labels > 0)).astype(np.float32), grid.affine
        )
        for name, means in MEANS.items()
    }
    return Examined(
        contrasts=contrasts,
        labels=Volume(labels, grid.affine),
        tissue=TISSUE,
        placement=fit_atlas(labels, grid, (3, 4), (2,)),
        lesions=(),
    )


def changed(head: Examined, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Examined:
    """Return the head with one contrast changed."""
    volume = head.contrasts[name]
    return dataclasses.replace(
        head, contrasts={**head.contrasts, name: Volume(change(volume.data.copy()), volume.affine)}
    )


def warned(head: Examined) -> list[tuple[str, str | None]]:
    return [(check.name, check.contrast) for check in check_quality(head) if check.status == "warn"]


def value(head: Examined, name: str, contrast: str | None = None) -> float:
    (found,) = (check for check in check_quality(head) if (check.name, check.contrast) == (name, contrast))
    return found.value


def odd_slices_darker(data: np.ndarray) -> np.ndarray:
    data[:, :, 1::2] *= 0.9
    return data


def test_nothing_is_wrong_with_a_good_head(head: Examined) -> None:
    checks = check_quality(head)
    assert {check.name for check in checks} == ALL
    assert warned(head) == []
    assert quality_warnings(checks) == ()
    assert all(check.sentence.endswith(".") and check.sentence[0].isupper() for check in checks)


def test_figures_are_those_of_the_head(head: Examined) -> None:
    # Voxels are independent here, so the deviation of the noise is that which was drawn.
    assert value(head, "white matter over noise", "T1w") == pytest.approx(100 / NOISE, rel=0.05)
    assert value(head, "grey over white matter", "T1w") == pytest.approx(0.75, abs=0.03)
    assert value(head, "grey over white matter", "FLAIR") == pytest.approx(1.1, abs=0.03)
    assert value(head, "slice thickness", "T1w") == 1.8
    brain = np.count_nonzero(head.labels.data > 1) * head.labels.grid.voxel_ml
    assert value(head, "brain volume") == pytest.approx(brain)


def test_noise(head: Examined) -> None:
    noisy = changed(head, "FLAIR", lambda data: data + np.random.default_rng(1).normal(0, 12, data.shape))
    assert warned(noisy) == [("white matter over noise", "FLAIR")]
    assert value(noisy, "white matter over noise", "FLAIR") == pytest.approx(100 / np.hypot(12, NOISE), rel=0.05)


def test_uneven_slices(head: Examined) -> None:
    uneven = changed(head, "T1w", odd_slices_darker)
    assert warned(uneven) == [("change between slices", "T1w")]
    assert value(uneven, "change between slices", "T1w") == pytest.approx(10, abs=1.5)


def test_clipping(head: Examined) -> None:
    clipped = changed(head, "FLAIR", lambda data: np.minimum(data, np.percentile(data[data > 0], 99)))
    assert warned(clipped) == [("clipped voxels", "FLAIR")]
    assert value(clipped, "clipped voxels", "FLAIR") == pytest.approx(1.0, rel=0.05)
    assert value(head, "clipped voxels", "FLAIR") < CLIPPED_PERCENT / 10


def test_contrasts_that_were_swapped(head: Examined) -> None:
    swapped = dataclasses.replace(head, contrasts={"T1w": head.contrasts["FLAIR"], "FLAIR": head.contrasts["T1w"]})
    assert warned(swapped) == [("grey over white matter", "T1w"), ("grey over white matter", "FLAIR")]
    first, second = quality_warnings(check_quality(swapped))
    assert first.startswith("T1w: grey matter is 1.1")
    assert first.endswith("it may be swapped with the FLAIR")
    assert second.startswith("FLAIR: grey matter is 0.7")
    assert second.endswith("it may be swapped with the T1w")


def test_contrasts_that_were_swapped_before_a_segmentation_that_failed(head: Examined) -> None:
    """The labels do not look like a head then; the voxels do, once their names are exchanged."""
    labels = Volume(np.ascontiguousarray(head.labels.data[:, :, ::-1]), head.labels.affine)
    failed = dataclasses.replace(
        head,
        labels=labels,
        placement=fit_atlas(labels.data, labels.grid, (3, 4), (2,)),
        inputs={"T1w": head.contrasts["FLAIR"], "FLAIR": head.contrasts["T1w"]},
    )
    assert failed.placement is not None
    assert not failed.placement.fits
    words = quality_warnings(check_quality(failed))
    assert any(
        each.startswith("T1w and FLAIR look swapped: exchanged, they are more like a head (0.") for each in words
    )
    rightly = dataclasses.replace(failed, inputs=head.contrasts)
    (check,) = (check for check in check_quality(rightly) if check.name == "like a head if swapped")
    assert check.status == "ok"
    assert check.value < -0.1


@pytest.mark.parametrize("spoil", [np.zeros_like, np.ones_like], ids=["empty", "flat"])
def test_nothing_is_said_of_the_order_of_nothing(head: Examined, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    data = spoil(head.contrasts["T1w"].data)
    assert compare_orders(data, data, head.contrasts["T1w"].grid) is None


@pytest.mark.parametrize("name", ["open_ms/patient19", "open_ms_raw/patient12_study1"])
def test_the_order_of_real_contrasts(data_dir: Path, name: str) -> None:
    study = Study.from_folder(data_dir / name)
    flair = study["FLAIR"]
    t1 = resample(study["T1w"].data, study["T1w"].grid, flair.grid, "linear")
    found = compare_orders(t1, flair.data, flair.grid)
    assert found is not None
    assert found[0] > found[1] + 0.1


def test_thick_slices(head: Examined) -> None:
    volume = head.contrasts["FLAIR"]
    thick = Volume(np.ascontiguousarray(volume.data[:, :, ::2]), volume.affine @ np.diag([1.0, 1, 2, 1]))
    examined = dataclasses.replace(head, contrasts={**head.contrasts, "FLAIR": thick})
    assert warned(examined) == [("slice thickness", "FLAIR")]
    assert "3.6 mm thick" in quality_warnings(check_quality(examined))[0]


def test_a_brain_that_is_cut_off(head: Examined) -> None:
    volume = head.contrasts["T1w"]
    part = Volume(np.ascontiguousarray(volume.data[:, :, : volume.data.shape[2] // 2]), volume.affine)
    examined = dataclasses.replace(head, contrasts={**head.contrasts, "T1w": part})
    assert warned(examined) == [("brain in the field of view", "T1w")]


def test_a_brain_of_impossible_size_and_no_shape(head: Examined) -> None:
    small = Volume(head.labels.data, np.diag([0.6, 0.6, 0.6, 1.0]) @ head.labels.affine)
    checks = check_quality(Examined(contrasts={}, labels=small, tissue=TISSUE))
    assert [check.name for check in checks if check.status == "warn"] == ["brain volume", "tissue like the atlas"]


def test_lesions_at_the_edge_and_outside(head: Examined) -> None:
    labels = head.labels.data.copy()
    labels[0, 3, 4:6] = 4
    lesion = Lesion(
        id=1,
        volume_ml=0.016,
        diameter_mm=4.0,
        centroid_mm=(0, 0, 0),
        mean_probability=0.9,
        voxels=2,
        location="outside the brain",
    )
    examined = dataclasses.replace(head, labels=Volume(labels, head.labels.affine), lesions=(lesion,))
    assert warned(examined) == [("lesions cut off", None), ("lesions outside the brain", None)]
    assert "1 of 1 lesions lie outside the brain: they are false, and others may be" in quality_warnings(
        check_quality(examined)
    )


def test_without_labels_only_what_needs_none_is_checked(head: Examined) -> None:
    names = [(check.name, check.contrast) for check in check_quality(Examined(contrasts=head.contrasts))]
    assert names == [(name, contrast) for contrast in MEANS for name in ("slice thickness", "clipped voxels")]


def test_voxels_that_are_not_finite_are_background(head: Examined) -> None:
    def spoil(data: np.ndarray) -> np.ndarray:
        data[data == 0] = np.nan
        data[5, 5, 5] = np.inf
        return data

    spoiled = check_quality(changed(head, "T1w", spoil))
    assert spoiled == check_quality(changed(head, "T1w", np.nan_to_num))


def test_stored_order_does_not_matter(head: Examined) -> None:
    """A volume whose axes are stored otherwise is judged alike."""
    turned = {
        name: Volume(np.asfortranarray(volume.data[::-1]), volume.affine @ flip(volume.grid))
        for name, volume in head.contrasts.items()
    }

    def rounded(checks: tuple[QualityCheck, ...]) -> list[tuple[str, str | None, float]]:
        return [(check.name, check.contrast, round(check.value, 1)) for check in checks]

    assert rounded(check_quality(dataclasses.replace(head, contrasts=turned))) == rounded(check_quality(head))


def flip(grid: Grid) -> np.ndarray:
    """Return the map of indices that runs the first axis backwards."""
    back = np.diag([-1.0, 1.0, 1.0, 1.0])
    back[0, 3] = grid.shape[0] - 1
    return back


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("open_ms_raw/patient20_study2", set()),
        ("open_ms_raw/patient01_study1", {("slice thickness", "FLAIR"), ("change between slices", "T1w")}),
    ],
)
def test_real_studies(data_dir: Path, name: str, odd: set[tuple[str, str]]) -> None:
    """The scans alone, in the place of labels the rough threshold of white matter: what a look at them confirms."""
    study = Study.from_folder(data_dir / name)
    flair = study["FLAIR"]
    low, high = np.percentile(flair.data[flair.data > 0.2 * flair.data.max()], (30, 60))
    middle = [slice(length // 4, -(length // 4)) for length in flair.data.shape]
    labels = np.zeros(flair.data.shape, np.uint8)
    labels[tuple(middle)] = np.where((flair.data > low) & (flair.data < high), 3, 0)[tuple(middle)]
    checks = check_quality(Examined(contrasts=study, labels=Volume(labels, flair.affine), tissue=TISSUE))
    assert {(check.name, check.contrast) for check in checks if check.contrast and check.status == "warn"} == odd


def test_a_mask_of_real_data_is_read(data_dir: Path) -> None:
    volume, _ = read_volume(data_dir / "labelmaps" / "patient03.nii.gz")
    labels = np.ascontiguousarray(volume.data)
    placement = fit_atlas(labels, volume.grid, (3, 4), (2,))
    checks = check_quality(Examined(contrasts={}, labels=volume, tissue=TISSUE, placement=placement, lesions=()))
    assert [check.status for check in checks] == ["ok"] * 4
