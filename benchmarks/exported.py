"""Checkpoints run by the product: exported to a bundle that is thrown away again, then opened by `rmr_sdk.Pipeline`.

OpenVINO takes a fifth of torch's time for a study, so figures of many checkpoints are measured this way. Engines are
not compared with torch here, as a release is; the golden tile is still checked when the bundle is opened.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmr_export import export_bundle, load_own
from rmr_sdk import Pipeline


def export_unproven(checkpoint: Path, folder: Path) -> Path:
    """Export a checkpoint of `rmr-train` into a folder; return its bundle."""
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    target = folder / f"{checkpoint.stem.lower()}.zip"
    export_bundle(load_own(checkpoint), target, name=checkpoint.stem.lower(), proof=False, overwrite=True)
    return target


@contextmanager
def open_checkpoint(
    checkpoint: Path, precision: str = "fp32", threads: int | None = None, **options: Any
) -> Iterator[Pipeline]:
    """Open a checkpoint as a pipeline; its bundle and its compiled network are gone afterwards.

    Further options are those of `Pipeline.open`.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_unproven(checkpoint, Path(folder))
        cache = Path(folder) / "cache"
        with Pipeline.open(bundle, precision=precision, threads=threads, cache_dir=cache, **options) as pipeline:
            yield pipeline
