"""The whole path offline: units, orientation, reports, all-or-nothing results, measured data."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from operators.errors import Conflict, Diverged, InputError
from operators.tomography import Tomography
from recon.formats import hdf5, reader
from recon.pipeline.prepare import JobProgress
from recon.pipeline.reconstruct import reconstruct, run
from recon.problem import inverse_problem
from recon.problem.mri_cartesian import sampling_mask
from recon.quality import metrics, montage
from recon.spec.job import JobSpec, local_files
from recon.spec.report import Report
from recon.spec.simulation import Simulation
from tests.conftest import SAMPLES, disc, image, voxels


def job(**value: Any) -> JobSpec:
    return JobSpec.parse(value)


def reconstructed(spec: JobSpec, out: Path) -> tuple[np.ndarray, np.ndarray, Report]:
    """Volume ``(slices, rows, cols)`` and affine as written, and the report."""
    report = run(spec, local_files(spec), out)
    path = out / "volume.nii.gz"
    return voxels(path), image(path).get_sform(), report


def psnr(report: Report) -> dict[str, float]:
    """PSNR in dB of the result and of each baseline."""
    assert report.against_truth is not None
    return {name: scores.psnr for name, scores in report.against_truth.items() if scores.psnr is not None}


@pytest.mark.parametrize("kind", ["ct-parallel", "ct-fan"])
def test_ct_comes_back_in_hu_in_place_with_its_affine(
    tmp_path: Path, ct_file: Path, asymmetric: np.ndarray, kind: str
) -> None:
    spec = job(input={"path": str(ct_file), "simulate": {"views": 180}}, acquisition=kind, method="fbp")
    volume, affine, report = reconstructed(spec, tmp_path / "out")
    assert np.allclose(affine, image(ct_file).affine, atol=1e-4)
    assert metrics.psnr(volume, asymmetric) > 22
    for turned in (volume[:, ::-1], volume[:, :, ::-1], volume[::-1]):
        assert metrics.psnr(turned, asymmetric) < metrics.psnr(volume, asymmetric) - 1
    assert float(volume[:, 20:26, 10:15].mean()) == pytest.approx(0.0, abs=15)  # water is 0 HU
    assert float(volume[:, 12:16, 10:14].mean()) == pytest.approx(700.0, abs=40)
    assert report.unit == "HU" and psnr(report)["fbp"] > 22


def test_selected_slices_keep_their_place_in_the_patient(tmp_path: Path, ct_file: Path) -> None:
    spec = job(input={"path": str(ct_file), "slices": [2, 4]}, acquisition="ct-parallel", method="fbp")
    _, affine, _ = reconstructed(spec, tmp_path / "out")
    original = image(ct_file).affine
    assert np.allclose(affine @ [0, 0, 0, 1], original @ [0, 0, 2, 1], atol=1e-4)


def test_ct_without_water_value_comes_back_per_mm_in_the_scanner_frame(tmp_path: Path) -> None:
    from operators.geometry import ParallelBeam
    from operators.tomography import Tomography

    angles = np.linspace(0, math.pi, 90, endpoint=False)
    truth = 0.05 * disc(64, 0.5, 6.0, x_mm=5.0, y_mm=4.0)
    sinogram = Tomography(ParallelBeam(64, 64, 0.5, tuple(angles.tolist()), 100, 0.5))(truth)
    np.save(tmp_path / "s.npy", sinogram.numpy())
    spec = job(
        input=str(tmp_path / "s.npy"), method="fbp",
        acquisition={"kind": "ct-parallel", "angles_rad": angles.tolist(), "detector_mm": 0.5, "rows": 64},
    )  # fmt: skip
    volume, affine, report = reconstructed(spec, tmp_path / "out")
    assert report.unit == "1/mm"
    assert "scanner's frame" in " ".join(report.notes)
    written = image(tmp_path / "out" / "volume.nii.gz").header
    assert (int(written["sform_code"]), int(written["qform_code"])) == (0, 0)  # no claim of the patient's left
    row, col = (int(v.mean().round()) for v in np.nonzero(volume[0] > 0.04))
    assert float(volume[0, row, col]) == pytest.approx(0.05, rel=0.03)
    assert (affine @ [col, row, 0, 1])[:2] == pytest.approx([5.0, 4.0], abs=0.6)


def test_the_diffusion_solver_beats_its_baselines_on_unseen_ct(tmp_path: Path) -> None:
    spec = job(
        input={"path": str(SAMPLES / "ct_body.nii.gz"), "slices": [50, 51], "simulate": {"views": 60}},
        acquisition="ct-parallel", method="diffpir", output={"baselines": ["fbp", "tv"]},
    )  # fmt: skip
    seen: list[JobProgress] = []
    report = run(spec, local_files(spec), tmp_path / "out", seen.append)
    quality = psnr(report)
    assert quality["diffpir"] > quality["tv"] + 0.5 > quality["fbp"] + 1.5
    assert report.data_misfit["diffpir"] < 0.01
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] == 1.0
    assert report.prior is not None and report.prior["name"] == "ct"
    assert report.network_evaluations == 30  # one slice, thirty steps
    assert report.seconds.total >= report.seconds.solve > 0
    assert report.peak_memory_bytes > 1e8
    assert report.versions["torch"].startswith("2.")
    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert written == {
        "volume.nii.gz",
        "baseline-fbp.nii.gz",
        "baseline-tv.nii.gz",
        "montage.png",
        "report.html",
        "report.json",
        "job.json",
    }
    assert json.loads((tmp_path / "out" / "report.json").read_text())["method"]["name"] == "diffpir"
    assert JobSpec.read(tmp_path / "out" / "job.json") == spec


@pytest.mark.parametrize("method", ["diffpir", "dds"])
def test_measured_mri(tmp_path: Path, method: str) -> None:
    spec = job(
        input=str(SAMPLES / "mri_brain_8coil.npy"), acquisition={"kind": "mri-cartesian", "pixel_mm": 1.2},
        method={"name": method, "steps": 8, "start": "classical"}, output={"baselines": []},
    )  # fmt: skip
    volume, affine, report = reconstructed(spec, tmp_path / "out")
    assert volume.shape == (1, 230, 180) and (volume >= 0).all()
    assert abs(affine[0, 0]) == pytest.approx(1.2)
    assert report.expected_misfit is not None and report.data_misfit[method] < 1.5 * report.expected_misfit
    assert image(tmp_path / "out" / "volume-phase.nii.gz").shape == (180, 230, 1)


def test_simulated_mri_with_estimated_coils(tmp_path: Path) -> None:
    from recon.formats import nifti

    truth = (disc(80, 1.0, 30.0) + 0.5 * disc(80, 1.0, 10.0, x_mm=10.0, y_mm=8.0)).numpy() * 900
    nifti.write(tmp_path / "mri.nii.gz", truth, np.diag([1.0, 1.0, 3.0, 1.0]), "")
    settings = {"model": "ideal", "acceleration": 3, "noise_std": 0.002}
    spec = job(
        input={"path": str(tmp_path / "mri.nii.gz"), "simulate": settings},
        acquisition="mri-cartesian", method="cg-sense",
    )  # fmt: skip
    volume, _, report = reconstructed(spec, tmp_path / "out")
    quality = psnr(report)
    assert quality["cg-sense"] > quality["zero-filled"] + 3
    assert float(volume[0, 40, 20]) == pytest.approx(900, rel=0.1)  # the input's own unit


def test_a_report_says_when_the_prior_has_not_seen_such_images(tmp_path: Path, ct_file: Path) -> None:
    """A phantom of discs is no chest; the body CT shipped is near enough to one."""
    method = {"name": "diffpir", "steps": 2, "start": "classical"}
    spec = job(input=str(ct_file), acquisition="ct-parallel", method=method, output={"baselines": []})
    report = run(spec, local_files(spec), tmp_path / "phantom")
    assert report.familiarity is not None and report.familiarity.median < 1
    assert "does not know such images" in " ".join(report.notes)
    known = job(
        input={"path": str(SAMPLES / "ct_body.nii.gz"), "slices": [50, 51], "simulate": {"views": 120}},
        acquisition="ct-parallel", method={"name": "diffpir", "steps": 12}, output={"baselines": []},
    )  # fmt: skip
    report = run(known, local_files(known), tmp_path / "body")
    assert report.familiarity is not None and report.familiarity.median > 1
    assert "does not know" not in " ".join(report.notes)


def test_a_conditional_prior_is_refused_where_there_is_nothing_to_condition_on(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.ones((1, 1, 32, 32), np.complex64))
    spec = job(
        input=str(tmp_path / "k.npy"), acquisition="mri-cartesian", output={"baselines": []},
        method={"name": "diffpir", "prior": "brain-mri-sr"},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"method\.prior: .*conditional"):
        run(spec, local_files(spec), tmp_path / "out")


def test_slices_sampled_differently_are_not_mixed(tmp_path: Path) -> None:
    """Points that one slice never measured must not count as measured zeros."""
    from operators.fourier import CartesianMRI
    from recon.problem.mri_cartesian import birdcage_maps

    truth = disc(64, 1.0, 24.0).to(torch.complex64).repeat(3, 1, 1)
    full = CartesianMRI(torch.ones(64, 64, dtype=torch.bool), birdcage_maps(4, 64, 64))(truth)
    mask = torch.zeros(3, 64, 64, dtype=torch.bool)
    mask[:, 22:42] = True
    mask[0, ::2] = True
    mask[1, 1::2] = True  # and slice 2 has the centre only
    np.save(tmp_path / "k.npy", (full * mask[:, None]).numpy())
    spec = job(input=str(tmp_path / "k.npy"), acquisition="mri-cartesian", method="cg-sense")
    operator = inverse_problem.build(reader.read(spec, local_files(spec))).problem.operator
    assert isinstance(operator, CartesianMRI) and torch.equal(operator.mask, mask)


def test_a_constant_volume_is_reported_without_a_psnr(tmp_path: Path) -> None:
    from recon.formats import nifti

    nifti.write(tmp_path / "air.nii.gz", np.full((1, 16, 16), -1000.0, np.float32), np.eye(4), "")
    spec = job(input=str(tmp_path / "air.nii.gz"), acquisition="ct-parallel", method="cgls")
    report = run(spec, local_files(spec), tmp_path / "out")
    assert report.scores is not None and report.scores.psnr is None
    assert json.loads((tmp_path / "out" / "report.json").read_text())["data_misfit"]["cgls"] == 0.0


def test_numpy_output_keeps_complex_values(tmp_path: Path) -> None:
    spec = job(
        input=str(SAMPLES / "mri_brain_8coil.npy"), acquisition="mri-cartesian", method="zero-filled",
        output={"format": "numpy", "montage": False},
    )  # fmt: skip
    run(spec, local_files(spec), tmp_path / "out")
    assert np.load(tmp_path / "out" / "volume.npy").dtype == np.complex64
    assert not (tmp_path / "out" / "montage.png").exists()


def test_a_failed_or_abandoned_job_leaves_nothing(tmp_path: Path, ct_file: Path) -> None:
    spec = job(input={"path": str(ct_file)}, acquisition="ct-parallel", method={"name": "tv", "iterations": 50})
    running = reconstruct(spec, local_files(spec), tmp_path / "out")
    for _ in range(6):
        next(running)
    running.close()
    assert len(list((tmp_path / ".out.chunks").iterdir())) == 1  # the baseline, finished, for the next run
    bad = job(input=str(ct_file), acquisition="ct-parallel", method={"name": "diffpir", "prior": "brain-mri"})
    with pytest.raises(InputError, match="prior"):
        run(bad, local_files(bad), tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"volume.nii.gz"}
    quick = job(input=str(ct_file), acquisition="ct-parallel", method="fbp")
    run(quick, local_files(quick), tmp_path / "out")
    with pytest.raises(Conflict, match="exists already"):
        run(quick, local_files(quick), tmp_path / "out")


def tooth(**more: Any) -> JobSpec:
    acquisition = {"kind": "ct-parallel", "detector_mm": 0.01, "rotation_center_column": 296, **more}
    return job(
        input={"path": str(SAMPLES / "ct_tooth.h5"), "format": "dxchange", "slices": [0, 1]},
        acquisition=acquisition, method="fbp",
    )  # fmt: skip


def test_the_measured_tooth_is_sharp_at_its_rotation_centre_and_in_per_mm() -> None:
    misfits = {}
    for column in (291, 296, 301):
        spec = tooth(rotation_center_column=column, rows=560)
        problem = inverse_problem.build(reader.read(spec, local_files(spec))).problem
        assert isinstance(problem.operator, Tomography)
        # For one projection the matrix, which takes a while to build, does not pay.
        problem = replace(problem, operator=Tomography(problem.operator.geometry, "astra"))
        volume = problem.initial_image()
        misfits[column] = problem.misfit(volume)
        if column == 296:
            enamel = float(torch.quantile(volume[0, 200:400, 200:400].flatten(), 0.9))
            assert 0.5 < enamel < 1.2  # per mm, for a 0.01 mm detector
    assert min(misfits, key=lambda c: misfits[c]) == 296


def test_measured_htc_disc_has_its_size_and_place() -> None:
    """The solid acrylic disc of 70 mm: what the data see of it fits a disc of attenuation 0.03 to 0.04 per mm."""
    spec = job(
        input={"path": str(SAMPLES / "ct_htc2022.npz"), "format": "htc", "scan": "solid_disc_subsample73"},
        acquisition={"kind": "ct-fan", "rows": 512}, method="fbp",
    )  # fmt: skip
    model = inverse_problem.build(reader.read(spec, local_files(spec)))
    data, operator = model.problem.data[0], model.problem.operator
    pixel = model.problem.pixel_mm
    assert pixel == pytest.approx(0.1483, abs=1e-3)
    projected = operator(disc(512, pixel, 35.0))[0]
    gain = float((data * projected).sum() / projected.square().sum())
    assert 0.028 < gain < 0.042
    residual = float(torch.linalg.vector_norm(data - gain * projected) / torch.linalg.vector_norm(data))
    assert residual < 0.12  # cupping of the beam, and a disc that is not quite centred
    smaller = operator(disc(512, pixel, 32.0))[0]
    worse = data - float((data * smaller).sum() / smaller.square().sum()) * smaller
    assert float(torch.linalg.vector_norm(worse) / torch.linalg.vector_norm(data)) > residual * 1.5


def pictures(volume: np.ndarray, affine: np.ndarray, *, in_patient: bool) -> list[tuple[str, np.ndarray, float]]:
    """Titles, pictures and aspect ratios of a volume that comes slice by slice."""
    slices, rows, cols = volume.shape
    slabs = (volume[i : i + 1] for i in range(slices))
    planes = montage.Planes.of(slabs, (slices, rows, cols), affine)
    return montage.views(planes, affine, in_patient=in_patient)


def test_pictures_are_upright() -> None:
    """A patient's right is on the left of the picture, anterior on top, superior on top."""
    volume = np.zeros((3, 4, 5), np.float32)
    volume[2, 0, 4] = 1.0  # superior-most slice, first row, last column
    lps = np.diag([-2.0, -2.0, 3.0, 1.0])  # columns run to the left, rows to the back: the last column is left
    (_, axial, _), (_, coronal, aspect), (_, sagittal, _) = pictures(volume, lps, in_patient=True)
    volume_at = volume[1:2].copy()
    volume_at[0, 0, 4] = 1.0
    single = pictures(volume_at, lps, in_patient=True)[0][1]
    assert single.shape == (4, 5) and single[0, 4] == 1.0  # anterior on top, the patient's left on the right
    ras = np.diag([2.0, 2.0, 3.0, 1.0])
    single = pictures(volume_at, ras, in_patient=True)[0][1]
    assert single[3, 0] == 1.0  # last column is the patient's right, first row is posterior
    scanner = np.diag([1.0, -1.0, 1.0, 1.0])
    single = pictures(volume_at, scanner, in_patient=False)[0][1]
    assert np.array_equal(single, volume_at[0])  # as the array is printed: row 0 on top, columns to the right
    assert (
        aspect == pytest.approx(1.5) and coronal.shape == (3, 5) and sagittal.shape == (3, 4) and axial.shape == (4, 5)
    )


