"""Preparation of measured CT data, step by step: raw counts, or line integrals, to what is reconstructed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError
from recon.measurement.counts import SMALLEST_TRANSMISSION, Counts
from recon.measurement.measurement import Measurement, PreparationRecord, ScanFindings
from recon.measurement.preparation import (
    binning,
    centre,
    drift,
    elements,
    fields,
    hardening,
    phase,
    stripes,
    views,
    zingers,
)
from recon.measurement.sampled import sampled
from recon.spec.acquisitions.ct import CT
from recon.spec.preparation import BeamHardening, Preparation
from recon.spec.report import Step

Data = NDArray[np.float32]


def prepare(
    measurement: Measurement,
    counts: Counts | None = None,
    *,
    planning: bool = False,
    like: ScanFindings | None = None,
) -> Measurement:
    """Prepare measured CT data as ``acquisition.preparation`` says.

    What is one for a scan (views that are left, drift, rotation centre, a polynomial) is told from some of the slices:
    see `recon.measurement.sampled`.

    Parameters
    ----------
    measurement
        Line integrals, or the projections of `counts`, with their complete acquisition.
    counts
        Raw counts, where these are what was measured.
    planning
        Whether only shape, geometry and plausibility are asked for: what changes none of them is left out.
    like
        What was found in other rows of the scan, and holds for these.

    Returns
    -------
    Measurement
        Its acquisition has the geometry and the views that are left, and no preparation, since that is done.

    Raises
    ------
    InputError
        If a step's settings, or the data, make it impossible.
    """
    acquisition = measurement.acquisition
    assert isinstance(acquisition, CT)
    acquisition.check_views(measurement.data.shape)
    work = _Work(acquisition, measurement.data.shape[1], measurement.noise_std, like)
    mask = measurement.files.get("preparation.mask")
    if counts is not None:
        data, before = work.of_counts(counts, mask)
    else:
        data, before = work.of_line_integrals(measurement.data, mask)
    data = work.without_lost_frames(data)
    work.mend(data, counted=counts is not None)
    work.find_centre(data, planning=planning)
    data = work.binned(data)
    work.filter(data, planning=planning)
    return work.prepared(measurement, data, before)


class _Work:
    """Work on a measurement: its data go through the steps, and what these have come to is here.

    Parameters
    ----------
    acquisition
        Acquisition, whose geometry follows the data.
    total
        Number of views in the file.
    noise_std
        Noise of the line integrals, if it is known.
    like
        What was found in other rows; None if it is to be found.
    """

    def __init__(self, acquisition: CT, total: int, noise_std: float | None, like: ScanFindings | None) -> None:
        self.acquisition, self.noise_std, self.like = acquisition, noise_std, like
        self.settings = acquisition.preparation or Preparation()
        self.angles = acquisition.angles()
        self.steps: list[Step] = []
        self.photons: float | None = None
        self.drift: Data | None = None
        self.axis: float | None = None
        self.beam_hardening: tuple[float, ...] | None = None
        self.other_grid = False
        given = self.settings.exclude_views
        self.total = total
        self.kept = like.kept if like is not None else views.excluded(given, total)
        if given and like is None:
            left = sorted(set(given))
            text = f"{len(left)} of {total} views are left out as the specification says"
            self.steps.append(Step(name="exclude_views", changed=True, text=text, numbers={"views": left}))

    def of_counts(self, counts: Counts, mask: NDArray[Any] | None) -> tuple[Data, Data]:
        """Line integrals of raw counts, and those of the middle slice before any was mended."""
        wanted = counts if len(self.kept) == self.total else counts.views(self.kept)
        wanted.check()
        found = fields.line_integrals(wanted, self.settings, _fitting(mask, wanted.projections.shape[1:]))
        self.steps += found.steps
        if self.acquisition.photons_per_ray is None and self.acquisition.noise_std is None:
            told = found.photons_per_ray if self.like is None else self.like.photons_per_ray
            self.photons = None if told is None else min(max(told, 10.0), 1e12)
            self._change({"photons_per_ray": self.photons})
        if wanted.shifts is not None:
            _move(found.data, wanted.shifts)
        if wanted.kept_rows is None:
            return found.data, found.middle
        data = np.ascontiguousarray(found.data[slice(*wanted.kept_rows)])
        return data, data[len(data) // 2].copy()

    def of_line_integrals(self, given: NDArray[np.generic], mask: NDArray[Any] | None) -> tuple[Data, Data]:
        """Line integrals as they were read, which the steps may change in place, and those of the middle slice."""
        data = np.array(given if len(self.kept) == self.total else given[:, self.kept], dtype=np.float32)
        before = data[len(data) // 2].copy()
        bad = _fitting(mask, (data.shape[0], data.shape[2]))
        if bad is not None:
            self.steps.append(_filled(data, bad))
        return data, before

    def without_lost_frames(self, data: Data) -> Data:
        """Leave out the views of frames that failed; the acquisition keeps the angles of the others."""
        if self.settings.lost_frames and self.like is None:
            stay, said = views.left_out(views.lost(data[sampled(len(data))], self._order()), self.kept)
            self.steps.append(said)
            if len(stay) < len(self.kept):
                data, self.kept = np.ascontiguousarray(data[:, stay]), self.kept[stay]
        if len(self.kept) < self.total:
            self._change(self.acquisition.of_views(self.kept.tolist()))
        return data

    def mend(self, data: Data, *, counted: bool) -> None:
        """Remove zingers and drift, in place."""
        if self.settings.zingers:
            self.steps.append(zingers.remove(data, self._order()))
        if counted:
            self.count_starved(data)
        if self.like is not None:
            self.drift = self.like.drift
        elif self.settings.beam_drift:
            said, self.drift = drift.found(data[sampled(len(data))], counted=counted)
            self.steps.append(said)
        if self.drift is not None:
            data -= self.drift

    def count_starved(self, data: Data) -> None:
        """Count samples that hardly a photon reached, of raw counts."""
        low = int((data > -math.log(1.001 * SMALLEST_TRANSMISSION)).sum())
        text = "every sample has a signal"
        if low:
            text = f"{low} of {data.size} transmissions are below {SMALLEST_TRANSMISSION:g}, and set to it"
        numbers: dict[str, int | float | list[int]] = {"samples": low}
        self.steps.append(
            Step(name="smallest_transmission", changed=False, warning=low > 0, text=text, numbers=numbers)
        )

    def find_centre(self, data: Data, *, planning: bool) -> None:
        """Find the rotation centre, or check it, which changes nothing and is left out if only a plan is made."""
        if planning and self.acquisition.rotation_center_column != "auto":
            return
        if self.like is not None:
            self.axis = self.like.rotation_center_column
        else:
            rays = self.acquisition.opposite_rays(data)
            said, self.axis = centre.step(rays[sampled(len(rays))], self.acquisition)
            self.steps.append(said)
        if self.axis is not None:
            self._change({"rotation_center_column": self.axis})

    def binned(self, data: Data) -> Data:
        """Average neighbours, if that is asked for."""
        by = self.settings.binning
        if by is None:
            return data
        data, said, changes = binning.apply(data, by, self.acquisition)
        self.steps.append(said)
        self._change(changes)
        if self.noise_std is not None:
            self.noise_std /= math.sqrt(by.rows * by.views * by.columns)
        self.other_grid = by.rows * by.columns > 1
        return data

    def filter(self, data: Data, *, planning: bool) -> None:
        """Apply the filters that are asked for, in place; if only a plan is made, none that does not change it."""
        settings = self.settings
        if settings.phase is not None:
            self.steps.append(phase.retrieve(data, settings.phase, self.acquisition))
        if planning:
            return
        if settings.stripes is not None:
            angles = self.acquisition.angles() or range(data.shape[1])
            self.steps.append(stripes.remove(data, settings.stripes, np.argsort(angles, kind="stable")))
        wanted, found = settings.beam_hardening, None if self.like is None else self.like.beam_hardening
        if wanted is not None:
            wanted = wanted if found is None else BeamHardening(coefficients=found)
            said, self.beam_hardening = hardening.correct(data, wanted, self.acquisition)
            self.steps.append(said)

    def prepared(self, measurement: Measurement, data: Data, before: Data) -> Measurement:
        """The measurement with its prepared data, and what the steps found."""
        self._change({"preparation": None})
        notes = [*measurement.notes, *(step.text for step in self.steps if step.changed or step.warning)]
        if self.other_grid and (measurement.truth is not None or measurement.affine is not None):
            notes.append("the known volume and the place in the patient are those of another grid, and are left out")
        scan = ScanFindings(self.kept, self.photons, self.drift, self.axis, self.beam_hardening)
        return replace(
            measurement,
            data=data,
            acquisition=self.acquisition,
            noise_std=self.noise_std,
            truth=None if self.other_grid else measurement.truth,
            affine=None if self.other_grid else measurement.affine,
            files={name: array for name, array in measurement.files.items() if name != "preparation.mask"},
            preparation=PreparationRecord(self.steps, scan, before, data[len(data) // 2].copy()),
            notes=notes,
        )

    def _order(self) -> NDArray[np.intp]:
        """Views that are left in the order of their angles."""
        return np.argsort(self.kept if self.angles is None else np.asarray(self.angles)[self.kept], kind="stable")

    def _change(self, fields_: dict[str, Any]) -> None:
        """Change fields of the acquisition."""
        self.acquisition = self.acquisition.model_copy(update=fields_)


def _move(data: Data, shifts: NDArray[np.float64]) -> None:
    """Move each view of ``(slices, views, detectors)`` by rows and columns, in place."""
    from scipy.ndimage import shift

    rows = bool(shifts[0].any())
    for view, move in enumerate(shifts.T):
        data[:, view] = shift(data[:, view], move if rows else (0.0, move[1]), order=3, mode="nearest")


def _fitting(mask: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """The mask of bad elements as ``(rows, columns)``."""
    if mask is None:
        return None
    if mask.shape not in (shape, (1, shape[1]), (shape[1],)):
        raise GeometryError(
            f"shape {mask.shape}, the detector has {shape} (rows, columns)",
            field="acquisition.preparation.mask",
            remedy="give one value per detector element of all rows of the input, or of a row",
        )
    return np.broadcast_to(mask.astype(bool), shape)


def _filled(data: Data, mask: NDArray[np.bool_]) -> Step:
    """Fill in elements of line integrals that the mask names, in place."""
    if mask.all(axis=1).any():
        raise GeometryError("a row has no good element", field="acquisition.preparation.mask", remedy="mask fewer")
    for sinogram, bad in zip(data, mask, strict=True):
        elements.fill(sinogram, bad)
    text = f"{int(mask.sum())} of {mask.size} detector elements are filled in along their row"
    return Step(name="bad_elements", changed=bool(mask.any()), text=text, numbers={"given": int(mask.sum())})
