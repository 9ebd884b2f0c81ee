"""Photon counting behind an object: a measurement that is not linear in the attenuation."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.errors import InputError
from operators.linear import LinearOperator


class Transmission:
    """Expected counts ``photons exp(-A x)`` and the Poisson likelihood of the counts measured.

    The logarithm of few counts is biased and noisy where they are fewest; the likelihood of the counts themselves
    is not.

    Parameters
    ----------
    operator
        `A`, line integrals of the attenuation.
    photons
        Counts without object.
    """

    def __init__(self, operator: LinearOperator, photons: float) -> None:
        if not photons > 0:
            raise InputError(f"{photons} photons, it takes some to measure", field="photons_per_ray")
        self.operator, self.photons = operator, photons

    def forward(self, x: Tensor) -> Tensor:
        """Expected counts of ``(slices, rows, cols)``; differentiable."""
        return self.photons * torch.exp(-self.operator.forward(x))

    def negative_log_likelihood(self, x: Tensor, counts: Tensor) -> Tensor:
        """``sum(m - c log m) / photons`` of each slice, without the constant; ``(slices,)``, differentiable.

        Divided by `photons`, its Hessian for an empty image is ``A^H A``, that of the squared misfit of line
        integrals.
        """
        self.operator.range.check(counts, "counts")
        integrals = self.operator.forward(x)
        value: Tensor = (torch.exp(-integrals) + counts / self.photons * integrals).flatten(1).sum(dim=1)
        return value