@pytest.mark.parametrize("method", ["fbp", {"name": "red-diff", "steps": 3}, {"name": "dds", "steps": 3}])
def test_a_measurement_without_its_truth_gives_the_same_result(
    tmp_path: Path, ct_file: Path, method: str | dict[str, Any]
) -> None:
    """No method looks at the volume that the data were simulated from: without it every bit is the same."""
    direct = job(
        input={"path": str(ct_file), "simulate": {"views": 30, "photons_per_ray": 1e5}},
        acquisition="ct-parallel",
        method=method,
    )
    measurement = reader.read(direct, local_files(direct))
    assert measurement.truth is not None
    hdf5.write_measurement(tmp_path / "m.h5", replace(measurement, truth=None))
    stored = job(input={"path": str(tmp_path / "m.h5"), "format": "hdf5"}, method=method)
    one, _, first = reconstructed(direct, tmp_path / "a")
    two, _, second = reconstructed(stored, tmp_path / "b")
    assert np.array_equal(one, two)
    assert first.noise_std == second.noise_std > 0
    assert first.expected_misfit == pytest.approx(second.expected_misfit)


def test_a_result_that_does_not_fit_the_data_is_said_to_be_doubtful(tmp_path: Path, ct_file: Path) -> None:
    """A wrong rotation centre is no error that a solver sees: its image is smooth, and wrong."""
    known = {"path": str(ct_file), "simulate": {"views": 30}}
    measurement = reader.read(spec := job(input=known, acquisition="ct-parallel"), local_files(spec))
    method = {"name": "diffpir", "steps": 6, "start": "classical"}
    doubts = {}
    for shift_mm in (0.0, 12.0):
        acquisition = measurement.acquisition.model_copy(update={"detector_shift_mm": shift_mm})
        path = tmp_path / f"{shift_mm}.h5"
        hdf5.write_measurement(path, replace(measurement, truth=None, acquisition=acquisition))
        stored = job(input={"path": str(path), "format": "hdf5"}, method=method, output={"baselines": []})
        _, _, report = reconstructed(stored, tmp_path / str(shift_mm))
        doubts[shift_mm] = [note for note in report.notes if "misses the data" in note]
    assert not doubts[0.0] and len(doubts[12.0]) == 1 and "rotation centre" in doubts[12.0][0]


