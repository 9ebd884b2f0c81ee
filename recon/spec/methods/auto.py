"""Automatic choice of the method: settings."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import Cost
from recon.spec.methods.base import Diffusion, MethodSettings
from recon.spec.registry import METHODS

LEAST_JUDGED, MOST_JUDGED, SLICES_PER_JUDGED = 2, 8, 16
"""Slices that are judged, and slices of the volume for each of them."""
JUDGING_SHARE = 0.3
"""Fraction of the volume's slices that judging may reconstruct, all folds together, beyond `LEAST_JUDGED`."""
USUAL_FOLDS = 4
"""Folds that a plan reckons with; how many there are depends on the views."""


def judged_slices(slices: int, folds: int = USUAL_FOLDS) -> int:
    """Number of slices of a volume that are judged, each of them in every fold."""
    affordable = min(slices // SLICES_PER_JUDGED, int(JUDGING_SHARE * slices / folds), MOST_JUDGED)
    return min(slices, max(LEAST_JUDGED, affordable))


class Auto(MethodSettings):
    """Automatic choice: the mixture of methods that reconstructs withheld samples best, slice by slice.

    Some samples of a few slices are withheld, the candidates reconstruct from the others, and are judged by what they
    say at those: in the error of the image, by paired differences. The best mixture, shrunk towards the best classical
    candidate where the samples leave doubt, then reconstructs everything.
    """

    SOLVER = "recon.solvers.mixture:solve"
    REMOVES_TEXTURE = True
    FOR: ClassVar[tuple[str, ...]] = ("ct-parallel", "ct-fan", "mri-cartesian")

    name: Literal["auto"] = "auto"
    candidates: list[str] | None = Field(None, min_length=1, max_length=6)
    """Names of the methods to choose from, at least one of them classical. Default: TV and RED-Diff."""
    seconds: float | None = Field(None, gt=0, le=1e6)
    """Time in seconds after which judging ends with what it knows, once every candidate was judged on one slice.
    Default: no limit."""

    @model_validator(mode="after")
    def _candidates(self) -> Self:
        names = self.chosen_from()
        for name in names:
            if name not in METHODS or name == self.name:
                known = ", ".join(other for other in METHODS if other != self.name)
                raise ValueError(f"candidates: {name!r} is not one of {known}")
        if len(set(names)) < len(names):
            raise ValueError(f"candidates: {', '.join(names)} names one twice")
        if all(issubclass(METHODS[name], Diffusion) for name in names):
            raise ValueError(f"candidates: {', '.join(names)} has no classical method to be never worse than; add tv")
        return self

    def chosen_from(self) -> list[str]:
        """Names of the candidates."""
        return ["tv", "red-diff"] if self.candidates is None else self.candidates

    def parts(self) -> list[MethodSettings]:
        """Candidates, with their own defaults."""
        return [METHODS[name]() for name in self.chosen_from()]

    def cost(self, acquisition: Acquisition) -> Cost:
        """What its candidates take together."""
        every = [part.cost(acquisition) for part in self.parts()]
        return Cost(
            volumes=max(cost.volumes for cost in every) + 1,
            products=sum(cost.products for cost in every),
            evaluations=sum(cost.evaluations for cost in every),
            coil_volumes=max(cost.coil_volumes for cost in every),
        )

    def rehearsals(self, slices: int) -> int:
        """Slices that are reconstructed by all candidates before the volume is."""
        return judged_slices(slices) * USUAL_FOLDS

    def couples_slices(self) -> bool:
        """Always: what its candidates are tuned to may couple slices."""
        return True

    def in_one_piece(self) -> bool:
        """Whether a candidate is."""
        return any(part.in_one_piece() for part in self.parts())

    def tunable(self) -> bool:
        """Never: its candidates are."""
        return False
