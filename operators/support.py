"""Support of an image as its projections show it: what lies on a ray through air is air, all along.

With few views this is much of what the data say about the space beside an object, and a method that is told solves for
the other pixels only.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from operators.geometry import MATRIX_COLUMNS, FanBeam, ParallelBeam
from operators.linear import LinearOperator

if TYPE_CHECKING:
    from operators.tomography import Tomography  # and with it ASTRA, which no MRI needs

SCALES = (1, 3, 9)
"""Widths in detector elements at which a ray must show nothing to count as air."""
STANDARD_ERRORS = 2.5
"""Standard errors of a mean below which it shows nothing. What is above eight is missed by one view in 5e7."""
MARGIN = 2
"""Detector elements between the shadow of a pixel of air and the next ray that is not air."""
NOTHING = 2e-3
"""Fraction of a slice's largest line integrals that counts as nothing, however low the noise: 0.4 mm of 20 cm."""
AIR_SHARE = 0.05
"""Fraction of the rays through a pixel, by length, that must be air: one view of up to twenty, two of forty."""
CLEAR, CLEAR_STANDARD_ERRORS = 0.02, 6.0
"""Fraction of the largest line integrals, and multiple of the noise, above which a ray is clearly not air."""
CONTRADICTING = 2e-3
"""Fraction of the clear rays that may pass through nothing but air of other views, before these are not believed."""
LEAST_AIR = 50
"""Minimum number of rays through air in a slice for an estimate of their noise."""
_FOURTH_DIFFERENCE = torch.tensor([[[1.0, -4.0, 6.0, -4.0, 1.0]]])
_GAIN = 0.6745 * math.sqrt(70.0)
"""Median of the absolute fourth difference of white noise, over its standard deviation."""


class Support(NamedTuple):
    """Support found from projections.

    Parameters
    ----------
    inside
        False where a pixel is known to be air, or no ray sees it; ``(slices, rows, cols)``.
    contradicted
        Slices whose views contradict each other, so that nothing is taken for air, ``(slices,)``.
    """

    inside: Tensor
    contradicted: Tensor


def support(operator: Tomography, sinogram: Tensor, continued: tuple[int, int] = (0, 0)) -> Support:
    """Find the support of an image that is nowhere negative, from its line integrals ``(slices, views, detectors)``.

    A ray is air where single elements, threes and nines show nothing above the air of its view, and it keeps a
    distance from those that are not: half the shadow of a pixel and `MARGIN`. A pixel is air where a share of its
    rays is. At a row's end the outermost element stands for what is beyond; where that is not air, a truncated row
    says nothing. Something in the air is safe if its line integral is above eight standard errors at one of the
    scales, in all views; dead elements are harmless in groups of up to four.

    Where a ray that clearly sees something passes through nothing but air of other views (a wrong centre or angle, a
    moving object, an object beyond the image), the views of that slice contradict each other, and all its pixels
    that rays see count as inside.

    Parameters
    ----------
    operator, sinogram
        Projector and line integrals; the result has the projector's pixels.
    continued
        Detector elements at both ends that were not measured but continued. They say nothing, and pixels that only
        they see are inside.
    """
    found = [_support(operator, some, continued) for some in sinogram.split(MATRIX_COLUMNS)]
    return Support(torch.cat([one.inside for one in found]), torch.cat([one.contradicted for one in found]))


def _support(operator: Tomography, sinogram: Tensor, continued: tuple[int, int]) -> Support:
    before, after = continued
    rays = slice(before, sinogram.shape[2] - after)
    sinogram = sinogram[..., rays]

    def back_projected(of_rays: Tensor) -> Tensor:
        return operator.adjoint(functional.pad(of_rays.to(torch.float32), continued))

    seen = back_projected(torch.ones_like(sinogram[:1]))
    level = _Levels.of(sinogram)
    height = sinogram - level.air
    air = _eroded(_is_air(height, level), reach(operator.geometry))
    inside = back_projected(air) < AIR_SHARE * seen
    if any(continued):
        inside |= (seen == 0) & (operator.adjoint(torch.ones(1, *operator.range.shape)) > 0)
    missed = operator.forward(inside.to(torch.float32))[..., rays] <= 1e-3 * operator.geometry.pixel_mm
    clear = height > torch.maximum(CLEAR * level.largest, CLEAR_STANDARD_ERRORS * level.noise)
    share = (clear & missed).sum((1, 2)) / clear.sum((1, 2)).clamp(min=1)
    contradicted = share > CONTRADICTING
    return Support(inside | (contradicted[:, None, None] & (seen > 0)), contradicted)


