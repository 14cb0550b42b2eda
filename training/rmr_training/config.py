"""A run as a TOML file: recipe, data, ranges of the synthesis, network. Flags of the command line take precedence.

    [network]            [recipe]             [data]                                   [ranges]
    preset = "edge"      steps = 2000         labelmaps = "labelmaps"                  whole_head = 0.35
    head = "unet"        rate = 1e-3          real = ["open_ms/patient07"]

Paths are relative to the data folder (the environment variable RMR_DATA).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from rmr_sdk.errors import ConfigError, StudyError

from .checkpoint import load_network, read_checkpoint
from .data import LabelMap, load_label_maps, split_by_donor
from .losses import SSIM_SIDE
from .models import Preset, RmrFusion, find_preset
from .real import load_real_study, name_studies
from .recipe import Recipe, Stage, check_range, check_recipe
from .sampling import LEAST_SIDE
from .stages import Material
from .synthesis import Ranges

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HELD_OUT = ("05", "09", "20", "28")
"""Lesion donors kept for validation by default; 09, 20 and 28 are lesions on the template, 05 a real anatomy too."""


AMOUNTS = ("bias", "noise", "rotation", "scale", "elastic", "misalignment")
"""Ranges that are no probabilities."""


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of a new network: a preset, and what differs from it."""

    preset: str | None = None
    head: str | None = None
    head_options: dict[str, Any] = {}

    def build(self) -> Preset:
        """Return the preset with the head that is asked for."""
        preset = find_preset(self.preset or "edge")
        if self.head is None:
            if self.head_options:
                raise ConfigError(
                    "head_options are given without a head.", f"Add head = {preset.head!r}, or drop them.", key="head"
                )
            return preset
        return replace(preset, name=f"{preset.name}-{self.head}", head=self.head, head_options=self.head_options)


def start_network(config: NetworkConfig, start: Path | None, stage: Stage) -> RmrFusion:
    """Build the network that a run begins with: a new one, or that of a checkpoint.

    A joint stage may put another head or fusion network on the autoencoder of a stage 1 with the same encoders.

    Raises:
        FormatError: The checkpoint cannot be used.
        ConfigError: Another shape is asked for than the checkpoint has.
    """
    if start is None:
        return RmrFusion(config.build())
    trained = load_network(start)
    if config == NetworkConfig():
        return trained
    wanted, found = config.build(), trained.preset
    if msgspec.json.encode(wanted.to_metadata()) == msgspec.json.encode(found.to_metadata()):
        return trained
    of_stage_1 = read_checkpoint(start).get("stage") == "autoencoder"
    if not (stage == "joint" and of_stage_1 and wanted.encoder == found.encoder):
        raise ConfigError(
            f"{start.name} is of preset {found.name} with the head {found.head}; asked for is {wanted.name} with "
            f"{wanted.head}.",
            "Drop preset and head, or start a joint stage from a stage 1 with the same encoders.",
        )
    network = RmrFusion(wanted)
    network.autoencoder.load_state_dict(trained.autoencoder.state_dict())
    return network


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where samples come from.

    Attributes:
        labelmaps: Folder of label maps.
        held_out: Lesion donors kept for validation.
        real: Real studies; with lesion masks in the joint stage.
        whole_heads: Real heads without a lesion mask, for a joint stage that starts from trained weights: those say
            where there is no lesion.
    """

    labelmaps: str = "labelmaps"
    held_out: tuple[str, ...] = HELD_OUT
    real: tuple[str, ...] = ()
    whole_heads: tuple[str, ...] = ()


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything about a run but where it is written."""

    network: NetworkConfig = NetworkConfig()
    recipe: dict[str, Any] = {}
    data: DataConfig = DataConfig()
    ranges: dict[str, Any] = {}


def data_folder() -> Path:
    """Return the folder that paths of a run are relative to."""
    return Path(os.environ.get("RMR_DATA", "../shared/data"))


