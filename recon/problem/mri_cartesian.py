"""Physics of Cartesian MRI: the inverse problem of k-space, and its simulation."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.coils import espirit_maps, espirit_sets, folded_share, shaded_as_measured
from operators.errors import InputError
from operators.fourier import CartesianMRI, MapSetsMRI, ReadoutPlanes
from operators.interrupt import checkpoint
from operators.linear import random_element
from recon.measurement import kspace, noise_estimate
from recon.measurement.coils import Matrix, covariance_of, level_of
from recon.measurement.measurement import Measurement
from recon.measurement.random_fields import smooth_phase
from recon.priors.card import Card
from recon.problem import partial_fourier
from recon.problem.inverse_problem import InverseProblem, placed_stack
from recon.problem.problem import IntensityMap, Problem, robust_maximum
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.kspace import across_readout, transformed
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.affine import Affine, voxel_size
from recon.spec.preparation import KSpacePreparation
from recon.spec.report import Step
from recon.spec.simulation import Simulation

FOLDED_SHARE = 0.02
"""Fraction of the image's energy in pixels that hold more than one part of the object from which there are two sets of
coil maps."""
ATTEMPTS = 4
"""Maximum number of attempts to draw a Poisson disc."""
SQUARE = 1.2
"""Ratio of a pixel's sides up to which it counts as square."""
LEAST_POISSON = 2.0
"""Least acceleration of a Poisson disc: its corners are cut off, and the closest packing has gaps."""


FAINT = 0.02
"""Energy of a plane across the readout, relative to the strongest, below which it counts as air."""


@dataclass(frozen=True)
class VolumeProblem(InverseProblem):
    """Inverse problem of 3D k-space in planes across the readout, which lie across the slices of the volume."""

    def arranged(self, volume: Tensor) -> Tensor:
        """Arrange planes across the readout as ``(slices, rows, cols)``."""
        axes = self.problem.prior_axes
        return volume if axes is None else volume.permute(axes).contiguous()

    def intensity_map(self, card: Card) -> IntensityMap:
        """Intensity map of the volume, whose slices are not those of the problem."""
        del card
        return IntensityMap(float(self.problem.scales[0]), 0.0)


def build(measurement: Measurement) -> InverseProblem:
    """Set up the inverse problem of k-space, of 3D k-space in planes across its readout.

    Where these planes are not the slices that a prior knows, the prior is given the volume's slices all the same
    (`Problem.prior_axes`): the data terms of the planes are independent, and conjugate gradients on all of them are
    those of the 3D Fourier operator, with a step of its own for each plane.
    """
    acquisition = measurement.acquisition
    assert isinstance(acquisition, MRICartesian)
    covariance, level = measured_noise(measurement)
    notes = list(measurement.notes)
    across = acquisition.in_one_piece()
    if acquisition.readout is not None and acquisition.slice_mm is None and measurement.affine is None:
        # Partitions of 3D k-space belong together, whatever their distance.
        acquisition = acquisition.model_copy(update={"slice_mm": acquisition.pixel_mm or 1.0})
        measurement = replace(measurement, acquisition=acquisition)
        notes.append("no distance of the partitions in the input: that of the pixels is taken")
    _, _, rows, cols = measurement.data.shape
    affine, in_patient, pixel_mm, slice_mm = placed_stack(measurement, rows, cols, notes)
    looked_at = kspace.prepared(
        across_readout(measurement.data.astype(np.complex64, copy=False), acquisition.readout),
        measurement.mask,
        acquisition.maps_across(measurement.coil_maps, len(measurement.data)),
        placed=measurement.affine is not None,
        noise_known=level is not None,
        noise_std=level,
        covariance=covariance,
        settings=acquisition.preparation,
    )
    notes += looked_at.notes
    as_prepared = functools.partial(_as_prepared, readout=acquisition.readout, changes=looked_at.changes)
    measurement = replace(measurement, data=looked_at.data, mask=looked_at.mask, coil_maps=looked_at.maps)
    data = torch.from_numpy(looked_at.data)
    sampled, everywhere = _sampling(measurement, data)
    level = level if acquisition.noise_std is not None or covariance is None else looked_at.noise_std
    noise_std: float | Tensor
    if level is not None:
        noise_std = level
    else:
        noise_std = noise_estimate.of_kspace(data, everywhere)
        if acquisition.readout is not None:
            noise_std = noise_estimate.in_common(noise_std, data)
        noise_std = float(noise_std[0]) if across else noise_std  # of one measurement
        spelled = noise_estimate.spelled(torch.as_tensor(noise_std).reshape(-1))
        notes.append(f"noise of k-space estimated from its outermost samples: {spelled}")
    maps, more = _maps(measurement, data, everywhere, torch.as_tensor(noise_std).expand(len(data)), notes)
    if measurement.coil_maps is None:
        maps = shaded_as_measured(maps, looked_at.unmixing)
    steps = [*looked_at.steps, *more]
    if across:
        problem = _planes(acquisition, ReadoutPlanes(sampled, maps), data, noise_std, (slice_mm, pixel_mm), notes)
        return VolumeProblem(problem, affine, in_patient, "a.u.", "mri", notes, steps=steps, as_prepared=as_prepared)
    operator = CartesianMRI(sampled, maps) if maps.ndim < 5 else MapSetsMRI(sampled, maps)
    problem = Problem(
        operator, data * operator.mask[:, None], noise_std, slice_mm, pixel_mm, support=_known_images(maps, len(data))
    )
    mask = operator.mask.any(0)
    partial = partial_fourier.found_in(mask)
    if partial:
        wanted = (acquisition.preparation or KSpacePreparation()).partial_fourier
        step, constrained = partial_fourier.step(mask, partial, wanted=wanted)
        steps.append(step)
        notes.append(step.text)
        if constrained:
            problem = replace(problem, phase=partial_fourier.smooth_phase(operator, problem.data, partial))
    return KSpaceProblem(problem, affine, in_patient, "a.u.", "mri", notes, steps=steps, as_prepared=as_prepared)


