"""Segmentation heads: any network from fused features to class scores.

A head is built by name from the registry below, or from an import path `package.module:Class` of a `torch.nn.Module`.
Its interface (`HeadFactory`): it is built with the keyword arguments `in_channels` and `out_channels`, and maps
(N, in_channels, D, H, W) to (N, out_channels, D, H, W). Where features live at a lower resolution than the image, a
transposed convolution after the head brings its scores to full resolution. `head_check` tries a head before training.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import monai.networks.nets as nets
from torch import Tensor, nn

from rmr_sdk.errors import ConfigError

Options = Mapping[str, Any]

HEAD_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
"""What code that is not ours raises when it is given what it was not made for."""

COARSE_CHANNELS = 32
"""Default width of a head's output where features are coarser than the image."""


class HeadFactory(Protocol):
    """What a head must offer: to be built from these two keyword arguments and its own options."""

    def __call__(self, *, in_channels: int, out_channels: int, **options: Any) -> nn.Module:
        """Build a module from (N, in_channels, D, H, W) to (N, out_channels, D, H, W)."""


def _swin_unetr(*, in_channels: int, out_channels: int, feature_size: int = 48, **options: Any) -> nn.Module:
    return nets.SwinUNETR(in_channels=in_channels, out_channels=out_channels, feature_size=feature_size, **options)


def _unet(*, in_channels: int, out_channels: int, **options: Any) -> nn.Module:
    settings: dict[str, Any] = {"channels": (32, 64, 128, 256), "num_res_units": 2, **options}
    settings.setdefault("strides", (2,) * (len(settings["channels"]) - 1))
    return nets.UNet(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **settings)


def _segresnet(*, in_channels: int, out_channels: int, **options: Any) -> nn.Module:
    settings: dict[str, Any] = {"init_filters": 16, **options}
    return nets.SegResNet(in_channels=in_channels, out_channels=out_channels, **settings)


def _dynunet(
    *, in_channels: int, out_channels: int, filters: tuple[int, ...] = (32, 48, 96, 128), **options: Any
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
    return nets.DynUNet(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **settings)


HEADS: dict[str, HeadFactory] = {
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
        options: Further keyword arguments of the head. On a coarse grid, a number `channels` (default
            `COARSE_CHANNELS`) is the width of the head's output, which is then its `out_channels`; a list of that name
            is the head's own.

    Returns:
        A module from features to class scores at full resolution.

    Raises:
        ConfigError: The name is neither registered nor that of a module to import, or the options do not fit.
    """
    settings = dict(options or {})
    build: HeadFactory = HEADS.get(name) or _import_head(name)
    if stride == 1:
        return _call(build, name, features, classes, settings)
    channels = COARSE_CHANNELS
    if isinstance(settings.get("channels"), int):
        channels = settings.pop("channels")
    return UpsampledHead(_call(build, name, features, channels, settings), channels, classes, stride)


def _call(build: HeadFactory, name: str, features: int, channels: int, settings: Options) -> nn.Module:
    try:
        return build(in_channels=features, out_channels=channels, **settings)
    except HEAD_FAILURES as error:
        raise ConfigError(
            f"head {name!r} does not take these options: {first_line(error)}.",
            "Its constructor must take in_channels, out_channels and every option given.",
            head=name,
        ) from error


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without a full stop, to quote it in another."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _import_head(path: str) -> type[nn.Module]:
    """Import a class. Only modules are taken, so that a name in a checkpoint can call nothing else."""
    module, _, attribute = path.partition(":")
    if not attribute:
        known = ", ".join(sorted(HEADS))
        raise ConfigError(f"unknown head {path!r} (known: {known}).", "Name one of them, or give package.module:Class.")
    try:
        head = getattr(importlib.import_module(module), attribute)
    except (ImportError, SyntaxError, NameError, *HEAD_FAILURES) as error:
        raise ConfigError(
            f"head {path!r} cannot be imported: {first_line(error)}.",
            "Check the path package.module:Class, and that the package is installed or on PYTHONPATH.",
            head=path,
        ) from error
    if not (isinstance(head, type) and issubclass(head, nn.Module)):
        raise ConfigError(
            f"head {path!r} is not a class of torch.nn.Module.", "Derive it from torch.nn.Module.", head=path
        )
    return head
