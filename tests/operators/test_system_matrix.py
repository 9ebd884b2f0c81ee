"""The system matrix: its parts are those of the whole, and its width in slices changes rounding alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from operators import disk_cache, system_matrix
from operators.disk_cache import DiskCache
from operators.geometry import MATRIX_COLUMNS, FanBeam, ParallelBeam, matrix_columns
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


FAN = FanBeam(40, 30, 1.0, ANGLES, 61, 1.5, -0.7, source_origin_mm=200.0, origin_detector_mm=100.0)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[DiskCache]:
    """A cache on disk that this process uses."""
    cache = DiskCache(tmp_path, 2**30)
    disk_cache.use(cache)
    yield cache
    disk_cache.use(None)


def products(geometry: ParallelBeam) -> tuple[torch.Tensor, torch.Tensor]:
    """Projection and back-projection with a matrix that no earlier call of this process has left in memory."""
    system_matrix.cache = system_matrix.MatrixCache()
    operator = Tomography(geometry, "matrix")
    image = torch.rand((3, geometry.rows, geometry.cols), generator=torch.Generator().manual_seed(0))
    data = operator.forward(image)
    return data, operator.adjoint(data)


@pytest.mark.parametrize("geometry", [GEOMETRY, FAN], ids=["parallel, in parts", "fan"])
def test_a_matrix_from_disk_gives_the_same_bits(
    geometry: ParallelBeam, kept: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_matrix, "cache", system_matrix.cache)  # put back afterwards
    cold = products(geometry)
    with monkeypatch.context() as patch:
        patch.setattr(system_matrix, "build", None)  # it is not called
        warm = products(geometry)
        held = system_matrix.cache.get(geometry, Tomography(geometry)._build_matrix)
    disk_cache.use(None)
    none = products(geometry)
    for found in (warm, none):
        assert torch.equal(found[0], cold[0]) and torch.equal(found[1], cold[1])
    assert held.nbytes == system_matrix.cache.get(geometry, Tomography(geometry)._build_matrix).nbytes


@pytest.mark.parametrize(
    "change",
    [{"pixel_mm": 1.0 + 1e-12}, {"angles_rad": (*ANGLES[:-1], ANGLES[-1] + 1e-12)}, {"detector_shift_mm": 0.0}],
    ids=str,
)
def test_another_geometry_has_another_matrix(change: dict[str, object], kept: DiskCache) -> None:
    key = Tomography(FAN)._matrix_key()
    assert Tomography(replace(FAN, **change))._matrix_key() != key  # type: ignore[arg-type] # fields of a geometry
    parallel = {name: value for name, value in vars(FAN).items() if name in ParallelBeam.__dataclass_fields__}
    assert Tomography(ParallelBeam(**parallel))._matrix_key() != key
