"""The networks: names and shapes that checkpoints rely on, the authors' own result, and what the edge preset costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rmr_training.checkpoint import load_weights, read_checkpoint
from rmr_training.models import (
    CLASSES,
    HEADS,
    PRESETS,
    DualSwinAE,
    FusionNet,
    Preset,
    RmrFusion,
    build_head,
    find_preset,
    probabilities,
)
from rmr_training.models.swin import SwinBlock, relative_position_index, window_and_shift

MAX_EDGE_KMAC = 60

# METHOD's names and shapes: what checkpoints of the authors' format hold.
ENCODER = {
    "Conv_first.double_conv.0.weight": (24, 1, 3, 3, 3),
    "Conv_first.double_conv.0.bias": (24,),
    "Conv_first.double_conv.1.weight": (24,),
    "Conv_first.double_conv.2.weight": (48, 24, 3, 3, 3),
    "Conv_first.double_conv.2.bias": (48,),
    "Conv_first.double_conv.3.weight": (48,),
    "swinViT.patch_embed.proj.weight": (48, 48, 2, 2, 2),
    "swinViT.patch_embed.proj.bias": (48,),
    "Conv_after_body.transp_conv_init.conv.weight": (48, 48, 2, 2, 2),
    "Conv_last.double_conv.0.weight": (24, 48, 3, 3, 3),
    "Conv_last.double_conv.0.bias": (24,),
    "Conv_last.double_conv.1.weight": (24,),
    "Conv_last.double_conv.2.weight": (16, 24, 3, 3, 3),
    "Conv_last.double_conv.2.bias": (16,),
    "Conv_last.double_conv.3.weight": (16,),
}
BLOCK = {
    "norm1.weight": (48,),
    "norm1.bias": (48,),
    "attn.relative_position_bias_table": (2197, 6),
    "attn.relative_position_index": (343, 343),
    "attn.qkv.weight": (144, 48),
    "attn.qkv.bias": (144,),
    "attn.proj.weight": (48, 48),
    "attn.proj.bias": (48,),
    "norm2.weight": (48,),
    "norm2.bias": (48,),
    "mlp.linear1.weight": (192, 48),
    "mlp.linear1.bias": (192,),
    "mlp.linear2.weight": (48, 192),
    "mlp.linear2.bias": (48,),
}
DECODER = {
    "layer1.double_conv.0.weight": (8, 16, 3, 3, 3),
    "layer1.double_conv.2.weight": (8, 8, 3, 3, 3),
    "layer2.double_conv.0.weight": (8, 8, 3, 3, 3),
    "layer2.double_conv.2.weight": (8, 8, 3, 3, 3),
    **{f"{layer}.double_conv.{index}.bias": (8,) for layer in ("layer1", "layer2") for index in (0, 2)},
    **{f"{layer}.double_conv.{index}.weight": (8,) for layer in ("layer1", "layer2") for index in (1, 3)},
    "outc.conv.weight": (1, 8, 1, 1, 1),
    "outc.conv.bias": (1,),
}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_autoencoder_checkpoint() -> None:
    wanted = {f"decoder.{name}": shape for name, shape in DECODER.items()}
    for encoder in ("encoder1", "encoder2"):
        wanted |= {f"{encoder}.{name}": shape for name, shape in ENCODER.items()}
        for layer in ("layers1", "layers2"):
            for block in range(3):
                prefix = f"{encoder}.swinViT.{layer}.0.blocks.{block}"
                wanted |= {f"{prefix}.{name}": shape for name, shape in BLOCK.items()}
    assert shapes(DualSwinAE()) == wanted


def test_fusion_checkpoint() -> None:
    wanted: dict[str, tuple[int, ...]] = {}
    for number, channels in enumerate((32, 48, 64, 80, 96, 16)):
        wanted[f"conv{number}.conv.0.weight"] = (16, channels, 3, 3, 3)
        wanted[f"conv{number}.conv.0.bias"] = wanted[f"conv{number}.conv.1.weight"] = (16,)
    assert shapes(FusionNet()) == wanted


def test_parameters_of_the_paper() -> None:
    counts = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (DualSwinAE(), FusionNet())]
    assert counts == pytest.approx([0.73, 0.15], abs=0.005)


def test_the_authors_result(data_dir: Path) -> None:
    network = RmrFusion(replace(find_preset("paper"), head=None)).eval()
    for name, module in (("SwinAE.pth", network.autoencoder), ("Fusion.pth", network.fusion)):
        load_weights(module, read_checkpoint(data_dir / "reference" / name)["model"], name)
    with np.load(data_dir / "reference" / "tile.npz") as file, torch.inference_mode():
        features = network.fuse(torch.from_numpy(file["t1"]), torch.from_numpy(file["flair"]))
        np.testing.assert_allclose(network.autoencoder.decoder(features), file["fused"], atol=1e-5)
        np.testing.assert_allclose(features, file["feat_fused"], atol=2e-3)  # kept as float16


def test_edge_is_small_enough() -> None:
    network = RmrFusion(find_preset("edge")).eval()
    tile = torch.zeros(1, 1, 32, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(tile, tile)
    kmac = counter.get_total_flops() / 2 / tile.numel() / 1000
    assert 40 < kmac <= MAX_EDGE_KMAC


def test_the_edge_family_spans_a_wide_range_of_cost() -> None:
    sizes = [RmrFusion(find_preset(name)).eval() for name in ("edge-small", "edge", "edge-large")]
    tile = torch.zeros(1, 1, 32, 32, 32)
    costs = []
    for network in sizes:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(tile, tile)
        costs.append(counter.get_total_flops())
    assert costs[0] / costs[1] == pytest.approx(1 / 3, abs=0.05)
    assert costs[2] / costs[1] == pytest.approx(2.5, abs=0.2)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("edge")])
def test_edge_windows_need_no_padding(name: str) -> None:
    preset = find_preset(name)
    encoder = preset.encoder
    for side in preset.tile:
        assert side % (encoder.stride * encoder.patch * encoder.window) == 0
    assert encoder.width // encoder.heads >= 16, "attention heads of less than 16 do not fuse well"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_checkpoint(name: str, tmp_path: Path) -> None:
    preset = find_preset(name)
    torch.save(preset.to_metadata(), tmp_path / "preset.pth")
    assert Preset.from_metadata(torch.load(tmp_path / "preset.pth", weights_only=True)) == preset


def test_edge_gives_images_and_scores_at_full_resolution() -> None:
    network = RmrFusion(find_preset("edge")).eval()
    with torch.inference_mode():
        image, logits = network(torch.rand(1, 1, 32, 32, 48), torch.rand(1, 1, 32, 32, 48))
    assert image.shape == (1, 1, 32, 32, 48)
    assert logits.shape == (1, len(CLASSES), 32, 32, 48)
    torch.testing.assert_close(probabilities(logits).sum(1), torch.ones(1, 32, 32, 48))


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_of_the_registry(name: str) -> None:
    small: dict[str, dict[str, object]] = {
        "dynunet": {"filters": (4, 8, 8)},
        "segresnet": {"init_filters": 8},
        "swin_unetr": {"feature_size": 12},
        "unet": {"channels": (4, 8), "strides": (2,)},
    }
    head = build_head(name, 4, 5, options=small[name]).eval()
    with torch.inference_mode():
        assert head(torch.zeros(1, 4, 32, 32, 64)).shape == (1, 5, 32, 32, 64)


class Pointwise(nn.Conv3d):
    """A head of a user's own."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)


