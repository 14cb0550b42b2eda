"""include/rmr_sdk/rmr.h through ctypes: the structs as the header has them, and a thin face for the tests."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

DTYPES = {"uint8": 1, "int16": 2, "uint16": 3, "float32": 4}
PRECISIONS = {"auto": 0, "fp32": 1, "bf16": 2, "fp16": 3, "int8": 4}
ALIGN = {"none": 0, "header": 1}
STAGES = ("prepare", "infer", "measure")

USAGE, INPUT, BUNDLE, ENGINE, CANCELLED = 2, 3, 4, 5, 130
"""Statuses."""


class Sized(Structure):
    """A struct that begins with its size."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


class ErrorInfo(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("status", c_int32),
        ("kind", c_char * 32),
        ("message", c_char * 1024),
    ]


class OpenOptions(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("precision", c_int32),
        ("threads", c_int32),
        ("reserved", c_uint32),
        ("cache_dir", c_char_p),
        ("max_memory_mib", c_double),
        ("lesion_threshold", c_double),
        ("least_lesion_probability", c_double),
        ("least_white_matter", c_double),
        ("least_lesion_mm3", c_double),
    ]


class Info(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("precision", c_int32),
        ("threads", c_int32),
        ("contrasts", c_uint32),
        ("reference", c_uint32),
        ("classes", c_uint32),
        ("lesion_class", c_int32),
        ("tiles_at_once", c_uint32),
        ("tile_shape", c_int64 * 3),
        ("spacing_mm", c_double * 3),
        ("orientation", c_char * 4),
        ("bundle", c_char * 65),
        ("bundle_version", c_char * 65),
        ("bundle_sha256", c_char * 65),
        ("engine_version", c_char * 128),
        ("device_name", c_char * 128),
        ("warning", c_char * 256),
    ]


class CVolume(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("dtype", c_int32),
        ("contrast", c_char_p),
        ("data", c_void_p),
        ("bytes", c_size_t),
        ("shape", c_int64 * 3),
        ("strides", c_int64 * 3),
        ("affine", (c_double * 4) * 4),
    ]


class CStudy(Sized):
    _fields_ = [("struct_size", c_uint32), ("count", c_uint32), ("volumes", POINTER(CVolume))]


class CProgress(Sized):
    _fields_ = [("struct_size", c_uint32), ("stage", c_int32), ("done", c_int64), ("total", c_int64)]


PROGRESS = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(CProgress))


class RunOptions(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("align", c_int32),
        ("non_finite", c_int32),
        ("reserved", c_uint32),
        ("overlap", c_double),
        ("deadline_s", c_double),
        ("reference", c_char_p),
        ("progress", PROGRESS),
        ("user", c_void_p),
    ]


class PlanInfo(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("tiles_at_once", c_uint32),
        ("tiles", c_int64),
        ("tiles_skipped", c_int64),
        ("common_shape", c_int64 * 3),
        ("bytes", c_int64),
        ("least_bytes", c_int64),
        ("output_shape", c_int64 * 3),
        ("resampled", c_int32),
        ("reserved", c_uint32),
    ]


class CArray(Structure):
    _fields_ = [("data", c_void_p), ("bytes", c_size_t), ("strides", c_int64 * 3)]


class CLesion(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("id", c_uint32),
        ("volume_ml", c_double),
        ("centroid_mm", c_double * 3),
        ("mean_probability", c_double),
        ("voxels", c_int64),
    ]


class COutputs(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("lesion_capacity", c_uint32),
        ("fused", CArray),
        ("labels", CArray),
        ("probability", CArray),
        ("lesions", POINTER(CLesion)),
        ("class_ml", POINTER(c_double)),
        ("warnings", c_char_p),
        ("class_capacity", c_uint32),
        ("warnings_capacity", c_uint32),
        ("lesion_count", c_uint32),
        ("warning_count", c_uint32),
        ("tiles", c_int64),
        ("tiles_skipped", c_int64),
        ("prepare_s", c_double),
        ("infer_s", c_double),
        ("measure_s", c_double),
        ("lesion_threshold", c_double),
        ("lesions_dropped", c_uint32),
        ("reserved", c_uint32),
    ]


STRUCTS = {
    "rmr_error": ErrorInfo,
    "rmr_open_options": OpenOptions,
    "rmr_info": Info,
    "rmr_volume": CVolume,
    "rmr_study": CStudy,
    "rmr_progress": CProgress,
    "rmr_run_options": RunOptions,
    "rmr_plan_info": PlanInfo,
    "rmr_array": CArray,
    "rmr_lesion": CLesion,
    "rmr_outputs": COutputs,
}