def _as_prepared(data: NDArray[Any], readout: str | None, changes: tuple[kspace.Change, ...]) -> Tensor:
    """Samples of the scan as those of the problem: in planes across the readout, moved, of the combined coils."""
    found = across_readout(data.astype(np.complex64, copy=False), readout)
    for change in changes:
        found = change(found)
    return torch.from_numpy(found)


def _planes(
    acquisition: MRICartesian,
    planes: ReadoutPlanes,
    data: Tensor,
    noise_std: float | Tensor,
    size_mm: tuple[float, float],
    notes: list[str],
) -> Problem:
    """Problem of planes across the readout, which lie a pixel of the volume's rows or columns apart."""
    slice_mm, pixel_mm = size_mm
    if max(size_mm) > SQUARE * min(size_mm):
        notes.append(
            f"planes across the readout have pixels of {slice_mm:.2f} x {pixel_mm:.2f} mm: what smooths in them takes"
            " these for square"
        )
    data = data * planes.mask[:, None]
    scale = robust_maximum(planes.initial_image(data)) or 1.0
    solved = acquisition.solved_axes
    order = (solved.index(0), solved.index(1), solved.index(2))
    return Problem(planes, data, noise_std, pixel_mm, pixel_mm, scale=scale, prior_axes=order)


class KSpaceProblem(InverseProblem):
    """Inverse problem of Cartesian k-space, whose solution may be an image for each set of coil maps."""

    def arranged(self, volume: Tensor) -> Tensor:
        """Combine the images of several sets of coil maps: root sum of squares, with the phase of the first."""
        images = self.problem.operator.images
        if images == 1:
            return volume
        apart = volume.reshape(len(volume), images, -1, volume.shape[-1])
        return torch.polar(torch.linalg.vector_norm(apart, dim=1), apart[:, 0].angle())


def _maps(
    measurement: Measurement, data: Tensor, sampled: Tensor, noise_std: Tensor, notes: list[str]
) -> tuple[Tensor, list[Step]]:
    """Coil maps, given or estimated, with an axis of sets after that of slices if there are two, and what was done."""
    acquisition = measurement.acquisition
    assert isinstance(acquisition, MRICartesian)
    settings, width = acquisition.preparation or KSpacePreparation(), acquisition.acs_width
    field = "acquisition.preparation.map_sets"
    if measurement.coil_maps is not None:
        sets = measurement.coil_maps.shape[1] if measurement.coil_maps.ndim == 5 else 1
        if settings.map_sets not in ("auto", sets):
            raise InputError(
                f"{settings.map_sets}, but {sets} set{'s' * (sets > 1)} of coil maps are given",
                field=field,
                remedy="leave one of the two out",
            )
        return torch.from_numpy(measurement.coil_maps), []
    if settings.map_sets == 2 and data.shape[1] < 2:
        raise InputError("2, but there is one coil", field=field, remedy="leave it out")
    notes.append("coil maps by ESPIRiT from the fully sampled centre of k-space")
    if acquisition.in_one_piece() and settings.map_sets == 2:
        raise InputError("2, but planes across a readout have one", field=field, remedy="leave it out")
    held = torch.ones(len(data), dtype=torch.bool) if acquisition.readout is None else _with_signal(data, notes)
    everything, data = data, data[held]
    noise_std = noise_std[held]
    if settings.map_sets == 1 or acquisition.in_one_piece():
        maps = espirit_maps(data, sampled, width, noise_std)
        _say_empty(maps, data, notes)
        return _spread(maps, held, everything), []
    share = folded_share(data, sampled, width, noise_std)
    said = f"ESPIRiT's second eigenvalue is nearly 1 for {100 * share:.1f} % of the image's energy"
    sets = 2 if settings.map_sets == 2 or share > FOLDED_SHARE else 1
    text = f"{said}: {'the object is larger than the field of view, two sets' if sets == 2 else 'one set'} of coil maps"
    if settings.map_sets == 2:
        text = f"{said}; two sets of coil maps as asked for"
    if sets == 2:
        notes.append(text)
    step = Step(name="map_sets", changed=sets == 2, text=text, numbers={"sets": sets, "folded": round(share, 4)})
    if sets == 1:
        maps = espirit_maps(data, sampled, width, noise_std)
    else:
        maps = espirit_sets(data, sampled, sets, width, noise_std)
    _say_empty(maps, data, notes)
    return _spread(maps, held, everything), [step]