def test_a_head_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "own_heads", sys.modules[__name__])
    head = build_head("own_heads:Pointwise", 4, 5, stride=2, options={"channels": 6})
    assert head(torch.zeros(1, 4, 4, 4, 4)).shape == (1, 5, 8, 8, 8)


def test_relative_position_index() -> None:
    index = relative_position_index(2)
    assert index.shape == (8, 8)
    assert len(set(index.diagonal().tolist())) == 1, "a token and itself"
    assert index[0, 1] == index[2, 3] == index[6, 7], "one step along W"
    assert index[4, 0] - index[0, 0] == 9, "depth varies slowest: one step is a plane of 3 x 3 table rows"


@pytest.mark.parametrize(
    ("grid", "shifted", "sides", "shifts"),
    [
        ((8, 9, 10), True, (7, 7, 7), (3, 3, 3)),
        ((8, 9, 10), False, (7, 7, 7), (0, 0, 0)),
        ((4, 7, 8), True, (4, 7, 7), (0, 0, 3)),
    ],
)
def test_short_axes_are_one_unshifted_window(
    grid: tuple[int, int, int], shifted: bool, sides: tuple[int, int, int], shifts: tuple[int, int, int]
) -> None:
    assert window_and_shift(grid, 7, shifted) == (sides, shifts)


