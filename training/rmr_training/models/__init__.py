"""The networks of RMR-Fusion and the presets they come in."""

from .autoencoder import DualSwinAE, EncoderShape
from .fusion import FusionNet
from .head_check import check_head, head_multiple
from .heads import HEADS, build_head
from .presets import CLASSES, PRESETS, Fused, Preset, RmrFusion, find_preset, probabilities

__all__ = [
    "CLASSES",
    "HEADS",
    "PRESETS",
    "DualSwinAE",
    "EncoderShape",
    "Fused",
    "FusionNet",
    "Preset",
    "RmrFusion",
    "build_head",
    "check_head",
    "find_preset",
    "head_multiple",
    "probabilities",
]
