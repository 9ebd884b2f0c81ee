"""Input and output of solvers: `Problem`, `Progress`, and the intensity map. No solver ever sees a reference image."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from operators.errors import Diverged
from operators.linear import LinearOperator, Withheld, each_slice
from operators.phase import PhaseConstrained
from operators.support import Supported
from operators.weighted import Weighted

P = TypeVar("P")
T = TypeVar("T")


@dataclass(frozen=True)
class IntensityMap:
    """Affine map between physical intensity and the prior's scale: ``physical = scale * u + offset``.

    Scale and offset are one number for all slices, or one per slice ``(slices,)``.
    """

    scale: float | Tensor
    offset: float | Tensor

    def to_prior(self, x: Tensor) -> Tensor:
        """Physical values ``(slices, ...)`` to the prior's scale."""
        return (x - each_slice(self.offset, x)) / each_slice(self.scale, x)

    def to_physical(self, u: Tensor) -> Tensor:
        """Values ``(slices, ...)`` on the prior's scale to physical ones."""
        return u * each_slice(self.scale, u) + each_slice(self.offset, u)

    def part(self, chosen: slice) -> IntensityMap:
        """Map of some slices."""
        scale, offset = (v[chosen] if isinstance(v, Tensor) else v for v in (self.scale, self.offset))
        return IntensityMap(scale, offset)


