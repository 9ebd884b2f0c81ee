"""Physics of CT of a whole volume, whose rays cross slices: the inverse problem, and its simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from operators import continuation, truncation
from operators.geometry import limits
from operators.interrupt import checkpoint
from operators.linear import LinearOperator, each_slice
from operators.volume_geometry import VolumeBeam
from operators.volume_tomography import VolumeTomography
from recon.measurement import noise_estimate
from recon.measurement.detection import photon_noise
from recon.measurement.fine_grid import refined
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import SAME_OPERATOR
from recon.measurement.spectrum import Spectrum, bone_fraction
from recon.priors.noise import key
from recon.problem.ct import Attenuation, continued_weights, noise_of
from recon.problem.ct_simulation import REALISTIC, USUAL_MOTION_RAD, detected
from recon.problem.inverse_problem import placed
from recon.problem.problem import Problem
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.ct import WATER_PER_MM
from recon.spec.acquisitions.ct_volume import EDGE_SHARE, CTVolume
from recon.spec.affine import Affine
from recon.spec.simulation import Simulation

FINER = 2
"""Voxels of the object along a voxel of the result, in all three directions."""
ELEMENT_RAYS, VIEW_RAYS = 2, 3
"""Rays along each side of a detector element, and positions of the scanner during a view, of a simulation."""


@dataclass(frozen=True)
class VolumeProblem(Attenuation):
    """Inverse problem of one volume, whose slices rays cross."""

    shape: tuple[int, int, int]
    """Slices, rows and columns of the result, in the middle of what is solved."""

    def arranged(self, volume: Tensor) -> Tensor:
        """Cut the result out of a volume."""
        kept = [
            slice((solved - size) // 2, (solved - size) // 2 + size)
            for solved, size in zip(volume.shape[1:], self.shape, strict=True)
        ]
        return volume[0][tuple(kept)].contiguous()

    def measured(self, operator: LinearOperator, clean: Tensor, noise: Tensor) -> Problem:
        """Problem of another scan, with as many photons as this one's noise was made from, if it has any."""
        assert isinstance(operator, VolumeTomography)
        problem, rays, ends = self.problem, self.problem.measured, self.problem.continued
        clean, noise, std = clean[..., rays], noise[..., rays], problem.noise
        inverse_std = None if problem.inverse_std is None else problem.inverse_std[..., rays]
        if inverse_std is not None and bool((std > 0).all()):
            data = problem.data[..., rays]
            photons = (data.exp() * (inverse_std / each_slice(std, noise)).square()).flatten().median()
            by_row, of_rays = noise_estimate.of_photons(by_rows(clean), photons)
            std, inverse_std = together(by_row, of_rays)
            noise = noise if inverse_std is None else noise / inverse_std
        noisy = clean + each_slice(std, noise) * noise
        weights = continued_weights(inverse_std, noisy, ends)
        data = continued(by_rows(noisy), operator.geometry, ends)
        return replace(problem, operator=operator, data=as_views(data), noise_std=std, inverse_std=weights)


def build(measurement: Measurement) -> VolumeProblem:
    """Set up the inverse problem of views ``(detector rows, views, columns)``."""
    acquisition = measurement.acquisition
    assert isinstance(acquisition, CTVolume)
    rows = torch.from_numpy(measurement.data)
    geometry = acquisition.volume_geometry(measurement.data.shape)
    central = geometry.central()
    notes = [*measurement.notes, *([] if central is None else limits(central)), *acquisition.not_seen(geometry)]
    noise_std, inverse_std = noise_of(measurement, acquisition, rows, notes)
    std = torch.as_tensor(noise_std, dtype=torch.float32).expand(len(rows))
    noise, weights = together(std, inverse_std)
    affine, in_patient = placed(measurement, geometry.rows, geometry.cols, geometry.pixel_mm, geometry.slice_mm, notes)
    solved, ends = acquisition.covering_geometry(measurement.data.shape), acquisition.missing_columns(geometry)
    problem = Problem(
        VolumeTomography(solved),
        as_views(continued(rows, solved, ends)),
        noise,
        geometry.slice_mm,
        geometry.pixel_mm,
        continued_weights(weights, as_views(rows), ends),
        continued=ends,
    )
    mu_water = acquisition.mu_water_per_mm
    unit = "HU" if mu_water else "1/mm"
    return VolumeProblem(problem, affine, in_patient, unit, "ct", notes, geometry.volume_shape, mu_water=mu_water)


