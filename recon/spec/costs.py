"""Costs by which a job is planned: counts of work per method, and what a unit of it takes on a machine."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

DATA_STEPS = {True: 3, False: 8}
"""Conjugate gradient iterations per data step, with a preconditioner (CT) and without: more change the result by less
than 0.1 dB."""


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
    """

    volumes: int
    products: int
    evaluations: int = 0


class Memory(BaseModel):
    """Bytes, and bytes per pixel."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    baseline: float
    network: float
    per_network_pixel: float
    montage: float
    matrix: float
    coils: float = 0.0


class Seconds(BaseModel):
    """Seconds per unit of work, on the machine that was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    startup: float
    per_network_pixel: float
    per_matrix_byte: float
    per_coil_pixel: float


class MachineCosts(BaseModel):
    """What work takes on a machine: ``recon/planning/plan.yaml``, or the file that RECON_PLAN names."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    memory: Memory
    seconds: Seconds