def _say_empty(maps: Tensor, data: Tensor, notes: list[str]) -> None:
    """Note slices that were measured and have no sensitivity anywhere, so that their image is zero."""
    empty = [int(i) for i in torch.arange(len(data)) if bool(data[i].any()) and not bool(maps[i].any())]
    if empty:
        listed = ", ".join(str(i) for i in empty)
        notes.append(f"slice {listed}: the centre of k-space holds no more than noise: left empty")


def _spread(maps: Tensor, held: Tensor, data: Tensor) -> Tensor:
    """Coil maps of the slices that hold something among those of all, zero for the others."""
    if bool(held.all()):
        return maps
    found = maps.new_zeros(len(data), *maps.shape[1:])
    found[held] = maps
    return found


def _known_images(maps: Tensor, slices: int) -> Tensor | None:
    """Pixels of the images that are not known to be empty: of the second one, those that its maps see."""
    if maps.ndim < 5:
        return None
    seen = (maps != 0).any(2)
    seen[:, 0] = True
    return seen.reshape(len(seen), -1, seen.shape[-1]).expand(slices, -1, -1)


def measured_noise(measurement: Measurement) -> tuple[Matrix | None, float | None]:
    """Covariance of the coils' noise, if there is a noise scan, and the noise's level as it is given or measured."""
    scan = measurement.files.get("noise_scan")
    covariance = measurement.noise_covariance if scan is None else covariance_of(scan)
    given = measurement.acquisition.noise_std
    level = measurement.noise_std if given is None and scan is None else given
    return covariance, level_of(covariance) if level is None and covariance is not None else level


def _with_signal(data: Tensor, notes: list[str]) -> Tensor:
    """Mask of the planes across the readout that are not only air, whose coils nothing tells."""
    energy = data.abs().square().sum((1, 2, 3))
    held = energy > FAINT * energy.max()
    if not bool(held.all()):
        notes.append(
            f"{int((~held).sum())} of {len(held)} planes across the readout hold no more than noise: left empty"
        )
    return held


def _sampling(measurement: Measurement, data: Tensor) -> tuple[Tensor, Tensor]:
    """Return the operator's mask, one for all slices or one per slice, and the points that every slice has."""
    if measurement.mask is not None:
        mask = torch.from_numpy(measurement.mask)
        return mask, mask
    sampled = (data != 0).any(dim=1)
    everywhere = sampled[sampled.any(dim=(1, 2))].all(0)
    if bool((sampled == everywhere).all(dim=(1, 2)).logical_or(~sampled.any(dim=(1, 2))).all()):
        return everywhere, everywhere
    return sampled, everywhere


