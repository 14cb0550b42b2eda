"""Heads of a user's own, and what is found out about a head before it is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmr_sdk.errors import ConfigError
from rmr_training.models import build_head, check_head, head_multiple

HERE = __name__
FEATURES, CLASSES = 4, 5


class Good(nn.Module):
    """A head as it should be: any depth, any width, a norm that keeps statistics."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(in_channels, width, 3, padding=1),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv3d(width, out_channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Coarse(Good):
    """Gives scores at half the resolution."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features)[..., ::2, ::2, ::2]


class OneClassTooMany(Good):
    """Counts the background twice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels + 1)


class Several(Good):
    """Gives deep supervision while it is trained."""

    def forward(self, features: Tensor) -> Any:
        scores = super().forward(features)
        return [scores, scores] if self.training else scores


class Undefined(Good):
    """Divides by zero."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) / 0.0


class Labels(Good):
    """Gives labels in the place of scores."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).argmax(1, keepdim=True).expand(-1, CLASSES, -1, -1, -1)


class Detached(Good):
    """Cuts the gradient."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).detach()


class Broken(Good):
    """Raises whatever it is given."""

    def forward(self, features: Tensor) -> Tensor:
        raise KeyError("no such layer")


class Nameless(nn.Module):
    """Is built from positions, not from the two keywords."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()


def no_module(in_channels: int, out_channels: int) -> nn.Module:
    return Good(in_channels, out_channels)


def own(name: str, stride: int = 1, **options: Any) -> nn.Module:
    return build_head(f"{HERE}:{name}", FEATURES, CLASSES, stride, options)


def check(head: nn.Module, stride: int = 1, side: int = 16) -> None:
    check_head(head, "own", FEATURES, CLASSES, stride, (side, side, side))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_good_head_passes_and_is_left_as_it_was(stride: int) -> None:
    head = own("Good", stride, width=8)
    head.train()
    before = {key: value.clone() for key, value in head.state_dict().items()}
    random = torch.random.get_rng_state()
    check(head, stride)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(part.training for part in head.modules())
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())
    assert all(p.grad is None for p in head.parameters())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "Coarse",
            r"'own' makes a tensor \(1, 5, 8, 8, 8\) of features .*; it must make a tensor \(1, 5, 16, 16, 16\)",
        ),
        ("OneClassTooMany", r"makes a tensor \(1, 6, 16, 16, 16\)"),
        ("Several", "makes a list of features .* in training mode too"),
        ("Undefined", "not finite floating-point numbers"),
        ("Labels", "not finite floating-point numbers"),
        ("Detached", "passes no gradient"),
        ("Broken", "cannot be computed on features: 'no such layer'"),
    ],
)
def test_a_head_that_cannot_be_trained(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check(own(name))
    assert caught.value.facts["head"] == "own"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{HERE}:no_module", "is not a class of torch.nn.Module"),
        ("torch:float32", "is not a class of torch.nn.Module"),
        (f"{HERE}:Nameless", "does not take these options: .*in_channels"),
        (f"{HERE}:Absent", "cannot be imported: .*Absent"),
        (":Good", "cannot be imported: Empty module name"),
    ],
)
def test_a_path_that_is_no_head(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_head(path, FEATURES, CLASSES)


def test_a_module_with_a_mistake_in_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mistaken_head.py").write_text("class Head(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="'mistaken_head:Head' cannot be imported: invalid syntax"):
        build_head("mistaken_head:Head", FEATURES, CLASSES)


@pytest.mark.parametrize(
    ("name", "options", "stride", "tile", "multiple"),
    [
        ("swin_unetr", {"feature_size": 12, "depths": (1, 1, 1, 1)}, 1, (48, 48, 48), 32),
        ("dynunet", {"filters": (4, 8, 8)}, 1, (16, 16, 18), 4),
        ("unet", {"channels": (4, 8, 8, 8)}, 2, (24, 24, 24), 16),
        ("segresnet", {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)}, 1, (16, 15, 16), 2),
    ],
)
def test_the_sides_that_a_head_needs(
    name: str, options: dict[str, Any], stride: int, tile: tuple[int, int, int], multiple: int
) -> None:
    head = build_head(name, FEATURES, CLASSES, stride, options)
    words = f"Choose sides that are multiples of {multiple}"
    with pytest.raises(ConfigError, match=words) as caught:
        check_head(head, name, FEATURES, CLASSES, stride, tile)
    assert caught.value.facts["multiple"] == multiple


def test_the_multiple_of_a_head() -> None:
    assert head_multiple(own("Good"), FEATURES) == 1
    assert head_multiple(build_head("unet", FEATURES, CLASSES, 2, {"channels": (4, 8, 8)}), FEATURES) == 4
    assert head_multiple(own("Broken"), FEATURES) is None


def test_a_tile_that_is_too_small_for_a_norm() -> None:
    head = build_head("dynunet", FEATURES, CLASSES, options={"filters": (4, 8, 8)})
    check_head(head, "dynunet", FEATURES, CLASSES, 1, (4, 4, 8))
    with pytest.raises(ConfigError, match="multiples of 4; take a larger one"):
        check_head(head, "dynunet", FEATURES, CLASSES, 1, (4, 4, 4))


def test_large_tiles_are_tried_small() -> None:
    seen = []

    class Counting(Good):
        def forward(self, features: Tensor) -> Tensor:
            seen.append(tuple(features.shape[2:]))
            return super().forward(features)

    check_head(Counting(FEATURES, CLASSES), "own", FEATURES, CLASSES, 1, (96, 112, 160))
    assert set(seen) == {(32, 48, 64)}, "remainders by 32 stay, the longest axis has twice as many voxels"


def test_a_list_of_channels_is_the_heads_own() -> None:
    head = build_head("unet", FEATURES, CLASSES, 2, {"channels": (4, 8), "num_res_units": 1})
    assert head(torch.zeros(1, FEATURES, 4, 4, 4)).shape == (1, CLASSES, 8, 8, 8)