def continued(rows: Tensor, solved: VolumeBeam, ends: tuple[int, int]) -> Tensor:
    """Continue rows ``(detector rows, views, columns)`` beyond the detector, each as a row of a fan beam.

    Parameters
    ----------
    solved
        Geometry of the rows with as many columns more at either end as `ends` says.
    """
    if not any(ends):
        return rows
    before, after = ends
    measured = solved.extended(-before, -after)
    plane = measured.plane()
    assert plane is not None  # it told the ends
    reach_mm = min(solved.rows, solved.cols) * solved.pixel_mm / 2
    if measured.reversed_columns:
        rows, before, after = rows.flip(-1), after, before
    found = torch.from_numpy(
        continuation.continued(rows.numpy(), plane, before, after, reach_mm, models=truncation.JUDGED_SLICES)
    )
    return found.flip(-1) if measured.reversed_columns else found


def as_views(rows: Tensor) -> Tensor:
    """Rows ``(detector rows, views, columns)`` as views of a volume ``(1, views, detector rows, columns)``."""
    return rows.transpose(0, 1)[None].contiguous()


def by_rows(data: Tensor) -> Tensor:
    """Views ``(1, views, detector rows, columns)`` as ``(detector rows, views, columns)``."""
    return data[0].transpose(0, 1).contiguous()