@dataclass(frozen=True)
class Problem:
    """Inverse problem: find the volume `x` with ``operator(x)`` close to `data`.

    Parameters
    ----------
    operator
        Forward model, physical units.
    data
        Measurement ``(slices, *operator.range.shape)``. Of an operator of whole volumes it has one element, as
        everything else that is "per slice" here, and a volume is ``(1, slices, rows, cols)``; see `operators.linear`.
    noise_std
        Noise standard deviation of `data`, per real channel, one number or one per slice ``(slices,)``; 0 if noiseless
        or unknown.
    inverse_std
        Inverse standard deviation of each sample, up to a factor per slice, so that `noise_std` is the noise of
        ``inverse_std * data``; None when all samples of a slice have the same.
    slice_mm, pixel_mm
        Voxel size, for regularisers that couple directions.
    support
        False where a voxel is known to be zero, ``(slices, rows, cols)`` boolean; None where nothing is known.
    scale
        Intensity scale of all slices, where they are planes of one volume; each slice has its own when None.
    continued
        Samples at the beginning and the end of the last axis that continue what was measured; no misfit counts them.
    phase
        ``e^(i p)`` of the image, ``(slices, *operator.domain.shape)`` complex, where methods without a prior take the
        phase for known; None where it is free.
    first
        Index in the whole volume of the first slice; noise is keyed by it.
    prior_axes
        Axes of the problem's volume in the order ``(slices, rows, cols)`` in which a prior sees it; as they are when
        None. A problem with such an order is solved in one piece.
    """

    operator: LinearOperator
    data: Tensor
    noise_std: float | Tensor = 0.0
    slice_mm: float = 1.0
    pixel_mm: float = 1.0
    inverse_std: Tensor | None = None
    support: Tensor | None = None
    scale: float | None = None
    continued: tuple[int, int] = (0, 0)
    phase: Tensor | None = None
    first: int = 0
    prior_axes: tuple[int, int, int] | None = None

    def part(self, first: int, last: int) -> Problem:
        """Problem of slices ``[first, last)`` alone; no number of it depends on the other slices."""
        if (first, last) == (0, self.slices):
            return self
        return replace(
            self,
            operator=self.operator.part(first, last),
            data=self.data[first:last],
            noise_std=self.noise_std[first:last] if isinstance(self.noise_std, Tensor) else self.noise_std,
            inverse_std=None if self.inverse_std is None else self.inverse_std[first:last],
            support=None if self.support is None else self.support[first:last],
            phase=None if self.phase is None else self.phase[first:last],
            first=self.first + first,
        )

    def apart(self, slices: Sequence[int]) -> list[Problem]:
        """Problems of some slices without their neighbours: of all together where the operator treats them alike."""
        if self.operator.slices is not None:
            return [replace(self.part(index, index + 1), slice_mm=math.inf) for index in slices]
        chosen = list(slices)
        return [
            replace(
                self,
                data=self.data[chosen],
                noise_std=self.noise[chosen],
                inverse_std=None if self.inverse_std is None else self.inverse_std[chosen],
                support=None if self.support is None else self.support[chosen],
                phase=None if self.phase is None else self.phase[chosen],
                slice_mm=math.inf,
            )
        ]

    def middle(self, slices: int) -> tuple[Problem, slice]:
        """Problem of about that many slices in the middle of a whole volume, and which they are."""
        excerpt = self.operator.middle(slices)
        chosen = excerpt.slices
        part = replace(
            self,
            operator=excerpt.operator,
            data=excerpt.samples(self.data),
            inverse_std=None if self.inverse_std is None else excerpt.samples(self.inverse_std),
            support=None if self.support is None else self.support[:, chosen],
        )
        return part, chosen

    def without(self, withheld: Withheld) -> Problem:
        """Problem without some of its samples."""
        inverse_std = None if self.inverse_std is None else withheld.keep(self.inverse_std)
        return replace(self, operator=withheld.kept, data=withheld.keep(self.data), inverse_std=inverse_std)

    @cached_property
    def noise(self) -> Tensor:
        """Noise standard deviation of each slice, ``(slices,)``, per real channel; 0 where noiseless or unknown."""
        return torch.as_tensor(self.noise_std, dtype=torch.float32).expand(self.slices)

    @cached_property
    def scales(self) -> Tensor:
        """Intensity scale of each slice, ``(slices,)``: robust maximum of its initial image, 1 if that is empty."""
        if self.scale is not None:
            return torch.full((self.slices,), self.scale)
        return torch.tensor([robust_maximum(image) or 1.0 for image in self.initial_image()])

    def initial_image(self) -> Tensor:
        """Initial image ``(slices, rows, cols)``, a quick classical one; see `LinearOperator.initial_image`."""
        return self.supported(self.operator.initial_image(self.data))

    def supported(self, x: Tensor) -> Tensor:
        """Set a volume to zero outside the support."""
        return x if self.support is None else x * self.support

    @cached_property
    def whitened(self) -> Problem:
        """Whitened problem on its support: the same with white noise, for least-squares data terms."""
        if self.inverse_std is None and self.support is None:
            return self
        operator, data = self.operator, self.data
        if self.inverse_std is not None:
            operator, data = Weighted(operator, self.inverse_std), data * self.inverse_std
        if self.support is not None:
            operator = Supported(operator, self.support)
        return replace(self, operator=operator, data=data, inverse_std=None)

    @cached_property
    def constrained(self) -> Problem:
        """Problem of the real image whose phase is known; itself where the phase is free."""
        if self.phase is None:
            return self
        return replace(self, operator=PhaseConstrained(self.operator, self.phase), phase=None)

    @property
    def slices(self) -> int:
        """Number of slices."""
        return len(self.data)

    @property
    def images(self) -> int:
        """Number of images that a prior sees: slices, also those of a whole volume."""
        return self.slices * (self.operator.domain.shape[0] if self.operator.whole_volume else 1)

    @property
    def measured(self) -> slice:
        """Samples along the last axis that were measured."""
        before, after = self.continued
        return slice(before, self.data.shape[-1] - after)

    def misfit(self, x: Tensor) -> float:
        """Relative data misfit ``|A x - y| / |y|`` (0 for empty data that is met)."""
        residuals, sizes = self.residuals(x)
        residual, size = torch.linalg.vector_norm(residuals), torch.linalg.vector_norm(sizes)
        return float(residual / size) if size > 0 else float(residual)

    def residuals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Norms ``|A x - y|`` and ``|y|`` of each slice, ``(slices,)``."""
        found = (self.operator.forward(x) - self.data, self.data)
        residuals, sizes = (torch.linalg.vector_norm(v[..., self.measured].flatten(1), dim=1) for v in found)
        return residuals, sizes

    def zeros(self) -> Tensor:
        """Return a volume of zeros."""
        dtype = torch.complex64 if self.operator.domain.complex else torch.float32
        return torch.zeros((self.slices, *self.operator.domain.shape), dtype=dtype)


def convenient_unit(scales: Tensor) -> float:
    """Unit of intensity in which the largest scale is about 1: a power of two, by which nothing is rounded."""
    return 2.0 ** round(math.log2(float(scales.max())))


def robust_maximum(image: Tensor) -> float:
    """Robust maximum: 99.8th percentile of the magnitude, over at most a million evenly spaced pixels."""
    flat = image.abs().flatten()
    stride = max(1, flat.numel() // 1_000_000)
    return float(torch.quantile(flat[::stride].float(), 0.998))


@dataclass(frozen=True)
class Progress:
    """Progress of a running solver: `step` of `steps` done, the current volume, and the problem."""

    step: int
    steps: int
    volume: Tensor
    problem: Problem
    stage: str = "solve"

    @cached_property
    def data_misfit(self) -> float:
        """Relative misfit of the volume; it takes a projection, so it is computed only when it is shown."""
        return self.problem.misfit(self.volume)


Solver = Generator[Progress, None, Tensor]
"""A solver yields `Progress` and returns the volume ``(slices, rows, cols)`` in physical units."""


def run(steps: Generator[P, None, T], on_progress: Callable[[P], None] | None = None) -> T:
    """Drive a solver or a job to its end and return what it returns; closing it early is how a job is cancelled."""
    try:
        while True:
            progress = next(steps)
            if on_progress is not None:
                on_progress(progress)
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        steps.close()


def check_finite(volume: Tensor, solver: str) -> Tensor:
    """Raise `Diverged` if a volume is not finite."""
    if not bool(torch.isfinite(torch.view_as_real(volume) if volume.is_complex() else volume).all()):
        raise Diverged(f"{solver} produced values that are not finite", remedy="fewer iterations or other settings")
    return volume
