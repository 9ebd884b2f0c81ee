"""The rotation centre is found from opposite rays, with an uncertainty that holds, and a wrong one is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import InputError
from recon.formats import reader
from recon.measurement.preparation import centre
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.job import local_files
from tests.conftest import SAMPLES
from tests.recon.measurement import scans

PI = np.pi
SOURCE_MM, BEHIND_MM = 100.0, 80.0


def turn(views: int, angle: float, start: float = 0.3) -> np.ndarray:
    return start + np.arange(views) * angle / views


def noisy(clean: np.ndarray, photons: float = scans.PHOTONS) -> np.ndarray:
    counts = np.random.default_rng(5).poisson(photons * np.exp(-clean))
    return np.asarray(-np.log(np.maximum(counts, 1) / photons), dtype=np.float32)[None]


def fan(angles: np.ndarray, axis: float, columns: int, pitch: float) -> np.ndarray:
    """The discs in a fan: a ray's distance from a disc's centre, as ASTRA has its geometry."""
    offset = (np.arange(columns) - axis) * pitch
    found = np.zeros((len(angles), columns))
    source = SOURCE_MM * np.stack([np.sin(angles), -np.cos(angles)], 1)[:, None]
    middle = -BEHIND_MM * np.stack([np.sin(angles), -np.cos(angles)], 1)[:, None]
    along = np.stack([np.cos(angles), np.sin(angles)], 1)[:, None]
    ray = middle + offset[None, :, None] * along - source
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    for x, y, radius, mu in scans.DISCS:
        to = np.array([x, y]) - source
        off = to[..., 0] * ray[..., 1] - to[..., 1] * ray[..., 0]
        found += 2 * mu * np.sqrt(np.maximum(radius**2 - off**2, 0))
    return found


@pytest.mark.parametrize(
    ("views", "angle", "axis", "columns"),
    [
        (180, PI, 44.3, 96),
        (60, PI, 51.0, 96),
        (40, PI, 47.5, 96),
        (180, 2 * PI, 40.8, 96),
        (61, 2 * PI, 44.3, 96),
        (180, PI, 20.6, 40),  # the object is larger than the detector
        (360, 2 * PI, 8.2, 60),  # half acquisition: the axis is near the edge
        (300, 1.5 * PI, 44.3, 96),
    ],
)
def test_the_axis_of_parallel_beams_is_found(views: int, angle: float, axis: float, columns: int) -> None:
    angles = turn(views, angle)
    found = centre.find(noisy(scans.sinogram(angles, columns, axis)), CTParallel(angles_rad=list(angles)), 0.0)
    assert found is not None
    assert found.column == pytest.approx(axis, abs=0.25)
    assert abs(found.column - axis) < 4 * found.uncertainty < 0.8


@pytest.mark.parametrize(("views", "angle"), [(180, 2 * PI), (120, PI + 0.6), (45, 2 * PI)])
@pytest.mark.parametrize("axis", [47.5, 52.3])
def test_the_axis_of_a_fan_is_found(views: int, angle: float, axis: float) -> None:
    angles = turn(views, angle)
    acquisition = CTFan(
        angles_rad=list(angles), detector_mm=1.2, source_origin_mm=SOURCE_MM, origin_detector_mm=BEHIND_MM
    )
    found = centre.find(noisy(fan(angles, axis, 96, 1.2)), acquisition, 0.0)
    assert found is not None and found.column == pytest.approx(axis, abs=0.1)


def test_the_axis_of_the_tooth_is_found_and_reported(tmp_path: Path) -> None:
    spec = scans.job(SAMPLES / "ct_tooth.h5", acquisition={"rotation_center_column": "auto"})
    found = reader.read(spec, local_files(spec))
    assert isinstance(found.acquisition, CTParallel) and found.preparation is not None
    # The least misfit of conjugate gradients after 20 iterations is at 295.87.
    assert found.acquisition.rotation_center_column == pytest.approx(295.87, abs=0.1)
    said = found.preparation.steps[-1]
    assert said.name == "rotation_center_column" and said.changed and said.text in found.notes
    assert said.numbers["uncertainty"] == pytest.approx(0.03, abs=0.02)


@pytest.mark.parametrize(("given", "warns"), [(None, True), (294.0, True), (296.5, False), (295.5, False)])
def test_a_centre_that_is_off_by_more_than_a_column_is_said(given: float | None, warns: bool) -> None:
    more: dict[str, Any] = {} if given is None else {"acquisition": {"rotation_center_column": given}}
    spec = scans.job(SAMPLES / "ct_tooth.h5", **more)
    found = reader.read(spec, local_files(spec))
    noted = [note for note in found.notes if "opposite rays agree best" in note]
    assert len(noted) == warns
    assert all("295.87" in note and f"not at {given or 319.5:.2f}" in note for note in noted)


def test_where_nothing_is_seen_from_both_sides_nothing_is_claimed(tmp_path: Path) -> None:
    angles = turn(90, 2.0)
    path = tmp_path / "sinogram.npy"
    np.save(path, noisy(scans.sinogram(angles))[0])
    acquisition: dict[str, Any] = {"angles_rad": angles.tolist()}
    spec = scans.job(path, input={"format": "numpy"}, acquisition=acquisition)
    assert reader.read(spec, local_files(spec)).notes == []
    spec = scans.job(path, input={"format": "numpy"}, acquisition={**acquisition, "rotation_center_column": "auto"})
    with pytest.raises(InputError, match="do not tell the rotation centre"):
        reader.check(spec, local_files(spec))


def test_two_slices_that_contradict_each_other_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = iter([10.0, 20.0])
    monkeypatch.setattr(centre, "_of_slice", lambda *_: centre.Centre(next(columns), 0.01, 1.0))
    acquisition = CTParallel(angles_rad=list(np.linspace(0, np.pi, 40, endpoint=False)), detector_mm=1.0)
    assert centre.find(np.zeros((2, 40, 32), np.float32), acquisition, 15.5) is None