def together(std: Tensor, inverse_std: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Noise of a whole measurement, ``(1,)``, from that of its rows, and inverse noise of each ray in its units.

    Without `inverse_std`, ``(detector rows, views, columns)``, all rays are taken to have the same noise.
    """
    whole = std.square().mean().sqrt()
    if inverse_std is None or not bool((std > 0).all()):
        return whole[None], None
    relative = inverse_std * (whole / std).reshape(-1, 1, 1)
    return whole[None], relative.transpose(0, 1)[None].contiguous()


def simulate(
    volume: Volume, affine: Affine, given: CTVolume, settings: Simulation, first_slice: int = 0
) -> Measurement:
    """Measure a volume ``(slices, rows, cols)`` in HU; see `recon.measurement.simulate.simulate`.

    Noise is keyed by (seed, view), errors of the detector by the seed. The object goes on above and below the volume as
    its outermost slices are, air or not: ends cut in two would be edges that no patient has.
    """
    del first_slice
    acquisition, shape = given.simulated(volume.shape, affine, settings)
    mu_water = acquisition.mu_water_per_mm or WATER_PER_MM
    attenuation = torch.from_numpy(mu_water * (1 + volume / 1000)).clamp(min=0)
    geometry = acquisition.model_copy(update={"object_goes_on": True, "object_mm": None}).covering_geometry(shape)
    beyond = (geometry.slices - len(attenuation)) // 2
    long = torch.cat([attenuation[:1].expand(beyond, -1, -1), attenuation, attenuation[-1:].expand(beyond, -1, -1)])
    ideal = settings.model == "ideal"
    views = _ideal(long, geometry, settings) if ideal else _realistic(long, mu_water, geometry, settings)
    data = views.transpose(0, 1).contiguous().numpy()
    acquisition, seen = acquisition.completed_from(data)
    if acquisition.object_goes_on is None and bool(attenuation[[0, -1]].amax() > EDGE_SHARE * attenuation.amax()):
        acquisition, seen = acquisition.going_on("the volume's first and last slice")
    return Measurement(
        data=data,
        acquisition=acquisition,
        affine=affine,
        truth=((attenuation / mu_water - 1) * 1000).numpy(),
        noise_std=0.0 if ideal and settings.photons_per_ray is None else None,
        notes=[SAME_OPERATOR if ideal else REALISTIC, *seen],
        provenance={"simulated": settings.model_dump(mode="json")},
    )


def _ideal(attenuation: Tensor, geometry: VolumeBeam, settings: Simulation) -> Tensor:
    """Line integrals ``(views, detector rows, columns)`` by the operator that reconstructs them."""
    clean = VolumeTomography(geometry).forward(attenuation[None])[0]
    photons = settings.photons_per_ray
    if photons is None:
        return clean
    generators = (torch.Generator().manual_seed(key(settings.seed, view)) for view in range(len(clean)))
    return torch.stack([photon_noise(one, photons, each)[0] for one, each in zip(clean, generators, strict=True)])


def _realistic(attenuation: Tensor, mu_water: float, geometry: VolumeBeam, settings: Simulation) -> Tensor:
    """Line integrals as from the counts of a scanner, view by view."""
    finer = _refined(attenuation)
    spectrum = None if settings.tube_voltage_kv is None else Spectrum.of_tube(settings.tube_voltage_kv)
    bone = None if spectrum is None else bone_fraction((finer / mu_water - 1) * 1000) * finer
    rays = _sub_rays(geometry, settings)
    found = torch.empty(geometry.data_shape)
    for view in range(geometry.views):
        checkpoint()
        operator = VolumeTomography(rays.views_of(range(view * VIEW_RAYS, (view + 1) * VIEW_RAYS)))
        if spectrum is None or bone is None:
            passed = torch.exp(-operator.forward(finer[None])[0].double())
        else:
            water, dense = (operator.forward(part[None])[0].double() for part in (finer - bone, bone))
            passed = spectrum.transmission(water, dense)
        split = passed.reshape(VIEW_RAYS, geometry.detector_rows, ELEMENT_RAYS, geometry.detector_columns, ELEMENT_RAYS)
        seen = detected(split.mean(dim=(0, 2, 4)), settings, key(settings.seed, view), settings.seed)
        integrals = -torch.log(seen)
        found[view] = integrals if spectrum is None else spectrum.corrected(integrals)
    return found


def _refined(volume: Tensor) -> Tensor:
    """The object `FINER` times as fine along slices, rows and columns, see `recon.measurement.fine_grid.refined`."""
    flat = refined(volume, FINER)
    # Along slices as along rows: each of the fine columns is a stack of its own.
    upright = flat.permute(1, 0, 2).contiguous()
    return _finer_slices(upright).permute(1, 0, 2).contiguous()


def _finer_slices(images: Tensor) -> Tensor:
    """Refine ``(stacks, slices, columns)`` along slices alone: refined along both, and averaged along columns."""
    stacks, slices, columns = images.shape
    if slices == 1:
        return images.repeat_interleave(FINER, dim=1)
    both = torch.cat([refined(some, FINER).reshape(len(some), -1, columns, FINER).mean(3) for some in images.split(64)])
    return both.reshape(stacks, slices * FINER, columns)


def _sub_rays(g: VolumeBeam, settings: Simulation) -> VolumeBeam:
    """Geometry of the rays of all elements and views, through an object `FINER` times as fine."""
    motion = settings.view_motion_rad
    if motion is None:
        gaps = [b - a for a, b in pairwise(sorted(g.angles_rad)) if b - a > 1e-9]
        motion = min(USUAL_MOTION_RAD, median(gaps)) if gaps else USUAL_MOTION_RAD
    within = [motion * ((index + 0.5) / VIEW_RAYS - 0.5) for index in range(VIEW_RAYS)]
    turned = torch.stack([torch.from_numpy(g.turned(angle).vectors) for angle in within], dim=1).reshape(-1, 4, 3)
    vectors = torch.cat([turned[:, :2], turned[:, 2:] / ELEMENT_RAYS], dim=1).reshape(-1, 12).numpy()
    return replace(
        g,
        slices=g.slices * FINER,
        rows=g.rows * FINER,
        cols=g.cols * FINER,
        pixel_mm=g.pixel_mm / FINER,
        slice_mm=g.slice_mm / FINER,
        vectors=vectors,
        detector_rows=g.detector_rows * ELEMENT_RAYS,
        detector_columns=g.detector_columns * ELEMENT_RAYS,
    )
