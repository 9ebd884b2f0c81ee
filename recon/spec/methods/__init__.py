"""Method settings, one file per algorithm; the classical ones share a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from recon.spec.methods.auto import Auto
from recon.spec.methods.base import (
    CARD_ENDINGS,
    DEFAULT_PRIOR,
    PRIOR_NAME,
    Diffusion,
    FrozenNoise,
    Levels,
    MethodSettings,
    Preset,
    Splitting,
)
from recon.spec.methods.boundary import Boundary
from recon.spec.methods.classical import (
    CGLS,
    FBP,
    SIRT,
    TV,
    CGSense,
    Gridding,
    Interpolation,
    L1Wavelet,
    LowRank,
    ZeroFilled,
)
from recon.spec.methods.dds import DDS
from recon.spec.methods.diffpir import DiffPIR
from recon.spec.methods.diffusion_mbir import DiffusionMBIR
from recon.spec.methods.dps import DPS
from recon.spec.methods.red_diff import REDDiff
from recon.spec.registry import METHODS, union

if TYPE_CHECKING:
    Method = MethodSettings
else:
    Method = union(METHODS, "name")

_ADAPTER: TypeAdapter[MethodSettings] = TypeAdapter(Method)


def method_of(value: dict[str, object] | str) -> MethodSettings:
    """The settings of a method from its name or a dictionary with ``name``; raises `pydantic.ValidationError`."""
    return _ADAPTER.validate_python({"name": value} if isinstance(value, str) else value)


__all__ = [
    "CARD_ENDINGS",
    "CGLS",
    "DDS",
    "DEFAULT_PRIOR",
    "DPS",
    "FBP",
    "PRIOR_NAME",
    "SIRT",
    "TV",
    "Auto",
    "Boundary",
    "CGSense",
    "DiffPIR",
    "Diffusion",
    "DiffusionMBIR",
    "FrozenNoise",
    "Gridding",
    "Interpolation",
    "L1Wavelet",
    "Levels",
    "LowRank",
    "Method",
    "MethodSettings",
    "Preset",
    "REDDiff",
    "Splitting",
    "ZeroFilled",
    "method_of",
]
