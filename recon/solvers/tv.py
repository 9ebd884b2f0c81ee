"""Total variation (isotropic, 3D or 2D) by ADMM, for CT and MRI."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.differences import BetweenSlices, gradient, gradient_adjoint
from operators.linear import conjugate_gradient, each_slice
from operators.preconditioner import laplacian_spectrum, normal_inverse
from recon.problem import resume
from recon.problem.problem import Problem, Progress, Solver, check_finite, convenient_unit
from recon.spec.methods import TV

PENALTY = 20.0
"""ADMM's penalty over the TV weight: sets the speed of convergence, not its limit."""
REPORT_EVERY = 5
WEIGHT_PER_NOISE = {False: 0.03, True: 0.3}
"""Automatic weight per unit of noise, for real images (CT) and complex ones (MRI)."""


def solve(problem: Problem, settings: TV) -> Solver:
    """Minimise ``1/2 |A x / |A| - y / |A||^2 + weight scale |W D x|_(2,1)``.

    `D` are forward differences with Neumann ends, `W` divides the difference between slices by the slice
    distance in pixels (or drops it, in two dimensions), and the norm is isotropic. Norm, weight and intensity scale,
    the robust maximum of a quick classical image, are those of each slice, so that `weight` means the same for every
    unit and a slice is balanced alike alone and beside any others.

    References
    ----------
    Rudin, Osher and Fatemi 1992, Physica D 60, 259-268. Boyd et al. 2011, Found. Trends Mach. Learn. 3,
    section 6.4.1 (ADMM with scaled dual variable).
    """
    weighted = problem.whitened
    operator = weighted.operator
    coupled = settings.dimensions == 3
    unit = convenient_unit(problem.scales)
    x = problem.initial_image() / unit
    norm, scale = each_slice(operator.norms, x), each_slice(problem.scales / unit, x)
    share = settings.weight_per_noise or WEIGHT_PER_NOISE[operator.domain.complex]
    weight = _weight(settings, share * each_slice(problem.noise / unit, x) / (norm * scale))
    # Over the weight of its TV term, so that the slices' terms add up.
    fidelity = 1 / (weight * scale * norm**2)
    rho = PENALTY / scale
    data_side = fidelity * operator.adjoint(weighted.data / unit)
    along_z = problem.pixel_mm / problem.slice_mm if coupled else 0.0
    ones = (1,) * x.ndim
    weights = torch.tensor([along_z, 1.0, 1.0]).reshape(3, *ones)
    split = torch.zeros((3, *x.shape), dtype=x.dtype)
    dual = torch.zeros_like(split)

    between = BetweenSlices(rho * along_z**2) if coupled else None
    laplacian = laplacian_spectrum((x.shape[-2], x.shape[-1]), complex=x.is_complex())
    inverse = normal_inverse(operator, rho * laplacian, fidelity, between)
    inner = settings.inner_iterations(preconditioned=inverse is not None)
    coupling = None if between is None else between.within(problem.support)

    in_plane = torch.tensor([0.0, 1.0, 1.0]).reshape(3, *ones)

    def system(v: Tensor) -> Tensor:
        image = fidelity * operator.normal(v) + gradient_adjoint(rho * in_plane * gradient(v))
        return problem.supported(image)

    found = resume.recalled(settings)
    if found is not None:
        x, split, dual = (found.tensors[name] for name in ("x", "split", "dual"))
    for step in range(1 if found is None else found.step + 1, settings.iterations + 1):
        right = problem.supported(data_side + gradient_adjoint(rho * weights * (split - dual)))
        x = conjugate_gradient(system, right, x, inner, tolerance=1e-7, precondition=inverse, coupling=coupling)
        slope = weights * gradient(x)
        split = shrink(slope + dual, 1 / rho)
        dual += slope - split
        resume.keep(settings, step, {"x": x, "split": split, "dual": dual})
        if step % REPORT_EVERY == 0 or step == settings.iterations:
            yield Progress(step, settings.iterations, x * unit, problem, "tv")
    return check_finite(x * unit, "tv")


def _weight(settings: TV, proposed: Tensor) -> Tensor:
    """Weight of the TV term per scale: the user's, else the automatic one, at least `min_weight`."""
    if settings.weight is not None:
        return torch.full_like(proposed, settings.weight)
    return proposed.clamp(min=settings.min_weight)


def shrink(vectors: Tensor, threshold: Tensor) -> Tensor:
    """Isotropic soft threshold of the vectors along the first axis, the proximal map of ``|.|_(2,1)``."""
    length = torch.linalg.vector_norm(vectors, dim=0)
    shrunk: Tensor = vectors * (1 - threshold / length.maximum(threshold))
    return shrunk
