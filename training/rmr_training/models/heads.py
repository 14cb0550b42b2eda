"""Segmentation heads: any network from fused features to class scores.

A head is built by name from the registry below or from an import path `package.module:Class`. Its interface: a
`torch.nn.Module` that is built with the keyword arguments `in_channels` and `out_channels`, and maps
(N, in_channels, D, H, W) to (N, out_channels, D, H, W). Where features live at a lower resolution than the image, a
transposed convolution after the head brings its scores to full resolution.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import monai.networks.nets as nets
from torch import Tensor, nn

from rmr_sdk.errors import ConfigError

Options = Mapping[str, Any]


def _swin_unetr(in_channels: int, out_channels: int, feature_size: int = 48, **options: Any) -> nn.Module:
    return nets.SwinUNETR(in_channels=in_channels, out_channels=out_channels, feature_size=feature_size, **options)  # type: ignore[no-any-return]


def _unet(in_channels: int, out_channels: int, **options: Any) -> nn.Module:
    settings: dict[str, Any] = {"channels": (32, 64, 128, 256), "strides": (2, 2, 2), "num_res_units": 2, **options}
    return nets.UNet(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **settings)  # type: ignore[no-any-return]


def _segresnet(in_channels: int, out_channels: int, **options: Any) -> nn.Module:
    settings: dict[str, Any] = {"init_filters": 16, **options}
    return nets.SegResNet(in_channels=in_channels, out_channels=out_channels, **settings)  # type: ignore[no-any-return]


def _dynunet(
    in_channels: int, out_channels: int, filters: tuple[int, ...] = (32, 48, 96, 128), **options: Any
) -> nn.Module:
    levels = len(filters)
    settings: dict[str, Any] = {
        "kernel_size": [3] * levels,
        "strides": [1] + [2] * (levels - 1),
        "upsample_kernel_size": [2] * (levels - 1),
        "filters": list(filters),
        "norm_name": ("instance", {"affine": True}),
        **options,
    }
    return nets.DynUNet(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **settings)  # type: ignore[no-any-return]


HEADS: dict[str, Callable[..., nn.Module]] = {
    "swin_unetr": _swin_unetr,
    "unet": _unet,
    "segresnet": _segresnet,
    "dynunet": _dynunet,
}


class UpsampledHead(nn.Module):
    """A head on a coarse feature grid, and the transposed convolution from its output to scores at full resolution."""

    def __init__(self, body: nn.Module, channels: int, classes: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.expand = nn.ConvTranspose3d(channels, classes, stride, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, features, D / stride, H / stride, W / stride) to scores (N, classes, D, H, W)."""
        return self.expand(self.body(features))  # type: ignore[no-any-return]


def build_head(name: str, features: int, classes: int, stride: int = 1, options: Options | None = None) -> nn.Module:
    """Build a segmentation head.

    Args:
        name: Name in the registry, or `package.module:Class`.
        features: Channels of the fused features.
        classes: Number of classes, background included.
        stride: Resolution of the image over that of the features.
        options: Further keyword arguments of the head. On a coarse grid, `channels` (default 32) is its width.

    Returns:
        A module from features to class scores at full resolution.

    Raises:
        ConfigError: The name is neither registered nor importable, or the options do not fit.
    """
    settings = dict(options or {})
    build = HEADS.get(name) or _import_head(name)
    try:
        if stride == 1:
            return build(in_channels=features, out_channels=classes, **settings)
        channels = int(settings.pop("channels", 32))
        body = build(in_channels=features, out_channels=channels, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"head {name!r} does not take these options: {error}.", "See its constructor.") from error
    return UpsampledHead(body, channels, classes, stride)


def _import_head(path: str) -> Callable[..., nn.Module]:
    module, _, attribute = path.partition(":")
    if not attribute:
        known = ", ".join(sorted(HEADS))
        raise ConfigError(f"unknown head {path!r} (known: {known}).", "Name one of them, or give package.module:Class.")
    try:
        head: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"head {path!r} cannot be imported: {error}.", "Check the path package.module:Class."
        ) from error
    return head
