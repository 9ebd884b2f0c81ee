"""ISMRMRD scans off the Cartesian grid: the image that was measured, in its place, whatever unit the trajectory has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recon
from operators.errors import ReconError
from operators.noncartesian import NonCartesianMRI
from recon.formats import reader
from recon.problem import inverse_problem
from recon.spec.acquisitions.mri_noncartesian import MRINonCartesian
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.mrd_files import NOISE, Scan, header

SIZE = 32
DUMMY = 1 << 26


def object_(slices: int = 1) -> np.ndarray:
    """Images ``(slices, SIZE, SIZE)`` that no mirror image or turn leaves alone."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    found = np.zeros((slices, SIZE, SIZE), np.complex64)
    for number in range(slices):
        found[number] = ((y / 13) ** 2 + (x / 11) ** 2 < 1) + (1.0 + number) * (
            (np.abs(y + 6) < 2) & (np.abs(x - 3) < 4)
        )
    return found


def spokes(count: int = 60, samples: int = 2 * SIZE) -> np.ndarray:
    """Places ``(count, samples, 2)`` in cycles per field of view, x before y."""
    angles = np.arange(count) * np.pi / count
    along = (np.arange(samples) - samples // 2) / samples * SIZE
    return np.stack([np.outer(np.cos(angles), along), np.outer(np.sin(angles), along)], -1)


def scan(places: np.ndarray, unit: float = 1.0, slices: int = 1, dimensions: int = 2) -> Scan:
    """A scan of `object_`; places are written in units of `unit` cycles per field of view."""
    found = Scan()
    found.add(np.ones((1, 1)), flags=DUMMY)
    trajectory = torch.from_numpy(places.reshape(-1, 2)[:, ::-1].copy())
    operator = NonCartesianMRI(
        trajectory, torch.ones(1, SIZE, SIZE, dtype=torch.complex64), torch.ones(len(trajectory))
    )
    data = operator.forward(torch.from_numpy(object_(slices))).numpy()[:, 0].reshape(slices, len(places), -1)
    for number in range(slices):
        for index, line in enumerate(data[number]):
            written = np.zeros((len(line), dimensions))
            written[:, :2] = places[index] / unit
            place = (0.0, 0.0, 5.0 * number)
            found.add(line[None], places=written, kspace_encode_step_1=index, slice=number, position=place)
    return found


def spec(path: Path, **more: Any) -> JobSpec:
    return JobSpec.parse({"input": {"path": str(path), "format": "ismrmrd", **more}, "method": "gridding"})


XML = header((SIZE, SIZE, 1), (SIZE, SIZE, 1), (64.0, 64.0, 5.0), trajectory="radial")


def error(volume: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.abs(volume) - np.abs(expected)) / np.linalg.norm(expected))


@pytest.mark.parametrize("unit", [1.0, SIZE])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_image_is_the_one_that_was_measured(tmp_path: Path, unit: float, dimensions: int) -> None:
    path = scan(spokes(), unit, slices=2, dimensions=dimensions).write(tmp_path / "scan.h5", XML)
    job = spec(path)
    found = reader.read(job, local_files(job))
    assert reader.check(job, local_files(job)).shape == found.data.shape == (2, 1, 60 * 64)
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    assert error(result.volume, object_(2)) < 0.15
    # Read direction -> columns, phase -> rows, 2 mm each, slices 5 mm apart: LPS to RAS turns x and y.
    assert np.allclose(np.abs(np.diag(result.affine)), [2, 2, 5, 1]) and result.affine[0, 0] < 0


def test_an_oversampled_readout_is_cut_to_the_image(tmp_path: Path) -> None:
    """Encoded twice as wide as the image: samples are half a cycle per field of view apart."""
    xml = header((2 * SIZE, 2 * SIZE, 1), (SIZE, SIZE, 1), (128.0, 128.0, 5.0), (64.0, 64.0, 5.0), trajectory="radial")
    path = scan(spokes(), 0.5).write(tmp_path / "scan.h5", xml)
    job = spec(path)
    result = recon.reconstruct(reader.read(job, local_files(job)), method="cg-sense", progress=False)
    assert error(result.volume, object_()) < 0.15


