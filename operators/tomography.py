"""CT projectors: ASTRA's CPU kernels as a batched linear operator with an exact adjoint.

Three backends compute the same thing:

``matrix``  the stack of slices times ASTRA's explicit system matrix (the default on CPU),
``astra``   ASTRA's own projector, one slice per thread, when the matrix would not fit,
``cuda``    ASTRA's GPU projectors, see `operators.tomography_cuda`.
"""

from __future__ import annotations

import math
import platform
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Literal

import astra
import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from operators import disk_cache, geometry, system_matrix
from operators.errors import BackendUnavailable
from operators.fbp import filtered_back_projection
from operators.geometry import (
    MATRIX_COLUMNS,
    MATRIX_LIMIT_BYTES,
    FanBeam,
    ParallelBeam,
    SamplingPattern,
    angular_cover,
    angular_pattern,
    estimated_matrix_bytes,
    kernel,
    view_folds,
    view_vectors,
)
from operators.interrupt import checkpoint
from operators.linear import LinearOperator, Space, Withheld
from operators.preconditioner import projection_spectrum

Backend = Literal["auto", "matrix", "astra", "cuda"]
END_UNITS = 3
"""Units that the views at an end of a limited arc make."""
TURN_RAD = math.pi * (3 - 5**0.5) / 2
"""Rotation between comparable scans: the golden section of half a turn, so that angles never repeat."""


