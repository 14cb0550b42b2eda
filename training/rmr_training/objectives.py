"""What each stage minimises, for one batch.

Networks may compute in bfloat16 (`amp`); losses are always float32.

Source: Zhang et al., AAAI 38(7):7087-7095 (2024), and the authors' code for the constants.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from .degradations import DEGRADATIONS
from .losses import SegmentationLoss, content, reconstruction, visual
from .models import RmrFusion

Batch = tuple[Tensor, Tensor, Tensor]
"""T1 and FLAIR (N, 1, D, H, W) float32, labels (N, D, H, W) uint8."""


def autocast(device: torch.device, amp: bool) -> torch.autocast:
    """Compute in bfloat16 where torch deems it safe."""
    return torch.autocast(device.type, torch.bfloat16, enabled=amp)


def bfloat16_is_sound(network: nn.Module, side: int, device: torch.device) -> bool:
    """Tell whether gradients of a network of two contrasts, in bfloat16, can be trusted on patches of a side.

    On a CPU torch 2.13 reads memory that nothing has written in the weight gradient of a bfloat16 Conv3d of stride 1
    whose kernel is longer than 1 along the first axis, where its input is two voxels deep: the gradient is another one
    each time, and sometimes NaN.
    """
    if device.type != "cpu":
        return True
    depths: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: depths.append(inputs[0].shape[2]))
        for module in network.modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1 and set(module.stride) == {1}
    ]
    patch, training = torch.zeros(1, 1, side, side, side, device=device), network.training
    try:
        with torch.no_grad():
            network.eval()(patch, patch)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return 2 not in depths


def autoencoder_loss(
    network: RmrFusion,
    batch: Batch,
    generator: Generator,
    amp: bool,
    degraded: int = len(DEGRADATIONS),
    constraints: bool = True,
) -> Tensor:
    """Two-level loss of stage 1; T1 trains encoder1, FLAIR encoder2, both the decoder.

    Args:
        network: Its autoencoder is trained.
        batch: Contrasts; labels are not looked at.
        generator: Source of the degradations.
        amp: Compute in bfloat16.
        degraded: Degraded versions of each image. Below three they are drawn at random and their terms scaled, so
            that the expected loss stays the same.
        constraints: False leaves only the reconstruction of the clean image.
    """
    autoencoder = network.autoencoder
    total = batch[0].new_zeros(())
    for encoder, clean in ((autoencoder.encoder1, batch[0]), (autoencoder.encoder2, batch[1])):
        names = _chosen(degraded, generator) if constraints else []
        versions = [clean, *(DEGRADATIONS[name](clean, generator) for name in names)]
        with autocast(clean.device, amp):
            features = encoder(torch.cat(versions))
            images = autoencoder.decoder(features)
        reference, *others = features.float().chunk(len(versions))
        restored, *others_restored = images.float().chunk(len(versions))
        total = total + reconstruction(restored, clean)
        if names:
            terms = [content(f, reference) for f in others] + [reconstruction(i, clean) for i in others_restored]
            total = total + torch.stack(terms).sum() * (len(DEGRADATIONS) / len(names))
    return total


def _chosen(count: int, generator: Generator) -> list[str]:
    names = list(DEGRADATIONS)
    if count >= len(names):
        return names
    return [names[i] for i in torch.randperm(len(names), generator=generator)[:count].tolist()]


def degrade_some(batch: Batch, generator: Generator, probability: float) -> tuple[Tensor, Tensor]:
    """Degrade each contrast of a batch with the given probability, by one of the three degradations."""
    made = []
    for clean in batch[:2]:
        if probability and float(torch.rand((), generator=generator)) < probability:
            [name] = _chosen(1, generator)
            clean = DEGRADATIONS[name](clean, generator)
        made.append(clean)
    return made[0], made[1]


def joint_loss(
    network: RmrFusion,
    batch: Batch,
    segmentation: SegmentationLoss,
    frozen: bool,
    amp: bool,
    inputs: tuple[Tensor, Tensor] | None = None,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Visual and segmentation loss of stage 2.

    A frozen autoencoder is not trained, but its decoder passes gradients to the fusion.

    Args:
        network: Fusion and head are trained.
        batch: Clean contrasts and labels.
        segmentation: The loss of the head.
        frozen: Whether the autoencoder stays as it is.
        amp: Compute in bfloat16.
        inputs: What the network sees instead of the clean contrasts.
        weights: Weights of the visual and the segmentation loss; a weight of 0 drops the loss.
    """
    t1w, flair, labels = batch
    seen = inputs or (t1w, flair)
    with autocast(t1w.device, amp):
        with torch.set_grad_enabled(not frozen):
            features = network.autoencoder.encoder1(seen[0]), network.autoencoder.encoder2(seen[1])
        fused = network.fusion(*features)
        image = network.autoencoder.decoder(fused) if weights[0] else None
        logits = network.head(fused) if network.head is not None and weights[1] else None
    loss = t1w.new_zeros(())
    if image is not None:
        loss = loss + weights[0] * visual(image.float(), t1w, flair)
    if logits is not None:
        loss = loss + weights[1] * segmentation(logits.float(), labels)
    return loss
