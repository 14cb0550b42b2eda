"""The constant tables of windows, against the pad, roll and partition that the network is trained with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rmr_export.graph.windows import PADDING, plan_windows
from rmr_training.models.swin import padded_grid, partition, region_ids, window_and_shift

sides = st.integers(1, 11)


@given(grid=st.tuples(sides, sides, sides), window=st.integers(1, 5), shifted=st.booleans())
def test_slots_are_pad_roll_and_partition(grid: tuple[int, int, int], window: int, shifted: bool) -> None:
    found = plan_windows(grid, window, shifted)
    lengths, shifts = window_and_shift(grid, window, shifted)
    padded = padded_grid(grid, lengths)
    tokens = torch.arange(int(np.prod(grid))).reshape(grid)
    far = [value for axis in (2, 1, 0) for value in (0, padded[axis] - grid[axis])]
    rolled = torch.roll(F.pad(tokens, far, value=PADDING), [-shift for shift in shifts], (0, 1, 2))
    np.testing.assert_array_equal(found.slots, partition(rolled[None, ..., None], lengths)[..., 0])
    assert found.padded == (padded != grid)


@given(grid=st.tuples(sides, sides, sides), window=st.integers(1, 5), shifted=st.booleans())
def test_regions_separate_what_the_mask_separates(grid: tuple[int, int, int], window: int, shifted: bool) -> None:
    found = plan_windows(grid, window, shifted).regions
    lengths, shifts = window_and_shift(grid, window, shifted)
    wanted = region_ids(padded_grid(grid, lengths), lengths, shifts).numpy()
    np.testing.assert_array_equal(found[:, :, None] == found[:, None, :], wanted[:, :, None] == wanted[:, None, :])


@pytest.mark.parametrize(
    ("grid", "window", "shifted", "padded", "masked"),
    [
        ((4, 4, 4), 2, False, False, False),
        ((4, 4, 4), 2, True, False, True),
        ((2, 2, 2), 2, True, False, False),
        ((2, 2, 3), 2, True, True, True),
    ],
)
def test_what_a_block_needs(grid: tuple[int, int, int], window: int, shifted: bool, padded: bool, masked: bool) -> None:
    windows = plan_windows(grid, window, shifted)
    assert (windows.padded, windows.masked) == (padded, masked)
