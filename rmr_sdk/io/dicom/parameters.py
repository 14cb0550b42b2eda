"""Sequence parameters: what a scanner says about how an image was weighted, and what follows from it.

    TR, TE, TI, scanning sequence, flip angle  ->  T1w, FLAIR, or the name of what it is instead

The rules and where their limits come from are in docs/dicom.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from rmr_sdk.io.dicom.tags import Tags

LONG_TE_MS = 60.0
"""Echo times from here on weight a spin echo by T2."""

_SHORT_TE_MS = 40.0  # longest of a spin echo weighted by T1; 3-D turbo spin echoes reach 30 and more
_GRADIENT_TE_MS = 12.0  # from here on a gradient echo is weighted by T2*
_SHORT_TR_MS = 1200.0  # longest of a spin echo weighted by T1 without inversion
_FLAIR_TR_MS = 4000.0  # shortest of a FLAIR: CSF must recover between two inversions
_FLAIR_TI_MS = (1400.0, 3600.0)  # CSF is nulled: 1650 (TR 5000, 3-D) to 2900 (7 T, long TR)
_T1_TI_MS = (300.0, 1400.0)  # MPRAGE and T1-FLAIR
_LEAST_FLIP = 10.0  # degrees; a spoiled gradient echo of less is weighted by proton density
_NO_AGENT = {"no", "none", "n", "0", "without", "ohne", "nein"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How an image was acquired.

    Attributes:
        repetition_ms: TR.
        echo_ms: TE; the effective one of a turbo spin echo.
        inversion_ms: TI of the first inversion; None where it is not given or 0.
        inversions: How many inversion times are given.
        flip_degrees: Excitation flip angle.
        scanning: Of "SE", "GR", "IR", "EP", "RM".
        variant: Such as "SP" (spoiled), "MP" (magnetisation prepared), "TOF".
        dimension: "2D", "3D" or "".
        agent: Whether a contrast agent is named.
        angiography: Whether the image is marked as an angiogram.
        b_value: Of diffusion, s/mm2; None where it is not given.
    """

    repetition_ms: float | None = None
    echo_ms: float | None = None
    inversion_ms: float | None = None
    inversions: int = 0
    flip_degrees: float | None = None
    scanning: frozenset[str] = frozenset()
    variant: frozenset[str] = frozenset()
    dimension: str = ""
    agent: bool = False
    angiography: bool = False
    b_value: float | None = None

    @property
    def inverted(self) -> bool:
        """Tell whether the magnetisation was inverted first."""
        return self.inversion_ms is not None or "IR" in self.scanning

    @property
    def gradient_echo(self) -> bool:
        """Tell whether it is a gradient echo; without a word from the scanner its short TE and TR say so."""
        if self.scanning & {"GR", "SE"}:
            return "GR" in self.scanning and "SE" not in self.scanning
        short = (self.repetition_ms or 0) < 50 or self.inverted
        return short and (self.echo_ms or 0) < _GRADIENT_TE_MS

    def __str__(self) -> str:
        """Say the times as a console does."""
        times = (("TR", self.repetition_ms), ("TE", self.echo_ms), ("TI", self.inversion_ms))
        return ", ".join(f"{name} {value:.4g}" for name, value in times if value is not None) + " ms"


def read_parameters(tags: Tags) -> Parameters:
    """Collect the parameters of an image, of a classic file or of a frame of an enhanced one."""
    echo = tags.number("EffectiveEchoTime") or tags.number("EchoTime")
    inversions = [ti for ti in tags.numbers("InversionTimes") or tags.numbers("InversionTime") or () if ti > 0]
    scanning = set(tags.texts("ScanningSequence"))
    scanning |= {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(tags.text("EchoPulseSequence"), set())
    if tags.text("InversionRecovery") == "YES":
        scanning.add("IR")
    if tags.text("EchoPlanarPulseSequence") == "YES":
        scanning.add("EP")
    agent = tags.text("ContrastBolusAgent").lower()
    return Parameters(
        repetition_ms=tags.number("RepetitionTime"),
        echo_ms=echo,
        inversion_ms=inversions[0] if inversions else None,
        inversions=len(inversions),
        flip_degrees=tags.number("FlipAngle"),
        scanning=frozenset(scanning),
        variant=frozenset(tags.texts("SequenceVariant")),
        dimension=tags.text("MRAcquisitionType"),
        agent=bool(tags.items("ContrastBolusAgentSequence")) or bool(agent and agent not in _NO_AGENT),
        angiography=tags.text("AngioFlag") == "Y",
        b_value=tags.number("DiffusionBValue"),
    )


def weighting(parameters: Parameters) -> str | None:
    """Name the contrast that the parameters give: "T1w", "FLAIR", or what it is instead.

    Returns:
        None where TR or TE are not given.
    """
    repetition, echo = parameters.repetition_ms, parameters.echo_ms
    if repetition is None or echo is None:
        return None
    if "EP" in parameters.scanning:
        return "echo-planar"
    return (_gradient_weighting if parameters.gradient_echo else _spin_weighting)(parameters, repetition, echo)


def _gradient_weighting(parameters: Parameters, repetition: float, echo: float) -> str:
    if echo >= _GRADIENT_TE_MS:
        return "T2*w"
    if parameters.inverted or "MP" in parameters.variant:
        return "T1w" if (parameters.inversion_ms or 0) < _T1_TI_MS[1] else "PDw"
    if "SS" in parameters.variant and "SP" not in parameters.variant:
        return "steady-state"
    return "PDw" if (parameters.flip_degrees or _LEAST_FLIP) < _LEAST_FLIP else "T1w"


def _spin_weighting(parameters: Parameters, repetition: float, echo: float) -> str:
    inversion = parameters.inversion_ms
    if parameters.inverted and echo >= LONG_TE_MS:
        nulls_csf = inversion is None or _FLAIR_TI_MS[0] <= inversion <= _FLAIR_TI_MS[1]
        return "FLAIR" if repetition >= _FLAIR_TR_MS and nulls_csf else _other_inversion(inversion)
    if parameters.inverted and echo <= _SHORT_TE_MS:
        nulls_grey = inversion is None or _T1_TI_MS[0] <= inversion <= _T1_TI_MS[1]
        return "T1w" if nulls_grey else _other_inversion(inversion)
    if repetition <= _SHORT_TR_MS and echo <= _SHORT_TE_MS:
        return "T1w"
    return "T2w" if echo >= LONG_TE_MS else "PDw"


def _other_inversion(inversion: float | None) -> str:
    return "STIR" if inversion is not None and inversion < _T1_TI_MS[0] else "inversion recovery of another kind"


def describe_kind(parameters: Parameters) -> str:
    """Say in words what kind of sequence it is."""
    kinds = [
        parameters.dimension,
        "inversion recovery" if parameters.inverted else "",
        "gradient echo" if parameters.gradient_echo else "spin echo",
    ]
    return " ".join(filter(None, kinds))