def test_noise_readouts_and_one_slice_of_two(tmp_path: Path) -> None:
    made = scan(spokes(), slices=2)
    generator = np.random.default_rng(0)
    noise = generator.normal(scale=0.01, size=(1, 4000)) + 1j * generator.normal(scale=0.01, size=(1, 4000))
    made.add(noise, flags=NOISE)
    job = spec(made.write(tmp_path / "scan.h5", XML), slices=[1, 2])
    found = reader.read(job, local_files(job))
    assert found.noise_std == pytest.approx(0.01, rel=0.05) and found.data.shape[0] == 1
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    assert error(result.volume, object_(2)[1:]) < 0.15


def refused(path: Path, says: str) -> None:
    job = spec(path)
    for read in (reader.read, reader.check):
        with pytest.raises(ReconError, match=says) as caught:
            read(job, local_files(job))
        assert caught.value.exit_code == 2 and caught.value.field


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    refused(scan(spokes(), 0.01).write(tmp_path / "unit.h5", XML), "the trajectory reaches 1600")
    leaves = scan(spokes(), dimensions=3)
    leaves.places[5][:, 2] = 3.0
    refused(leaves.write(tmp_path / "volume.h5", XML), "leaves the plane")
    cut = scan(spokes())
    cut.places[5] = cut.places[5][:-1]
    refused(cut.write(tmp_path / "cut.h5", XML), "has a trajectory of 126 numbers, its header says 2 x 64")
    wrong = scan(spokes())
    wrong.places[5][3, 0] = np.nan
    refused(wrong.write(tmp_path / "nan.h5", XML), "not finite")
    partitions = scan(spokes())
    partitions.heads[5]["idx"]["kspace_encode_step_2"] = 4
    refused(partitions.write(tmp_path / "deep.h5", XML), "1 readouts have a partition outside of the 1")
    turned = scan(spokes(), slices=2)
    turned.places[-1] = turned.places[-1][::-1]
    refused(turned.write(tmp_path / "turned.h5", XML), "slice 1 has another trajectory than slice 0")


DEEP = 10
STACK = header((SIZE, SIZE, DEEP), (SIZE, SIZE, DEEP), (64.0, 64.0, 30.0), trajectory="radial")


