"""Radial and spiral scans through the front door: simulation, files, methods, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recon
from operators.errors import InputError, ReconError
from recon.formats import hdf5
from recon.quality import metrics
from recon.samples import SAMPLES
from recon.spec.job import JobSpec, local_files

SIZE = 64


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """Two slices of a brain from the tuning samples, ``(2, SIZE, SIZE)``, largest value 1."""
    images = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][:2].astype(np.float32)
    small = images.reshape(2, SIZE, 256 // SIZE, SIZE, 256 // SIZE).mean((2, 4))
    found: np.ndarray = small / small.max()
    return found


def simulated(brain: np.ndarray, **more: Any) -> Any:
    affine = np.diag([3.2, 3.2, 4.0, 1.0])
    return recon.simulate(
        brain, {"kind": "mri-noncartesian"}, affine=affine, coils=4, noise_std=0.005, model="ideal", **more
    )


def test_a_radial_scan_is_simulated_and_reconstructed(brain: np.ndarray) -> None:
    measurement = simulated(brain, acceleration=4.0)
    found = {}
    for method in ("gridding", {"name": "cg-sense", "iterations": 10}, {"name": "tv", "iterations": 30}):
        result = recon.reconstruct(measurement, method=method, progress=False)
        name = method if isinstance(method, str) else method["name"]
        found[name] = metrics.psnr(np.abs(result.volume), brain)
        assert result.report.unit == "a.u." and any("ESPIRiT" in note for note in result.report.notes)
    assert found["gridding"] + 3 < found["cg-sense"] < found["tv"], found


@pytest.mark.parametrize("method", ["diffpir", "red-diff", "dds", "diffusion-mbir"])
def test_methods_with_a_prior_take_it(brain: np.ndarray, method: str) -> None:
    measurement = simulated(brain[:1], acceleration=3.0)
    settings = {"name": method, "steps": 12}
    result = recon.reconstruct(measurement, method=settings, progress=False)
    gridded = recon.reconstruct(measurement, method="gridding", progress=False)
    assert metrics.psnr(np.abs(result.volume), brain[:1]) > metrics.psnr(np.abs(gridded.volume), brain[:1]) + 2


def files(folder: Path, measurement: Any, **acquisition: Any) -> JobSpec:
    np.save(folder / "data.npy", measurement.data)
    np.save(folder / "trajectory.npy", measurement.files["trajectory_cycles_per_fov"])
    fields = {"trajectory_cycles_per_fov": str(folder / "trajectory.npy"), "rows": SIZE, "pixel_mm": 3.2}
    value = {
        "input": {"path": str(folder / "data.npy")},
        "acquisition": {"kind": "mri-noncartesian", **fields, **acquisition},
        "method": "gridding",
    }
    return JobSpec.parse(value)


def run(job: JobSpec) -> Any:
    from recon.formats import reader

    return reader.read(job, local_files(job))


def test_arrays_and_a_trajectory_in_either_unit(brain: np.ndarray, tmp_path: Path) -> None:
    measurement = simulated(brain, acceleration=3.0)
    job = files(tmp_path, measurement)
    plain = recon.reconstruct(run(job), method="gridding", progress=False)
    assert np.array_equal(plain.volume, recon.reconstruct(measurement, method="gridding", progress=False).volume)
    per_m = measurement.files["trajectory_cycles_per_fov"] / (SIZE * 3.2e-3)
    np.save(tmp_path / "per_m.npy", per_m.reshape(-1, 2 * SIZE, 2))  # by spokes
    field = {"trajectory_cycles_per_fov": None, "trajectory_per_m": str(tmp_path / "per_m.npy")}
    same = recon.reconstruct(run(files(tmp_path, measurement, **field)), method="gridding", progress=False)
    assert np.abs(same.volume - plain.volume).max() < 1e-4 * np.abs(plain.volume).max()
    weights = np.hypot(*measurement.files["trajectory_cycles_per_fov"].T) + 0.05
    np.save(tmp_path / "weights.npy", 7 * weights)
    given = recon.reconstruct(
        run(files(tmp_path, measurement, density_weights=str(tmp_path / "weights.npy"))),
        method="gridding", progress=False,
    )  # fmt: skip
    assert np.abs(given.volume - plain.volume).max() < 0.1 * np.abs(plain.volume).max()


def test_the_image_stands_as_the_cartesian_one_does(brain: np.ndarray) -> None:
    """Not mirrored, not turned, not shifted: the same object by both kinds of scan."""
    lopsided = brain[:1].copy()
    lopsided[:, : SIZE // 2, : SIZE // 3] *= 0.3
    radial = recon.reconstruct(simulated(lopsided, acceleration=1.0), method="cg-sense", progress=False)
    affine = np.diag([3.2, 3.2, 4.0, 1.0])
    cartesian = recon.simulate(lopsided, "mri-cartesian", affine=affine, coils=4, acceleration=1.0, model="ideal")
    lines = recon.reconstruct(cartesian, method="cg-sense", progress=False)
    assert metrics.psnr(np.abs(radial.volume), np.abs(lines.volume)) > 28


def test_a_stack_of_stars_is_simulated_and_solved_slice_by_slice(brain: np.ndarray, tmp_path: Path) -> None:
    """As its slices alone, by any method, from arrays and from its own file."""
    acquisition = {"kind": "mri-noncartesian", "partition_encoding": True}
    settings: dict[str, Any] = {"coils": 4, "noise_std": 0.005, "acceleration": 3.0}
    settings["affine"] = np.diag([3.2, 3.2, 4.0, 1.0])
    stack = recon.simulate(brain, acquisition, model="ideal", **settings)
    slices = simulated(brain, acceleration=3.0)
    assert stack.data.shape == slices.data.shape and not np.allclose(stack.data, slices.data)
    for method in ("gridding", {"name": "red-diff", "steps": 6}):
        found, alone = (recon.reconstruct(one, method=method, progress=False) for one in (stack, slices))
        assert found.report.noise_std == pytest.approx(alone.report.noise_std)
        # The transform rounds otherwise than none, and networks answer to that.
        assert np.abs(found.volume - alone.volume).max() < 1e-2 * np.abs(alone.volume).max()
        upright = metrics.psnr(np.abs(found.volume), brain)
        assert upright > 22 and upright > 5 + metrics.psnr(np.abs(found.volume[::-1]), brain)
    hdf5.write_measurement(tmp_path / "scan.h5", stack)
    arrays = files(tmp_path, stack, partition_encoding=True)
    one = arrays.model_copy(update={"input": arrays.input.model_copy(update={"slices": (1, 2)})})
    expected = recon.reconstruct(stack, method="gridding", progress=False).volume
    second = recon.reconstruct(tmp_path / "scan.h5", method="gridding", slices=(1, 2), format="hdf5", progress=False)
    for volume in (second.volume, recon.reconstruct(run(one), method="gridding", progress=False).volume):
        assert volume.shape == (1, SIZE, SIZE)
        assert np.abs(volume - expected[1:]).max() < 1e-3 * np.abs(expected).max()
    measured = stack.data.copy()
    measured[0] = 0
    np.save(tmp_path / "data.npy", measured)
    with pytest.raises(InputError, match="1 of 2 partitions are zero"):
        run(arrays)
    with pytest.raises(InputError, match="stacks are simulated without motion"):
        recon.simulate(brain, acquisition, model="realistic", motion_pixels=0.1, **settings)


def test_its_own_file_carries_the_trajectory(brain: np.ndarray, tmp_path: Path) -> None:
    measurement = simulated(brain, acceleration=4.0)
    hdf5.write_measurement(tmp_path / "scan.h5", measurement)
    again = hdf5.read_measurement(tmp_path / "scan.h5")
    assert again.acquisition == measurement.acquisition and again.files.keys() == measurement.files.keys()
    name = "trajectory_cycles_per_fov"
    assert np.array_equal(again.files[name], measurement.files[name])
    result = recon.reconstruct(tmp_path / "scan.h5", method="gridding", slices=(1, 2), format="hdf5", progress=False)
    assert result.volume.shape == (1, SIZE, SIZE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": None}, r"acquisition\.rows: needed"),
        ({"rows": SIZE // 2}, r"reaches 200 % of what a matrix of 32 x 32 can hold"),
        ({"rows": 12 * SIZE}, r"reaches 32 cycles per field of view, the matrix 384"),
        ({"trajectory_cycles_per_fov": None}, r"acquisition\.trajectory_cycles_per_fov: needed"),
        ({"pixel_mm": None, "trajectory_per_m": "x.npy", "trajectory_cycles_per_fov": None}, "needs pixel_mm"),
        ({"trajectory_per_m": "x.npy"}, "not both"),
    ],
)
def test_what_does_not_fit_is_named(brain: np.ndarray, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    measurement = simulated(brain, acceleration=4.0)
    with pytest.raises(ReconError, match=says):
        run(files(tmp_path, measurement, **change))


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("trajectory", np.zeros((7, 2)), "7 places for"),
        ("trajectory", np.zeros((7, 3)), r"expected real \(samples, 2\)"),
        ("trajectory", np.full((7, 2), np.nan), "not finite"),
        ("weights", -np.ones(7), "not negative"),
        ("weights", np.ones(7), "7 for"),
    ],
)
def test_files_that_do_not_fit_are_named(
    brain: np.ndarray, tmp_path: Path, name: str, array: np.ndarray, says: str
) -> None:
    measurement = simulated(brain, acceleration=4.0)
    job = files(tmp_path, measurement, density_weights=str(tmp_path / "weights.npy"))
    np.save(tmp_path / "weights.npy", np.ones(measurement.data.shape[2]))
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError, match=says):
        run(job)
