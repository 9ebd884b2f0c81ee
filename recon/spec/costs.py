"""Cost model for planning jobs: counts of work per method, and memory and seconds per unit of work on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from pydantic import BaseModel, ConfigDict

CG_ITERATIONS, COUPLED_CG_ITERATIONS = {True: 3, False: 8}, {True: 4, False: 8}
"""Conjugate gradient iterations per data step, with a preconditioner (CT) and without, of slices by themselves and of
slices that are coupled: more change the result by less than 0.1 dB. Three for coupled slices leave what alternates
from slice to slice behind, and bright and dark pixels then grow there."""

NETWORK_BATCH = 8
"""Number of slices per network call."""


@dataclass(frozen=True)
class Cost:
    """Work of a method.

    Parameters
    ----------
    volumes
        Copies of the volume that it holds at its peak.
    products
        Products with the operator or its adjoint, per slice.
    evaluations
        Network evaluations per slice.
    coil_volumes
        Copies of all coils' volumes that it holds besides at its peak.
    """

    volumes: int
    products: int
    evaluations: int = 0
    coil_volumes: int = 0

    def copies(self, coils: int) -> int:
        """Copies of the volume, those of so many coils among them."""
        return self.volumes + coils * self.coil_volumes


def most(costs: Sequence[Cost]) -> Cost:
    """Cost of the costliest, part by part."""
    return Cost(*(max(found) for found in zip(*(astuple(cost) for cost in costs), strict=True)))


def data_step_iterations(*, preconditioned: bool, coupled: bool) -> int:
    """Conjugate gradient iterations per data step, unless a job says otherwise."""
    return (COUPLED_CG_ITERATIONS if coupled else CG_ITERATIONS)[preconditioned]


class Memory(BaseModel):
    """Bytes, and bytes per pixel."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    baseline: float
    metrics: float
    coil_calibration: float
    network: float
    per_network_pixel: float
    montage: float
    matrix: float
    compiled: float = 150e6
    """Bytes of the compiler and of the projectors of volumes."""


class Seconds(BaseModel):
    """Seconds per unit of work, on the machine that was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    startup: float
    per_network_pixel: float
    per_matrix_byte: float
    per_coil_pixel: float
    per_ray_step: float = 6e-9
    """One step of a ray through a volume."""


class MachineCosts(BaseModel):
    """Cost table of a machine, read from ``recon/planning/plan.yaml`` or the file that RECON_PLAN names."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    memory: Memory
    seconds: Seconds
