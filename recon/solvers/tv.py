"""Total variation (isotropic, 3D or 2D) by ADMM, for CT and MRI."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.differences import gradient, gradient_adjoint
from operators.linear import conjugate_gradient
from operators.preconditioner import laplacian_spectrum, normal_inverse
from recon.problem.problem import Problem, Progress, Solver, check_finite, robust_maximum
from recon.spec.methods import TV

PENALTY = 20.0
"""ADMM's penalty over the TV weight: sets the speed of convergence, not its limit."""
REPORT_EVERY = 5
WEIGHT_PER_NOISE = {False: 0.03, True: 0.3}
"""Automatic weight per unit of noise, for real images (CT) and complex ones (MRI)."""


def solve(problem: Problem, settings: TV) -> Solver:
    """Minimise ``1/2 |A x / |A| - y / |A||^2 + weight |W D x|_(2,1)``.

    `D` are forward differences with Neumann ends, `W` divides the difference between slices by the slice
    distance in pixels (or drops it, in two dimensions), and the norm is isotropic. The image is scaled by
    the robust maximum of a quick classical image, so that `weight` means the same for every unit.

    References
    ----------
    Rudin, Osher and Fatemi 1992, Physica D 60, 259-268. Boyd et al. 2011, Found. Trends Mach. Learn. 3,
    section 6.4.1 (ADMM with scaled dual variable).
    """
    start = problem.initial_image()
    weighted = problem.whitened
    operator, norm = weighted.operator, weighted.operator.norm
    coupled = settings.dimensions == 3
    scale = _scales(problem, start, coupled=coupled)
    x = start / scale
    data_side = operator.adjoint(weighted.data) / (norm**2 * scale)
    along_z = problem.pixel_mm / problem.slice_mm if coupled else 0.0
    weights = torch.tensor([along_z, 1.0, 1.0]).reshape(3, 1, 1, 1)
    share = settings.weight_per_noise or WEIGHT_PER_NOISE[operator.domain.complex]
    weight = _weight(settings, share * problem.noise_std / (norm * scale))
    rho = PENALTY * weight
    split = torch.zeros((3, *x.shape), dtype=x.dtype)
    dual = torch.zeros_like(split)

    # One weight per slice, or one for all; between slices `D_z^T D_z` is 2 on average.
    laplacian = laplacian_spectrum((x.shape[1], x.shape[2]), complex=x.is_complex()) + 2 * along_z**2
    inverse = normal_inverse(operator, rho * laplacian * norm**2)
    inner = settings.inner_iterations(preconditioned=inverse is not None)

    def system(v: Tensor) -> Tensor:
        # Coupled slices are one unknown: the volume travels through the solver as a batch of one.
        volume = v[0] if coupled else v
        image = operator.normal(volume) / norm**2 + rho * gradient_adjoint(weights.square() * gradient(volume))
        return image[None] if coupled else image

    for step in range(1, settings.iterations + 1):
        right = data_side + rho * gradient_adjoint(weights * (split - dual))
        if coupled:
            x = conjugate_gradient(system, right[None], x[None], inner, tolerance=1e-7, precondition=inverse)[0]
        else:
            x = conjugate_gradient(system, right, x, inner, tolerance=1e-7, precondition=inverse)
        slope = weights * gradient(x)
        split = shrink(slope + dual, 1 / PENALTY)
        dual += slope - split
        if step % REPORT_EVERY == 0 or step == settings.iterations:
            yield Progress(step, settings.iterations, x * scale, problem, "tv")
    return check_finite(x * scale, "tv")


def _scales(problem: Problem, start: Tensor, *, coupled: bool) -> Tensor:
    """Intensity scale of the image: one number per volume, or per slice when slices are independent."""
    # An empty slice has no scale, and needs none.
    found = [problem.scale] if coupled else [robust_maximum(p) or 1.0 for p in start.split(1)]
    return torch.tensor(found).reshape(-1, 1, 1)


def _weight(settings: TV, proposed: Tensor) -> Tensor:
    """Weight of the TV term per scale: the user's, else the automatic one, at least `min_weight`."""
    if settings.weight is not None:
        return torch.full_like(proposed, settings.weight)
    return proposed.clamp(min=settings.min_weight)


def shrink(vectors: Tensor, threshold: float) -> Tensor:
    """Isotropic soft threshold of the vectors along the first axis, the proximal map of ``|.|_(2,1)``."""
    length = torch.linalg.vector_norm(vectors, dim=0)
    shrunk: Tensor = vectors * (1 - threshold / length.clamp(min=threshold))
    return shrunk
