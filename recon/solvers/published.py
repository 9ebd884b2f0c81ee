"""Published data step of DDS and DiffusionMBIR: few iterations from the estimate, with no term that keeps them near."""

from __future__ import annotations

from torch import Tensor

from operators.linear import conjugate_gradient
from recon.problem.data_step import DataStep

ADMM_PENALTY, ADMM_THRESHOLD = 0.025, 0.008
"""Published constants of DiffusionMBIR in CT and of DDS in 3D, for an operator of norm one and images in [-1, 1]."""
MRI_PENALTY, MRI_THRESHOLD = 0.01, 0.5
"""Published constants of DiffusionMBIR in MRI, for a Fourier transform of norm one and magnitudes up to 1."""


class UnanchoredStep:
    """Data step without an anchor: a few conjugate gradient iterations on ``1/2 |B u - d|^2``, near their start.

    In 3D it is one ADMM sweep, with ``threshold penalty |D_z u|_1`` in addition.

    Parameters
    ----------
    term
        Operator of norm one and data on the prior's scale, and how many iterations to make.
    penalty, threshold
        Constants of ADMM, whose variables persist from step to step; 2D without a `penalty`.

    References
    ----------
    Chung, Lee and Ye 2024, DDS (arXiv 2303.05754), algorithm 1 without noise, and section 3.3; Chung et al. 2023,
    DiffusionMBIR (arXiv 2211.10655), equations 12 to 15.
    """

    def __init__(self, term: DataStep, penalty: float | None = None, threshold: float = 0.0) -> None:
        self._term, self._threshold = term, threshold
        self._penalty = penalty or 0.0
        self.along_z = None if penalty is None else term.between_slices(1.0)

    def __call__(self, v: Tensor, sigma: float | None = None) -> Tensor:
        """Take the step from `v` ``(slices, rows, cols)``; `sigma` is not used."""
        del sigma
        term, along_z, penalty = self._term, self.along_z, self._penalty
        # For the change of `v`, so that what the data do not see stays as it is.
        right = term.operator.adjoint(term.data - term.operator.forward(v))
        if along_z is None:
            return v + conjugate_gradient(term.operator.normal, right, None, term.iterations)
        right = right + along_z.pull(v, penalty)
        between = along_z.stiffness(penalty)

        def system(change: Tensor) -> Tensor:
            # Published conjugate gradients take the volume for one unknown.
            return (term.operator.normal(change[0]) + between(change[0]))[None]

        u: Tensor = v + conjugate_gradient(system, right[None], None, term.iterations)[0]
        along_z.update(u, self._threshold)
        return u
