"""A run as a TOML file: recipe, data, ranges of the synthesis, network. Flags of the command line take precedence.

    [network]            [recipe]             [data]                                   [ranges]
    preset = "edge"      steps = 2000         labelmaps = "labelmaps"                  whole_head = 0.35
    head = "unet"        rate = 1e-3          real = ["open_ms/patient07"]

Paths are relative to the data folder (the environment variable RMR_DATA).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from rmr_sdk.errors import ConfigError, StudyError

from .data import load_label_maps, split_by_donor
from .models import Preset, find_preset
from .real import load_real_study
from .recipe import Recipe, Stage
from .stages import Material
from .synthesis import Ranges

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HELD_OUT = ("05", "09", "20", "28")
"""Lesion donors kept for validation by default; 09, 20 and 28 are lesions on the template, 05 a real anatomy too."""


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of a new network: a preset, and what differs from it."""

    preset: str = "edge"
    head: str | None = None
    head_options: dict[str, Any] = {}

    def build(self) -> Preset:
        """Return the preset with the head that is asked for."""
        preset = find_preset(self.preset)
        if self.head is None:
            return preset
        return replace(preset, name=f"{preset.name}-{self.head}", head=self.head, head_options=self.head_options)


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
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
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
    unknown = sorted(config.recipe.keys() - asdict(recipe).keys())
    if unknown:
        raise ConfigError(
            f"the recipe has no key {unknown[0]!r}.", "See docs/training.md for its keys.", key=unknown[0]
        )
    positive = ("steps", "batch", "side", "log_every", "checkpoint_every", "rate")
    wrong = [key for key in positive if getattr(recipe, key) <= 0]
    if wrong:
        raise ConfigError(f"{wrong[0]} is {getattr(recipe, wrong[0])}.", "It must be above 0.", key=wrong[0])
    return recipe


def make_ranges(config: RunConfig) -> Ranges:
    """Build the ranges of the synthesis.

    Raises:
        ConfigError: A key is unknown or its value has the wrong type.
    """
    unknown = sorted(config.ranges.keys() - asdict(Ranges()).keys())
    if unknown:
        raise ConfigError(f"ranges have no key {unknown[0]!r}.", "See docs/training.md for their keys.", key=unknown[0])
    try:
        return msgspec.convert(config.ranges, Ranges)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the ranges cannot be used: {error}.", "See docs/training.md for their keys.") from error


def load_material(data: DataConfig, ranges: Ranges, stage: Stage) -> Material:
    """Read everything a run learns from, so that bad data is refused before the first step.

    Raises:
        InputError: A folder, a label map or a study is missing or cannot be used; it is named.
    """
    maps = load_label_maps(data_folder() / data.labelmaps)
    train, held_out = split_by_donor(maps, data.held_out)
    missing = sorted(set(data.held_out) - {m.donor for m in maps})
    if missing:
        raise StudyError(f"no label map is of lesion donor {missing[0]}.", "Correct held_out.", donor=missing[0])
    real = [load_real_study(data_folder() / folder, labelled=stage == "joint") for folder in data.real]
    return Material(train, held_out, real, ranges)
