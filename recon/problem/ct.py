"""Physics of CT acquisitions: the inverse problem of a sinogram, and its simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.linear import LinearOperator, each_slice
from operators.tomography import Tomography
from recon.measurement import noise_estimate
from recon.measurement.measurement import Measurement
from recon.priors.card import Card, IntensityRange
from recon.problem.inverse_problem import InverseProblem, placed
from recon.problem.problem import IntensityMap, Problem
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.ct import CT, WATER_PER_MM
from recon.spec.affine import Affine
from recon.spec.simulation import Simulation

BRIGHTEST = 0.6
"""Value on the prior's scale to which the robust maximum of a CT scan without a water value is mapped: dense bone."""


@dataclass(frozen=True)
class CTProblem(InverseProblem):
    """Inverse problem of CT; with `mu_water`, attenuation of water in 1/mm, the result is in HU."""

    mu_water: float | None = None

    def display(self, volume: Tensor) -> NDArray[np.float32]:
        """Convert a solution to HU or 1/mm."""
        if self.mu_water is not None:
            volume = (volume / self.mu_water - 1) * 1000
        return volume.numpy()

    def measured(self, operator: LinearOperator, clean: Tensor, noise: Tensor) -> Problem:
        """Problem of another scan, with as many photons in each slice as its noise was made from, if it has any."""
        problem = self.problem
        std, inverse_std = problem.noise, problem.inverse_std
        if inverse_std is not None:
            counted = (inverse_std != inverse_std[:, :1, :1]).flatten(1).any(dim=1) & (std > 0)
            by_ray = problem.data.exp() * (inverse_std / each_slice(torch.where(counted, std, 1.0), noise)).square()
            by_slice, of_rays = noise_estimate.of_photons(clean, by_ray.flatten(1).median(dim=1).values)
            std = torch.where(counted, by_slice, std)
            inverse_std = torch.where(counted.reshape(-1, 1, 1), of_rays, 1.0) if bool(counted.any()) else None
            noise = noise if inverse_std is None else noise / inverse_std
        noisy = clean + each_slice(std, noise) * noise
        return replace(problem, operator=operator, data=noisy, noise_std=std, inverse_std=inverse_std)

    def intensity_map(self, card: Card) -> IntensityMap:
        """Intensity map: by water if its attenuation is known and the prior is in HU, else by the robust maximum."""
        if self.mu_water is None or card.intensity_range.unit != "HU":
            scale = self.problem.scales / (1 + BRIGHTEST)
            return IntensityMap(scale, scale)
        return attenuation_map(card.intensity_range, self.mu_water)


def attenuation_map(range_: IntensityRange, mu_water: float) -> IntensityMap:
    """Intensity map from a prior's scale, in HU, to attenuation in 1/mm, of which water has `mu_water`."""
    half = (range_.high - range_.low) / 2
    return IntensityMap(mu_water * half / 1000, mu_water * (1 + (range_.low + half) / 1000))


def build(measurement: Measurement) -> CTProblem:
    """Set up the inverse problem of a sinogram."""
    acquisition = measurement.acquisition
    assert isinstance(acquisition, CT)
    data = torch.from_numpy(measurement.data)
    geometry = acquisition.geometry(data.shape[2])
    notes = list(measurement.notes)
    noise_std, inverse_std = _noise(measurement, acquisition, data, notes)
    slice_mm = acquisition.slice_mm or geometry.pixel_mm
    affine, in_patient = placed(measurement, geometry.rows, geometry.cols, geometry.pixel_mm, slice_mm, notes)
    problem = Problem(Tomography(geometry), data, noise_std, slice_mm, geometry.pixel_mm, inverse_std)
    mu_water = acquisition.mu_water_per_mm
    return CTProblem(problem, affine, in_patient, "HU" if mu_water else "1/mm", "ct", notes, mu_water)


def _noise(
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


def simulate(volume: Volume, affine: Affine, given: CT, settings: Simulation) -> Measurement:
    """Measure a volume ``(slices, rows, cols)`` in HU; see `recon.measurement.simulate.simulate`."""
    acquisition, shape = given.simulated(volume.shape, affine, settings)
    mu_water = acquisition.mu_water_per_mm or WATER_PER_MM
    attenuation = torch.from_numpy(mu_water * (1 + volume / 1000)).clamp(min=0)
    line_integrals = Tomography(acquisition.geometry(shape[2])).forward(attenuation)
    noise_std = 0.0
    if settings.photons_per_ray is not None:
        generator = torch.Generator().manual_seed(settings.seed)
        line_integrals, noise_std = photon_noise(line_integrals, settings.photons_per_ray, generator)
    return Measurement(
        data=line_integrals.numpy(),
        acquisition=acquisition,
        affine=affine,
        truth=((attenuation / mu_water - 1) * 1000).numpy(),
        noise_std=noise_std,
        provenance={"simulated": settings.model_dump(mode="json")},
    )


def photon_noise(line_integrals: Tensor, photons_per_ray: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Add photon noise to line integrals; also returns the noise's root mean square over the rays."""
    expected = photons_per_ray * torch.exp(-line_integrals.double())
    counts = torch.poisson(expected, generator=generator).clamp(min=1.0)
    noisy = -torch.log(counts / photons_per_ray)
    return noisy.float(), float((1 / expected.clamp(min=1.0)).mean().sqrt())