def read_config(path: Path | None) -> RunConfig:
    """Read a TOML file; None gives the defaults.

    Raises:
        ConfigError: The file is missing, is no TOML, or holds an unknown key or a value of the wrong type.
    """
    if path is None:
        return RunConfig()
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), RunConfig)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path.name} is not a usable configuration: {error}.", "See docs/training.md.") from error


def make_recipe(stage: Stage, config: RunConfig, flags: Mapping[str, Any]) -> Recipe:
    """Merge the recipe of a file with flags that were given.

    Raises:
        ConfigError: A key is unknown, has a value of the wrong type or range, or `steps` is given nowhere.
    """
    try:
        recipe = msgspec.convert({**config.recipe, **flags, "stage": stage}, Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the recipe cannot be used: {error}.", "See docs/training.md for its keys.") from error
    unknown = sorted(config.recipe.keys() - (asdict(recipe).keys() - {"stage"}))
    if unknown:
        raise ConfigError(
            f"the recipe has no key {unknown[0]!r}.", "See docs/training.md for its keys.", key=unknown[0]
        )
    check_recipe(recipe)
    return recipe


def check_side(side: int, stage: Stage, preset: Preset) -> None:
    """Refuse a side of patches that samples, losses or the network cannot be computed on.

    `models.check_head` says what the head needs.

    Raises:
        ConfigError: The side is too small, or no multiple of what the encoders need; the message says of what.
    """
    least = SSIM_SIDE if stage == "autoencoder" else LEAST_SIDE
    check_range("side", side, least, math.inf, f"at least {least}")
    multiple = preset.encoder.stride * preset.encoder.patch
    if side % multiple:
        raise ConfigError(
            f"side is {side}.", f"It must be a multiple of {multiple} for the preset {preset.name}.", key="side"
        )


def make_ranges(config: RunConfig) -> Ranges:
    """Build the ranges of the synthesis.

    Raises:
        ConfigError: A key is unknown or its value has the wrong type or range.
    """
    unknown = sorted(config.ranges.keys() - asdict(Ranges()).keys())
    if unknown:
        raise ConfigError(f"ranges have no key {unknown[0]!r}.", "See docs/training.md for their keys.", key=unknown[0])
    try:
        ranges = msgspec.convert(config.ranges, Ranges)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the ranges cannot be used: {error}.", "See docs/training.md for their keys.") from error
    values = asdict(ranges)
    for key, value in values.items():
        low, high = value if isinstance(value, tuple) else (value, value)
        if not 0 <= low <= high < math.inf:
            raise ConfigError(f"{key} is {value}.", "It must be at least 0, and the lower bound comes first.", key=key)
    for key, value in values.items():
        if isinstance(value, float) and key not in AMOUNTS:
            check_range(key, value, 0, 1)
    return ranges


def load_material(data: DataConfig, ranges: Ranges, stage: Stage) -> Material:
    """Read everything a run learns from, so that bad data is refused before the first step.

    Raises:
        InputError: A folder, a label map or a study is missing or cannot be used; it is named.
    """
    maps = load_label_maps(data_folder() / data.labelmaps)
    train, held_out = split_by_donor(maps, data.held_out)
    check_donors(maps, data.held_out)
    names = study_names(data)
    real = [
        replace(load_real_study(data_folder() / folder, labelled=stage == "joint"), name=names[folder])
        for folder in data.real
    ]
    return Material(train, held_out, real, ranges)


def study_names(data: DataConfig) -> dict[str, str]:
    """Return the names of all studies of a run by their folders, no two alike.

    Raises:
        ConfigError: A study is given twice.
    """
    folders = (*data.real, *data.whole_heads)
    return dict(zip(folders, name_studies([data_folder() / folder for folder in folders]), strict=True))


def check_donors(maps: Sequence[LabelMap], held_out: Sequence[str]) -> None:
    """Refuse to hold out donors that there is no label map of.

    Raises:
        StudyError: There is one; it is named.
    """
    missing = sorted(set(held_out) - {each.donor for each in maps})
    if missing:
        raise StudyError(f"no label map is of lesion donor {missing[0]}.", "Correct held_out.", donor=missing[0])
