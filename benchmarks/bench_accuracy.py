"""Lesion figures of a bundle on labelled real studies, run through the product itself.

    python benchmarks/bench_accuracy.py                 the studies of RMR_DATA/open_ms with ms-edge

Which of them the weights were trained on is in the bundle's manifest, and stands in the result.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np
from machine import machine_facts

from rmr_sdk import Pipeline, Study
from rmr_sdk.io.nifti import read_volume
from rmr_training.evaluate import LesionFigures, compare_lesions


def assess(pipeline: Pipeline, folder: Path, overlap: float) -> LesionFigures:
    """Segment one study and compare its lesions with `lesion.nii.gz`, on the study's own grid."""
    result = pipeline.run(Study.from_folder(folder), overlap=overlap)
    truth, _ = read_volume(folder / "lesion.nii.gz")
    assert result.labels is not None
    assert result.classes is not None
    assert result.lesion_class is not None
    predicted = result.labels.data == result.classes.index(result.lesion_class)
    return compare_lesions(folder.name, predicted, np.asarray(truth.data) > 0, truth.grid.spacing_mm)


def main() -> None:
    """Run the benchmark and write its JSON."""
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", type=Path, nargs="*", default=sorted((data / "open_ms").glob("patient*")))
    parser.add_argument("--bundle", default="ms-edge")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    with Pipeline.open(options.bundle, precision=options.precision) as pipeline:
        rows = [assess(pipeline, folder, options.overlap) for folder in options.studies]
        manifest = pipeline.manifest
    seen = set(manifest.training.studies_seen) & {row.study for row in rows}
    report = {
        "benchmark": "accuracy",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "bundle": f"{manifest.name} {manifest.version}",
        "precision": options.precision,
        "overlap": options.overlap,
        # What else a study influenced, no program can know: the manifest's recipe says it.
        "note": f"of which the weights were trained on: {', '.join(sorted(seen)) or 'none'}; "
        "what else they influenced is in the recipe of the manifest",
        "studies": [asdict(row) for row in rows],
    }
    out = options.out or Path(__file__).parent / "results" / f"cpu-2core-{report['date']}-accuracy.json"
    out.write_text(json.dumps(report, indent=2) + "\n")
    for row in rows:
        print(f"{row.study}: Dice {row.dice:.3f}, sensitivity {row.sensitivity:.2f}, false {row.false_lesions}")


if __name__ == "__main__":
    main()
