"""Fixtures shared by the tests: small volumes, a prior in closed form, a real service."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from recon.formats import nifti

SAMPLES = Path(__file__).parent.parent / "recon" / "samples"
CORES = torch.get_num_threads()
CACHE = tempfile.TemporaryDirectory(prefix="recon-cache-")
"""What tests and their processes keep on disk: nothing from before, and nothing in the user's own folder."""
os.environ["RECON_CACHE_DIR"] = CACHE.name


class GaussianPrior:
    """The exact denoiser of ``x ~ N(mean, variance I)``."""

    def __init__(self, mean: float, variance: float, *, is_complex: bool = False) -> None:
        self.mean, self.variance, self.complex = mean, variance, is_complex

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.mean + self.variance / (self.variance + sigma**2) * (x - self.mean)


def disc(size: int, pixel_mm: float, radius_mm: float, x_mm: float = 0.0, y_mm: float = 0.0) -> Tensor:
    """An antialiased disc of value one, ``(1, size, size)``, centre in scanner coordinates (y up)."""
    fine = 8
    axis = (torch.arange(size * fine) - (size * fine - 1) / 2) * pixel_mm / fine
    inside = ((axis[None, :] - x_mm) ** 2 + (-axis[:, None] - y_mm) ** 2 <= radius_mm**2).float()
    return torch.nn.functional.avg_pool2d(inside[None], fine)


def image(path: Path) -> nib.Nifti1Image:
    """A NIfTI file as it is stored, axes ``(col, row, slice)``."""
    found = nib.load(path)
    assert isinstance(found, nib.Nifti1Image)
    return found


def voxels(path: Path) -> np.ndarray:
    """Values of a NIfTI file, ``(slices, rows, cols)``."""
    return np.asarray(image(path).dataobj).transpose(2, 1, 0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Most tests' arrays are too small to be worth the threads' waiting for each other."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(CORES)


@pytest.fixture
def all_cores() -> Iterator[None]:
    """For whole slices, and for tests of what is done by threads."""
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def asymmetric() -> np.ndarray:
    """A CT volume in HU ``(slices, rows, cols)`` in which no flip or swap goes unnoticed."""
    volume = np.full((4, 48, 40), -1000.0, dtype=np.float32)
    volume[:, 8:40, 6:34] = 0.0
    volume[:, 10:18, 8:16] = 700.0
    volume[:, 28:36, 26:31] = -500.0
    volume[3, 20:34, 16:26] = 500.0
    return volume


@pytest.fixture
def ct_file(tmp_path: Path, asymmetric: np.ndarray) -> Path:
    """The asymmetric volume as NIfTI with an oblique affine."""
    affine = np.array([[-2.0, 0, 0.1, 30], [0, -2.0, 0, 50], [0.05, 0, 5.0, -100], [0, 0, 0, 1.0]])
    path = tmp_path / "volume.nii.gz"
    nifti.write(path, asymmetric, affine, "test")
    return path


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real embedded service: URL and store."""
    from recon.cli.demo_server import server

    store = tmp_path_factory.mktemp("service") / "store"
    with server(store) as url:
        yield url, store
