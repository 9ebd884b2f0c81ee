"""Physics of CT acquisitions: the inverse problem of a sinogram. Its simulation is `recon.problem.ct_simulation`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators import continuation, support, truncation
from operators.geometry import ParallelBeam, limits, matrix_columns, within_view
from operators.linear import LinearOperator, each_slice
from operators.tomography import Tomography
from recon.measurement import noise_estimate
from recon.measurement.measurement import Measurement
from recon.priors.card import Card, IntensityRange
from recon.problem.ct_simulation import simulate
from recon.problem.inverse_problem import InverseProblem, placed
from recon.problem.problem import IntensityMap, Problem
from recon.spec.acquisitions.ct import CT

__all__ = ["CTProblem", "attenuation_map", "build", "simulate"]

BRIGHTEST = 0.6
"""Value on the prior's scale to which the robust maximum of a CT scan without a water value is mapped: dense bone."""


CONTINUED_WEIGHT = 0.3
"""Inverse noise, relative to measured rays, of those that continue a row beyond the detector."""


@dataclass(frozen=True)
class Cover:
    """Cover of a scan whose object is larger than its image, or than its detector: what is solved.

    Parameters
    ----------
    measured
        Geometry of the measurement, and of the image that is given back.
    solved
        The same with an image as large as the object, and a detector that sees all of it.
    """

    measured: ParallelBeam
    solved: ParallelBeam

    @property
    def ends(self) -> tuple[int, int]:
        """Number of detector elements that are continued before and after the measured ones."""
        more = self.solved.detectors - self.measured.detectors
        shifted = self.solved.detector_shift_mm - self.measured.detector_shift_mm
        after = (more + round(2 * shifted / self.measured.detector_mm)) // 2
        return more - after, after

    def continued(self, data: Tensor) -> Tensor:
        """Continue rows ``(slices, views, detectors)`` beyond the detector."""
        if not any(self.ends):
            return data
        reach_mm = min(self.solved.rows, self.solved.cols) * self.solved.pixel_mm / 2
        return torch.from_numpy(continuation.continued(data.numpy(), self.measured, *self.ends, reach_mm))

    def weights(self, inverse_std: Tensor | None, data: Tensor) -> Tensor | None:
        """Inverse noise of all rays, of those that are continued little; None if all rays have the same."""
        return continued_weights(inverse_std, data, self.ends)

    def cropped(self, volume: Tensor) -> Tensor:
        """Cut the image out of what was solved."""
        top, left = (self.solved.rows - self.measured.rows) // 2, (self.solved.cols - self.measured.cols) // 2
        return volume[..., top : top + self.measured.rows, left : left + self.measured.cols].contiguous()


def continued_weights(inverse_std: Tensor | None, data: Tensor, ends: tuple[int, int]) -> Tensor | None:
    """Inverse noise of rays ``(..., detectors)`` with those that continue them at both ends, which count little."""
    if not any(ends):
        return inverse_std
    known = torch.ones_like(data) if inverse_std is None else inverse_std
    before, after = ends
    first, last = CONTINUED_WEIGHT * known[..., :1], CONTINUED_WEIGHT * known[..., -1:]
    sides = (first.expand(*known.shape[:-1], before), known, last.expand(*known.shape[:-1], after))
    return torch.cat(sides, dim=-1)


@dataclass(frozen=True)
class Attenuation(InverseProblem):
    """Inverse problem of an attenuation; with `mu_water`, that of water in 1/mm, the result is in HU."""

    mu_water: float | None = field(default=None, kw_only=True)

    def display(self, volume: Tensor) -> NDArray[np.float32]:
        """Convert a solution to HU or 1/mm."""
        if self.mu_water is not None:
            volume = (volume / self.mu_water - 1) * 1000
        return volume.numpy()

    def intensity_map(self, card: Card) -> IntensityMap:
        """Intensity map: by water if its attenuation is known and the prior is in HU, else by the robust maximum."""
        if self.mu_water is None or card.intensity_range.unit != "HU":
            scale = self.problem.scales / (1 + BRIGHTEST)
            return IntensityMap(scale, scale)
        return attenuation_map(card.intensity_range, self.mu_water)