def test_a_result_worse_than_nothing_is_no_result(tmp_path: Path, ct_file: Path) -> None:
    """Values that grow beyond all bounds, and yet stay finite."""
    method = {"name": "red-diff", "update": "adam", "steps": 12, "learning_rate": 10.0, "weight": 100.0}
    spec = job(input={"path": str(ct_file), "simulate": {"views": 30}}, acquisition="ct-parallel", method=method)
    with pytest.raises(Diverged, match=r"method: .*worse than an empty image.*lower the weight"):
        run(spec, local_files(spec), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_points_are_sampled_as_asked_for() -> None:
    """With any seed: sigpy's own sampling ends with its first point for some, as 43 of this size."""
    for seed in (0, 43):
        settings = Simulation(pattern="poisson", acceleration=5.6, seed=seed)
        mask = sampling_mask(128, 128, settings)
        assert 1 / float(mask.float().mean()) == pytest.approx(5.6, abs=0.2)
        assert bool(mask[57:72, 57:72].all()) and torch.equal(mask, sampling_mask(128, 128, settings))
    for acceleration in (1.5, 60.0):
        with pytest.raises(InputError, match=r"^input\.simulate\.acceleration: .*equispaced pattern"):
            sampling_mask(64, 64, Simulation(pattern="poisson", acceleration=acceleration))