def simulate(
    volume: Volume, affine: Affine, given: MRICartesian, settings: Simulation, first_slice: int = 0
) -> Measurement:
    """Measure a magnitude volume ``(slices, rows, cols)``; see `recon.measurement.simulate.simulate`."""
    if given.readout is not None and settings.motion_pixels:
        raise InputError(
            "3D k-space is simulated without motion", field="input.simulate.motion_pixels", remedy="leave it out"
        )
    col_mm, _, slice_mm = voxel_size(affine)
    acquisition = given.model_copy(update={"pixel_mm": col_mm, "slice_mm": slice_mm})
    provenance = {"simulated": settings.model_dump(mode="json")}
    size = (volume.shape[1], volume.shape[2])
    rows, cols = settings.field_of_view(size[0]), size[1]
    mask = sampling_mask(*given.solved_shape((len(volume), 1, rows, cols))[1:], settings)
    if settings.model == "ideal":
        data, noise_std = _ideal(volume, settings)
        return Measurement(
            data=_sampled(data.numpy(), mask, given.readout),
            acquisition=acquisition,
            affine=affine,
            truth=volume,
            noise_std=noise_std,
            mask=mask.numpy(),
            provenance=provenance,
        )
    from recon.problem import mri_simulation  # takes its time, and what was measured needs none of it

    by_point = settings.pattern == "poisson" if given.readout is None else given.readout != "cols"
    samples = mri_simulation.cartesian(size, (rows, cols), by_point=by_point)
    whole, truth = mri_simulation.measured(volume, affine, settings, samples, samples, first_slice)
    return Measurement(
        data=_sampled(whole, mask, given.readout),
        acquisition=acquisition,
        affine=mri_simulation.result_affine(affine, size[0], rows),
        truth=truth,
        mask=mask.numpy(),
        notes=[mri_simulation.REALISTIC],
        provenance=provenance,
    )


def _sampled(whole: NDArray[np.complex64], mask: Tensor, readout: str | None) -> NDArray[np.complex64]:
    """Sample k-space of slices ``(slices, coils, rows, cols)``, or 3D k-space, for which that is transformed first."""
    if readout is None:
        kept, kspace_of_all = mask.numpy(), whole
    else:
        axis = {"slices": 0, "rows": 2, "cols": 3}[readout]
        kept = np.expand_dims(mask.numpy(), (1, axis) if axis else (0, 1))
        kspace_of_all = transformed(whole, 0, inverse=False)
    sampled: NDArray[np.complex64] = kspace_of_all * kept
    return sampled


def _ideal(volume: Volume, settings: Simulation) -> tuple[Tensor, float]:
    """K-space by the operator that reconstructs it, with birdcage maps, and its noise, which is known."""
    slices, rows, cols = volume.shape
    generator = torch.Generator().manual_seed(settings.seed)
    phase = smooth_phase(rows, cols, generator)
    image = torch.polar(torch.from_numpy(volume), phase.expand(slices, -1, -1).contiguous())
    everywhere = torch.ones(rows, cols, dtype=torch.bool)
    operator = CartesianMRI(everywhere, birdcage_maps(settings.coils, rows, cols))
    noise_std = settings.noise_std * float(volume.max())
    noise = random_element(operator.range, slices, generator) * noise_std
    return operator.forward(image) + noise, noise_std


def birdcage_maps(coils: int, rows: int, cols: int) -> Tensor:
    """Birdcage sensitivities ``(coils, rows, cols)`` complex64 with unit norm over coils."""
    from sigpy.mri.sim import birdcage_maps as sigpy_maps

    maps = torch.from_numpy(np.asarray(sigpy_maps((coils, rows, cols)), dtype=np.complex64))
    normalized: Tensor = maps / torch.linalg.vector_norm(maps, dim=0).clamp(min=1e-6)
    return normalized


def sampling_mask(rows: int, cols: int, settings: Simulation) -> Tensor:
    """Sampling mask ``(rows, cols)``: every R-th row or a Poisson disc, with a fully sampled centre.

    Raises
    ------
    InputError
        If no Poisson disc of that acceleration is found.
    """
    if settings.pattern == "equispaced":
        mask = torch.zeros(rows, dtype=torch.bool)
        mask[:: round(settings.acceleration)] = True
        width = max(round(settings.center_fraction * rows), 8)
        mask[rows // 2 - width // 2 : rows // 2 - width // 2 + width] = True
        return mask[:, None].expand(rows, cols).clone()
    from sigpy.mri import poisson

    if settings.acceleration < LEAST_POISSON:
        raise InputError(
            f"a Poisson disc is undersampled {LEAST_POISSON:g} times at least, got {settings.acceleration:g}",
            field="input.simulate.acceleration",
            remedy="take a higher acceleration, or the equispaced pattern",
        )
    width = max(round(settings.center_fraction * min(rows, cols)), 16)
    for attempt in range(ATTEMPTS):
        checkpoint()
        seed = settings.seed + attempt * 1_000_003
        try:
            drawn = poisson((rows, cols), settings.acceleration, calib=(width, width), seed=seed % 2**32)
        except ValueError:
            continue  # with some seeds sigpy's sampling ends with its first point
        return torch.from_numpy(np.abs(drawn) > 0)
    raise InputError(
        f"no Poisson disc of {rows} x {cols} points was found that is undersampled {settings.acceleration:g} times",
        field="input.simulate.acceleration",
        remedy="take another acceleration, or the equispaced pattern",
    )
