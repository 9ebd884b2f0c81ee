"""The front door: one call gives the volume of the command line, with the evidence to check it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import recon
from operators.errors import Conflict, InputError
from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.formats import nifti
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import TV

CT: dict[str, Any] = {"kind": "ct-parallel", "detector_mm": 1.0, "angles_rad": {"count": 40}, "rows": 32, "cols": 32}


@pytest.fixture(scope="module")
def sinogram() -> NDArray[np.float32]:
    """Line integrals ``(slices, views, detectors)`` of an off-centre square of 0.02 / mm."""
    volume = torch.zeros(2, 32, 32)
    volume[:, 6:14, 8:20] = 0.02
    angles = tuple(float(a) for a in np.linspace(0, np.pi, 40, endpoint=False))
    found: NDArray[np.float32] = Tomography(ParallelBeam(32, 32, 1.0, angles, 48, 1.0))(volume).numpy()
    return found


def test_an_array_gives_what_its_file_gives_on_the_command_line(sinogram: NDArray[np.float32], tmp_path: Path) -> None:
    from recon.pipeline.reconstruct import run

    np.save(tmp_path / "scan.npy", sinogram)
    result = recon.reconstruct(sinogram, CT, method={"name": "tv", "iterations": 20}, progress=False)
    assert result.volume.shape == (2, 32, 32) and result.report.unit == "1/mm"
    assert float(result.volume[0, 10, 14]) == pytest.approx(0.02, rel=0.05)
    assert set(result.baselines) == {"fbp"} and result.uncertainty is None
    assert result.affine[0, 0] == 1.0 and result.affine[1, 1] == -1.0  # row 0 is on top
    saved = result.save(tmp_path / "saved")
    spec = JobSpec.parse(
        {"input": str(tmp_path / "scan.npy"), "acquisition": CT, "method": {"name": "tv", "iterations": 20}}
    )
    report = run(spec, local_files(spec), tmp_path / "run")
    volumes = [nifti.read(folder / "volume.nii.gz") for folder in (saved, tmp_path / "run")]
    assert np.array_equal(volumes[0][0], volumes[1][0]) and np.array_equal(volumes[0][1], volumes[1][1])
    assert np.array_equal(volumes[0][0], result.volume)
    assert report.data_misfit == result.report.data_misfit
    assert recon.Report.read(saved / "report.json") == result.report
    with pytest.raises(Conflict, match="saved exists already"):
        result.save(saved)


def test_a_path_an_object_of_settings_and_more_parts_of_a_specification(
    sinogram: NDArray[np.float32], tmp_path: Path
) -> None:
    np.save(tmp_path / "scan.npy", sinogram)
    acquisition = CTParallel(**CT)
    result = recon.reconstruct(
        tmp_path / "scan.npy", acquisition, method=TV(iterations=5), slices=(1, 2), baselines=["fbp", "sirt"],
        uncertainty=1, seed=3, name="mine", progress=False,
    )  # fmt: skip
    assert result.report.name == "mine" and result.report.seed == 3 and result.report.method["iterations"] == 5
    assert result.volume.shape == (1, 32, 32) and set(result.baselines) == {"fbp", "sirt"}
    assert result.uncertainty is not None and result.uncertainty.shape == (1, 32, 32)


def test_what_is_simulated_is_reconstructed_and_compared(ct_file: Path) -> None:
    measurement = recon.simulate(ct_file, "ct-parallel", views=24, slices=(1, 3))
    assert measurement.data.shape[:2] == (2, 24) and measurement.truth is not None
    result = recon.reconstruct(measurement, method="fbp", progress=False)
    assert result.report.unit == "HU" and result.report.scores is not None and result.report.scores.psnr is not None
    assert measurement.affine is not None and np.array_equal(result.affine, measurement.affine)
    volume, affine = nifti.read(ct_file)
    again = recon.simulate(volume, {"kind": "ct-parallel"}, affine=affine, views=24, slices=(1, 3))
    assert np.array_equal(again.data, measurement.data)


def test_complex_images_stay_complex_and_files_of_the_acquisition_may_be_arrays() -> None:
    generator = np.random.default_rng(0)
    image = np.zeros((32, 32), np.complex64)
    image[8:20, 10:26] = np.exp(0.5j)
    maps = np.stack([np.ones((32, 32)), 1j * np.linspace(0.2, 1, 32)[:, None] * np.ones((32, 32))]).astype(np.complex64)
    maps /= np.linalg.norm(maps, axis=0)
    shifted = np.fft.ifftshift(maps * image, axes=(-2, -1))
    kspace = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1)).astype(np.complex64)[None]
    mask = generator.random((32, 32)) < 0.7
    result = recon.reconstruct(
        kspace * mask, "mri-cartesian", method="cg-sense", mask=mask, coil_maps=maps, progress=False
    )
    assert result.volume.dtype == np.complex64
    assert float(np.angle(result.volume[0, 12:18, 14:22]).mean()) == pytest.approx(0.5, abs=0.05)


def test_a_callback_sees_the_progress_and_its_exception_cancels(sinogram: NDArray[np.float32]) -> None:
    seen: list[float] = []
    recon.reconstruct(sinogram, CT, method={"name": "tv", "iterations": 10}, progress=lambda p: seen.append(p.fraction))
    assert seen == sorted(seen) and 0 < seen[-1] < 1 and len(seen) > 3

    def stop(progress: Any) -> None:
        if progress.fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recon.reconstruct(sinogram, CT, method={"name": "tv", "iterations": 10}, progress=stop)


def test_closing_cancels_and_leaves_no_file(sinogram: NDArray[np.float32]) -> None:
    with recon.begin(sinogram, CT, method={"name": "tv", "iterations": 10}) as running:
        folder = Path(running.folder)
        assert next(running).fraction >= 0 and folder.exists()
        with pytest.raises(RuntimeError, match="not ended"):
            _ = running.result
    assert not folder.exists()


def test_a_notebook_shows_a_picture(sinogram: NDArray[np.float32]) -> None:
    result = recon.reconstruct(sinogram, CT, method="fbp", progress=False)
    assert result._repr_html_().count("<figure") == 3
    assert result._repr_png_().startswith(b"\x89PNG") and "fbp, 2 x 32 x 32, 1/mm" in repr(result)


@pytest.mark.parametrize(
    ("data", "acquisition", "more", "field"),
    [
        ("missing.npy", CT, {}, "input.path"),
        (np.zeros((2, 40, 48), np.float32), None, {}, "acquisition"),
        (np.zeros((2, 40, 48), np.float32), "ct-helical", {}, "acquisition"),
        (np.zeros((2, 41, 48), np.float32), CT, {}, "acquisition.angles_rad"),
        (np.zeros((2, 40, 48), np.float32), CT, {"method": "magic"}, "method"),
        (np.zeros((2, 40, 48), np.float32), CT, {"methid": "tv"}, "methid"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(data: Any, acquisition: Any, more: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as found:
        recon.reconstruct(data, acquisition, progress=False, **more)
    assert found.value.field == field


def test_a_prior_is_one_method() -> None:
    prior = recon.load_prior("ct")
    assert not prior.complex and prior.denoise(torch.zeros(1, 32, 32), 0.1).shape == (1, 32, 32)
    with pytest.raises(InputError, match="no prior"):
        recon.load_prior("unknown")


def test_a_picture_shows_slices_upright_in_one_window(ct_file: Path, tmp_path: Path) -> None:
    """The patient's back is below: the volume's row 0 lies at the back, where the affine says so."""
    from matplotlib.image import imread

    measurement = recon.simulate(ct_file, "ct-parallel", views=24, slices=(1, 3))
    result = recon.reconstruct(measurement, method="fbp", progress=False)
    marked = np.full(result.volume.shape, -1000.0, np.float32)
    anterior = 0 if result.affine[1, 1] < 0 else -1
    marked[:, anterior, :] = 1000.0
    picture = result.picture({"marked": marked}, index=0, window=(-1000, 1000)).save(tmp_path / "marked.png")
    assert picture._repr_png_() == (tmp_path / "marked.png").read_bytes()
    pixels = imread(tmp_path / "marked.png")[..., :3].mean(axis=2)
    # The image is the largest dark block; its bright row is on top of it.
    rows = np.flatnonzero((pixels < 0.01).mean(axis=1) > 0.3)
    left = pixels[rows[0] - 2 : rows[0] + 2, : pixels.shape[1] // 2]
    assert left.max() > 0.99 and len(rows) > 100
    assert result.picture()._repr_png_() != picture._repr_png_()
