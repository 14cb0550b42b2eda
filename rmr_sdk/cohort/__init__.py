"""Cohorts: many studies, one after the other or on many machines, with what is finished never done again.

    from rmr_sdk.cohort import Settings, find_studies, run_cohort

    summary = run_cohort(find_studies("bids/"), "bids/derivatives/rmr-sdk", Settings(threads=4))

`find` knows where studies are, `run` goes through them, `worker` runs one, `summary` says what came out; `on_ray` uses
the machines of a Ray cluster. docs/batch.md explains it.
"""

from rmr_sdk.cohort.find import Cohort, CohortStudy, find_studies
from rmr_sdk.cohort.run import CohortProgress, run_cohort
from rmr_sdk.cohort.summary import StudyRow, Summary
from rmr_sdk.cohort.worker import Settings

__all__ = [
    "Cohort",
    "CohortProgress",
    "CohortStudy",
    "Settings",
    "StudyRow",
    "Summary",
    "find_studies",
    "run_cohort",
]
