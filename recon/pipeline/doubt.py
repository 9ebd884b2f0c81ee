"""Doubts about a result, for its report: slices that do not fit their data, images that the prior does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.errors import Diverged
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem
from recon.spec.methods import Diffusion, Method
from recon.spec.report import Familiarity, Undetermined

UNFAMILIAR, UNFAMILIAR_SHARE = 1.0, 0.1
"""Familiarity percentile, and share of the slices below it from which the report warns: by chance it is a hundredth."""
NOTABLE_MISFIT, NOTABLE_TIMES = 0.04, 3.0
"""Relative data misfit, and multiple of the misfit from noise alone, from which the report warns."""
EMPTY_SHARE = 0.1
"""Share of the largest slice's data below which a slice is not judged by its misfit."""
HOPELESS_MISFIT = 1.2
"""Relative data misfit from which a job fails as diverged: an empty image has 1."""


@dataclass(frozen=True)
class Fit:
    """Fit of a volume to its data, slice by slice.

    Parameters
    ----------
    residuals, sizes
        Norms ``|A x - y|`` and ``|y|``, ``(slices,)``.
    noise
        Norm that noise alone would leave, ``(slices,)``.
    """

    residuals: Tensor
    sizes: Tensor
    noise: Tensor

    @classmethod
    def of(cls, inverse: InverseProblem, problem: Problem, volume: Tensor) -> Fit:
        """Compare a volume with the data of a problem: of `inverse`, or that with white noise."""
        measured = torch.tensor([int(one.count_nonzero()) for one in problem.data[..., problem.measured]])
        return cls(*problem.residuals(volume), problem.noise * (measured * inverse.noisy_parts).sqrt())

    @classmethod
    def together(cls, slabs: list[Fit]) -> Fit:
        """Fit of all slabs."""
        parts = ([fit.residuals for fit in slabs], [fit.sizes for fit in slabs], [fit.noise for fit in slabs])
        return cls(*(torch.cat(part) for part in parts))

    @property
    def misfit(self) -> float:
        """Relative data misfit of the whole volume; the residual itself for data that are zero."""
        residual, size = torch.linalg.vector_norm(self.residuals), torch.linalg.vector_norm(self.sizes)
        return float(residual / size) if size > 0 else float(residual)

    @property
    def expected_misfit(self) -> float | None:
        """Relative misfit that noise alone would leave; a good reconstruction comes close to it, but not below."""
        size = torch.linalg.vector_norm(self.sizes)
        return float(torch.linalg.vector_norm(self.noise) / size) if bool(self.noise.any()) and size > 0 else None


def unfamiliar(familiarity: Familiarity | None, slices: Mapping[int, float], *, intervals: bool = False) -> list[str]:
    """Warn about slices unlike those that the prior was trained on, if there are too many to be chance.

    Parameters
    ----------
    familiarity
        Summary for the report.
    slices
        Percentile of each slice that was judged.
    intervals
        Whether there are intervals, which were fitted to images that priors know.
    """
    strange = [index for index, percentile in slices.items() if percentile < UNFAMILIAR]
    if familiarity is None or len(strange) < UNFAMILIAR_SHARE * len(slices):
        return []
    lowest = min(strange, key=lambda index: slices[index])
    where = (
        "such images" if len(strange) == len(slices) else f"{len(strange)} of {len(slices)} slices that it was shown"
    )
    return [
        f"prior {familiarity.judge} does not know {where} (familiarity {slices[lowest]:.1f} of 100 in slice {lowest},"
        f" median {familiarity.median}): what the data leave open may be filled in wrongly; compare with the baselines"
        + ("; the 90 % intervals were fitted to images that it knows, and may hold less here" if intervals else "")
    ]


def misfitting(method: Method, whitened: Fit, suspects: str) -> list[str]:
    """Warn about slices of a result that do not fit the data, each sample weighted by its noise.

    Raises
    ------
    Diverged
        If an empty image would fit better.
    """
    residuals, sizes, noise = whitened.residuals, whitened.sizes, whitened.noise
    if not method.FITS_DATA or not bool(sizes.any()):
        return []
    whole, size = (torch.linalg.vector_norm(v) for v in (residuals, sizes))
    allowed = NOTABLE_TIMES * torch.linalg.vector_norm(noise)
    if isinstance(method, Diffusion) and not whole <= max(HOPELESS_MISFIT * size, allowed):
        raise Diverged(
            f"the result of {method.name} fits the data worse than an empty image: relative misfit {whole / size:.3g}",
            field="method",
            remedy="leave its settings to their defaults, or lower the weight and the learning rate",
        )
    # A slice with next to nothing in it is missed by all of that, and it does not matter.
    judged = sizes > EMPTY_SHARE * sizes.max()
    doubtful = judged & ~(residuals < (NOTABLE_MISFIT * sizes).maximum(NOTABLE_TIMES * noise))
    if not bool(doubtful.any()):
        return []
    worst = int(torch.where(doubtful, residuals / sizes, -1.0).argmax())
    misfit, usual = float(residuals[worst] / sizes[worst]), float(noise[worst] / sizes[worst])
    where = "" if len(sizes) == 1 else f" in {int(doubtful.sum())} of {len(sizes)} slices, most in slice {worst},"
    told = f"; noise alone would leave {usual:.2g}" if usual > 0 else ""
    prior = ", or the prior overrules the data; compare with the baselines" if isinstance(method, Diffusion) else ""
    return [
        f"the result misses the data{where} by {misfit:.2g} of their size{told}. What may be wrong: {suspects}{prior}"
    ]


def drawn(found: Undetermined) -> str:
    """Say how much of a result no sample determined."""
    return (
        f"no sample determined {found.inside:.1%} of the object (root mean square), and beside it {found.beside:.1%} of"
        " its level: these were drawn, by the prior or the regulariser"
    )
