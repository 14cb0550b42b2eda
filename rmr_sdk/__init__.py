"""RMR SDK: fuse T1 and FLAIR into one volume and segment MS lesions and tissues, on the edge.

    from rmr_sdk import Pipeline, Study

    with Pipeline.open("ms-edge") as pipeline:
        result = pipeline.run(Study.from_files(T1w="t1.nii.gz", FLAIR="flair.nii.gz"))
    result.save("out/")

Research software, not a medical device.
"""

import logging

from rmr_sdk._version import __version__
from rmr_sdk.bundle import Bundle, list_bundles
from rmr_sdk.errors import RmrError
from rmr_sdk.geometry import Grid
from rmr_sdk.pipeline import Pipeline
from rmr_sdk.result import Lesion, Result
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume
from rmr_sdk.watch import Progress

logging.getLogger(__name__).addHandler(logging.NullHandler())  # without handlers of its own, a program hears nothing

__all__ = [
    "Bundle",
    "Grid",
    "Lesion",
    "Pipeline",
    "Progress",
    "Result",
    "RmrError",
    "Study",
    "Volume",
    "__version__",
    "list_bundles",
]
