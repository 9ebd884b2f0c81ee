"""Proximal data step by conjugate gradients, on the prior's scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from operators.linear import conjugate_gradient, slice_dot
from operators.preconditioner import normal_inverse
from recon.problem.problem import IntensityMap, Problem
from recon.problem.tv_z import AlongZ
from recon.spec.costs import DATA_STEPS
from recon.spec.methods import Splitting


class DataStep:
    """Proximal data step ``argmin_u |B u - d|^2 / (2 s^2) + |u - v|^2 / (2 sigma^2)``, ``B = A / |A|``, prior's scale.

    With a `tv_z_weight` the sum has ``tv_z_weight / sigma |W D_z u|_1`` in addition, of which each call makes one ADMM
    sweep: `v` is taken to err by about sigma between slices too.

    Parameters
    ----------
    problem
        Operator and data in physical units.
    intensity
        Physical intensity to the prior's scale; its offset is moved into the data.
    min_noise_std
        Noise `s` that the data term assumes at least; the measured noise counts when it is larger.
    iterations
        Conjugate gradient iterations per step; by `recon.spec.costs.DATA_STEPS` when None.
    tv_z_weight
        Weight of total variation between slices; 0 leaves them independent.
    gamma
        Fixed weight of the squared misfit beside ``|u - v|^2``, whatever noise and sigma; from these when None.
    noise_fraction
        Fraction of the measured noise that counts.
    precondition
        Use the operator's spectrum, if it has one; published methods do without.
    """

    def __init__(
        self,
        problem: Problem,
        intensity: IntensityMap,
        min_noise_std: float,
        iterations: int | None,
        tv_z_weight: float = 0.0,
        gamma: float | None = None,
        *,
        noise_fraction: float = 1.0,
        precondition: bool = True,
    ) -> None:
        problem = problem.whitened
        self.operator = problem.operator.normalized()
        self._preconditioned = precondition and self.operator.spectrum() is not None
        self.iterations = iterations or DATA_STEPS[self._preconditioned]
        norm = problem.operator.norm
        data = problem.data
        if intensity.offset != 0.0:
            data = data - problem.operator.forward(torch.full_like(problem.zeros(), intensity.offset))
        self.data = data / (norm * intensity.scale)
        self.sigma = max(min_noise_std, noise_fraction * problem.noise_std / (norm * intensity.scale))
        self.tv_z_weight, self.gamma = tv_z_weight, gamma
        self.along_z = AlongZ(problem.zeros(), problem.pixel_mm / problem.slice_mm) if tv_z_weight > 0 else None

    @classmethod
    def of(cls, problem: Problem, intensity: IntensityMap, settings: Splitting, **more: Any) -> DataStep:
        """Make the data step that a method's settings describe."""
        return cls(
            problem,
            intensity,
            settings.min_noise_std,
            settings.cg_iterations,
            settings.tv_z_weight,
            noise_fraction=settings.noise_fraction,
            **more,
        )

    def __call__(self, v: Tensor, sigma: float) -> Tensor:
        """Take the step from `v` ``(slices, rows, cols)``, whose error is about `sigma`."""
        anchor = (self.sigma / sigma) ** 2 if self.gamma is None else 1 / self.gamma
        # Solved for the change of `v`: rounding then stays in the range of the adjoint. Solved for `u` it
        # would leak into the null space, where only the tiny anchor holds it.
        residual = self.operator.adjoint(self.data - self.operator.forward(v))
        if self.along_z is not None:
            return self._coupled(v, residual, anchor, sigma, self.along_z)
        return v + conjugate_gradient(
            lambda change: self.operator.normal(change) + anchor * change,
            residual,
            None,
            self.iterations,
            precondition=self._inverse(anchor),
            energy=partial(self._energy, anchor) if self._preconditioned else None,
        )

    def _energy(self, anchor: float, change: Tensor) -> Tensor:
        """Compute ``<x, (B^H B + anchor) x>`` per slice: one projection instead of the two that ``B^H B`` takes."""
        projected = self.operator.forward(change)
        return slice_dot(projected, projected) + anchor * slice_dot(change, change)

    def _inverse(self, anchor: float) -> Callable[[Tensor], Tensor] | None:
        return normal_inverse(self.operator, anchor) if self._preconditioned else None

    def _coupled(self, v: Tensor, residual: Tensor, anchor: float, sigma: float, along_z: AlongZ) -> Tensor:
        # ADMM's penalty is that of the anchor: it sets the speed, not the limit.
        right = residual + along_z.pull(v, anchor)

        def system(change: Tensor) -> Tensor:
            # Coupled slices are one unknown: the volume travels through the solver as a batch of one.
            inner = change[0]
            return (self.operator.normal(inner) + anchor * inner + along_z.stiffness(inner, anchor))[None]

        # Between slices `D_z^T D_z` has eigenvalues up to 4; 2 on average.
        inverse = self._inverse(anchor * (1 + 2 * along_z.weight**2))

        def energy(change: Tensor) -> Tensor:
            inner = change[0]
            between = slice_dot(inner, along_z.stiffness(inner, anchor))
            return (self._energy(anchor, inner) + between).sum()[None]

        energies = energy if self._preconditioned else None
        u: Tensor = (
            v + conjugate_gradient(system, right[None], None, self.iterations, precondition=inverse, energy=energies)[0]
        )
        along_z.update(u, self.tv_z_weight * sigma)
        return u
