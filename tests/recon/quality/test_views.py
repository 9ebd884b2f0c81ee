"""Planes of a volume are shown as radiology shows them, whatever order and direction its axes are stored in."""

from __future__ import annotations

import io
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from recon.quality import png
from recon.quality.views import grey_window, percentiles, views_of

FLIPPED_AND_PERMUTED = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def stored(order: tuple[int, ...], signs: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A volume ``(col, row, slice)`` whose values are all different, and its affine."""
    affine = np.eye(4)
    for axis, (direction, sign, size) in enumerate(zip(order, signs, (1.0, 2.0, 3.0), strict=True)):
        affine[:3, axis] = 0.0
        affine[direction, axis] = sign * size
    affine[:3, 3] = 10.0, -20.0, 30.0
    return np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7), affine


@pytest.mark.parametrize(("order", "signs"), FLIPPED_AND_PERMUTED)
def test_as_nibabel_turns_it(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    data, affine = stored(order, signs)
    turned = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(data, affine)).dataobj)  # R A S
    # The picture's right is the patient's left, its top is anterior or superior.
    expected = {"axial": turned[::-1, ::-1, :], "coronal": turned[::-1, :, ::-1], "sagittal": turned[:, ::-1, ::-1]}
    inverse = np.linalg.inv(affine)
    for axis, view in zip((2, 1, 0), views_of(affine, in_patient=True), strict=True):
        plane = np.moveaxis(expected[view.plane], axis, 0)
        along = 2 - view.across  # of (col, row, slice)
        grows = affine[axis, along] > 0
        assert inverse[along, axis] != 0
        for index in range(data.shape[along]):
            wanted = plane[index if grows else len(plane) - 1 - index].T
            assert np.array_equal(view.picture(data.transpose(2, 1, 0), index), wanted)
        mm = np.linalg.norm(affine[:3, :3], axis=0)
        assert (view.right_mm, view.down_mm) == (mm[2 - view.right], mm[2 - view.down])


def test_labels_are_those_of_radiology() -> None:
    affine = np.diag([-1.0, -1, 1, 1])
    assert [v.labels for v in views_of(affine, in_patient=True)] == [tuple("RLAP"), tuple("RLSI"), tuple("APSI")]
    assert not {"R", "L"} & {label for v in views_of(affine, in_patient=False) for label in v.labels}


def test_the_scanners_frame_is_seen_with_x_to_the_right() -> None:
    data = np.zeros((1, 3, 4), dtype=np.float32)
    data[0, 0, 3] = 1.0  # x and y largest
    axial = views_of(np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), in_patient=False)[0]
    assert axial.picture(data, 0)[0, -1] == 1.0
    assert views_of(np.diag([1.0, -1, 1, 1]), in_patient=True)[0].picture(data, 0)[0, 0] == 1.0


@pytest.mark.parametrize("colours", ["gray", "inferno"])
def test_a_picture_has_the_shades_that_went_in(colours: png.Colours) -> None:
    shades = np.arange(256, dtype=np.uint8).reshape(8, 32)
    found = np.rint(imread(io.BytesIO(png.encode(shades, colours)), format="png") * 255).astype(np.uint8)
    if colours == "gray":
        assert np.array_equal(found, shades)
    else:
        palette = np.frombuffer(png.palette(colours), np.uint8).reshape(256, 3)
        assert np.array_equal(found[..., :3], palette[shades])


def test_values_become_shades() -> None:
    values = np.array([[-1000.0, 0.0, 50.0, 100.0, 3000.0, np.nan, np.inf, -np.inf]], dtype=np.float32)
    assert png.windowed(values, 0.0, 100.0).tolist() == [[0, 0, 128, 255, 255, 0, 255, 0]]


def test_values_that_are_not_finite_have_no_part_in_a_window() -> None:
    volume = np.linspace(0, 100, 1000, dtype=np.float32).reshape(10, 10, 10)
    low, high = grey_window(volume)
    damaged = np.concatenate([volume, np.full((1, 10, 10), np.nan), np.full((1, 10, 10), np.inf)])
    assert grey_window(damaged) == (low, high) and 0 < low < high < 100
    assert percentiles(damaged, [0, 50, 100]) == pytest.approx([0, 50, 100])
    nothing = np.full((2, 3, 3), np.nan)
    assert percentiles(nothing, [0, 100]) == [0, 0] and grey_window(nothing)[0] < grey_window(nothing)[1]