class _Levels(NamedTuple):
    """Air, noise of the air, and largest line integrals of a stack, ``(slices, 1 or views, 1)`` each."""

    air: Tensor
    noise: Tensor
    largest: Tensor

    @classmethod
    def of(cls, sinogram: Tensor) -> _Levels:
        """Estimate the levels; the noise is infinite where there is too little air to know it."""
        slices = len(sinogram)
        largest = torch.stack([_quantile(one, 0.99) for one in sinogram]).reshape(slices, 1, 1)
        noise = torch.stack([_noise(*pair) for pair in zip(sinogram, largest, strict=True)]).reshape(slices, 1, 1)
        widest = min(SCALES[-1], sinogram.shape[2])
        # The lowest of many means of noise lies some standard errors low: only what is lower is an offset of the air.
        lowest = functional.avg_pool1d(sinogram, widest, 1).amin(2, keepdim=True)
        air = (lowest + (STANDARD_ERRORS + 1) * noise / math.sqrt(widest)).clamp(max=0)
        return cls(air.nan_to_num(), noise, largest)


def _noise(sinogram: Tensor, largest: Tensor) -> Tensor:
    """Standard deviation of the line integrals ``(views, detectors)`` of rays through next to nothing."""
    if sinogram.shape[1] < _FOURTH_DIFFERENCE.shape[2]:
        return torch.tensor(math.inf)
    rough = functional.conv1d(sinogram[:, None], _FOURTH_DIFFERENCE)[:, 0].abs()
    smooth = functional.avg_pool1d(sinogram, _FOURTH_DIFFERENCE.shape[2], 1)
    low = smooth < CLEAR * largest
    return rough[low].median() / _GAIN if int(low.sum()) >= LEAST_AIR else torch.tensor(math.inf)


def _is_air(height: Tensor, level: _Levels) -> Tensor:
    """Rays ``(slices, views, detectors)`` that show nothing at any scale."""
    nothing = torch.ones_like(height, dtype=torch.bool)
    for width in SCALES:
        if width > height.shape[2]:
            break
        means = functional.avg_pool1d(height, width, 1)
        if width == SCALES[-1]:
            # The lowest of the means that contain a ray: air goes up to an edge, whatever is beyond it.
            means = -functional.max_pool1d(functional.pad(-means, (width - 1, width - 1), value=-math.inf), width, 1)
        else:
            means = functional.pad(means, (width // 2, width // 2), mode="replicate")
        limit = torch.maximum(STANDARD_ERRORS * level.noise / math.sqrt(width), NOTHING * level.largest)
        nothing &= means < limit
    return nothing & level.noise.isfinite()


def _eroded(air: Tensor, elements: int) -> Tensor:
    """Air that is so many detector elements away from anything else."""
    other = functional.pad((~air).to(torch.float32), (elements, elements), mode="replicate")
    return functional.max_pool1d(other, 2 * elements + 1, 1) == 0


def reach(g: ParallelBeam) -> int:
    """Detector elements from the middle of a pixel's shadow to what is `MARGIN` beyond it, wherever the pixel is."""
    widest = g.magnification
    if isinstance(g, FanBeam):
        # The pixel nearest to the source casts the widest shadow, wider still where rays slant.
        nearest = 1 - math.hypot(g.rows, g.cols) * g.pixel_mm / 2 / g.source_origin_mm
        widest *= math.sqrt(2) / max(nearest, 0.1)
    return math.ceil(widest * g.pixel_mm / math.sqrt(2) / g.detector_mm) + MARGIN


def _quantile(values: Tensor, share: float) -> Tensor:
    flat = values.flatten()
    return torch.quantile(flat[:: max(1, len(flat) // 1_000_000)], share)


class Supported(LinearOperator):
    """Operator ``A diag(m)`` on the pixels of a support: the others count as zero and stay as they are.

    Its norms, spectrum and balance are those of ``A``, which bound its own from above, so that weights and
    preconditioners mean the same whatever the support.

    Parameters
    ----------
    operator
        ``A``.
    inside
        ``(slices, *operator.domain.shape)``, boolean.
    """

    def __init__(self, operator: LinearOperator, inside: Tensor) -> None:
        super().__init__(operator.domain, operator.range)
        self.operator, self.inside, self.slices = operator, inside, len(inside)
        self.whole_volume = operator.whole_volume

    def _part(self, first: int, last: int) -> Supported:
        return Supported(self.operator.part(first, last), self.inside[first:last])

    def support(self) -> Tensor:
        """Pixels that the operator acts on."""
        return self.inside

    def spectrum(self) -> Tensor | None:
        """Spectrum of the operator on all pixels."""
        return self.operator.spectrum()

    def balance(self) -> Tensor | None:
        """Diagonal of the operator on all pixels."""
        return self.operator.balance()

    @cached_property
    def norms(self) -> Tensor:
        """Norms of the operator on all pixels."""
        return self.operator.norms

    def _normal(self, x: Tensor) -> Tensor:
        return self.operator._normal(x * self.inside) * self.inside

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x * self.inside)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y) * self.inside
