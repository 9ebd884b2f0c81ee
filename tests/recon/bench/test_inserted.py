"""Lesions have the size and contrast that they are said to have, and lie in their tissue, far from each other."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from recon.bench.inserted import (
    CT_KINDS,
    LINE_MM,
    LINES_MM,
    MRI_KINDS,
    NODULES_MM,
    ROUNDNESS,
    Kind,
    Lesion,
    Shape,
    Tissues,
    covered,
    insert,
    lay_out,
    places,
)
from tests.recon.bench.bodies import PIXEL_MM, RIBS, SIDE, body, ellipse, head

PIXEL = (PIXEL_MM, PIXEL_MM)


@pytest.mark.parametrize(
    ("shape", "size_mm", "area_mm2"),
    [
        ("disc", 4.0, math.pi * 2.0**2),
        ("disc", 12.0, math.pi * 6.0**2),
        ("ellipse", 12.0, ROUNDNESS * math.pi * 6.0**2),
        ("line", 1.5, 1.5 * LINE_MM),
        ("line", 3.0, 3.0 * LINE_MM),
    ],
)
@pytest.mark.parametrize("pixel_mm", [(1.4, 1.4), (1.0, 1.15), (3.0, 3.0)])
@pytest.mark.parametrize("angle_rad", [0.0, 0.7])
def test_a_shape_covers_its_area_whatever_the_pixels(
    shape: Shape, size_mm: float, area_mm2: float, pixel_mm: tuple[float, float], angle_rad: float
) -> None:
    share = covered(shape, size_mm, pixel_mm, angle_rad)
    assert share.sum() * pixel_mm[0] * pixel_mm[1] == pytest.approx(area_mm2, rel=0.04)
    assert share.min() == 0 and 0 < share.max() <= 1
    margin = np.ones(share.shape, bool)
    margin[3:-3, 3:-3] = False
    assert not share[margin].any(), "room for the ring"


def test_a_line_lies_along_its_angle() -> None:
    (down, right), (flat_down, flat_right) = (
        (int(np.ptp(axis)) for axis in np.nonzero(covered("line", 2.0, PIXEL, angle) > 0.3))
        for angle in (math.pi / 2, 0.0)
    )
    assert down > 3 * right and flat_right > 3 * flat_down
    rows, cols = np.nonzero(covered("line", 2.0, PIXEL, math.pi / 4) > 0.3)
    assert np.polyfit(cols, rows, 1)[0] == pytest.approx(1.0, abs=0.2), "from the columns' index to the rows'"


def chest() -> tuple[NDArray[np.float32], list[Tissues], list[Lesion]]:
    volume = np.stack([body(), body()])
    tissues = [Tissues.of_ct(one) for one in volume]
    return volume, tissues, lay_out(volume, tissues, CT_KINDS, PIXEL)


def test_tissues_are_what_they_are_called() -> None:
    tissues = Tissues.of_ct(body())
    expected = {"lung": -850.0, "soft tissue": 40.0}
    for name, value in expected.items():
        mask = tissues.masks[name]
        assert mask.sum() > 500 and np.median(body()[mask]) == pytest.approx(value, abs=2)
    assert tissues.masks["bone"].sum() > 30 and body()[tissues.masks["bone"]].min() > 200


def test_blood_with_contrast_agent_is_no_bone() -> None:
    image = body()
    image[ellipse(0, 0, 20, 20)] = 250.0
    assert not Tissues.of_ct(image).masks["bone"][ellipse(0, 0, 20, 20)].any()


def test_a_stone_is_no_healthy_tissue() -> None:
    image = body(lungs=False)
    assert Tissues.of_ct(image).masks["soft tissue"][80, 80]
    image[80, 80] = 500.0
    assert not Tissues.of_ct(image).masks["soft tissue"][80, 80]


def test_every_kind_and_size_finds_a_place_in_its_tissue_and_apart() -> None:
    volume, tissues, lesions = chest()
    count = Counter((one.kind.name, one.size_mm) for one in lesions if one.kind.shape != "missing")
    for kind in CT_KINDS:
        sizes = LINES_MM if kind.shape in ("line", "crack") else NODULES_MM if kind.shape == "disc" else ()
        assert all(count[kind.name, size] >= 1 for size in sizes), kind.name
    assert sum(one.kind.shape == "missing" for one in lesions) == 2
    for index in range(2):
        mine = [one for one in lesions if one.index == index]
        times = np.zeros((SIDE, SIDE), int)
        for one in mine:
            lies = np.zeros((SIDE, SIDE), bool)
            lies[one.at[1:]] = one.surroundings
            times += ndimage.distance_transform_edt(~lies, sampling=PIXEL_MM) <= PIXEL_MM
            if one.kind.shape != "missing":
                assert tissues[index].masks[one.kind.tissue][one.at[1:]][one.footprint].all()
        assert times.max() == 1, "rings are apart"
    assert np.array_equal(insert(volume, lesions), insert(volume, chest()[2])), "the same each time"


def test_contrast_of_what_was_inserted_is_read_off() -> None:
    volume, _, lesions = chest()
    difference = insert(volume, lesions) - volume
    for one in lesions:
        found = one.contrast(difference)
        if one.kind.shape == "disc":
            assert 0.7 < found / one.kind.contrast < 1.01, "pixels at the edge are covered in part"
        assert one.contrast(difference + 100.0) == pytest.approx(found, abs=0.01), "a level is no contrast"
    assert np.abs(difference).max() > 100


def test_cracks_go_across_the_bone_and_leave_the_rest_alone() -> None:
    volume, tissues, lesions = chest()
    cracks = [one for one in lesions if one.kind.shape == "crack"]
    for one in cracks:
        broken = one.change < 0
        assert tissues[one.index].masks["bone"][one.at[1:]][broken].all() and one.change.max() == 0
        rows, cols = np.nonzero(broken)
        assert np.ptp(cols) > np.ptp(rows), "across ribs that stand upright"
        middle = (np.array([cols.mean() + one.col, rows.mean() + one.row]) - (SIDE - 1) / 2) * PIXEL_MM
        assert min(float(np.linalg.norm(middle - rib)) for rib in np.array(RIBS)) < 16
    assert len(cracks) >= 3 and volume.max() > 500


def test_a_missing_structure_leaves_its_surroundings() -> None:
    volume, _, lesions = chest()
    after = insert(volume, lesions)
    for one in lesions:
        if one.kind.shape == "missing":
            core = np.abs(one.change) > np.abs(one.change).max() / 2
            assert volume[one.at][core].mean() > 500
            assert np.abs(after[one.at][core] - 40.0).max() < 60, "soft tissue is around"
            assert one.invented_sign == 1.0, "an invented one would be dense"


def test_a_head_has_lesions_in_the_brain_and_loses_liquor() -> None:
    image = head()
    tissues = Tissues.of_brain(image, PIXEL)
    assert tissues.unit == pytest.approx(100.0, rel=0.02)
    lesions = lay_out(image[None], [tissues], MRI_KINDS, PIXEL)
    assert {one.kind.name for one in lesions} == {kind.name for kind in MRI_KINDS}
    for one in lesions:
        if one.kind.shape == "ellipse":
            assert np.abs(one.change).max() == pytest.approx(100.0 * abs(one.kind.contrast), rel=0.02)
            assert np.median(image[one.at[1:]][one.footprint]) == pytest.approx(100.0, rel=0.02)
        else:
            assert one.change.min() < -150


def test_no_place_is_no_lesion() -> None:
    air = np.full((1, 64, 64), -1000.0, np.float32)
    assert lay_out(air, [Tissues.of_ct(air[0])], CT_KINDS, PIXEL) == []


def test_places_are_those_into_which_the_footprint_fits() -> None:
    tissue = np.zeros((20, 30), bool)
    tissue[4:12, 5:16] = True
    found = np.argwhere(places(tissue, np.ones((3, 4), bool)))
    assert found.min(0).tolist() == [4, 5] and found.max(0).tolist() == [9, 12]


def test_an_error_answers_the_filter_where_it_lies() -> None:
    change = np.zeros((10, 11), np.float32)
    change[3:7, 3] = change[6, 3:8] = 100.0  # an L, which a filter that is turned around would not fit
    lesion = Lesion(Kind("nodule", "disc", "soft tissue", 100.0, (8.0,)), 8.0, 0, 20, 30, change)
    error = np.zeros((1, 64, 64), np.float32)
    error[lesion.at] = change
    answers = lesion.responses(error[0], np.ones((64, 64), bool))
    assert answers.max() == pytest.approx(lesion.contrast(error), rel=1e-5)
    elsewhere = np.ones((64, 64), bool)
    elsewhere[:40] = False
    assert np.abs(lesion.responses(error[0], elsewhere)).max() < 1e-3
