"""Samples that are withheld from a scan: which they are, and what their residuals say of an image's error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.geometry import FanBeam, ParallelBeam, view_folds
from operators.linear import LinearOperator, Withheld
from operators.noncartesian import NonCartesianMRI, cell_areas
from operators.tomography import Tomography, ramped
from recon.problem.mri_cartesian import birdcage_maps, sampling_mask
from recon.spec.simulation import Simulation

SIDE = 48


def parallel(views: int, span_rad: float = math.pi) -> ParallelBeam:
    return ParallelBeam(SIDE, SIDE, 2.0, tuple(i * span_rad / views for i in range(views)), 72, 2.0)


def mri(pattern: str = "poisson", acceleration: float = 4.0) -> CartesianMRI:
    settings = Simulation.model_validate({"pattern": pattern, "acceleration": acceleration, "center_fraction": 0.1})
    mask = sampling_mask(SIDE, SIDE, settings)
    return CartesianMRI(mask, birdcage_maps(4, SIDE, SIDE))


@pytest.mark.parametrize("views", [4, 8, 23, 60, 181])
def test_folds_withhold_other_views_each_a_tenth_and_enough_of_them(views: int) -> None:
    folds = view_folds(parallel(views))
    every = [view for fold in folds for view in fold]
    assert len(every) == len(set(every)) >= min(views, 8)
    assert len({len(fold) for fold in folds}) == 1
    assert len(folds[0]) == max(1, round(views / 10))


def test_a_limited_angle_is_judged_beyond_its_ends() -> None:
    """Views inside the arc say nothing of the wedge that no view saw."""
    assert view_folds(parallel(90, math.pi / 2)) == [tuple(range(9)), tuple(range(81, 90))]


def test_neighbours_at_an_end_are_no_independent_witnesses() -> None:
    """Their residuals are told together, in three units an end, and none is lost."""
    operator = Tomography(parallel(40, math.pi / 2))
    x = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for fold in range(operator.folds):
        split = operator.withheld(fold)
        residuals = split.hold(operator(x))
        told = split.spectra(residuals)
        assert told.shape[1] == 2 and residuals.shape[1] == 4
        assert float(told.abs().square().sum()) == pytest.approx(
            float(ramped(residuals).abs().square().sum()), rel=1e-5
        )
    operator = Tomography(parallel(90, math.pi / 2))
    split = operator.withheld(0)
    assert split.spectra(split.hold(operator(x))).shape[1] == 3


def test_opposite_views_of_a_whole_turn_are_withheld_together() -> None:
    for fold in view_folds(parallel(60, 2 * math.pi)):
        assert {(view + 30) % 60 for view in fold} == set(fold)
    fan = FanBeam(SIDE, SIDE, 2.0, tuple(i * math.pi / 30 for i in range(60)), 96, 4.0, 0.0, 500.0, 500.0)
    assert all(len(fold) == 6 for fold in view_folds(fan))


def test_three_views_have_none_to_spare() -> None:
    operator = Tomography(parallel(3))
    assert operator.folds == 0


def both(operator: LinearOperator, x: Tensor, split: Withheld) -> None:
    """What stays and what is withheld are those samples of the whole."""
    y = operator(x)
    assert torch.allclose(split.kept(x), split.keep(y), atol=1e-4)
    assert torch.allclose(split.held(x), split.hold(y), atol=1e-4)


def test_views_are_split() -> None:
    operator = Tomography(parallel(23))
    x = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for fold in range(operator.folds):
        both(operator, x, operator.withheld(fold))


def spokes(count: int) -> NonCartesianMRI:
    radii = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
    turns = torch.arange(count, dtype=torch.float64) * math.pi / count
    trajectory = torch.stack([radii * turns.cos()[:, None], radii * turns.sin()[:, None]], dim=-1).reshape(-1, 2)
    return NonCartesianMRI(trajectory, birdcage_maps(4, SIDE, SIDE), cell_areas(trajectory, "ramp"))


def test_whole_readouts_are_split() -> None:
    operator = spokes(30)
    assert torch.equal(operator.readouts, torch.arange(30).repeat_interleave(SIDE))
    x = torch.randn(2, SIDE, SIDE, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    seen: set[int] = set()
    for fold in range(operator.folds):
        split = operator.withheld(fold)
        both(operator, x, split)
        residuals = split.hold(operator(x))
        chosen = set(split.hold(operator.readouts).tolist())
        assert len(chosen) == 3 and not chosen & seen
        seen |= chosen
        # Samples stand for areas: together those of white noise in k-space stand for the image's energy.
        energy = float(split.spectra(residuals).abs().square().sum())
        whole = float((operator.density.sqrt() * operator(x)).abs().square().sum())
        assert energy / whole == pytest.approx(0.1, rel=0.35)
        assert split.spectra(residuals).shape[1] == 3
    to_and_fro = operator.trajectory.reshape(30, SIDE, 2).clone()
    to_and_fro[1::2] = to_and_fro[1::2].flip(1)
    turned = NonCartesianMRI(to_and_fro.reshape(-1, 2), operator.maps[0], operator.density)
    assert torch.equal(turned.readouts, operator.readouts)
    assert spokes(7).folds == 0
    with pytest.raises(InputError, match="no samples to withhold"):
        spokes(7).withheld(0)


@pytest.mark.parametrize("pattern", ["equispaced", "poisson"])
def test_points_of_kspace_are_split_outside_the_centre(pattern: str) -> None:
    operator = mri(pattern)
    x = torch.randn(2, SIDE, SIDE, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for fold in range(operator.folds):
        split = operator.withheld(fold)
        both(operator, x, split)
        assert isinstance(split.held, CartesianMRI)
        held = split.held.mask[0]
        assert bool(held.any()) and not bool((held & seen).any())
        assert not bool(held[SIDE // 2 - 1 : SIDE // 2 + 2, SIDE // 2 - 1 : SIDE // 2 + 2].any())
        seen |= held


def test_all_of_kspace_has_nothing_to_judge() -> None:
    operator = CartesianMRI(torch.ones(SIDE, SIDE, dtype=torch.bool), birdcage_maps(4, SIDE, SIDE))
    assert operator.folds == 0
    with pytest.raises(InputError, match="no samples to withhold"):
        operator.withheld(0)


def shapes(generator: torch.Generator) -> list[Tensor]:
    """Errors of an image inside the field of view: a smooth one, edges, and fine noise."""
    axis = torch.linspace(-1, 1, SIDE)
    radius = (axis[:, None].square() + axis.square()).sqrt()
    inside = (radius < 0.7).float()
    noise = torch.randn(SIDE, SIDE, generator=generator)
    edges = ((axis[:, None] * 6).sin() * (axis * 5).cos() > 0).float() - 0.5
    return [(-(radius**2) * 8).exp(), edges * inside, noise * inside]


def test_ramped_views_judge_the_error_of_the_image_and_plain_ones_do_not() -> None:
    """By the Fourier slice theorem all views together weigh smooth errors, edges and noise alike."""
    operator = Tomography(parallel(90))
    ramped, plain = [], []
    for error in shapes(torch.Generator().manual_seed(2)):
        size = float(error.square().sum())
        found = [operator.withheld(fold) for fold in range(operator.folds)]
        residuals = [split.held(error[None]) for split in found]
        spectra = [split.spectra(r) for split, r in zip(found, residuals, strict=True)]
        ramped.append(sum(float(s.abs().square().sum()) for s in spectra) / size)
        plain.append(sum(float(r.square().sum()) for r in residuals) / size)
    # Noise of single pixels loses what the width of a ray averages.
    assert max(ramped[:2]) / min(ramped[:2]) < 1.15
    assert max(ramped) / min(ramped) < 2
    assert max(plain) / min(plain) > 10


def test_withheld_points_stand_for_all_that_is_missing() -> None:
    """An error at the points that were not sampled, told from a tenth of those that were, by radius."""
    operator = mri(acceleration=3)
    generator = torch.Generator().manual_seed(3)
    falling = 1 / (1 + (torch.stack(torch.meshgrid(*2 * [torch.arange(SIDE) - SIDE // 2], indexing="ij")) ** 2).sum(0))
    spectrum = falling.sqrt() * torch.randn(4, SIDE, SIDE, dtype=torch.complex64, generator=generator)
    missing = float((spectrum * ~operator.mask[0]).abs().square().sum())
    told = []
    for fold in range(operator.folds):
        split = operator.withheld(fold)
        told.append(float(split.spectra(split.hold(spectrum[None])).abs().square().sum()))
    assert sum(told) / len(told) == pytest.approx(missing, rel=0.35)
