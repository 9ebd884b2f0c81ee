"""Proximal data step by conjugate gradients, on the prior's scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from operators.differences import BetweenSlices
from operators.linear import conjugate_gradient, each_slice, slice_dot
from operators.preconditioner import normal_inverse
from recon.problem.problem import IntensityMap, Problem
from recon.problem.tv_z import AlongZ
from recon.spec.costs import data_step_iterations
from recon.spec.methods import Splitting


class _Terms(NamedTuple):
    """Weights of data and anchor, shaped to multiply volumes: terms so weighted add up over slices."""

    fidelity: Tensor
    """``1 / s^2``."""
    anchor: Tensor
    """``1 / sigma^2``."""


class DataStep:
    """Proximal data step ``argmin_u |B u - d|^2 / (2 s^2) + |u - v|^2 / (2 sigma^2)``, ``B = A / |A|``, prior's scale.

    Norm, noise `s`, the prior's scale and, if so wanted, sigma are those of each slice.
    Voxels outside the problem's support are zero in physical units, whatever `v` says there.

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
        Conjugate gradient iterations per step; by `recon.spec.costs.data_step_iterations` when None.
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
        self._support = self.operator.support()
        self._preconditioned = precondition and self.operator.spectrum() is not None
        # As many for a slice by itself: it comes out alike alone and in a stack.
        coupled = tv_z_weight > 0
        self.iterations = iterations or data_step_iterations(preconditioned=self._preconditioned, coupled=coupled)
        empty = problem.zeros()
        data = problem.data
        if isinstance(intensity.offset, Tensor) or intensity.offset != 0.0:
            data = data - problem.operator.forward(intensity.to_physical(empty))
        unit = problem.operator.norms * intensity.scale
        self.data = data / each_slice(unit, data)
        self.sigma = (noise_fraction * problem.noise / unit).clamp(min=min_noise_std)
        """Noise `s` of each slice, ``(slices,)``."""
        self.tv_z_weight, self.gamma = tv_z_weight, gamma
        self._intensity = intensity
        self._nothing = intensity.to_prior(torch.zeros((problem.slices, 1, 1)))
        self.along_z = self.between_slices(problem.pixel_mm / problem.slice_mm) if coupled else None

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

    def between_slices(self, weight: float) -> AlongZ:
        """Make the variables of total variation between the slices."""
        empty = torch.zeros((len(self.data), *self.operator.domain.shape), dtype=self.data.dtype)
        return AlongZ(empty, weight, self._intensity)

    def __call__(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """Take the step from `v` ``(slices, rows, cols)``, whose error is about `sigma`, in all or ``(slices,)``."""
        v = self.supported(v)
        terms = self._terms(v, sigma)
        # Solved for the change of `v`: rounding then stays in the range of the adjoint. Solved for `u` it
        # would leak into the null space, where only the tiny anchor holds it.
        right = terms.fidelity * self.operator.adjoint(self.data - self.operator.forward(v))
        along_z, between, coupling = self.along_z, None, None
        if along_z is not None:
            # ADMM's penalty is that of the anchor: it sets the speed, not the limit.
            right = self._within(right + along_z.pull(v, terms.anchor))
            between = along_z.stiffness(terms.anchor)
            coupling = between.within(self._support)
        u = v + conjugate_gradient(
            lambda change: terms.fidelity * self.operator.normal(change) + terms.anchor * change,
            right,
            None,
            self.iterations,
            precondition=self._inverse(terms, between),
            energy=partial(self._energy, terms) if self._preconditioned else None,
            coupling=coupling,
        )
        if along_z is not None:
            along_z.update(u, self.tv_z_weight * each_slice(sigma, v))
        return u

    def _terms(self, v: Tensor, sigma: float | Tensor) -> _Terms:
        spread, noise = torch.as_tensor(each_slice(sigma, v), dtype=v.real.dtype), each_slice(self.sigma, v)
        if self.gamma is None:
            return _Terms(noise**-2, spread**-2)
        return _Terms(torch.ones_like(noise), torch.full_like(noise, 1 / self.gamma))

    def supported(self, v: Tensor) -> Tensor:
        """Set an image on the prior's scale to what is zero in physical units, outside the support."""
        return v if self._support is None else torch.where(self._support, v, self._nothing)

    def _within(self, change: Tensor) -> Tensor:
        return change if self._support is None else change * self._support

    def _energy(self, terms: _Terms, change: Tensor) -> Tensor:
        """Compute ``<x, (B^H B / s^2 + x / sigma^2)>`` per slice: one projection instead of the two of ``B^H B``."""
        projected = self.operator.forward(change)
        data, near = slice_dot(projected, projected), slice_dot(change, change)
        return terms.fidelity.flatten() * data + terms.anchor.flatten() * near

    def _inverse(self, terms: _Terms, between: BetweenSlices | None) -> Callable[[Tensor], Tensor] | None:
        if not self._preconditioned:
            return None
        return normal_inverse(self.operator, terms.anchor, terms.fidelity, between)