def test_a_token_sees_its_own_region_only() -> None:
    torch.manual_seed(0)
    block = SwinBlock(4, 1, 2, shifted=True, mlp_ratio=1.0).eval()
    tokens = torch.rand(1, 4, 4, 4, 4)

    def first(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return block(x)[0, 0, 0, 0]

    # Token 0 shares its window with tokens of the far end, which come round with the shift and are masked.
    far = tokens.clone()
    far[0, 3, 3, 3] += 1
    torch.testing.assert_close(first(far), first(tokens), rtol=0, atol=0)
    own = tokens.clone()
    own[0, 0, 0, 0] += torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert not torch.allclose(first(own), first(tokens))


@pytest.mark.parametrize("shifted", [False, True])
def test_padded_tokens_are_kept_apart(shifted: bool) -> None:
    torch.manual_seed(0)
    block = SwinBlock(4, 2, 2, shifted, mlp_ratio=1.0, mask_padding=True).eval()
    tokens = torch.rand(1, 3, 4, 5, 4)  # windows of two: one plane of padding along the first axis, one along the last

    def run() -> Tensor:
        with torch.inference_mode():
            return block(tokens)

    with torch.no_grad():
        block.attn.qkv.bias.copy_(torch.rand(12))  # all that a padded token carries
        masked, expected = run(), _attend_by_hand(block, tokens[0], shifted)
    torch.testing.assert_close(masked[0], expected, rtol=1e-4, atol=1e-5)
    block.mask_padding = False  # after a shift by one, one plane of padding is a region of its own anyway
    assert torch.allclose(run(), masked, atol=1e-4) == shifted


def _attend_by_hand(block: SwinBlock, tokens: Tensor, shifted: bool) -> Tensor:
    """Let each token attend to the real ones of its window, found by place; nothing is padded, rolled or masked."""
    shift = 1 if shifted else 0
    places = [tuple(place) for place in np.ndindex(*tokens.shape[:3])]
    normed = block.norm1(tokens)
    made = tokens.clone()
    for own in places:
        mates = [p for p in places if all((a - shift) // 2 == (b - shift) // 2 for a, b in zip(p, own, strict=True))]
        rows = block.attn.qkv(torch.stack([normed[own], *(normed[mate] for mate in mates)])).view(-1, 3, 2, 2)
        found = []
        for head in range(2):
            at = [sum((o - m + 1) * f for o, m, f in zip(own, mate, (9, 3, 1), strict=True)) for mate in mates]
            score = rows[1:, 1, head] @ rows[0, 0, head] * 2**-0.5
            weights = (score + block.attn.relative_position_bias_table[at, head]).softmax(0)
            found.append(weights @ rows[1:, 2, head])
        made[own] += block.attn.proj(torch.cat(found))
    return made + block.mlp(block.norm2(made))


def test_tokens_in_whole_windows_are_not_touched_by_masking() -> None:
    torch.manual_seed(0)
    block, tokens = SwinBlock(4, 1, 2, shifted=True, mlp_ratio=1.0).eval(), torch.rand(1, 4, 4, 6, 4)
    with torch.inference_mode():
        before = block(tokens)
        block.mask_padding = True
        torch.testing.assert_close(block(tokens), before, rtol=0, atol=0)


def test_the_edge_family_masks_padding_and_the_paper_does_not() -> None:
    masks = {name: preset.encoder.mask_padding for name, preset in PRESETS.items()}
    assert masks == {"paper": False, "edge": True, "edge-small": True, "edge-large": True}
