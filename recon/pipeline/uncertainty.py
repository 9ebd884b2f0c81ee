"""Errors without a truth: the result is measured again by another scan of the same kind, and reconstructed again.

What comes out differently from what went in is the error that the method makes on such an object (a parametric
bootstrap). The same scan would not do: what it cannot see is missing from the result already, and nothing would be lost
a second time. Other views, or other lines of k-space, cannot see something else.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.linear import LinearOperator, random_element
from operators.tomography import Tomography
from recon.measurement import noise_estimate
from recon.priors.noise import key
from recon.problem.problem import Problem
from recon.spec.methods import TV, Diffusion, Method

TURN_RAD = math.pi * (3 - 5**0.5) / 2
"""By which each replica of a CT scan is turned on: the golden section of half a turn, which never comes round."""
POOLED = 5
"""Pixels each way over which squared errors are averaged: a handful of replicas is too few for every pixel alone."""


def replica(problem: Problem, volume: Tensor, index: int, seed: int) -> Problem:
    """A `volume` ``(slices, rows, cols)`` seen by the `index`-th other scan of the kind of `problem`, with its noise.

    Raises
    ------
    InputError
        If there is no other scan of the kind, as for stacks of low resolution.

    References
    ----------
    Efron and Tibshirani 1993, An introduction to the bootstrap, section 6.5; Tachella and Pereyra 2024, Equivariant
    bootstrapping (arXiv 2310.11838), where the image is moved instead of the scan.
    """
    operator = _another(problem.operator, index)
    generator = torch.Generator().manual_seed(key(seed, -2 - index))
    clean = operator.forward(volume)
    noise = problem.noise_std * random_element(operator.range, len(clean), generator)
    if isinstance(operator, CartesianMRI):
        return replace(problem, operator=operator, data=clean + operator.mask[:, None] * noise)
    if problem.weights is None or problem.noise_std == 0:  # photons may be given, and no noise all the same
        return replace(problem, operator=operator, data=clean + noise, weights=None)
    # As many photons as the weights were made for.
    photons = float((problem.data.exp() * (problem.weights / problem.noise_std).square()).median())
    mean, weights = noise_estimate.of_photons(clean, photons)
    noisy = clean + noise * (mean / problem.noise_std) / weights
    return replace(problem, operator=operator, data=noisy, noise_std=mean, weights=weights)


def expected_errors(power: Tensor, method: Method, *, is_complex: bool) -> Tensor:
    """The map ``(slices, rows, cols)`` from the replicas' mean squared errors.

    What a prior or total variation takes for noise, fine texture, is missing from the result, and replicas cannot lose
    it again: their errors are scaled up by what it took on the tuning slices.
    """
    scale = UNDERSTATED["mri" if is_complex else "ct"] if isinstance(method, Diffusion | TV) else 1.0
    return scale * pooled(power)


UNDERSTATED = {"ct": 1.9, "mri": 1.2}
"""How many times larger than in the replicas errors were; `python -m tests.benchmarks uncertainty` (docs/tuning.md)."""


def pooled(power: Tensor) -> Tensor:
    """The root of squared errors ``(slices, rows, cols)`` averaged over `POOLED` pixels each way."""
    mean = functional.avg_pool2d(power[:, None], POOLED, 1, POOLED // 2, count_include_pad=False)[:, 0]
    return mean.sqrt()


def _another(operator: LinearOperator, index: int) -> LinearOperator:
    if isinstance(operator, Tomography):
        angles = tuple(angle + TURN_RAD * (index + 1) for angle in operator.geometry.angles_rad)
        return Tomography(replace(operator.geometry, angles_rad=angles), operator.backend)
    if isinstance(operator, CartesianMRI):
        return CartesianMRI(torch.stack([_moved(mask, index) for mask in operator.mask]), operator.maps)
    raise InputError(
        "there is no other scan of this kind to compare with",
        field="output.uncertainty",
        remedy="leave it out; it is there for CT and Cartesian MRI",
    )


def _moved(mask: Tensor, index: int) -> Tensor:
    """Other points of k-space in the same pattern ``(rows, cols)``: lines moved, points mirrored; the centre stays."""
    if bool(mask.all()):
        return mask  # nothing is left to choose: the noise is another all the same
    if bool((mask == mask[:, :1]).all()):
        return _moved_lines(mask[:, 0], index)[:, None].expand_as(mask).contiguous()
    if bool((mask == mask[:1]).all()):
        return _moved_lines(mask[0], index)[None].expand_as(mask).contiguous()
    ways = [(True, False), (False, True), (True, True)]
    turned = [mask] if mask.shape[0] != mask.shape[1] else [mask, mask.T]
    found = [_mirrored(one, rows=rows, cols=cols) for one in turned for rows, cols in ways]
    return found[index % len(found)]


def _moved_lines(lines: Tensor, index: int) -> Tensor:
    """Lines ``(n,)`` outside the centre moved on, by the shifts that repeat the fewest of them."""
    n, middle, half = len(lines), len(lines) // 2, 0
    while middle - half - 1 >= 0 and middle + half + 1 < n and bool(lines[middle - half - 1 : middle + half + 2].all()):
        half += 1
    centre = torch.zeros_like(lines)
    centre[middle - half : middle + half + 1] = lines[middle - half : middle + half + 1]
    outer = lines & ~centre
    moved = [torch.roll(outer, shift) for shift in range(1, n)]
    moved.sort(key=lambda one: int((one & outer).sum()))
    return moved[index % len(moved)] | centre


def _mirrored(mask: Tensor, *, rows: bool, cols: bool) -> Tensor:
    """About the centre of k-space, index ``n // 2``."""
    axes = [axis for axis, wanted in enumerate((rows, cols)) if wanted]
    return torch.roll(mask.flip(axes), [1 - mask.shape[axis] % 2 for axis in axes], axes)
