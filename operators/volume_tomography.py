"""CT projectors of whole volumes: cone beam, tilted axes, helices, any view vectors, with an exact adjoint on the CPU.

Two backends compute the same thing:

``numba``  Joseph's method on CPU threads, see `operators.joseph` (the default),
``cuda``   ASTRA's GPU projectors, see `operators.tomography_cuda`: its adjoint is not exact.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import astra
import torch
from torch import Tensor
from torch.nn import functional

from operators import joseph
from operators.errors import BackendUnavailable
from operators.fdk import feldkamp
from operators.geometry import SamplingPattern, angular_cover, angular_pattern
from operators.linear import INITIAL_ITERATIONS, Excerpt, LinearOperator, Space, Withheld, conjugate_gradient
from operators.preconditioner import projection_spectrum
from operators.tomography import END_UNITS, TURN_RAD, ramped
from operators.volume_geometry import VolumeBeam

Backend = Literal["numba", "cuda"]


class VolumeTomography(LinearOperator):
    """Line integrals of attenuation: ``(1, slices, rows, cols)`` in 1/mm to ``(1, views, detector rows, columns)``.

    A batch element is a whole volume. The result has no unit. Computed in float32; float64 input is accepted and
    returned as float64 with float32 accuracy.

    Parameters
    ----------
    geometry
        Cone or parallel beam with a row of vectors per view, in millimetres.

    Raises
    ------
    BackendUnavailable
        If ``cuda`` is asked for and ASTRA finds no GPU.
    """

    whole_volume = True

    def __init__(self, geometry: VolumeBeam, backend: Backend = "numba") -> None:
        super().__init__(Space(geometry.volume_shape), Space(geometry.data_shape))
        self.geometry = geometry
        if backend == "cuda" and not astra.use_cuda():
            raise BackendUnavailable(
                "ASTRA finds no CUDA device", field="backend", remedy="leave the backend to `numba`"
            )
        self.backend = backend

    def spectrum(self) -> Tensor:
        """Spectrum of each slice, see `operators.preconditioner.projection_spectrum`: along the axis it is flat."""
        return self._spectrum

    @cached_property
    def _spectrum(self) -> Tensor:
        return projection_spectrum(self)

    def initial_image(self, data: Tensor) -> Tensor:
        """Initial image: Feldkamp's with a Hann window where that applies, else a few iterations."""
        if self.geometry.unfilterable() is not None:
            return conjugate_gradient(self.normal, self.adjoint(data), None, INITIAL_ITERATIONS).clamp(min=0)
        return self.filtered_back_projection(data, "hann").clamp(min=0)

    def filtered_back_projection(self, data: Tensor, window: str) -> Tensor:
        """See `operators.fdk.feldkamp`."""
        return torch.stack([feldkamp(each, self.geometry, window) for each in data])

    @property
    def sampling_pattern(self) -> SamplingPattern:
        """Angular coverage: ``full``, or ``limited`` where directions are missing."""
        return angular_pattern(self.geometry.angles_rad)

    @property
    def scan(self) -> str:
        """Beam, number of views and the directions that they cover."""
        angles = self.geometry.angles_rad
        covered = 180 * angular_cover(angles)
        return f"{len(angles)} {self.geometry.beam} views of a volume over {covered:.0f} of 180 degrees"

    def another(self, index: int) -> VolumeTomography:
        """Comparable scan: all views rotated by `TURN_RAD`, ``index + 1`` times."""
        return VolumeTomography(self.geometry.turned(TURN_RAD * (index + 1)), self.backend)

    def middle(self, slices: int) -> Excerpt:
        """See `operators.volume_geometry.VolumeBeam.middle`; the whole scan where that finds none."""
        found = self.geometry.middle(slices)
        if found is None:
            return super().middle(slices)
        geometry, rows, chosen = found
        return Excerpt(VolumeTomography(geometry, self.backend), lambda y: y[..., rows, :], chosen)

    @property
    def folds(self) -> int:
        """See `operators.volume_geometry.VolumeBeam.folds`."""
        return len(self.geometry.folds)

    def withheld(self, fold: int) -> Withheld:
        """Withhold views; detector rows count apart, otherwise see `operators.tomography.Tomography.withheld`."""
        folds = self.geometry.folds
        if not folds:
            return super().withheld(fold)
        held = list(folds[fold])
        kept = [i for i in range(self.geometry.views) if i not in held]
        kept_views, held_views = (VolumeTomography(self.geometry.views_of(some), self.backend) for some in (kept, held))
        size = -(-len(held) // END_UNITS) if self.sampling_pattern == "limited" else 1

        def spectra(residuals: Tensor) -> Tensor:
            filtered = ramped(residuals)
            filtered = functional.pad(filtered, (0, 0, 0, 0, 0, -len(held) % size))
            return filtered.reshape(len(filtered), -1, size * filtered.shape[-2] * filtered.shape[-1])

        return Withheld(kept_views, held_views, lambda y: y[:, kept], lambda y: y[:, held], spectra)

    def _forward(self, x: Tensor) -> Tensor:
        return self._apply(x, adjoint=False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y, adjoint=True)

    def _apply(self, x: Tensor, *, adjoint: bool) -> Tensor:
        g = self.geometry
        data = x.detach().to(torch.float32).contiguous()
        if self.backend == "cuda":
            from operators import tomography_cuda

            return torch.stack([tomography_cuda.apply_volume(g, one, adjoint=adjoint) for one in data]).to(x.dtype)
        out = torch.empty((len(data), *(g.volume_shape if adjoint else g.data_shape)))
        apply = joseph.adjoint if adjoint else joseph.forward
        for one, to in zip(data, out, strict=True):
            apply(one.numpy(), g.in_voxels, g.cone, g.size_mm, to.numpy(), torch.get_num_threads())
        return out.to(x.dtype)
