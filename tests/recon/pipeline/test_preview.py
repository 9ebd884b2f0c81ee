"""A preview shows the middle planes of what is being computed, upright, with square pixels, and changes nothing."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from matplotlib.image import imread
from torch import Tensor

from recon import library
from recon.pipeline.prepare import JobProgress
from recon.pipeline.preview import GAP, LONGEST_SIDE, preview


def inverse(affine: np.ndarray, *, in_patient: bool = True) -> Any:
    return SimpleNamespace(arranged=lambda volume: volume, display=Tensor.numpy, affine=affine, in_patient=in_patient)


def shades(found: bytes) -> np.ndarray:
    picture: np.ndarray = np.rint(imread(io.BytesIO(found), format="png") * 255).astype(np.uint8)
    return picture


def test_planes_lie_as_radiology_shows_them() -> None:
    volume = torch.zeros(20, 30, 40)
    volume[10, :, 30:] = 1.0  # of columns that grow to the patient's right, in the slice in the middle
    found = shades(preview(inverse(np.diag([1.0, 1, 1, 1])), volume))
    assert found.shape == (30, 40 + GAP + 40 + GAP + 30)
    axial, coronal, sagittal = found[:, :40], found[5:25, 44:84], found[5:25, 88:]
    assert axial[:, :10].min() == 255 and axial[:, 10:].max() == 0
    assert np.argwhere(coronal).min(0).tolist() == [9, 0]  # slices grow upwards
    assert not sagittal.any()


def test_pixels_are_square_and_not_too_many() -> None:
    slices = np.diag([2.0, 2, 5, 1])
    found = shades(preview(inverse(slices), torch.rand(16, 20, 30)))
    assert found.shape == (40, 30 + GAP + 30 + GAP + 20)  # 16 slices of 5 mm in pixels of 2 mm
    large = shades(preview(inverse(np.eye(4)), torch.rand(12, 800, 1000)))
    assert max(large.shape[0], (large.shape[1] - 2 * GAP) / 3) <= LONGEST_SIDE


def test_of_a_few_slices_there_is_one_plane() -> None:
    assert shades(preview(inverse(np.eye(4)), torch.rand(4, 20, 30))).shape == (20, 30)
    assert shades(preview(inverse(np.eye(4)), torch.ones(1, 20, 30))).shape == (20, 30)


def test_only_what_is_shown_is_converted() -> None:
    converted: list[int] = []

    def display(volume: Tensor) -> np.ndarray:
        converted.append(volume.numel())
        return volume.numpy()

    shown = inverse(np.eye(4))
    shown.display = display
    preview(shown, torch.rand(20, 30, 40))
    assert sorted(converted) == [20 * 30, 20 * 40, 30 * 40]


def test_a_running_job_can_be_seen_and_is_not_changed_by_that(asymmetric: np.ndarray) -> None:
    def reconstructed(progress: Any) -> np.ndarray:
        measured = library.simulate(asymmetric, "ct-parallel", views=12)
        method = {"name": "tv", "iterations": 20}
        found = library.reconstruct(measured, method=method, baselines=["fbp"], progress=progress)
        return np.asarray(found.volume)

    seen: list[tuple[str, bytes]] = []

    def look(progress: JobProgress) -> None:
        if progress.draw is not None:
            seen.append((progress.stage, progress.draw()))

    assert np.array_equal(reconstructed(look), reconstructed(False))
    pictures = [shades(picture) for stage, picture in seen if stage == "tv"]
    assert len(pictures) > 1 and all(picture.max() == 255 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[-1])
