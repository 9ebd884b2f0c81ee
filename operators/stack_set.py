"""Operator of several stacks of thick slices of one volume, each with its own place and orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from operators.errors import GeometryError
from operators.linear import INITIAL_ITERATIONS, Space, conjugate_gradient
from operators.resolution import Downsampling, thick_slices
from operators.stacks import SliceProfile, fine_size

INSIDE = 0.999
"""Share of a voxel of a stack that has to lie inside the volume for it to count."""
LEAST_OVERLAP = 0.05
"""Share of a stack's voxels that have to lie inside the volume."""
FIELDS = ("second_stack", "third_stack")
"""Fields of an acquisition that name the other stacks."""
BLOCK = 16
"""Fine slices that are resampled at once."""


@dataclass(frozen=True)
class Stack:
    """Place of a stack of thick slices.

    Parameters
    ----------
    shape
        Slices, rows and columns.
    factor
        Distance of its slices in steps of its fine grid.
    to_volume
        Voxel ``(col, row, slice)`` of its fine grid, which has `factor` times as many slices, to that of the volume,
        ``(4, 4)``.
    profile, gap
        See `operators.resolution.ThickSlices`.
    """

    shape: tuple[int, int, int]
    factor: float
    to_volume: NDArray[np.float64]
    profile: SliceProfile = "box"
    gap: float = 0.0

    @property
    def fine(self) -> tuple[int, int, int]:
        """Shape of the fine grid."""
        return fine_size(self.shape[0], self.factor), self.shape[1], self.shape[2]


