"""Keep a trained checkpoint under `models/`: its averaged weights and what is known about them, nothing else.

    python benchmarks/keep_model.py runs/final/model.pth models/ms-edge.pth
    python benchmarks/keep_model.py runs/fold07/model.pth models/ms-edge-fold07.pth --half

`--half` rounds weights to float16, for folds: they are there to be measured, and what is measured is what is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from rmr_training.checkpoint import load_network, read_checkpoint


def keep(source: Path, target: Path, half: bool, studies: Sequence[str] = ()) -> int:
    """Write the checkpoint and return its size in bytes.

    Args:
        source: `model.pth` or `best.pth` of a run.
        target: File to write.
        half: Round weights to float16.
        studies: Real studies that the weights have learnt from beside those that the checkpoint names.

    Raises:
        SystemExit: It is the state of a run rather than its averaged weights.
        FormatError: It is no checkpoint of `rmr-train`.
    """
    content = read_checkpoint(source)
    if "average" in content:
        raise SystemExit(f"{source.name} is for resuming a run: take model.pth, which has the averaged weights")
    load_network(source)  # says what is wrong with it
    content["studies"] = sorted({*content.get("studies", ()), *studies})
    if half:
        weights = content["model"]
        content["model"] = {key: w.half() if w.is_floating_point() else w for key, w in weights.items()}
    torch.save({key: value for key, value in content.items() if key != "optimizer"}, target)
    load_network(target)
    return target.stat().st_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--half", action="store_true", help="round weights to float16")
    about = "studies of earlier stages, for checkpoints that do not name them"
    parser.add_argument("--studies", nargs="*", default=[], metavar="NAME", help=about)
    options = parser.parse_args(arguments)
    size = keep(options.source, options.target, options.half, options.studies)
    print(f"{options.target}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