class RmrFailure(Exception):  # noqa: N818 - named for what the interface reports
    """A call that failed, as `rmr_last_error` tells."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(f"{kind} ({status}): {message}")
        self.status, self.kind, self.message = status, kind, message


@dataclass
class COutcome:
    """What a run filled in."""

    fused: np.ndarray
    labels: np.ndarray | None
    probability: np.ndarray | None
    lesions: list[CLesion]
    class_ml: list[float]
    warnings: list[str]
    raw: COutputs


def array_of(array: np.ndarray | None) -> CArray:
    """Describe a NumPy array of any strides; None is not wanted."""
    if array is None:
        return CArray()
    spanned = array.itemsize + sum(abs(s) * (n - 1) for s, n in zip(array.strides, array.shape, strict=True))
    return CArray(array.ctypes.data, spanned, (c_int64 * 3)(*array.strides))


def volume_of(name: str, volume: Volume) -> CVolume:
    """Describe a volume; its array must live as long as the struct."""
    array = array_of(volume.data)
    rows = [(c_double * 4)(*row) for row in volume.affine]
    return CVolume(
        dtype=DTYPES[volume.data.dtype.name],
        contrast=name.encode(),
        data=array.data,
        bytes=array.bytes,
        shape=(c_int64 * 3)(*volume.data.shape),
        strides=array.strides,
        affine=((c_double * 4) * 4)(*rows),
    )


def study_of(study: Mapping[str, Volume]) -> CStudy:
    """Describe a study, which lives as long as the struct."""
    volumes = (CVolume * len(study))(*(volume_of(name, volume) for name, volume in study.items()))
    described = CStudy(count=len(study), volumes=volumes)
    described.study = study
    return described


class Library:
    """The shared library."""

    def __init__(self, path: Path) -> None:
        self.dll = ctypes.CDLL(str(path))
        self.dll.rmr_version.restype = c_char_p
        self.dll.rmr_contrast_name.restype = self.dll.rmr_class_name.restype = c_char_p

    def check(self, status: int) -> None:
        """Raise what the last call of this thread complained about."""
        if status != 0:
            error = ErrorInfo()
            self.dll.rmr_last_error(byref(error))
            assert error.status == status
            raise RmrFailure(status, error.kind.decode(), error.message.decode())

    def open(
        self,
        path: Path | str,
        threads: int = 0,
        precision: str | int = "auto",
        cache_dir: Path | None = None,
        max_memory_mib: float = 0.0,
        **levels: float,
    ) -> CPipeline:
        """Open a bundle; levels say which lesions are kept."""
        options = OpenOptions(
            threads=threads,
            precision=precision if isinstance(precision, int) else PRECISIONS[precision],
            cache_dir=None if cache_dir is None else str(cache_dir).encode(),
            max_memory_mib=max_memory_mib,
            **levels,
        )
        handle = c_void_p()
        self.check(self.dll.rmr_open(str(path).encode(), byref(options), byref(handle)))
        return CPipeline(self, handle)


class CPipeline:
    """An open pipeline."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        self.library, self.handle = library, handle

    def close(self) -> None:
        """Close it; again is harmless."""
        self.library.check(self.library.dll.rmr_close(byref(self.handle)))

    def describe(self) -> Info:
        """Return what it is."""
        info = Info()
        self.library.check(self.library.dll.rmr_describe(self.handle, byref(info)))
        return info

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of the contrasts or of the classes."""
        function = getattr(self.library.dll, f"rmr_{kind}_name")
        found = [name.decode() for index in range(256) if (name := function(self.handle, c_uint32(index))) is not None]
        return tuple(found)

    def plan(self, study: Study | CStudy, **options: Any) -> PlanInfo:
        """Plan a run."""
        info = PlanInfo()
        given = study if isinstance(study, CStudy) else study_of(study)
        self.library.check(
            self.library.dll.rmr_plan(self.handle, byref(given), byref(self._options(**options)), byref(info))
        )
        return info

    def run(
        self,
        study: Mapping[str, Volume] | CStudy,
        shape: tuple[int, int, int] | None = None,
        order: str = "C",
        lesions: int = 64,
        **options: Any,
    ) -> COutcome:
        """Run a study; outputs have the shape of the FLAIR unless told otherwise, in C or in Fortran order."""
        given = study if isinstance(study, CStudy) else study_of(study)
        shape = shape or study["FLAIR"].data.shape  # type: ignore[index]
        classes = self.describe().classes
        fused = np.full(shape, np.nan, np.float32, order=order)
        labels = np.full(shape, 99, np.uint8, order=order) if classes else None
        wants = classes and self.describe().lesion_class >= 0
        probability = np.full(shape, np.nan, np.float32, order=order) if wants else None
        table = (CLesion * max(lesions, 1))(*(CLesion() for _ in range(max(lesions, 1))))
        millilitres, text = (c_double * 8)(), ctypes.create_string_buffer(4096)
        outputs = COutputs(
            fused=array_of(fused),
            labels=array_of(labels),
            probability=array_of(probability),
            lesions=table,
            lesion_capacity=lesions,
            class_ml=millilitres,
            class_capacity=8,
            warnings=ctypes.cast(text, c_char_p),
            warnings_capacity=4096,
        )
        self.library.check(
            self.library.dll.rmr_run(self.handle, byref(given), byref(self._options(**options)), byref(outputs))
        )
        found = [table[i] for i in range(min(outputs.lesion_count, lesions))]
        said = [line for line in text.value.decode().split("\n") if line]
        return COutcome(fused, labels, probability, found, list(millilitres)[:classes], said, outputs)

    def _options(
        self,
        align: str | int = "none",
        overlap: float = 0.25,
        deadline_s: float = 0.0,
        non_finite: int = 0,
        reference: str | None = None,
        progress: Callable[[tuple[str, int, int]], int] | None = None,
    ) -> RunOptions:
        def report(_: Any, told: Any) -> int:
            return progress((STAGES[told[0].stage], told[0].done, told[0].total))

        return RunOptions(
            align=align if isinstance(align, int) else ALIGN[align],
            overlap=overlap,
            deadline_s=deadline_s,
            non_finite=non_finite,
            reference=None if reference is None else reference.encode(),
            progress=PROGRESS(report) if progress else PROGRESS(),
        )


@contextmanager
def refuses(status: int, kind: str, words: str) -> Iterator[None]:
    """Expect a failure."""
    with pytest.raises(RmrFailure, match=words) as caught:
        yield
    assert (caught.value.status, caught.value.kind) == (status, kind)


Opener = Callable[..., CPipeline]
"""Opens the tiny bundle, or another; see `open_c`."""
