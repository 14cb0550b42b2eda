"""Try a segmentation head on random features before hours are spent on it.

Owns what is asked of a head's output, and what the sides of a tile must be multiples of. `heads` builds heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rmr_sdk.errors import ConfigError

from .heads import HEAD_FAILURES, UpsampledHead, first_line

Triple = tuple[int, int, int]

MULTIPLES = (2, 4, 8, 16, 32)
"""What a head may need the sides of the feature grid to be multiples of."""


def check_head(head: nn.Module, name: str, features: int, classes: int, stride: int, tile: Triple) -> None:
    """Compute a head forwards, in training and in evaluation mode, on as small a tile as tells.

    Its weights and buffers and torch's random state stay as they are.

    Args:
        head: As `build_head` gives it.
        name: What to call it in messages.
        features: Channels of the fused features.
        classes: Number of classes.
        stride: Resolution of the image over that of the features.
        tile: (D, H, W) that it will be trained on, in voxels of the image, multiples of `stride`.

    Raises:
        ConfigError: It cannot be computed on such a tile (the message says what sides must be multiples of), or what
            it gives has the wrong shape, is not finite, or passes no gradient.
    """
    body, channels = (head.body, head.expand.in_channels) if isinstance(head, UpsampledHead) else (head, classes)
    grid = _probe_grid(tile, stride)
    for training in (True, False):
        try:
            scores = _compute(body, features, grid, training)
        except HEAD_FAILURES as error:
            raise _refusal(body, name, features, stride, tile, error) from error
        _check_scores(scores, name, (1, features, *grid), (1, channels, *grid))
        if training and not scores.requires_grad:
            raise ConfigError(
                f"head {name!r} passes no gradient from its scores to the features.",
                "Return scores, not labels, and do not detach them.",
                head=name,
            )


def head_multiple(head: nn.Module, features: int) -> int | None:
    """Return what the sides of the feature grid must be multiples of, or None where no power of two up to 32 helps."""
    body = head.body if isinstance(head, UpsampledHead) else head
    for multiple in (1, *MULTIPLES):
        grid = (2 * multiple, multiple, multiple)  # twice along one axis, for norms as below
        try:
            scores = _compute(body, features, grid, training=True)
        except HEAD_FAILURES:
            continue
        if tuple(scores.shape[2:]) == grid:  # a lone voxel can be broadcast where sizes differ
            return multiple
    return None


def _probe_grid(tile: Triple, stride: int) -> Triple:
    """Shrink the feature grid of a tile to what divides by powers of two up to 32 as the grid itself does.

    Its longest axis stays twice as long: norms need more than one voxel at the lowest level.
    """
    sides = [n // stride for n in tile]
    longest = sides.index(max(sides))
    least = [MULTIPLES[-1] * (2 if axis == longest else 1) for axis in range(3)]
    d, h, w = (min(n, low + n % MULTIPLES[-1]) for n, low in zip(sides, least, strict=True))
    return d, h, w


def _compute(body: nn.Module, features: int, grid: Triple, training: bool) -> Tensor:
    """Give what the head gives for random features in [0, 1], computed on copies of its buffers."""
    noise = torch.rand(1, features, *grid, generator=torch.Generator().manual_seed(0))
    anchor = next(body.parameters(), noise)
    inputs = noise.to(anchor.device).requires_grad_()
    buffers = {key: buffer.clone() for key, buffer in body.named_buffers()}
    with _mode(body, training), torch.random.fork_rng(devices=[]), torch.set_grad_enabled(training):
        return functional_call(body, buffers, (inputs,))


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    before = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def _check_scores(scores: object, name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    found = f"a tensor {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
    if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted:
        raise ConfigError(
            f"head {name!r} makes {found} of features {given}; it must make a tensor {wanted}.",
            "A head maps (N, in_channels, D, H, W) to (N, out_channels, D, H, W), in training mode too.",
            head=name,
        )
    if not (scores.is_floating_point() and bool(scores.isfinite().all())):
        raise ConfigError(
            f"head {name!r} makes scores that are not finite floating-point numbers from features in [0, 1].",
            "Check how it initialises its weights and what it divides by.",
            head=name,
        )


def _refusal(body: nn.Module, name: str, features: int, stride: int, tile: Triple, error: BaseException) -> ConfigError:
    sides = " x ".join(map(str, tile))
    multiple = head_multiple(body, features)
    cause = first_line(error)
    if multiple is None:
        return ConfigError(
            f"head {name!r} cannot be computed on features: {cause}.", "Correct the head or its options.", head=name
        )
    step = multiple * stride
    if all(side % step == 0 for side in tile):
        fix = f"Its tiles need sides that are multiples of {step}; take a larger one."
    else:
        fix = f"Choose sides that are multiples of {step}."
    return ConfigError(
        f"head {name!r} cannot be computed on a tile of {sides}: {cause}.", fix, head=name, multiple=step
    )
