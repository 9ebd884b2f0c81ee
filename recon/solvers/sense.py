"""Classical multi-coil MRI: zero filling, gridding and iterative SENSE."""

from __future__ import annotations

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.linear import conjugate_gradient, each_slice
from operators.noncartesian import NonCartesianMRI
from operators.phase import PhaseConstrained
from recon.problem.problem import Problem, Progress, Solver, check_finite
from recon.spec.methods import CGSense, Gridding, ZeroFilled


def solve(problem: Problem, settings: ZeroFilled | CGSense) -> Solver:
    """Zero-filled or CG-SENSE reconstruction, complex64 ``(slices, rows, cols)``; homodyne where the phase is known.

    References
    ----------
    Pruessmann et al. 2001, Magn. Reson. Med. 46, 638-651 (CG-SENSE).
    """
    operator, data = problem.operator, problem.data
    if isinstance(settings, ZeroFilled) and isinstance(operator, CartesianMRI | PhaseConstrained):
        image = operator.homodyne(data) if isinstance(operator, PhaseConstrained) else operator.combined(data)
        yield Progress(1, 1, image, problem)
        return image
    if isinstance(settings, CGSense) and isinstance(operator, NonCartesianMRI):
        # As the paper has it: without the density the centre of k-space would rule, and convergence be slow.
        operator, data = operator.compensated(), operator.compensate(data)
    elif isinstance(settings, ZeroFilled) or not isinstance(operator, CartesianMRI | PhaseConstrained):
        raise InputError(
            f"{settings.name} needs an MRI acquisition", field="method.name", remedy="choose another method"
        )
    right = operator.adjoint(data)
    damping = settings.weight * each_slice(operator.norms, right) ** 2
    volume = conjugate_gradient(lambda v: operator.normal(v) + damping * v, right, None, settings.iterations)
    yield Progress(settings.iterations, settings.iterations, volume, problem)
    return check_finite(volume, settings.name)


def grid(problem: Problem, settings: Gridding) -> Solver:
    """Gridding reconstruction, complex64 ``(slices, rows, cols)``.

    References
    ----------
    Jackson et al. 1991, IEEE Trans. Med. Imaging 10, 473-478 (gridding, density compensation).
    """
    if not isinstance(problem.operator, NonCartesianMRI):
        raise InputError(
            f"{settings.name} needs a non-Cartesian acquisition", field="method.name", remedy="use zero-filled"
        )
    volume = problem.operator.gridding(problem.data)
    yield Progress(1, 1, volume, problem)
    return volume
