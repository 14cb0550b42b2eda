"""The dual autoencoder: one encoder a contrast, one shared decoder.

Checkpoints of the authors' format (`{"model": state_dict, ...}`) load unchanged into the `paper` preset: names and
shapes below are an interface.

Source: Zhang et al., AAAI 38(7):7087-7095 (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .swin import SwinTransformer


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Widths and strides of an encoder and of the decoder that undoes it.

    Attributes:
        stem: Channels of the two first convolutions.
        stride: Stride of the first convolution: features live at 1 / stride of the input's resolution.
        width: Channels of a token.
        patch: Side of a token in voxels of the feature grid.
        depths: Blocks of the two layers.
        heads: Attention heads.
        window: Window side in tokens.
        mlp_ratio: Hidden width of the MLPs as a multiple of `width`.
        tail: Channels of the convolution before the features.
        features: Channels of the features.
        decoder: Channels inside the decoder.
        mask_padding: Keep the padded tokens of incomplete windows out of attention; False is the authors' network, and
            where tokens come in whole windows there are none.
    """

    stem: tuple[int, int] = (24, 48)
    stride: int = 1
    width: int = 48
    patch: int = 2
    depths: tuple[int, int] = (3, 3)
    heads: int = 6
    window: int = 7
    mlp_ratio: float = 4.0
    tail: int = 24
    features: int = 16
    decoder: int = 8
    mask_padding: bool = False


class DoubleConv(nn.Module):
    """Two 3x3x3 convolutions, each followed by a PReLU per channel."""

    def __init__(self, channels: int, hidden: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv3d(channels, hidden, 3, stride, padding=1),
            nn.PReLU(hidden),
            nn.Conv3d(hidden, out, 3, padding=1),
            nn.PReLU(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, D, H, W) to (N, out, D / stride, H / stride, W / stride)."""
        return self.double_conv(x)  # type: ignore[no-any-return]


class _Convolution(nn.Module):
    """A named holder, so that checkpoints find the convolution under `.conv`."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class _Upsample(nn.Module):
    """Transposed convolution from tokens back to the feature grid."""

    def __init__(self, width: int, channels: int, stride: int) -> None:
        super().__init__()
        self.transp_conv_init = _Convolution(nn.ConvTranspose3d(width, channels, stride, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.transp_conv_init(x)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Convolutions, window attention at lower resolution, and convolutions over the sum of both."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        stem = shape.stem[1]
        self.Conv_first = DoubleConv(1, *shape.stem, stride=shape.stride)
        self.swinViT = SwinTransformer(
            stem,
            shape.width,
            shape.patch,
            shape.depths,
            shape.heads,
            shape.window,
            shape.mlp_ratio,
            shape.mask_padding,
        )
        self.Conv_after_body = _Upsample(shape.width, stem, shape.patch)
        self.Conv_last = DoubleConv(stem, shape.tail, shape.features)

    def forward(self, x: Tensor) -> Tensor:
        """Map one contrast (N, 1, D, H, W) to features (N, features, D / stride, H / stride, W / stride)."""
        first = self.Conv_first(x)
        return self.Conv_last(first + self.Conv_after_body(self.swinViT(first)))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Convolutions from features to one image; no activation at the end."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width = shape.decoder
        self.layer1 = DoubleConv(shape.features, width, width)
        self.layer2 = DoubleConv(width, width, width)
        if shape.stride == 1:
            self.outc = _Convolution(nn.Conv3d(width, 1, 1))
        else:
            self.outc = _Convolution(nn.ConvTranspose3d(width, 1, shape.stride, shape.stride))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, features, D', H', W') to an image (N, 1, D, H, W)."""
        return self.outc(self.layer2(self.layer1(features)))  # type: ignore[no-any-return]


class DualSwinAE(nn.Module):
    """Two encoders and their shared decoder.

    Args:
        shape: Widths and strides; D, H and W of the input must be multiples of `stride * patch`.
    """

    def __init__(self, shape: EncoderShape | None = None) -> None:
        super().__init__()
        self.shape = shape or EncoderShape()
        self.encoder1 = Encoder(self.shape)
        self.encoder2 = Encoder(self.shape)
        self.decoder = Decoder(self.shape)

    def forward(self, t1w: Tensor, flair: Tensor) -> tuple[Tensor, Tensor]:
        """Return both contrasts (N, 1, D, H, W) as the decoder gives them back."""
        return self.decoder(self.encoder1(t1w)), self.decoder(self.encoder2(flair))
