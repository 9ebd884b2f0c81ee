"""CT and MRI reconstruction with diffusion priors, with the evidence to check every result.

>>> import recon
>>> result = recon.reconstruct("scan.npy", "mri-cartesian")  # doctest: +SKIP

Names are imported when they are first used: ``import recon`` itself is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon.client.client import Client
    from recon.library import Result, begin, load_prior, reconstruct, simulate
    from recon.measurement.measurement import Measurement
    from recon.spec.job import JobSpec
    from recon.spec.report import Report

__all__ = [
    "Client",
    "JobSpec",
    "Measurement",
    "Report",
    "Result",
    "__version__",
    "begin",
    "load_prior",
    "reconstruct",
    "simulate",
]
_HOMES = {
    "Client": "recon.client.client",
    "JobSpec": "recon.spec.job",
    "Measurement": "recon.measurement.measurement",
    "Report": "recon.spec.report",
    **dict.fromkeys(("Result", "begin", "load_prior", "reconstruct", "simulate"), "recon.library"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("diffusion-recon")
    if name not in _HOMES:
        raise AttributeError(f"module 'recon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
