"""What the kernels are measured against: the same blending job in other libraries.

The job: 5 class probabilities of a volume, tile by tile through an identity network, blended to labels and to the
probability of the last class. The network copies its input to one buffer that it reuses, as an engine does; its time
and its memory are left out on every side. Every peer picks its own tiles, at the same overlap, and its own window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[np.uint8], FloatArray]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Job:
    """Probabilities (classes, D, H, W) that add up to one, and how to cut them."""

    volume: FloatArray
    tile_shape: Shape
    overlap: float
    threads: int


class IdentityNetwork:
    """Copies each window into one buffer and keeps its own time and the number of calls."""

    def __init__(self, job: Job, dtype: npt.DTypeLike = np.float32) -> None:
        self.buffer = np.ones((1, len(job.volume), *job.tile_shape), dtype)  # touched: not counted as the peer's memory
        self.seconds = 0.0
        self.tiles = 0

    def __call__(self, window: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the buffer with the window (classes, D, H, W) in it."""
        started = perf_counter()
        np.copyto(self.buffer[0], window, casting="same_kind")
        self.seconds += perf_counter() - started
        self.tiles += 1
        return self.buffer


def run_rmr(job: Job, network: IdentityNetwork) -> Answer:
    """Blend with this SDK."""
    from rmr_sdk.blend import Blender, BlendOutputs
    from rmr_sdk.tiles import plan_tiles

    classes, *extents = job.volume.shape
    shape = (extents[0], extents[1], extents[2])
    plan = plan_tiles((0, 0, 0), shape, shape, job.tile_shape, job.overlap)
    outputs = BlendOutputs.allocate(shape, fused=False)
    blender = Blender(plan, outputs, classes=classes, chosen_class=classes - 1, threads=job.threads)
    for index, tile in enumerate(plan.tiles):
        window = tuple(slice(a, b) for a, b in zip(tile.low, tile.high, strict=True))
        blender.add(index, probability=network(job.volume[(slice(None), *window)]))
    blender.finish()
    assert outputs.labels is not None
    assert outputs.probability is not None
    return outputs.labels, outputs.probability


def run_monai(job: Job, network: IdentityNetwork) -> Answer:
    """Blend with monai.inferers.sliding_window_inference, Gaussian window."""
    import torch
    from monai.inferers import sliding_window_inference

    def predictor(window: Any) -> Any:
        return torch.from_numpy(network(window[0].numpy()))

    inputs = torch.from_numpy(job.volume)[None]
    scores = sliding_window_inference(inputs, job.tile_shape, 1, predictor, job.overlap, mode="gaussian")[0]
    return scores.argmax(0).to(torch.uint8).numpy(), scores[-1].numpy().copy()


def run_torchio(job: Job, network: IdentityNetwork) -> Answer:
    """Blend with torchio.GridAggregator, Hann window."""
    import torch
    import torchio

    subject = torchio.Subject(image=torchio.ScalarImage(tensor=torch.from_numpy(job.volume)))
    overlap = tuple(2 * round(size * job.overlap / 2) for size in job.tile_shape)
    sampler = torchio.GridSampler(subject, job.tile_shape, overlap)
    aggregator = torchio.GridAggregator(sampler, overlap_mode="hann")
    for location in sampler.locations:
        a, b, c, d, e, f = (int(edge) for edge in location)
        values = torch.from_numpy(network(job.volume[:, a:d, b:e, c:f]))
        aggregator.add_batch(values, torch.from_numpy(location[None].copy()))
    scores = aggregator.get_output_tensor()
    return scores.argmax(0).to(torch.uint8).numpy(), scores[-1].numpy().copy()


def run_numpy(job: Job, network: IdentityNetwork) -> Answer:
    """Blend with NumPy: weighted sums, a count map, a division, an arg-max; tiles as this SDK places them."""
    from rmr_sdk.tiles import tile_starts

    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (0.125 * n)) ** 2) for n in job.tile_shape]
    weight = np.einsum("i,j,k->ijk", *axes).astype(np.float32)
    total = np.zeros_like(job.volume)
    count = np.zeros(job.volume.shape[1:], np.float32)
    starts = [tile_starts(n, t, job.overlap) for n, t in zip(job.volume.shape[1:], job.tile_shape, strict=True)]
    for d in starts[0]:
        for h in starts[1]:
            for w in starts[2]:
                box = tuple(slice(a, a + n) for a, n in zip((d, h, w), job.tile_shape, strict=True))
                total[(slice(None), *box)] += network(job.volume[(slice(None), *box)])[0] * weight
                count[box] += weight
    total /= count
    return total.argmax(0).astype(np.uint8), total[-1].copy()


@dataclass(frozen=True)
class Peer:
    """One way to do the job."""

    name: str
    run: Callable[[Job, IdentityNetwork], Answer]
    needs: tuple[str, ...] = ()
    dtype: npt.DTypeLike = np.float32

    @property
    def missing(self) -> list[str]:
        """Return the packages that it needs and this environment lacks."""
        return [package for package in self.needs if find_spec(package) is None]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("rmr_sdk", run_rmr),
        Peer("rmr_sdk, float16 predictions", run_rmr, dtype=np.float16),
        Peer("MONAI sliding_window_inference", run_monai, ("monai", "torch")),
        Peer("TorchIO GridAggregator", run_torchio, ("torchio", "torch")),
        Peer("NumPy", run_numpy),
    )
}