def stack(
    path: Path,
    *,
    partitions: Sequence[int] = tuple(range(DEEP)),
    across: tuple[int, int, int] = (0, 0, 1),
    dimensions: int = 2,
    turn: float = 0.0,
    leaves: bool = False,
    xml: str = STACK,
    noise_std: float = 0.0,
) -> Path:
    """A stack of stars of `object_`, by the sums that define its samples, read in another order than by partitions."""
    volume = object_(DEEP)
    places = spokes(40)
    y, x = (np.arange(SIZE) - SIZE // 2 for _ in range(2))
    z = np.arange(DEEP) - DEEP // 2
    generator = np.random.default_rng(0)
    made = Scan()
    if noise_std:
        made.add(noise_std * (generator.normal(size=(1, 4000)) + 1j * generator.normal(size=(1, 4000))), flags=NOISE)
    for index, line in enumerate(places):
        for number in partitions:
            c, s = np.cos(turn * number), np.sin(turn * number)
            turned = line @ np.array([[c, s], [-s, c]])
            along_x = np.exp(-2j * np.pi * np.outer(turned[:, 0], x) / SIZE)
            along_y = np.exp(-2j * np.pi * np.outer(turned[:, 1], y) / SIZE)
            along_z = np.exp(-2j * np.pi * (number - DEEP // 2) * z / DEEP)
            image = np.tensordot(along_z, volume, 1) / np.sqrt(DEEP)
            samples = np.einsum("sy,yx,sx->s", along_y, image, along_x)[None] / SIZE
            if noise_std:
                samples = samples + noise_std * (generator.normal(size=(1, 64)) + 1j * generator.normal(size=(1, 64)))
            written = np.zeros((64, dimensions))
            written[:, :2] = turned
            if dimensions == 3:
                written[:, 2] = number - DEEP // 2 + (np.linspace(0, 9, 64) if leaves else 0)
            made.add(
                samples, places=written, kspace_encode_step_1=index, kspace_encode_step_2=number, slice_dir=across,
                position=(0.0, 0.0, 7.0),
            )  # fmt: skip
    return made.write(path, xml)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("up", [1, -1])
def test_a_stack_of_stars_is_a_volume_in_its_place(tmp_path: Path, up: int, dimensions: int) -> None:
    job = spec(stack(tmp_path / "scan.h5", across=(0, 0, up), dimensions=dimensions))
    found = reader.read(job, local_files(job))
    assert reader.check(job, local_files(job)).shape == found.data.shape == (DEEP, 1, 40 * 64)
    assert isinstance(found.acquisition, MRINonCartesian) and found.acquisition.partition_encoding
    assert found.acquisition.slice_mm == pytest.approx(3.0)
    limits = {"gridding": 0.3, "cg-sense": 0.15}
    for method, limit in limits.items():
        result = recon.reconstruct(found, method=method, progress=False)
        assert error(result.volume, object_(DEEP)) < limit < 0.45 < error(result.volume[::-1], object_(DEEP))
    # Columns to the left, rows to the back, partitions along the direction that the file states: LPS to RAS.
    assert np.diag(result.affine) == pytest.approx([-2, -2, 3 * up, 1])
    assert result.affine @ (SIZE // 2, SIZE // 2, DEEP // 2, 1) == pytest.approx((0, 0, 7, 1))


def test_slices_of_a_stack_and_its_oversampling(tmp_path: Path) -> None:
    path = stack(tmp_path / "scan.h5")
    whole = reader.read(spec(path), local_files(spec(path)))
    job = spec(path, slices=[2, 5])
    some = reader.read(job, local_files(job))
    assert isinstance(some.acquisition, MRINonCartesian) and not some.acquisition.partition_encoding
    assert some.affine is not None and some.affine[2, 3] == pytest.approx(7 - 3 * 3)
    part, every = (recon.reconstruct(one, method="gridding", progress=False).volume for one in (some, whole))
    assert np.abs(part - every[2:5]).max() < 1e-4 * np.abs(every).max()
    xml = header((SIZE, SIZE, DEEP), (SIZE, SIZE, 6), (64.0, 64.0, 30.0), (64.0, 64.0, 18.0), trajectory="radial")
    cropped = spec(stack(tmp_path / "cropped.h5", xml=xml))
    inner = reader.read(cropped, local_files(cropped))
    assert inner.affine is not None and inner.affine[2, 3] == pytest.approx(7 - 3 * 3)
    volume = recon.reconstruct(inner, method="gridding", progress=False).volume
    assert np.abs(volume - every[2:8]).max() < 1e-4 * np.abs(every).max()


def test_the_noise_of_a_stack_is_that_of_its_slices(tmp_path: Path) -> None:
    job = spec(stack(tmp_path / "scan.h5", noise_std=0.02))
    found = reader.read(job, local_files(job))
    assert found.noise_std == pytest.approx(0.02, rel=0.05)
    clean = reader.read(spec(stack(tmp_path / "clean.h5")), {"input": tmp_path / "clean.h5"})
    noisy, without = (inverse_problem.build(one).problem for one in (found, clean))
    assert float((noisy.data - without.data).real.std()) == pytest.approx(0.02, rel=0.05)
    assert float(noisy.noise.max()) == pytest.approx(0.02, rel=0.05)


def test_stacks_that_are_no_stack_of_planes(tmp_path: Path) -> None:
    partial = stack(tmp_path / "partial.h5", partitions=range(3, DEEP))
    refused(partial, "7 of 10 partitions were measured, and all are needed")
    refused(stack(tmp_path / "every.h5", partitions=range(0, DEEP, 2)), "5 of 10 partitions")
    refused(stack(tmp_path / "turns.h5", turn=0.02), "partition 1 has another trajectory than partition 0")
    refused(stack(tmp_path / "ball.h5", dimensions=3, leaves=True), "leaves the plane")
    whole = stack(tmp_path / "whole.h5")
    value = {
        "input": {"path": str(whole), "format": "ismrmrd"},
        "acquisition": {"kind": "mri-noncartesian", "partition_encoding": False},
        "method": "gridding",
    }
    job = JobSpec.parse(value)
    with pytest.raises(ReconError, match="false, but the file holds partitions that encode all slices"):
        reader.read(job, local_files(job))
    flat = scan(spokes(), slices=2).write(tmp_path / "flat.h5", XML)
    job = JobSpec.parse({**value, "input": {"path": str(flat), "format": "ismrmrd"}, "acquisition": {
        "kind": "mri-noncartesian", "partition_encoding": True,
    }})  # fmt: skip
    with pytest.raises(ReconError, match="true, but the file holds slices with samples of their own"):
        reader.read(job, local_files(job))
