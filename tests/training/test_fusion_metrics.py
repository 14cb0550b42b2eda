"""Figures of fused images against tables made by hand, analytic truth, and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import normalized_mutual_information

from rmr_training.evaluate.edges import average_gradient, edge_kept, edge_preservation, sobel, spatial_frequency
from rmr_training.evaluate.features import _shared, feature_mutual_information, gradient_magnitude
from rmr_training.evaluate.fidelity import mean_ssim, sum_of_difference_correlations, visual_information_fidelity
from rmr_training.evaluate.fusion_quality import FusionReference, bounding_box
from rmr_training.evaluate.information import entropy, mutual_information, quantise

BEST_EDGE = 0.9994 / (1 + math.exp(-15 * 0.5)) * 0.9879 / (1 + math.exp(-22 * 0.2))
"""Q of an edge kept exactly: both sigmoids of Xydeas and Petrovic at 1."""


def smooth_noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw structure at several scales, from 0 to 1."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    for step in (8, 4, 2):
        coarse = rng.random([-(-n // step) for n in shape])
        image += step * np.kron(coarse, np.ones([step] * len(shape)))[tuple(slice(n) for n in shape)]
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape, bool)


# Information


def test_grey_levels_have_equal_widths_and_clip() -> None:
    assert quantise(np.array([-1, 0, 1.5 / 256, 1.49, 1.5, 9]), 1.5).tolist() == [0, 0, 1, 254, 255, 255]


def test_entropy_of_four_equal_levels_is_two_bits() -> None:
    assert entropy(np.repeat(np.array([0, 7, 90, 255], np.uint8), 5)) == pytest.approx(2.0)
    assert entropy(np.full(9, 3, np.uint8)) == 0.0


def test_information_of_a_hand_made_table() -> None:
    # Joint counts (1, 1 / 0, 2) of 4: H(x) = 1, H(y) = H(1/4) = 0.8113, H(x, y) = 1.5, so 0.3113 bits are shared.
    found = mutual_information(np.array([0, 0, 1, 1], np.uint8), np.array([0, 1, 1, 1], np.uint8))
    assert found.bits == pytest.approx(0.311278, abs=1e-6)
    assert found.normalised == pytest.approx(2 * 0.311278 / 1.811278, abs=1e-6)


def test_information_of_equal_and_of_independent_images() -> None:
    x, y = (axis.astype(np.uint8) for axis in np.indices((16, 16)))
    assert mutual_information(x, x).bits == pytest.approx(4.0)
    assert mutual_information(x, 15 - x).normalised == pytest.approx(1.0)
    assert mutual_information(x, y).bits == pytest.approx(0.0, abs=1e-12)
    assert mutual_information(x, np.zeros_like(x)).normalised == 0.0


def test_normalised_information_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, 40_000).astype(np.uint8)
    y = np.where(rng.random(x.size) < 0.7, x // 2, rng.integers(0, 256, x.size)).astype(np.uint8)
    x[:2], y[:2] = (0, 255), (0, 255)  # so that its 256 bins are the 256 levels
    theirs = normalized_mutual_information(x, y, bins=256)  # (H(x) + H(y)) / H(x, y)
    assert mutual_information(x, y).normalised == pytest.approx(2 * (1 - 1 / theirs), rel=1e-9)


def test_bias_of_information_grows_with_the_levels_in_use() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 32, (2, 20_000)).astype(np.uint8)
    found = [mutual_information(x, y // width).bits for width in (1, 4, 16)]
    # Nothing is shared: what is found is the bias, (31 * (levels - 1)) / (2 ln 2 * voxels).
    expected = [31 * (levels - 1) / (2 * math.log(2) * x.size) for levels in (32, 8, 2)]
    assert found == pytest.approx(expected, rel=0.25)


# Feature mutual information


def window_information(p: list[float], q: list[float]) -> float:
    """Compute the normalised information of two distributions by moving mass, cell by cell."""
    n = len(p)
    mean = [sum(each) / n for each in (p, q)]
    cross = sum((a - mean[0]) * (b - mean[1]) for a, b in zip(p, q, strict=True))
    norms = [sum((a - m) ** 2 for a in each) for each, m in zip((p, q), mean, strict=True)]
    correlation = cross / math.sqrt(norms[0] * norms[1])
    extreme = _coupling(p, q if correlation >= 0 else q[::-1])
    if correlation < 0:
        extreme = extreme[:, ::-1]
    product = np.outer(p, q)
    places = np.arange(n)
    spread = [math.sqrt(np.dot(each, places**2) - np.dot(each, places) ** 2) for each in (p, q)]
    covariance = places @ extreme @ places - np.dot(p, places) * np.dot(q, places)
    weight = min(max(correlation * spread[0] * spread[1] / covariance, 0), 1)
    joint = weight * extreme + (1 - weight) * product
    bits = [-sum(x * math.log2(x) for x in np.ravel(each) if x > 0) for each in (p, q, joint)]
    return 2 * (bits[0] + bits[1] - bits[2]) / (bits[0] + bits[1])


def _coupling(p: list[float], q: list[float]) -> np.ndarray:
    """Fill the joint distribution from its north-west corner: the most dependent one that there is."""
    left, right, joint, i, j = list(p), list(q), np.zeros((len(p), len(q))), 0, 0
    while i < len(p) and j < len(q):
        mass = min(left[i], right[j])
        joint[i, j] += mass
        left[i] -= mass
        right[j] -= mass
        if left[i] <= right[j]:
            i += 1
        else:
            j += 1
    return joint


def test_feature_information_is_that_of_moved_mass() -> None:
    image, fused = smooth_noise((1, 8, 9), 0), smooth_noise((1, 8, 9), 1)
    expected = []
    for row in range(1, 7):
        for column in range(1, 8):
            pair = []
            for volume in (image, fused):
                window = gradient_magnitude(volume[0])[row - 1 : row + 2, column - 1 : column + 2].ravel().astype(float)
                stretched = (window - window.min()) / np.ptp(window)
                pair.append((stretched / stretched.sum()).tolist())
            expected.append(window_information(*pair))
    found = feature_mutual_information(image, fused, everywhere(image))
    assert found == pytest.approx(np.mean(expected), abs=2e-4)
    assert 0 < found < 1


def test_feature_information_of_equal_images_is_one() -> None:
    image = smooth_noise((9, 16, 16), 0)
    image[:, :6] = 0.5  # flat windows too
    assert feature_mutual_information(image, image, everywhere(image)) == pytest.approx(1.0, abs=1e-5)
    assert feature_mutual_information(image, 0.3 * image, everywhere(image)) == pytest.approx(1.0, abs=1e-4)


def test_feature_information_is_symmetric_and_falls_with_noise() -> None:
    image = smooth_noise((4, 24, 24), 2)
    noise = np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
    mild, strong = (feature_mutual_information(image, image + s * noise, everywhere(image), 1) for s in (0.02, 0.2))
    assert 1 > mild > strong
    swapped = feature_mutual_information(image + 0.02 * noise, image, everywhere(image), 1)
    assert swapped == pytest.approx(mild, abs=1e-3)


def test_rounding_is_no_feature() -> None:
    """A ramp has one gradient; what is left of it in float32 must not be stretched to a feature."""
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32) / 24, (2, 24, 24))
    assert feature_mutual_information(ramp, ramp * np.float32(0.7) + np.float32(0.1), everywhere(ramp)) == 1.0


def test_peaks_share_all_or_nothing() -> None:
    """Gradients of 1 at a single pixel of the window, at the same or at another place."""
    rows = [np.eye(9, dtype=np.float32)[[place]] for place in (2, 7)]
    assert _shared(rows[0], rows[0]).tolist() == [1.0]
    assert _shared(rows[0], rows[1]).tolist() == [0.0]


def test_feature_information_of_nothing_is_not_defined() -> None:
    image = smooth_noise((2, 8, 8), 0)
    assert math.isnan(feature_mutual_information(image, image, np.zeros(image.shape, bool)))


# Edges


def test_a_kept_edge_reaches_the_limit_of_the_sigmoids() -> None:
    image = smooth_noise((12, 12, 12), 0)
    mask = everywhere(image)
    assert edge_preservation(image, image, image, mask) == pytest.approx(BEST_EDGE, abs=1e-4)
    assert edge_preservation(image, image, 1 - image, mask) == pytest.approx(BEST_EDGE, abs=1e-4)


def test_an_edge_of_half_the_strength_at_45_degrees() -> None:
    before, after = np.array([[2.0], [0], [0]], np.float32), np.array([[1.0], [1.0], [0]], np.float32)
    strength, orientation = math.sqrt(2) / 2, 0.5
    expected = 0.9994 / (1 + math.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + math.exp(-22 * (orientation - 0.8)))
    assert edge_kept(before, after)[0] == pytest.approx(expected, rel=1e-5)


def test_edges_of_equal_slices_are_those_of_the_plane() -> None:
    """Beside the formulas of Xydeas and Petrovic in 2-D, the difference of two angles taken on the half circle."""
    planes = [smooth_noise((20, 20), seed) for seed in range(3)]
    first, second, fused = (np.repeat(plane[None], 5, 0) for plane in planes)
    inner = np.zeros(first.shape, bool)
    inner[2, 1:-1, 1:-1] = True
    strengths, angles = [], []
    for plane in planes:
        right, left = (plane[:-2, c] + 2 * plane[1:-1, c] + plane[2:, c] for c in (slice(2, None), slice(-2)))
        below, above = (plane[r, :-2] + 2 * plane[r, 1:-1] + plane[r, 2:] for r in (slice(2, None), slice(-2)))
        x, y = right - left, below - above
        strengths.append(np.hypot(x, y).astype(float))
        angles.append(np.arctan(np.divide(y, x, out=np.full_like(x, np.inf), where=x != 0)).astype(float))
    kept = 0.0
    for index in (0, 1):
        low, high = np.minimum(strengths[index], strengths[2]), np.maximum(strengths[index], strengths[2])
        strength = np.divide(low, high, out=np.zeros_like(low), where=high > 0)
        apart = np.abs(angles[index] - angles[2])
        orientation = 1 - np.minimum(apart, np.pi - apart) / (np.pi / 2)
        q = 0.9994 / (1 + np.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + np.exp(-22 * (orientation - 0.8)))
        kept += (q * strengths[index]).sum()
    expected = kept / (strengths[0].sum() + strengths[1].sum())
    assert edge_preservation(first, second, fused, inner) == pytest.approx(expected, rel=1e-4)


def test_a_flat_image_keeps_no_edge_and_flat_inputs_have_none() -> None:
    image, flat = smooth_noise((8, 8, 8), 0), np.full((8, 8, 8), 0.5, np.float32)
    assert edge_preservation(image, image, flat, everywhere(image)) < 1e-6
    assert math.isnan(edge_preservation(flat, flat, image, everywhere(image)))


def test_the_gradient_of_a_ramp() -> None:
    ramp = np.indices((7, 7, 7)).astype(np.float32)
    gradient = sobel(3 * ramp[0] + ramp[2])[:, 3, 3, 3]
    assert gradient.tolist() == [3 * 32, 0, 32]  # (1, 0, -1) times (1, 2, 1) along both other axes


def test_frequency_and_gradient_of_a_ramp() -> None:
    d, h, w = np.indices((6, 7, 8)).astype(np.float32)
    ramp = 0.1 * d + 0.2 * h + 0.4 * w
    outside = ramp.copy()
    outside[:, :2] = 99  # a mask keeps what lies beyond out of both
    mask = everywhere(ramp)
    mask[:, :2] = False
    assert spatial_frequency(outside, mask) == pytest.approx(math.sqrt(0.21), rel=1e-5)
    assert average_gradient(outside, mask) == pytest.approx(math.sqrt(0.07), rel=1e-5)
    assert math.isnan(average_gradient(ramp, np.zeros(ramp.shape, bool)))
    assert math.isnan(spatial_frequency(ramp, np.zeros(ramp.shape, bool)))


# Fidelity


def test_similarity_of_flat_images_is_that_of_their_means() -> None:
    a, b = (np.full((14, 14, 14), value, np.float32) for value in (0.6, 0.9))
    c1 = (0.01 * 1.5) ** 2
    expected = (2 * 0.54 + c1) / (0.36 + 0.81 + c1)
    assert mean_ssim(a, b, everywhere(a), 1.5) == pytest.approx(expected, rel=1e-4)
    assert mean_ssim(a, a, everywhere(a), 1.5) == pytest.approx(1.0)


def test_similarity_counts_the_mask_alone() -> None:
    image = smooth_noise((24, 24, 24), 0)
    spoilt = image.copy()
    spoilt[:6] = 0
    far = np.zeros(image.shape, bool)
    far[14:] = True
    assert mean_ssim(image, spoilt, far, 1.0) == pytest.approx(1.0, abs=1e-5)
    assert mean_ssim(image, spoilt, ~far, 1.0) < 0.9


def test_similarity_of_few_slices() -> None:
    image = smooth_noise((4, 20, 20), 0)
    assert mean_ssim(image, image, everywhere(image), 1.0) == pytest.approx(1.0, abs=1e-5)
    mirrored = np.pad(image, [(12, 12), (0, 0), (0, 0)], mode="symmetric")
    middle = np.zeros(mirrored.shape, bool)
    middle[12:16] = True
    expected = mean_ssim(mirrored, mirrored[:, ::-1], middle, 1.0)
    assert mean_ssim(image, image[:, ::-1], everywhere(image), 1.0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("change", ["noise", "scale"])
def test_fidelity_of_a_slice_is_that_of_sewar(change: str) -> None:
    vifp = pytest.importorskip("sewar.full_ref").vifp
    plane = smooth_noise((70, 81), 3)
    noise = np.random.default_rng(1).standard_normal(plane.shape).astype(np.float32)
    fused = plane + 0.03 * noise if change == "noise" else 0.2 + 0.7 * plane
    volumes = [np.repeat(each[None], 3, 0) for each in (plane, fused)]
    expected = vifp(255.0 * plane, 255.0 * fused)
    assert visual_information_fidelity(*volumes, 1.0) == pytest.approx(expected, abs=1e-4)


def test_fidelity_is_one_for_equal_images_and_orders_damage() -> None:
    image = smooth_noise((40, 40, 40), 0)
    noise = np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
    assert visual_information_fidelity(image, image, 1.0) == pytest.approx(1.0, abs=1e-6)
    values = [visual_information_fidelity(image, image + s * noise, 1.0) for s in (0.02, 0.1, 0.4)]
    assert 1 > values[0] > values[1] > values[2] > 0
    assert visual_information_fidelity(0.5 * image, 0.6 * image, 1.0) > 1
    assert visual_information_fidelity(image, 1 - image, 1.0) == 0.0


def test_fidelity_of_nothing_is_not_defined() -> None:
    flat, image = np.zeros((3, 20, 20), np.float32), smooth_noise((3, 30, 30), 0)
    assert math.isnan(visual_information_fidelity(flat, flat, 1.0))
    assert math.isnan(visual_information_fidelity(image[:, :2], image[:, :2], 1.0))
    assert visual_information_fidelity(image[:, :20], image[:, :20], 1.0) == pytest.approx(1.0)


def waves() -> tuple[np.ndarray, np.ndarray]:
    """Give two images without correlation, of equal variance."""
    angle = 2 * np.pi * np.arange(16) / 16
    first, second = np.broadcast_to(np.sin(angle), (4, 4, 16)), np.broadcast_to(np.cos(angle), (4, 4, 16))
    return first.astype(np.float32), second.astype(np.float32)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 1), 2.0),  # beyond b it has a, beyond a it has b
        ((0.5, 0.5), math.sqrt(2)),  # (a - b) / 2 against a: the cosine of 45 degrees, twice
        ((1, 0), math.sqrt(0.5)),  # a - b against a; beyond a it has nothing
        ((-1, -1), -2 / math.sqrt(5)),  # -a - 2 b against a: -1 / sqrt 5, twice
    ],
    ids=["sum", "mean", "one", "inverted"],
)
def test_differences_of_uncorrelated_waves(weights: tuple[float, float], expected: float) -> None:
    a, b = waves()
    fused = weights[0] * a + weights[1] * b
    assert sum_of_difference_correlations(a, b, fused, everywhere(a)) == pytest.approx(expected, abs=1e-5)


# All together


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give two different images of one head and its mask."""
    points = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (36, 40, 44)], indexing="ij"))
    head = (points**2).sum(0) < 0.7
    first, second = (np.asarray(smooth_noise(head.shape, seed) * head, np.float32) for seed in (0, 1))
    return first, second, head


