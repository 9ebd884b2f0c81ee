"""Classical multi-coil MRI: zero filling and iterative SENSE."""

from __future__ import annotations

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.linear import conjugate_gradient
from recon.problem.problem import Problem, Progress, Solver, check_finite
from recon.spec.methods import CGSense, ZeroFilled


def solve(problem: Problem, settings: ZeroFilled | CGSense) -> Solver:
    """Zero-filled or CG-SENSE reconstruction, complex64 ``(slices, rows, cols)``.

    References
    ----------
    Pruessmann et al. 2001, Magn. Reson. Med. 46, 638-651 (CG-SENSE).
    """
    if not isinstance(problem.operator, CartesianMRI):
        raise InputError(f"{settings.name} needs an MRI acquisition", field="method.name")
    operator = problem.operator
    right = operator.adjoint(problem.data)
    if isinstance(settings, ZeroFilled):
        yield Progress(1, 1, right, problem)
        return right
    damping = settings.weight * operator.norm**2
    volume = conjugate_gradient(lambda v: operator.normal(v) + damping * v, right, None, settings.iterations)
    yield Progress(settings.iterations, settings.iterations, volume, problem)
    return check_finite(volume, settings.name)
