"""Any head: each of the registry and one of a user's own is trained for a few steps, exported, and run as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmr_export import export_bundle, load_own
from rmr_sdk import Pipeline, Study
from rmr_training.checkpoint import save_checkpoint
from rmr_training.losses import SegmentationLoss
from rmr_training.models import CLASSES, HEADS, EncoderShape, Preset, RmrFusion, check_head
from rmr_training.objectives import joint_loss

FULL = EncoderShape(stem=(4, 8), width=8, depths=(1, 1), heads=1, window=4, tail=4, features=4, decoder=4)
HALF = EncoderShape(stem=(4, 8), stride=2, width=8, depths=(1, 1), heads=1, window=4, tail=4, features=4, decoder=4)
TILE = (32, 32, 32)


class OwnHead(nn.Module):
    """A head that the project does not know, with a norm that keeps statistics and a skip connection."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(in_channels, width, 3, padding=1), nn.BatchNorm3d(width), nn.SiLU())
        self.down = nn.Conv3d(width, 2 * width, 2, 2)
        self.up = nn.Upsample(scale_factor=2.0, mode="trilinear", align_corners=False)
        self.last = nn.Conv3d(3 * width, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, D, H, W) to (N, out_channels, D, H, W)."""
        full = self.first(features)
        return self.last(torch.cat([full, self.up(torch.relu(self.down(full)))], 1))


ROWS: list[tuple[str, dict[str, Any], EncoderShape, tuple[int, int, int]]] = [
    # Five halvings, and a norm at the lowest level that needs two voxels there.
    ("swin_unetr", {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}, FULL, (32, 32, 64)),
    ("unet", {"channels": (4, 8, 8), "num_res_units": 1}, HALF, TILE),
    ("segresnet", {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)}, FULL, TILE),
    ("dynunet", {"filters": (4, 8, 8)}, HALF, TILE),
    (f"{__name__}:OwnHead", {"width": 6}, HALF, TILE),
]


def make_batch(tile: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Shells of tissue around a lesion, seen by two contrasts."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in tile], indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    labels = np.digitize(radius, [0.2, 0.5, 0.7, 0.9])
    labels = np.array([4, 3, 2, 1, 0])[labels]
    contrasts = [np.array(values)[labels][None, None] for values in ((0, 0.2, 0.6, 0.9, 0.6), (0, 0.1, 0.6, 0.5, 1.2))]
    t1w, flair = (torch.from_numpy(x).float() for x in contrasts)
    return t1w, flair, torch.from_numpy(labels[None]).to(torch.uint8)


def train(network: RmrFusion, batch: tuple[Tensor, Tensor, Tensor], steps: int = 3) -> list[float]:
    """Take a few steps of the joint stage and return their losses."""
    network.autoencoder.requires_grad_(False)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser, segmentation = torch.optim.AdamW(parameters, 3e-3), SegmentationLoss(4.0)
    losses = []
    for _ in range(steps):
        loss = joint_loss(network.train(), batch, segmentation, frozen=True, amp=False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("head", "options", "shape", "tile"), ROWS, ids=[row[0].split(":")[-1] for row in ROWS])
def test_a_head_is_trained_exported_and_run(
    head: str, options: dict[str, Any], shape: EncoderShape, tile: tuple[int, int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = RmrFusion(Preset("tiny", shape, growth=4, head=head, head_options=options, tile=tile))
    assert network.head is not None
    check_head(network.head, head, shape.features, len(CLASSES), shape.stride, tile)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    losses = train(network, make_batch(tile))
    assert losses[-1] < losses[0]
    changed = {
        name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"fusion", "head"}
    save_checkpoint(tmp_path / "model.pth", network, "joint", {})
    bundle = export_bundle(load_own(tmp_path / "model.pth"), tmp_path / "bundle", name="any-head")
    assert bundle.manifest.classes == CLASSES
    _run(tmp_path, make_batch((40, 36, 34)))


def _run(folder: Path, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Open the bundle as a user does, which computes the golden tile, and segment a study of several tiles."""
    t1w, flair = (x[0, 0].numpy() for x in batch[:2])
    study = Study.from_arrays({"T1w": t1w, "FLAIR": flair}, affine=np.eye(4))
    with Pipeline.open(
        str(folder / "bundle"), engine="openvino", precision="fp32", cache_dir=folder / "cache"
    ) as opened:
        result = opened.run(study)
    assert result.labels is not None
    assert result.labels.data.shape == t1w.shape
    assert set(np.unique(result.labels.data)) <= set(range(len(CLASSES)))
    assert np.isfinite(result.fused.data).all()


def test_the_registry_is_covered() -> None:
    assert set(HEADS) <= {row[0] for row in ROWS}
