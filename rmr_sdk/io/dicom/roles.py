"""What each volume of a study is: T1w, FLAIR, or something else and why.

Sequence parameters come first, words of the description second. What can never be an input (localisers, diffusion,
maps, other modalities) is sorted out before either. docs/dicom.md has the rules as a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rmr_sdk.io.dicom.headers import FileHeader
from rmr_sdk.io.dicom.parameters import describe_kind, weighting
from rmr_sdk.io.dicom.series import DicomVolume

CONTRASTS = ("T1w", "FLAIR")
"""What can be chosen."""

_LEAST_SLICES = 8
_WORD = r"(?<![a-z0-9]){}(?![a-z0-9])"

# What the words of a description say a series is, in the order in which they are tried.
_NOT_WANTED = (
    ("a localiser", r"locali[sz]er|scout|survey|{loc}|{3 ?pl(ane)?}|aahead"),
    ("diffusion", r"{dwi}|{dti}|{diff}|diffusion|{adc}|trace|ivim|{dki}"),
    ("susceptibility-weighted", r"{swi}|{swan}|{venbold}|venobold|{qsm}|mnip|t2[ _]?(\*|star)|{medic}|{merge}"),
    ("an angiogram", r"{tof}|angio|{mra}|{mrv}|venogr|{pca}|phase contrast"),
    ("perfusion or functional", r"{perf}|perfusion|{asl}|{pasl}|{pcasl}|{dsc}|{dce}|{bold}|fmri|{rest}"),
    ("double inversion recovery", r"{dir}|double[ _]?inversion|dir3d|3ddir"),
    ("a field map", r"field[ _]?map|b0[ _]?map|b1[ _]?map|{shim}"),
    ("a projection or reformat", r"{mip}|{minip}|reformat|projection"),
    (
        "magnetisation transfer or relaxometry",
        r"{mtr}|t[12][ _]?map|{mp2rage}.*{inv[12]}|{spectro(scopy)?}|{mrs}|{svs}",
    ),
    ("of the spine", r"spine|spinal|{[ctl]sp}|cervical|thoracic|lumbar|{hws}|{bws}|{lws}|myelo"),
)
_SAYS = (
    ("T1w", r"{t1w?}|t1[ _-]|mp-?rage|f?spgr|{bravo}|{vibe}|{tfe}|3d ?t1"),
    ("FLAIR", r"flair|dark[ _-]?fluid"),
    ("STIR", r"{stir}"),
    ("T2w", r"{t2w?}|t2[ _-]"),
    ("PDw", r"{pdw?}|{pd}[ _-]|proton"),
)
_AFTER_AGENT = (
    r"{gd}|{gad}|gado|dotarem|{ce}|{km}|contrast|{post}|post[ _-]?(gad|gd|km|con)|{c\+}|\+c(?![a-z])|\+ ?(gd|km)"
)
_BEFORE_AGENT = r"{pre}|without|{no contrast}|{w/?o}|native|{nativ}|{ohne}|{vor}|non[ _-]?contrast"
_MAPS = {
    "MIP": "a projection", "MNIP": "a projection", "PROJECTION IMAGE": "a projection", "MPR": "a reformat",
    "REFORMATTED": "a reformat", "ADC": "a diffusion map", "TRACEW": "a diffusion map", "FA": "a diffusion map",
    "DIFFUSION": "diffusion", "SWI": "susceptibility-weighted", "MOSAIC": "a mosaic: slices as tiles of one image",
    "LOCALIZER": "a localiser", "SUBTRACTION": "a subtraction", "SCREEN SAVE": "a picture of a screen",
}  # fmt: skip
_NOT_MAGNITUDE = {
    "P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "R": "real", "REAL": "real", "I": "imaginary",
    "IMAGINARY": "imaginary",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a volume is.

    Attributes:
        contrast: "T1w" or "FLAIR"; empty where it is neither.
        why: The reason, without a word of the description.
        measured: Whether the sequence parameters say so, not the description alone.
        agent: Whether it was acquired after a contrast agent.
        usable: Whether it can be read as a volume of MR voxels at all.
    """

    contrast: str = ""
    why: str
    measured: bool = False
    agent: bool = False
    usable: bool = True


