"""Benchmark of cone-beam projectors: forward and adjoint, beside a matrix product and what else is installed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from operators.linear import dot_product_error
from operators.volume_geometry import VolumeBeam, circular
from operators.volume_tomography import VolumeTomography

CUBE_MM, SOURCE_MM = 128.0, 400.0
"""Side of the volume, and distance of the source from the axis, as of the detector behind it."""
PRODUCT = 1024
"""Side of the square matrices whose product tells how fast the machine is now."""


@dataclass(frozen=True)
class ConeTiming:
    """Seconds of one projector: the fastest of a few runs.

    Parameters
    ----------
    projector
        Whose it is.
    matmul_s
        Product of two `PRODUCT`-square matrices in the same run.
    dot
        Relative error of the dot-product test.
    """

    projector: str
    size: int
    views: int
    threads: int
    forward_s: float
    adjoint_s: float
    matmul_s: float
    dot: float | None


def geometry(size: int, views: int) -> VolumeBeam:
    """A cube of `CUBE_MM` on a full turn, and a panel of as many rows and columns that is as wide as its shadow."""
    angles = [2 * math.pi * view / views for view in range(views)]
    pitch = 2 * CUBE_MM / size
    vectors = circular(angles, source_origin_mm=SOURCE_MM, origin_detector_mm=SOURCE_MM, column_mm=pitch, row_mm=pitch)
    return VolumeBeam(size, size, size, CUBE_MM / size, CUBE_MM / size, vectors, size, size)


def compare(size: int = 128, views: int = 60, repeats: int = 3) -> Iterator[ConeTiming]:
    """Time our projector, and those of itk-rtk and mbirtorch, which the extra ``cone-peers`` installs."""
    g = geometry(size, views)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, *shape, generator=generator) for shape in (g.volume_shape, g.data_shape))
    matrix = torch.randn(PRODUCT, PRODUCT, generator=generator)
    operator = VolumeTomography(g)
    matmul = _fastest(lambda: matrix @ matrix, 5 * repeats)
    forward, adjoint = _fastest(lambda: operator.forward(x), repeats), _fastest(lambda: operator.adjoint(y), repeats)
    dot = dot_product_error(operator, slices=1)
    yield ConeTiming("ours", size, views, torch.get_num_threads(), forward, adjoint, matmul, dot)
    if find_spec("itk") is not None:
        forward, adjoint = _rtk(g, x[0].numpy(), y[0].numpy(), repeats)
        yield ConeTiming("itk-rtk, Joseph", size, views, torch.get_num_threads(), forward, adjoint, matmul, None)
    if find_spec("mbirtorch") is not None:
        forward, adjoint = _mbirtorch(g, x[0].numpy(), y[0].numpy(), repeats)
        yield ConeTiming("mbirtorch", size, views, torch.get_num_threads(), forward, adjoint, matmul, None)


def _rtk(g: VolumeBeam, x: np.ndarray, y: np.ndarray, repeats: int) -> tuple[float, float]:
    """Seconds of RTK's Joseph projector and of its adjoint."""
    import itk
    from itk import RTK as rtk  # noqa: N811 - the package's own name

    image = itk.Image[itk.F, 3]
    around = rtk.ThreeDCircularProjectionGeometry.New()
    for angle in g.angles_rad:
        around.AddProjection(SOURCE_MM, 2 * SOURCE_MM, math.degrees(angle))

    def made(array: np.ndarray, spacing: tuple[float, float, float]) -> object:
        found = itk.image_from_array(np.ascontiguousarray(array, dtype=np.float32))
        found.SetSpacing(spacing)
        found.SetOrigin([-(n - 1) / 2 * step for n, step in zip(reversed(array.shape), spacing, strict=True)])
        return found

    pitch = 2 * CUBE_MM / g.cols
    volume, views = made(x, (g.pixel_mm,) * 3), made(y, (pitch, pitch, 1.0))

    def run(kind: object, first: object, second: object) -> None:
        work = kind[image, image].New()  # type: ignore[index]
        work.SetInput(0, first)
        work.SetInput(1, second)
        work.SetGeometry(around)
        work.InPlaceOff()  # it would give its input away, which the next run needs
        work.Update()

    forward = _fastest(lambda: run(rtk.JosephForwardProjectionImageFilter, views, volume), repeats)
    return forward, _fastest(lambda: run(rtk.JosephBackProjectionImageFilter, volume, views), repeats)


def _mbirtorch(g: VolumeBeam, x: np.ndarray, y: np.ndarray, repeats: int) -> tuple[float, float]:
    """Seconds of mbirtorch's projector, which casts shadows of voxels, and of its adjoint, in every pixel."""
    import mbirtorch

    pitch = 2 * CUBE_MM / g.cols
    model = mbirtorch.ConeBeamModel(y.shape, np.array(g.angles_rad), 2 * SOURCE_MM, SOURCE_MM)
    model.set_params(
        no_warning=True, use_ror_mask=False, delta_det_channel=pitch, delta_det_row=pitch, delta_voxel=g.pixel_mm,
        recon_shape=(g.rows, g.cols, g.slices),
    )  # fmt: skip
    volume = np.ascontiguousarray(x.transpose(1, 2, 0))
    forward = _fastest(lambda: model.forward_project(volume), repeats)
    return forward, _fastest(lambda: model.back_project(y), repeats)


def _fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest run, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
