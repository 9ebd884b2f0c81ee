"""Settings nobody has to know: what a tuning run found for a method, by kind of scan and how little was measured.

`recon tune` writes ``defaults.yaml``. What a job says itself always wins: one that sets a tuned setting to another
value gets the method's own defaults for the rest, since tuned values belong together. Presets of published constants
are left as they are.
"""

from __future__ import annotations

import math

from operators.fourier import CartesianMRI
from operators.geometry import FanBeam
from operators.resolution import direction_of
from operators.tomography import Tomography
from recon.defaults.table import FULL_CIRCLE, Pattern, Tuned, angular_cover, completed, nearest
from recon.problem.problem import Problem
from recon.spec.methods import Method

NEGLIGIBLE = 1e-3
"""Noise over the root mean square of the data below which settings for data without noise serve as well."""


def undersampling(problem: Problem) -> float:
    """Unknowns of a slice over the samples of one of its measurements; coils see the same, and count once."""
    domain, data = problem.operator.domain, problem.operator.range
    if isinstance(problem.operator, CartesianMRI):
        return 1.0 / max(float(problem.operator.mask.float().mean()), 1e-9)
    return math.prod(domain.shape) / math.prod(data.shape)


def pattern(problem: Problem) -> Pattern:
    """How the samples of a problem are spread."""
    operator = problem.operator
    if isinstance(operator, CartesianMRI):
        # Lines are sampled alike in all columns, or all rows.
        mask = operator.mask
        lines = any(bool((mask == mask.select(axis, 0).unsqueeze(axis)).all()) for axis in (-1, -2))
        return "lines" if lines else "points"
    if isinstance(operator, Tomography):
        return "full" if angular_cover(operator.geometry.angles_rad) > FULL_CIRCLE else "limited"
    return "full"


def scan_of(problem: Problem) -> str:
    """What decides whether noise that was good for one scan can be good for another; the size of the image does not."""
    operator = problem.operator
    direction = direction_of(operator)
    if direction is not None:
        return direction
    if isinstance(operator, Tomography):
        angles = operator.geometry.angles_rad
        beam = "fan" if isinstance(operator.geometry, FanBeam) else "parallel"
        return f"{len(angles)} {beam} views over {180 * angular_cover(angles):.0f} of 180 degrees"
    if isinstance(operator, CartesianMRI):
        return f"k-space {pattern(problem)}, one in {undersampling(problem):.0f}"
    return type(operator).__name__


def tuned(method: Method, kind: str, problem: Problem) -> Tuned | None:
    """What was found for the nearest task; arguments as of `resolved`."""
    size = float(problem.data.abs().square().mean().sqrt())
    noisy = problem.noise_std > NEGLIGIBLE * size
    return nearest(method, kind, pattern(problem), undersampling(problem), noisy=noisy)


def resolved(method: Method, kind: str, problem: Problem) -> Method:
    """The method with what it leaves open set as tuned for the nearest task of the same kind and pattern.

    Parameters
    ----------
    method
        As the user gave it.
    kind
        Of the acquisition, as in a specification.
    problem
        What is to be solved.
    """
    return completed(method, tuned(method, kind, problem))