def test_a_copy_of_both_inputs_is_perfect(pair: tuple[np.ndarray, ...]) -> None:
    image, _, head = pair
    found = FusionReference(image, image, head, 1.0).assess(image)
    assert (found.ssim, found.nmi, found.fmi, found.vif) == pytest.approx((1, 1, 1, 1), abs=1e-4)
    assert found.qabf == pytest.approx(BEST_EDGE, abs=1e-4)
    assert found.mi == pytest.approx(found.entropy)
    assert found.mi_t1w == found.mi_flair


def test_figures_do_not_depend_on_the_order_of_the_inputs(pair: tuple[np.ndarray, ...]) -> None:
    a, b, head = pair
    one, other = FusionReference(a, b, head, 1.5), FusionReference(b, a, head, 1.5)
    fused = (2 * a + b) / 3
    found, swapped = one.assess(fused), other.assess(fused)
    for name in ("ssim", "mi", "nmi", "fmi", "qabf", "vif", "scd", "entropy"):
        assert getattr(found, name) == pytest.approx(getattr(swapped, name), abs=1e-9), name
    assert found.ssim_t1w == swapped.ssim_flair > found.ssim_flair
    assert found.vif == pytest.approx((found.vif_t1w + found.vif_flair) / 2)


def test_air_does_not_change_figures(pair: tuple[np.ndarray, ...]) -> None:
    a, b, head = pair
    wide = [np.pad(each, 12) for each in (a, b, head)]
    narrow, broad = FusionReference(a, b, head, 1.0), FusionReference(*wide, 1.0)
    found, padded = narrow.assess((a + b) / 2), broad.assess((wide[0] + wide[1]) / 2)
    for name in ("ssim", "mi", "fmi", "qabf", "scd", "entropy", "spatial_frequency", "average_gradient"):
        assert getattr(found, name) == pytest.approx(getattr(padded, name), abs=1e-6), name


def test_what_lies_beyond_the_range_is_clipped(pair: tuple[np.ndarray, ...]) -> None:
    a, b, head = pair
    reference = FusionReference(a, b, head, 1.0)
    assert reference.assess(40 * a - 20) == reference.assess(np.clip(40 * a - 20, 0, 1))


def test_nothing_has_no_figures(pair: tuple[np.ndarray, ...]) -> None:
    a, b, head = pair
    figures = FusionReference(a, b, np.zeros_like(head), 1.0).assess(a).to_row()
    assert len(figures) == 16
    assert all(math.isnan(value) for value in figures.values())


def test_the_box_of_a_mask() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[3, 9:12, 18] = True
    assert bounding_box(mask) == (slice(3, 4), slice(9, 12), slice(18, 19))
    assert [mask[bounding_box(mask, 4)].shape] == [(8, 11, 6)]
    assert mask[bounding_box(np.zeros_like(mask))].shape == mask.shape
