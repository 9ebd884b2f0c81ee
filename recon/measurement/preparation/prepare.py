"""Preparation of measured CT data, step by step: raw counts, or line integrals, to what is reconstructed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError
from recon.measurement.counts import Counts
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
        Whether only shape, geometry and plausibility are asked for: filters that change none of them are left out.
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
    settings = acquisition.preparation or Preparation()
    acquisition.check_views(measurement.data.shape)
    total = measurement.data.shape[1]
    state = _State(acquisition, np.arange(total), acquisition.angles(), measurement.noise_std)
    if like is None:
        _exclude(state, settings)
    else:
        state.kept = like.kept
    mask = measurement.files.get("preparation.mask")
    if counts is not None:
        data, before = _from_counts(state, counts, settings, mask)
    else:
        data, before = _copied(state, measurement.data, mask)
    some = sampled(len(data))
    if settings.lost_frames and like is None:
        stay, said = views.left_out(views.lost(data[some], state.order()), state.kept)
        state.steps.append(said)
        if len(stay) < len(state.kept):
            data, state.kept = np.ascontiguousarray(data[:, stay]), state.kept[stay]
    if settings.zingers:
        state.steps.append(zingers.remove(data, state.order()))
    drifted = None
    if like is not None:
        drifted = like.drift
    elif settings.beam_drift:
        said, drifted = drift.found(data[some], counted=counts is not None)
        state.steps.append(said)
    if drifted is not None:
        data -= drifted
    if state.angles is not None and len(state.kept) < total:
        state.change({"angles_rad": [state.angles[view] for view in state.kept]})
    axis = None if like is None else like.rotation_center_column
    if axis is not None:
        state.change({"rotation_center_column": axis})
    elif like is None:
        said, axis = centre.step(data[some], state.acquisition)
        state.take(said, {} if axis is None else {"rotation_center_column": axis})
    moved = False
    if settings.binning is not None:
        data, said, changes = binning.apply(data, settings.binning, state.acquisition)
        state.take(said, changes)
        averaged = settings.binning.rows * settings.binning.views * settings.binning.columns
        state.noise_std = None if state.noise_std is None else state.noise_std / math.sqrt(averaged)
        moved = settings.binning.rows * settings.binning.columns > 1
    if settings.phase is not None:
        state.steps.append(phase.retrieve(data, settings.phase, state.acquisition))
    if settings.stripes is not None and not planning:
        angles = state.acquisition.angles() or range(data.shape[1])
        state.steps.append(stripes.remove(data, settings.stripes, np.argsort(angles, kind="stable")))
    coefficients = None if like is None else like.beam_hardening
    if settings.beam_hardening is not None and not planning:
        wanted = settings.beam_hardening if coefficients is None else BeamHardening(coefficients=coefficients)
        said, coefficients = hardening.correct(data, wanted, state.acquisition)
        state.steps.append(said)
    state.change({"preparation": None})
    notes = [*measurement.notes, *(step.text for step in state.steps if step.changed or step.warning)]
    if moved and (measurement.truth is not None or measurement.affine is not None):
        notes.append("the known volume and the place in the patient are those of another grid, and are left out")
    scan = ScanFindings(state.kept, drifted, axis, coefficients)
    return replace(
        measurement,
        data=data,
        acquisition=state.acquisition,
        noise_std=state.noise_std,
        truth=None if moved else measurement.truth,
        affine=None if moved else measurement.affine,
        files={name: array for name, array in measurement.files.items() if name != "preparation.mask"},
        preparation=PreparationRecord(state.steps, scan, before, data[len(data) // 2].copy()),
        notes=notes,
    )


@dataclass
class _State:
    """What the steps have come to.

    Parameters
    ----------
    acquisition
        Acquisition, whose geometry follows the data.
    kept
        Views that are left, as indices of the file.
    angles
        Angles of all views of the file.
    noise_std
        Noise of the line integrals, if it is known.
    steps
        What the steps found.
    """

    acquisition: CT
    kept: NDArray[np.intp]
    angles: tuple[float, ...] | None
    noise_std: float | None
    steps: list[Step] = field(default_factory=list)

    def order(self) -> NDArray[np.intp]:
        """Views that are left in the order of their angles."""
        return np.argsort(self.kept if self.angles is None else np.asarray(self.angles)[self.kept], kind="stable")

    def change(self, fields: dict[str, Any]) -> None:
        """Change fields of the acquisition."""
        self.acquisition = self.acquisition.model_copy(update=fields)

    def take(self, step: Step, fields: dict[str, Any]) -> None:
        """Note what a step found, and how it changes the acquisition."""
        self.steps.append(step)
        self.change(fields)


def _exclude(state: _State, settings: Preparation) -> None:
    """Leave out the views that are named."""
    total = len(state.kept)
    state.kept = views.excluded(settings.exclude_views, total)
    if settings.exclude_views:
        left = sorted(set(settings.exclude_views))
        text = f"{len(left)} of {total} views are left out as the specification says"
        state.steps.append(Step(name="exclude_views", changed=True, text=text, numbers={"views": left}))


def _from_counts(state: _State, counts: Counts, settings: Preparation, mask: NDArray[Any] | None) -> tuple[Data, Data]:
    """Line integrals of raw counts, and those of the middle slice before any was mended."""
    wanted = counts if len(state.kept) == len(counts.projections) else counts.views(state.kept)
    wanted.check()
    found = fields.line_integrals(wanted, settings, _fitting(mask, wanted.projections.shape[1:]))
    state.noise_std = found.noise_std
    state.steps += found.steps
    if wanted.shifts is not None:
        _move(found.data, wanted.shifts)
    if wanted.kept_rows is None:
        return found.data, found.middle
    data = np.ascontiguousarray(found.data[slice(*wanted.kept_rows)])
    return data, data[len(data) // 2].copy()


def _move(data: Data, shifts: NDArray[np.float64]) -> None:
    """Move each view of ``(slices, views, detectors)`` by rows and columns, in place."""
    from scipy.ndimage import shift

    rows = bool(shifts[0].any())
    for view, move in enumerate(shifts.T):
        data[:, view] = shift(data[:, view], move if rows else (0.0, move[1]), order=3, mode="nearest")


def _copied(state: _State, given: NDArray[np.generic], mask: NDArray[Any] | None) -> tuple[Data, Data]:
    """Line integrals as they were read, which the steps may change in place, and those of the middle slice."""
    some = given if len(state.kept) == given.shape[1] else given[:, state.kept]
    data = np.array(some, dtype=np.float32)
    before = data[len(data) // 2].copy()
    state.steps += _filled(data, _fitting(mask, (data.shape[0], data.shape[2])))
    return data, before


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


def _filled(data: Data, mask: NDArray[np.bool_] | None) -> list[Step]:
    """Fill in elements of line integrals that the mask names."""
    if mask is None:
        return []
    if mask.all(axis=1).any():
        raise GeometryError("a row has no good element", field="acquisition.preparation.mask", remedy="mask fewer")
    for sinogram, bad in zip(data, mask, strict=True):
        elements.fill(sinogram, bad)
    text = f"{int(mask.sum())} of {mask.size} detector elements are filled in along their row"
    return [Step(name="bad_elements", changed=bool(mask.any()), text=text, numbers={"given": int(mask.sum())})]
