"""The system matrix: its parts are those of the whole, and its width in slices changes rounding alone."""

from __future__ import annotations

import math

import pytest
import torch

from operators.geometry import MATRIX_COLUMNS, ParallelBeam, matrix_columns
from operators.linear import dot_product_error
from operators.tomography import Tomography

ANGLES = tuple(math.pi * view / 7 for view in range(7))
# More pixels than a part of the matrix has columns, and no multiple of them.
GEOMETRY = ParallelBeam(150, 130, 1.0, ANGLES, 190, 1.0, 1.3)


def test_parts_of_the_matrix_are_those_of_the_whole() -> None:
    whole = Tomography(GEOMETRY, "astra")
    cut = Tomography(GEOMETRY, "matrix")
    assert len(cut._build_matrix().matrix) == 2
    image = torch.rand((3, 150, 130), generator=torch.Generator().manual_seed(0))
    data = whole.forward(image)
    assert cut.forward(image) == pytest.approx(data, abs=1e-4 * float(data.max()))
    back = whole.adjoint(data)
    assert cut.adjoint(data) == pytest.approx(back, abs=1e-4 * float(back.max()))


@pytest.mark.parametrize(("slices", "columns"), [(1, 1), (2, 2), (3, 8), (8, 8), (9, 16), (500, 16)])
def test_a_job_multiplies_by_no_more_slices_than_it_needs(slices: int, columns: int) -> None:
    assert matrix_columns(slices) == columns


@pytest.mark.parametrize("columns", [1, 2, 8])
def test_the_number_of_slices_at_once_changes_rounding_alone(columns: int) -> None:
    narrow, usual = Tomography(GEOMETRY, "matrix", columns), Tomography(GEOMETRY, "matrix")
    assert usual.columns == MATRIX_COLUMNS and narrow.another(0).columns == columns
    image = torch.rand((5, 150, 130), generator=torch.Generator().manual_seed(1))
    expected = usual.forward(image)
    found = narrow.forward(image)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.max())
    # However the slices of a job are cut, each has the same bits.
    assert torch.equal(found[3:4], narrow.forward(image[3:4]))
    assert dot_product_error(narrow) < 1e-5
