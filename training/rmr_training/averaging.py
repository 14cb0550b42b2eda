"""The mean of the weights of two or more checkpoints of one network, as a checkpoint.

Weights that went on from others to something new lose some of what those could do; half way between them much of both
is kept, and nothing changes at run time.

Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, 7959-7971 (between a model and what it was
tuned to); Izmailov et al., UAI 2018 (along one run).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmr_sdk.errors import ConfigError, FormatError

from .checkpoint import load_network, read_weights, save_checkpoint


def average(sources: Sequence[Path], target: Path) -> None:
    """Write the mean of checkpoints.

    Step and recipe are those of the last one, `studies` all that any of them has learnt from. What one was calibrated
    to does not hold for the mean and is left out: calibrate it.

    Args:
        sources: Averaged weights of runs, as `model.pth` or `best.pth`; float16 is averaged in float32.
        target: File to write.

    Raises:
        ConfigError: There are fewer than two.
        FormatError: One is no checkpoint, is the state of a run, or is of another network or stage than the first.
    """
    if len(sources) < 2:
        raise ConfigError(f"the mean of {len(sources)} checkpoints was asked for.", "Name two or more.")
    contents = [read_weights(source) for source in sources]
    for source, content in zip(sources, contents, strict=True):
        for key in ("preset", "normalisation", "stage"):
            if _trained(content, key) != _trained(contents[0], key):
                raise FormatError(
                    f"{source.name} and {sources[0].name} differ in {key}.",
                    "Average checkpoints of one network, trained one from the other.",
                )
    *_, network = [load_network(source) for source in sources]  # says what is wrong with one
    weights = [content["model"] for content in contents]
    network.load_state_dict({key: _mean([each[key] for each in weights]) for key in weights[0]})
    kept = {key: value for key, value in contents[-1].items() if key in ("step", "recipe")}
    studies = sorted({name for content in contents for name in content.get("studies", ())})
    save_checkpoint(target, network, contents[-1]["stage"], {**kept, "studies": studies, "mean_of": len(sources)})


def _trained(content: Mapping[str, Any], key: str) -> Any:
    """Return an entry without what `calibrate` changes of it."""
    entry = content.get(key)
    return {name: entry[name] for name in entry if name != "most_median"} if key == "normalisation" and entry else entry


def _mean(weights: Sequence[Tensor]) -> Tensor:
    """Return the mean of weights; of integers, which are buffers such as window indices, the last."""
    if not weights[-1].is_floating_point():
        return weights[-1]
    return torch.stack([each.float() for each in weights]).mean(0)