class StackSet(Downsampling):
    """Downsample a volume by several stacks: the first along its slices, others wherever they lie.

    The volume is one element, its planes ``(slices, rows)`` one below the other, column by column (`images`). The first
    stack takes thick slices along the slices. Others are resampled, linearly in all three directions, on fine grids of
    their own, and take thick slices there; their voxels that reach out of the volume are left out. The
    adjoint is exact: that of the linear interpolation. What interpolation smooths in the other stacks' planes is not
    modelled.

    Parameters
    ----------
    shape
        Slices, rows and columns of the volume.
    first
        Place of the first stack; `to_volume` is not used.
    others
        Places of the others.

    Raises
    ------
    GeometryError
        If a stack does not overlap the volume.

    References
    ----------
    Gholipour et al. 2010, IEEE Trans. Med. Imaging 29, 1739-1758 (super-resolution of stacks in several orientations).
    """

    def __init__(self, shape: tuple[int, int, int], first: Stack, others: Sequence[Stack]) -> None:
        slices, rows, cols = shape
        self.slices = 1
        self.images, self.shape, self.others = cols, shape, list(others)
        self._first = thick_slices(slices, rows, first.factor, -2, profile=first.profile, gap=first.gap, complex=True)
        self._thick = [_along_slices(stack) for stack in self.others]
        self._sizes = [cols * self._first.range.shape[0] * rows, *(int(np.prod(stack.shape)) for stack in self.others)]
        super().__init__(Space((cols * slices, rows), complex=True), Space((sum(self._sizes),), complex=True))
        self.factors = self._first.factors
        self._seen = [torch.ones(stack.shape, dtype=torch.bool) for stack in self.others]
        ones = torch.ones((1, *self.domain.shape), dtype=torch.complex64)
        for number in range(len(self.others)):
            inside = self._seen[number] = self._other(number, ones).real > INSIDE
            if float(inside.float().mean()) < LEAST_OVERLAP:
                raise GeometryError(
                    f"stack {number + 2} does not overlap the first: {100 * float(inside.float().mean()):.0f} % of it",
                    field=f"acquisition.{FIELDS[number]}",
                    remedy="leave it out, or check the affines of both files",
                )

    def _forward(self, x: Tensor) -> Tensor:
        parts = [self._first.forward(self._planes(x)).flatten()]
        parts += [self._other(number, x).flatten() * seen.flatten() for number, seen in enumerate(self._seen)]
        return torch.cat(parts)[None]

    def _adjoint(self, y: Tensor) -> Tensor:
        own, *rest = y[0].split(self._sizes)
        x = self._first.adjoint(own.reshape(-1, *self._first.range.shape)).reshape(1, *self.domain.shape)
        for number, part in enumerate(rest):
            kept = part.reshape(self.others[number].shape) * self._seen[number]
            fine = _planes_to_slices(self._thick[number].adjoint(_slices_to_planes(kept)))
            x = x + self._tall(self._spread(fine, self.others[number]))
        return x

    def _other(self, number: int, x: Tensor) -> Tensor:
        """Voxels ``(slices, rows, cols)`` of another stack."""
        fine = self._sampled(self._volume(x), self.others[number])
        return _planes_to_slices(self._thick[number].forward(_slices_to_planes(fine)))

    def _planes(self, x: Tensor) -> Tensor:
        return x.reshape(self.images, self.shape[0], self.shape[1])

    def _volume(self, x: Tensor) -> Tensor:
        """Arrange an element as ``(slices, rows, cols)``."""
        return self._planes(x).permute(1, 2, 0)

    def _tall(self, volume: Tensor) -> Tensor:
        """Arrange ``(slices, rows, cols)`` as an element."""
        return volume.permute(2, 0, 1).reshape(1, *self.domain.shape)

    def _sampled(self, volume: Tensor, stack: Stack) -> Tensor:
        """Sample a volume linearly at a stack's fine grid; 0 outside."""
        channels = _as_channels(volume)
        found = [
            functional.grid_sample(channels, self._grid(stack, some, volume.real.dtype), align_corners=False)
            for some in _blocks(stack)
        ]
        return _from_channels(torch.cat(found, dim=2))

    def _spread(self, fine: Tensor, stack: Stack) -> Tensor:
        """Spread values at a stack's fine grid over the voxels that they were sampled from: the adjoint."""
        channels = _as_channels(fine)
        empty = torch.zeros((1, 2, *self.shape), dtype=channels.dtype)
        total = torch.zeros_like(empty)
        for some in _blocks(stack):
            part = channels[:, :, some.start : some.stop].contiguous()
            back, _ = torch.ops.aten.grid_sampler_3d_backward(
                part, empty, self._grid(stack, some, channels.dtype), 0, 0, False, [True, False]
            )
            total += back
        return _from_channels(total)

    def _grid(self, stack: Stack, some: range, dtype: torch.dtype) -> Tensor:
        """Places of fine slices in the volume as `grid_sample` takes them: ``(col, row, slice)``, edges at -1 and 1."""
        _, rows, cols = stack.fine
        axes = (torch.arange(some.start, some.stop), torch.arange(rows), torch.arange(cols))
        slice_, row, col = torch.meshgrid(*(axis.double() for axis in axes), indexing="ij")
        matrix = torch.from_numpy(stack.to_volume)
        place = torch.stack([col, row, slice_, torch.ones_like(col)], dim=-1) @ matrix.T
        sizes = torch.tensor(self.shape[::-1], dtype=torch.float64)
        return ((2 * place[..., :3] + 1) / sizes - 1).to(dtype)[None]

    @property
    def scan(self) -> str:
        """Direction that is refined, by the first stack: ``slices``."""
        return "slices"

    def _part(self, first: int, last: int) -> StackSet:
        assert (first, last) == (0, 1)
        return self

    def upsample(self, y: Tensor) -> Tensor:
        """Interpolate the first stack linearly between its slices: what a prior of thick slices is given."""
        self.range.check(y, "y")
        own = y[0, : self._sizes[0]].reshape(-1, *self._first.range.shape)
        return self._first.upsample(own).reshape(1, *self.domain.shape)

    def initial_image(self, data: Tensor) -> Tensor:
        """Initial image: a few conjugate gradient iterations from the interpolated first stack, to fit all stacks."""
        return conjugate_gradient(self.normal, self.adjoint(data), self.upsample(data), INITIAL_ITERATIONS)

    def seen(self) -> list[Tensor]:
        """Voxels of each of the other stacks that lie inside the volume, ``(slices, rows, cols)`` boolean."""
        return self._seen


def _blocks(stack: Stack) -> list[range]:
    """Fine slices of a stack, so many at once that their grid is small beside the volume."""
    count = stack.fine[0]
    return [range(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]


def _along_slices(stack: Stack) -> Downsampling:
    """Thick slices of a stack's fine grid, seen from the side in planes ``(slices, rows)``."""
    slices, rows, _ = stack.fine
    found = thick_slices(slices, rows, stack.factor, -2, profile=stack.profile, gap=stack.gap, complex=True)
    assert found.range.shape[0] == stack.shape[0]
    return found


def _slices_to_planes(volume: Tensor) -> Tensor:
    return volume.permute(2, 0, 1)


def _planes_to_slices(planes: Tensor) -> Tensor:
    return planes.permute(1, 2, 0)


def _as_channels(volume: Tensor) -> Tensor:
    """Convert a complex volume to ``(1, 2, slices, rows, cols)``."""
    return torch.view_as_real(volume.resolve_conj()).movedim(-1, 0)[None].contiguous()


def _from_channels(x: Tensor) -> Tensor:
    return torch.view_as_complex(x[0].movedim(0, -1).contiguous())