class Tomography(LinearOperator):
    """Line integrals of attenuation: ``(slices, rows, cols)`` in 1/mm to ``(slices, angles, detectors)``.

    The result has no unit; a disc of radius R mm and attenuation 1/mm projects to 2R at its centre.
    Computed in float32; float64 input is accepted and returned as float64 with float32 accuracy.

    Parameters
    ----------
    geometry
        Parallel or fan beam, in millimetres and radians.
    backend
        ``auto`` takes the matrix up to `MATRIX_LIMIT_BYTES`, ASTRA's own projector above.
    columns
        Slices that the matrix is multiplied by at once; see `operators.geometry.matrix_columns`.

    Raises
    ------
    BackendUnavailable
        If ``cuda`` is asked for and ASTRA finds no GPU.
    """

    def __init__(self, geometry: ParallelBeam, backend: Backend = "auto", columns: int = MATRIX_COLUMNS) -> None:
        g = geometry
        super().__init__(Space((g.rows, g.cols)), Space((len(g.angles_rad), g.detectors)))
        self.geometry = geometry
        if backend == "auto":
            backend = "matrix" if estimated_matrix_bytes(g) <= MATRIX_LIMIT_BYTES else "astra"
        if backend == "cuda" and not astra.use_cuda():
            raise BackendUnavailable(
                "ASTRA finds no CUDA device", field="backend", remedy="leave the backend to `auto`"
            )
        self.backend, self.columns = backend, columns

    def spectrum(self) -> Tensor:
        """See `operators.preconditioner.projection_spectrum`."""
        return self._spectrum

    @cached_property
    def _spectrum(self) -> Tensor:
        return projection_spectrum(self)

    def filtered_back_projection(self, data: Tensor, window: str) -> Tensor:
        """See `operators.fbp.filtered_back_projection`."""
        return filtered_back_projection(data, self.geometry, window)

    def initial_image(self, data: Tensor) -> Tensor:
        """Initial image: filtered back-projection with a Hann window, negative values cut off."""
        return self.filtered_back_projection(data, "hann").clamp(min=0)

    @property
    def sampling_pattern(self) -> SamplingPattern:
        """Angular coverage: ``full``, or ``limited`` where directions are missing."""
        return angular_pattern(self.geometry.angles_rad)

    @property
    def scan(self) -> str:
        """Beam, number of views and the directions that they cover."""
        angles = self.geometry.angles_rad
        beam = "fan" if isinstance(self.geometry, FanBeam) else "parallel"
        return f"{len(angles)} {beam} views over {180 * angular_cover(angles):.0f} of 180 degrees"

    def another(self, index: int) -> Tomography:
        """Comparable scan: all views rotated by `TURN_RAD`, ``index + 1`` times."""
        angles = tuple(angle + TURN_RAD * (index + 1) for angle in self.geometry.angles_rad)
        return Tomography(replace(self.geometry, angles_rad=angles), self.backend, self.columns)

    @property
    def folds(self) -> int:
        """See `operators.geometry.view_folds`."""
        return len(view_folds(self.geometry))

    def withheld(self, fold: int) -> Withheld:
        """Withhold views.

        By the Fourier slice theorem the squared error of a view, weighted by its frequency, is that view's share of
        the image's squared error: plainly squared residuals would judge the lowest frequencies only.
        """
        folds = view_folds(self.geometry)
        if not folds:
            return super().withheld(fold)
        held = list(folds[fold])
        angles = self.geometry.angles_rad
        kept = [i for i in range(len(angles)) if i not in held]
        parts = [replace(self.geometry, angles_rad=tuple(angles[i] for i in chosen)) for chosen in (kept, held)]
        kept_views, held_views = (Tomography(part, self.backend, self.columns) for part in parts)
        # Neighbours at an end of the arc err alike: a third of them together is a unit.
        size = -(-len(held) // END_UNITS) if self.sampling_pattern == "limited" else 1

        def spectra(residuals: Tensor) -> Tensor:
            filtered = functional.pad(ramped(residuals), (0, 0, 0, -len(held) % size))
            return filtered.reshape(len(filtered), -1, size * filtered.shape[-1])

        return Withheld(kept_views, held_views, lambda y: y[:, kept], lambda y: y[:, held], spectra)

    def _forward(self, x: Tensor) -> Tensor:
        return self._apply(x, self.range.shape, adjoint=False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y, self.domain.shape, adjoint=True)

    def _apply(self, x: Tensor, shape: tuple[int, ...], *, adjoint: bool) -> Tensor:
        data = x.detach().to(torch.float32).contiguous()
        out: Tensor
        if self.backend == "cuda":
            from operators import tomography_cuda

            out = tomography_cuda.apply(self.geometry, data, adjoint=adjoint)
        elif self.backend == "matrix":
            matrix = system_matrix.cache.get(self.geometry, self._build_matrix)
            product = matrix.adjoint if adjoint else matrix.forward
            out = product(data.reshape(len(data), -1), self.columns).reshape(len(data), *shape)
        else:
            out = self._by_slices(data, shape, adjoint=adjoint)
        return out.to(x.dtype)

    def _build_matrix(self) -> system_matrix.SystemMatrix:
        """Build the system matrix, or read the one that an earlier process has built."""

        def build() -> system_matrix.SystemMatrix:
            with_projector = Projector(self.geometry)
            return system_matrix.build(with_projector.id)

        of_arrays, arrays = system_matrix.SystemMatrix.of_arrays, system_matrix.SystemMatrix.arrays
        return disk_cache.kept("matrix", self._matrix_key, build, arrays, of_arrays)

    def _matrix_key(self) -> dict[str, Any]:
        """Everything that the matrix depends on; the code counts, since versions are the same while it is written."""
        code = disk_cache.digest_of(sys.modules[__name__], geometry, system_matrix)
        made_by = {"astra": astra.__version__, "scipy": scipy.__version__, "code": code}
        beam = type(self.geometry).__name__
        return {"geometry": asdict(self.geometry), "beam": beam, "processor": platform.machine(), **made_by}

    def _by_slices(self, data: Tensor, shape: tuple[int, ...], *, adjoint: bool) -> Tensor:
        projector = Projector(self.geometry)
        run = astra.projector.direct_BP if adjoint else astra.projector.direct_FP
        # ASTRA swallows some failures: what it did not write stays NaN and is caught below.
        out = torch.full((len(data), *shape), float("nan"))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(lambda i: run(projector.id, data[i], out=out[i]), range(len(data))):
                checkpoint()
        if bool(torch.isnan(out).any()) and not bool(torch.isnan(data).any()):
            raise BackendUnavailable("ASTRA's projector left part of its output unwritten", field="backend")
        return out


def ramped(residuals: Tensor) -> Tensor:
    """Spectra of views ``(slices, views, detectors)`` times the root of the frequency."""
    padded = 2 * residuals.shape[-1]
    found: Tensor = torch.fft.rfft(residuals, n=padded, dim=-1) * torch.fft.rfftfreq(padded).sqrt()
    return found


class Projector:
    """An ASTRA 2D CPU projector; its id is deleted with the object (ASTRA never does)."""

    def __init__(self, geometry: ParallelBeam) -> None:
        self.volume_geometry = volume_geometry(geometry)
        self.projection_geometry = projection_geometry(geometry)
        self.id = int(astra.create_projector(kernel(geometry), self.projection_geometry, self.volume_geometry))
        weakref.finalize(self, astra.projector.delete, self.id)


def volume_geometry(g: ParallelBeam) -> dict[str, object]:
    """ASTRA's volume geometry, in millimetres around the rotation axis."""
    half_x, half_y = g.cols * g.pixel_mm / 2, g.rows * g.pixel_mm / 2
    made: dict[str, object] = astra.create_vol_geom(g.rows, g.cols, -half_x, half_x, -half_y, half_y)
    return made


def projection_geometry(g: ParallelBeam) -> dict[str, object]:
    """ASTRA's projection geometry; the vector form when the detector is shifted."""
    angles = np.asarray(g.angles_rad, dtype=np.float64)
    made: dict[str, object]
    if g.detector_shift_mm == 0.0:
        if isinstance(g, FanBeam):
            made = astra.create_proj_geom(
                "fanflat", g.detector_mm, g.detectors, angles, g.source_origin_mm, g.origin_detector_mm
            )
        else:
            made = astra.create_proj_geom("parallel", g.detector_mm, g.detectors, angles)
        return made
    kind = "fanflat_vec" if isinstance(g, FanBeam) else "parallel_vec"
    made = astra.create_proj_geom(kind, g.detectors, view_vectors(g))
    return made