@dataclass(frozen=True)
class CTProblem(Attenuation):
    """Inverse problem of CT slice by slice."""

    cover: Cover

    def arranged(self, volume: Tensor) -> Tensor:
        """Cut the image out of a volume that holds the whole object."""
        return self.cover.cropped(volume)

    def measured(self, operator: LinearOperator, clean: Tensor, noise: Tensor) -> Problem:
        """Problem of another scan, with as many photons in each slice as its noise was made from, if it has any.

        It is truncated like this one.
        """
        assert isinstance(operator, Tomography)
        problem, rays = self.problem, self.problem.measured
        clean, noise, std = clean[..., rays], noise[..., rays], problem.noise
        inverse_std = None if problem.inverse_std is None else problem.inverse_std[..., rays]
        if inverse_std is not None:
            counted = (inverse_std != inverse_std[:, :1, :1]).flatten(1).any(dim=1) & (std > 0)
            weight = inverse_std / each_slice(torch.where(counted, std, 1.0), noise)
            photons = (problem.data[..., rays].exp() * weight.square()).flatten(1).median(dim=1).values
            by_slice, of_rays = noise_estimate.of_photons(clean, photons)
            std = torch.where(counted, by_slice, std)
            inverse_std = torch.where(counted.reshape(-1, 1, 1), of_rays, 1.0) if bool(counted.any()) else None
            noise = noise if inverse_std is None else noise / inverse_std
        noisy = clean + each_slice(std, noise) * noise
        cover = replace(self.cover, measured=replace(self.cover.measured, angles_rad=operator.geometry.angles_rad))
        weights = cover.weights(inverse_std, noisy)
        return replace(problem, operator=operator, data=cover.continued(noisy), noise_std=std, inverse_std=weights)


def attenuation_map(range_: IntensityRange, mu_water: float) -> IntensityMap:
    """Intensity map from a prior's scale, in HU, to attenuation in 1/mm, of which water has `mu_water`."""
    half = (range_.high - range_.low) / 2
    return IntensityMap(mu_water * half / 1000, mu_water * (1 + (range_.low + half) / 1000))


def build(measurement: Measurement) -> CTProblem:
    """Set up the inverse problem of a sinogram."""
    acquisition = measurement.acquisition
    assert isinstance(acquisition, CT)
    data = torch.from_numpy(measurement.data)
    cover = Cover(acquisition.geometry(data.shape[2]), acquisition.covering(data.shape[2]))
    geometry = cover.measured
    notes = [*measurement.notes, *limits(geometry)]
    noise_std, inverse_std = noise_of(measurement, acquisition, data, notes)
    slice_mm = acquisition.slice_mm or geometry.pixel_mm
    affine, in_patient = placed(measurement, geometry.rows, geometry.cols, geometry.pixel_mm, slice_mm, notes)
    operator = Tomography(cover.solved, columns=matrix_columns(measurement.part_of or len(data)))
    weights, data = cover.weights(inverse_std, data), cover.continued(data)
    inside = _support(operator, data, cover.ends, notes) if acquisition.support == "auto" else None
    problem = Problem(
        operator,
        data,
        noise_std,
        slice_mm,
        geometry.pixel_mm,
        weights,
        support=inside,
        continued=cover.ends,
    )
    mu_water = acquisition.mu_water_per_mm
    unit = "HU" if mu_water else "1/mm"
    return CTProblem(problem, affine, in_patient, unit, "ct", notes, cover, mu_water=mu_water)


def noise_of(
    measurement: Measurement, acquisition: CT, data: Tensor, notes: list[str]
) -> tuple[float | Tensor, Tensor | None]:
    """Noise of each slice, and inverse standard deviation of each ray: as given, by photons, or as the data tell."""
    given = acquisition.noise_std if acquisition.noise_std is not None else measurement.noise_std
    if acquisition.photons_per_ray is not None:
        counted, inverse_std = noise_estimate.of_photons(data, acquisition.photons_per_ray)
        if given is not None and (given == 0 or given == acquisition.noise_std):
            counted = given * counted / counted.square().mean().sqrt()
        return counted, inverse_std
    if given is not None:
        return given, None
    found, by_ray = noise_estimate.of_sinogram(data)
    grows = "" if by_ray is None else ", growing with the line integral as that of photons"
    notes.append(
        f"noise of the line integrals estimated from the sinogram: {noise_estimate.spelled(found)}{grows}"
        if bool(found.any())
        else "rays through air show no noise: the data count as free of it; if their air was set to one value, give"
        " photons_per_ray or noise_std"
    )
    return found, by_ray


def _support(operator: Tomography, data: Tensor, ends: tuple[int, int], notes: list[str]) -> Tensor | None:
    """Support of the image, and what the report should say of it; None if all pixels may be other than air.

    Where all rows of a slice end in air nothing lies beyond the detector's edges.
    """
    found = support.support(operator, data, ends)
    inside = found.inside
    if not any(ends):
        whole = torch.from_numpy(truncation.seen_whole(data.numpy(), operator.geometry)) & ~found.contradicted
        inside = inside & (torch.from_numpy(within_view(operator.geometry)) | ~whole[:, None, None])
    if bool(found.contradicted.any()):
        count = int(found.contradicted.sum())
        notes.append(
            f"in {count} of {len(data)} slices what some views show lies in the air of others: nothing is taken for air"
            " there; rotation centre, angles or detector may be wrong, or the object moved or is larger than the image"
        )
    if bool(inside.all()):
        return None
    air = 1 - inside.float().mean((1, 2))
    lowest, highest = f"{100 * float(air.min()):.0f}", f"{100 * float(air.max()):.0f}"
    share = lowest if lowest == highest else f"{lowest} to {highest}"
    notes.append(
        f"{share} % of a slice's pixels are air by rays through air, or lie beside what the views see: their"
        " attenuation is set to zero"
    )
    return inside