def find_role(volume: DicomVolume) -> Role:
    """Say what a volume is, and why."""
    if reason := _unreadable(volume):
        return Role(why=reason, usable=False)
    if reason := _excluded(volume):
        return Role(why=reason)
    parameters, said = volume.parameters, _said(volume.file.text)
    measured = weighting(parameters)
    kind = f"{describe_kind(parameters)}, {parameters}"
    agent = _after_agent(volume)
    suffix = ", after contrast agent" if agent else ""
    if measured is None:
        if said in CONTRASTS:
            return Role(contrast=said, why=f"the description says so; TR or TE are not given{suffix}", agent=agent)
        return Role(why="neither its parameters (TR, TE) nor its description say what it is")
    if measured == "T2w" and said == "FLAIR":
        return Role(contrast="FLAIR", why=f"{kind}: T2-weighted, and the description says FLAIR{suffix}", agent=agent)
    if measured == "FLAIR" and parameters.inversion_ms is None and said in ("STIR", "T2w"):
        return Role(why=f"{kind}: no inversion time, and the description says {said}")
    if measured not in CONTRASTS:
        return Role(why=f"{measured} ({kind})")
    return Role(contrast=measured, why=f"{kind}{suffix}", measured=True, agent=agent)


def _unreadable(volume: DicomVolume) -> str:
    """Say why a volume cannot be read at all."""
    file = volume.file
    if not file.is_mr_image:
        return f"{_object_name(file)}, not an MR image"
    if not file.series:
        return "its images have no SeriesInstanceUID"
    if file.samples != 1:
        return "in colour"
    if "MOSAIC" in volume.frame.image_type:
        return _MAPS["MOSAIC"]
    nowhere = None in (volume.frame.position, volume.frame.cosines, volume.frame.pixel_mm)
    return volume.stack.problem if nowhere else ""


def _excluded(volume: DicomVolume) -> str:
    """Say why a volume is never taken by the rules, though it could be read."""
    frame, text = volume.frame, volume.file.text
    for value in frame.image_type:
        if value.upper() in _MAPS:
            return _MAPS[value.upper()]
    component = {value.upper() for value in frame.image_type[2:]} | {frame.component.upper()}
    if kinds := sorted(_NOT_MAGNITUDE[value] for value in component & _NOT_MAGNITUDE.keys()):
        return f"a {kinds[0]} image" if kinds[0] != "imaginary" else "an imaginary image"
    if volume.parameters.b_value:
        return "diffusion"
    if volume.parameters.angiography or "TOF" in volume.parameters.variant:
        return "an angiogram"
    if volume.parameters.inversions > 1:
        return "double inversion recovery"
    for reason, pattern in _NOT_WANTED:
        if _has(pattern, text):
            return reason
    if "spine" in volume.file.body_part:
        return "of the spine"
    if "DERIVED" in frame.image_type[:1] or "SECONDARY" in frame.image_type[1:2]:
        return "derived from other images"
    if len(volume.stack.frames) < _LEAST_SLICES:
        return f"only {len(volume.stack.frames)} slices" if len(volume.stack.frames) > 1 else "a single slice"
    return ""


def _object_name(file: FileHeader) -> str:
    """Name what a file holds: its modality, or the kind of object."""
    if file.modality not in ("MR", ""):
        return file.modality if re.fullmatch(r"[A-Z0-9_]{2,16}", file.modality) else "another modality"
    return "another kind of object"


def _said(text: str) -> str:
    """Return the contrast that a description names; empty where it names none."""
    return next((contrast for contrast, pattern in _SAYS if _has(pattern, text)), "")


def _after_agent(volume: DicomVolume) -> bool:
    text = volume.file.text
    return volume.parameters.agent or (_has(_AFTER_AGENT, text) and not _has(_BEFORE_AGENT, text))


def _has(pattern: str, text: str) -> bool:
    """Search a pattern in which {words} stand alone, not inside other words."""
    return bool(re.search(re.sub(r"\{(.*?)\}", lambda match: _WORD.format(match[1]), pattern), text))
