"""Steps that are asked for: binning, phase retrieval, stripes and beam hardening, against closed forms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from operators.errors import GeometryError, InputError
from operators.fbp import filtered_back_projection
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.measurement.preparation import binning, hardening, phase, stripes
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.job import local_files
from recon.spec.preparation import BeamHardening, Binning, Paganin
from tests.recon.measurement import scans

VIEWS = 90
ANGLES = np.arange(VIEWS) * np.pi / VIEWS
PARALLEL = CTParallel(angles_rad=list(ANGLES), detector_mm=scans.PITCH_MM)


def read(path: Path, sinogram: np.ndarray, preparation: dict[str, Any], **acquisition: Any) -> Measurement:
    np.save(path / "sinogram.npy", sinogram.astype(np.float32))
    given = {"angles_rad": {"count": sinogram.shape[-2]}, **acquisition}
    spec = scans.job(path / "sinogram.npy", preparation, input={"format": "numpy"}, acquisition=given)
    found = reader.read(spec, local_files(spec))
    assert reader.check(spec, local_files(spec)).shape == found.data.shape
    return found


def test_binning_is_a_coarser_detector(tmp_path: Path) -> None:
    fine = np.stack([scans.sinogram(np.arange(181) * np.pi / 180, 97, 45.2)] * 4)
    found = read(
        tmp_path, fine, {"binning": {"views": 2, "columns": 2, "rows": 2}},
        angles_rad=(np.arange(181) * np.pi / 180).tolist(), rotation_center_column=45.2, photons_per_ray=1000,
    )  # fmt: skip
    acquisition = found.acquisition
    assert isinstance(acquisition, CTParallel)
    assert found.data.shape == (2, 90, 48)
    assert acquisition.detector_mm == pytest.approx(2 * scans.PITCH_MM) == acquisition.slice_mm
    assert acquisition.photons_per_ray == 8000
    assert np.rad2deg(acquisition.angles() or ()) == pytest.approx(np.arange(90) * 2 + 0.5)
    centre = acquisition.rotation_center_column
    assert isinstance(centre, float)
    assert centre == pytest.approx(22.35)
    # Intensities are averaged, not line integrals.
    mean = -np.log(np.exp(-fine[0, :180, :96]).reshape(90, 2, 48, 2).mean(axis=(1, 3)))
    assert found.data[0] == pytest.approx(mean, abs=1e-5)
    assert any("1 views, 1 columns at the end are left out" in note for note in found.notes)
    # The image is that of the fine scan: where the discs are, and how dense.
    for name in ("rotation_center_column", None):
        fields = {"rotation_center_column": centre} if name else {
            "rotation_center_column": None, "detector_shift_mm": (47.5 / 2 - 0.25 - centre) * 2 * scans.PITCH_MM,
        }  # fmt: skip
        geometry = acquisition.model_copy(update={**fields, "rows": 40, "cols": 40}).geometry(48)
        image = filtered_back_projection(torch.from_numpy(found.data[:1]), geometry)[0].numpy()
        y, x = (19.5 - np.arange(40))[:, None] * 1.2, (np.arange(40) - 19.5) * 1.2
        assert image[np.hypot(x - 10, y - 5) < 3.5].mean() == pytest.approx(0.05, abs=1e-3)
        assert image[np.hypot(x + 8, y + 8) < 5].mean() == pytest.approx(0.02, abs=5e-4)


def test_a_shift_in_millimetres_stays_right_where_columns_are_left_over() -> None:
    acquisition = PARALLEL.model_copy(update={"detector_shift_mm": 1.5})
    data = np.zeros((1, VIEWS, 98), np.float32)
    _, _, changes = binning.apply(data, Binning(columns=3), acquisition)
    shifted = acquisition.model_copy(update=changes)
    # Element 10 of the coarse detector is in the middle of elements 30 to 32, in millimetres too.
    coarse = (10 - (32 - 1) / 2) * 3 * scans.PITCH_MM + (shifted.detector_shift_mm or 0)
    assert coarse == pytest.approx((31 - (98 - 1) / 2) * scans.PITCH_MM + 1.5)


@pytest.mark.parametrize(
    ("binned", "angles", "says"),
    [
        ({"rows": 2}, ANGLES, "2, the input has 1"),
        ({"columns": 64}, ANGLES, "64, the input has 40"),
        ({"views": 2}, np.arange(VIEWS) * 2.399963 % np.pi, "not neighbours in angle"),
    ],
)
def test_binning_of_what_is_not_there_is_refused(binned: dict[str, int], angles: np.ndarray, says: str) -> None:
    data = np.zeros((1, VIEWS, 40), np.float32)
    acquisition = CTParallel(angles_rad=list(angles), detector_mm=1.0)
    error = GeometryError if "neighbours" in says else InputError
    with pytest.raises(error, match=says):
        binning.apply(data, Binning.model_validate(binned), acquisition)


def test_phase_retrieval_undoes_propagation() -> None:
    """The transport of intensity over a distance multiplies each frequency of the contact image by 1 + a k^2."""
    settings = Paganin(delta_beta=500, energy_kev=20, distance_mm=100)
    length = phase.filter_length_mm(settings)
    # distance * delta / mu, mu = 4 pi beta / wavelength.
    assert length**2 == pytest.approx(100 * 500 * (1.2398419843e-6 / 20) / (4 * math.pi))
    columns, rows, pitch = 64, 32, 0.005
    acquisition = CTParallel(angles_rad=[0.0, 1.0], detector_mm=pitch, slice_mm=pitch)
    y, x = np.arange(rows)[:, None] + 0.5, np.arange(columns) + 0.5
    k_y, k_x = 2 * np.pi * 2 / (2 * rows * pitch), 2 * np.pi * 6 / (2 * columns * pitch)
    wave = np.cos(k_y * y * pitch) * np.cos(k_x * x * pitch)  # mirrored at the ends by itself
    contact = 0.5 + 0.1 * wave
    seen = 0.5 + 0.1 * wave * (1 + length**2 * (k_y**2 + k_x**2))
    data = np.repeat(-np.log(seen)[:, None], 2, axis=1).astype(np.float32)
    said = phase.retrieve(data, settings, acquisition)
    # The mirrored rim is cut off after a few lengths of the filter.
    assert data[:, 0] == pytest.approx(-np.log(contact), abs=2e-3)
    assert data[8:-8, 1, 16:-16] == pytest.approx(-np.log(contact)[8:-8, 16:-16], abs=5e-4)
    assert said.changed and said.numbers["length_mm"] == pytest.approx(length)


def test_phase_retrieval_keeps_what_is_uniform_and_says_when_rows_are_missing() -> None:
    settings = Paganin(delta_beta=1000, energy_kev=30, distance_mm=200)
    data = np.full((1, 2, 50), 0.7, np.float32)
    said = phase.retrieve(data, settings, CTParallel(angles_rad=[0.0, 1.0], detector_mm=0.01))
    assert data == pytest.approx(0.7, abs=1e-6)
    assert said.warning and "give more slices" in said.text
    fan = CTFan(angles_rad=[0.0, 1.0], detector_mm=0.01, source_origin_mm=100, origin_detector_mm=100)
    with pytest.raises(InputError, match="parallel beams"):
        phase.retrieve(data, settings, fan)
    with pytest.raises(InputError, match="the file does not carry it"):
        phase.retrieve(data, settings, CTParallel(angles_rad=[0.0, 1.0]))


@pytest.mark.parametrize("how", sorted(stripes.FUNCTIONS))
def test_stripes_are_removed_on_request_only(how: Any, tmp_path: Path) -> None:
    clean = scans.sinogram(np.arange(180) * np.pi / 180)
    noisy = clean + 0.005 * np.random.default_rng(0).standard_normal(clean.shape)
    striped = noisy.copy()
    striped[:, 30:34] += 0.1
    striped[:, 60] -= 0.1
    assert np.array_equal(read(tmp_path, striped, {}).data[0], striped.astype(np.float32))
    found = read(tmp_path, striped, {"stripes": how})
    assert found.preparation is not None and found.preparation.steps[-1].name == "stripes"
    if how in ("sorting", "large", "all"):  # for partial and wide stripes; the others are for other kinds
        left, was = (np.abs((s - clean).mean(0)[[31, 32, 60]]).mean() for s in (found.data[0], striped))
        assert left < 0.7 * was


def hardened(path_mm: np.ndarray) -> np.ndarray:
    """Line integrals of water in a beam of two energies, of which half the photons each have."""
    return -np.log(0.5 * np.exp(-0.015 * path_mm) + 0.5 * np.exp(-0.03 * path_mm))


def water(angles: np.ndarray, columns: int) -> np.ndarray:
    """Path in mm through an ellipse of water, off the axis, in parallel beams."""
    place = (np.arange(columns) - (columns - 1) / 2) * 2.0
    a, b, x, y = 80.0, 50.0, 10.0, -5.0
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    reach = a**2 * c**2 + b**2 * s**2
    off = place - (x * c + y * s)
    return np.asarray(2 * a * b * np.sqrt(np.maximum(reach - off**2, 0)) / reach)


def test_a_fitted_polynomial_makes_water_flat(tmp_path: Path) -> None:
    path = water(np.arange(180) * np.pi / 180, 110)
    noise = 0.002 * np.random.default_rng(0).standard_normal(path.shape)
    found = read(tmp_path, hardened(path) + noise, {"beam_hardening": {}}, detector_mm=2.0)
    assert found.preparation is not None
    said = found.preparation.steps[-1].numbers
    before, after = (said[f"cupping_{when}"] for when in ("before", "after"))
    assert isinstance(before, float) and isinstance(after, float)
    assert before > 0.05 and abs(after) < 0.01
    # The attenuation is that of thin water, 0.0225 / mm on average over the beam.
    dense = path > 20
    assert np.median(found.data[0][dense] / path[dense]) == pytest.approx(0.0225, rel=0.05)
    # Given, the same polynomial does the same: to other slices, or other scans in the same beam.
    settings = {"coefficients": found.preparation.scan.beam_hardening}
    again = read(tmp_path, hardened(path) + noise, {"beam_hardening": settings}, detector_mm=2.0)
    assert again.data == pytest.approx(found.data, abs=1e-5)


def test_a_polynomial_that_does_no_good_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no polynomial makes|the polynomial falls"):
        read(tmp_path, scans.sinogram(np.arange(180) * np.pi / 180), {"beam_hardening": {}})  # of two densities
    with pytest.raises(InputError, match="no object large enough"):
        read(tmp_path, np.zeros((180, 96)), {"beam_hardening": {}})


def test_a_given_polynomial_is_applied_as_it_is() -> None:
    data = np.linspace(0, 2, 40, dtype=np.float32).reshape(1, 2, 20)
    before = data.copy()
    said, _ = hardening.correct(data, BeamHardening(coefficients=(0.1, 0.02)), PARALLEL)
    assert data == pytest.approx(before + 0.1 * before**2 + 0.02 * before**3, rel=1e-6)
    assert said.numbers == {"a2": 0.1, "a3": 0.02}
    with pytest.raises(InputError, match="the polynomial falls"):
        hardening.correct(data, BeamHardening(coefficients=(-0.5,)), PARALLEL)
