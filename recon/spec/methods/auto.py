"""Automatic choice of the method: settings."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import Cost
from recon.spec.methods.base import Diffusion, Effort, MethodSettings, Splitting
from recon.spec.old_names import still_accepted
from recon.spec.registry import METHODS, RENAMED_METHODS
from recon.spec.validation import reason

LEAST_JUDGED, MOST_JUDGED, SLICES_PER_JUDGED = 2, 8, 16
"""Slices that are judged, and slices of the volume for each of them."""
JUDGING_SHARE = 0.3
"""Fraction of the volume's slices that judging may reconstruct, all folds together, beyond `LEAST_JUDGED`."""
LEAST_TOGETHER = 8
"""Slices of a whole volume that are judged together, at least: rays cross several."""
USUAL_FOLDS = 4
"""Folds that a plan reckons with; how many there are depends on the views."""


def judged_slices(slices: int, folds: int = USUAL_FOLDS) -> int:
    """Number of slices of a volume that are judged, each of them in every fold."""
    affordable = min(slices // SLICES_PER_JUDGED, int(JUDGING_SHARE * slices / folds), MOST_JUDGED)
    return min(slices, max(LEAST_JUDGED, affordable))


def judged_together(slices: int, folds: int = USUAL_FOLDS) -> int:
    """Number of slices of a whole volume that are judged together, in every fold."""
    return min(slices, max(LEAST_TOGETHER, int(JUDGING_SHARE * slices / folds)))


class Auto(MethodSettings):
    """Automatic choice: the mixture of methods that reconstructs withheld samples best, slice by slice.

    Some samples of a few slices are withheld. The candidates reconstruct from the others and are judged by how well
    they predict the withheld ones, weighted so that residuals count as errors of the image. The best mixture, shrunk
    towards the best classical candidate where the samples leave doubt, then reconstructs everything.
    """

    SOLVER = "recon.solvers.mixture:solve"
    ERRORS_LIKE = "prior"
    FOR: ClassVar[tuple[str, ...]] = (
        "ct-parallel",
        "ct-fan",
        "ct-cone",
        "ct-laminography",
        "mri-cartesian",
        "mri-noncartesian",
        "mri-superresolution",
        "ct-superresolution",
    )
    USUAL: ClassVar[dict[Effort, tuple[str, ...]]] = {
        "draft": ("tv", "l1-wavelet", "diffpir", "boundary"),
        "standard": ("tv", "l1-wavelet", "red-diff", "boundary"),
        "best": ("tv", "l1-wavelet", "red-diff", "boundary", "diffpir", "dds"),
    }
    """Candidates where none are named, by effort: of these, the methods that fit the acquisition, and for which there
    is a prior."""
    RESERVE: ClassVar[dict[str, dict[str, Any]]] = {"ct": {"name": "red-diff", "prior": "objects"}}
    """Another candidate, by modality, for images that the usual prior does not know."""

    name: Literal["auto"] = "auto"
    candidates: list[str | dict[str, Any]] | None = Field(None, min_length=1, max_length=6)
    """Methods to choose from, by name or with settings, at least one of them classical. Default: TV and RED-Diff; in
    MRI also L1-wavelet, for stacks of low resolution in plane `boundary`; in CT, where the prior does not know the
    images, also RED-Diff with the prior `objects`."""
    effort: Effort = "standard"
    """Effort of the candidates with a diffusion prior, unless they name their own. By default it also sets which they
    are: `draft` DiffPIR, `standard` RED-Diff, `best` RED-Diff, DiffPIR and DDS."""
    seconds: float | None = Field(None, gt=0, le=1e6)
    """Seconds after which judging ends and decides by what it has found; not before every candidate was judged once
    (in one fold) on every judged slice. Default: no limit."""

    @field_validator("candidates")
    @classmethod
    def _known(
        cls, value: list[str | dict[str, Any]] | None, info: ValidationInfo
    ) -> list[str | dict[str, Any]] | None:
        value = None if value is None else [_in_new_names(one, info.context) for one in value]
        found = [_candidate(one) for one in value or []]
        for one in found:
            if one.paths():
                field = next(iter(one.paths()))
                raise ValueError(f"{one.name}.{field}: a candidate names no file of your own; name the method itself")
        for number, one in enumerate(found):
            if one in found[:number]:
                raise ValueError(f"{one.name!r} is named twice, with the same settings")
        if found and all(isinstance(one, Diffusion) for one in found):
            named = ", ".join(one.name for one in found)
            raise ValueError(f"{named}: none is a classical method to be never worse than; add tv")
        return value

    def parts(self, acquisition: Acquisition) -> list[MethodSettings]:
        """Candidates, with their own defaults."""
        left_out = acquisition.left_out_of_choice()
        usual = [name for name in self.USUAL[self.effort] if name in acquisition.METHODS and name not in left_out]
        return [self._at_effort(_candidate(one)) for one in self.candidates or usual]

    def reserve(self, acquisition: Acquisition) -> list[MethodSettings]:
        """Candidates for images that the prior of the others does not know: none where candidates are named."""
        spare = self.RESERVE.get(acquisition.MODALITY) if self.candidates is None else None
        return [] if spare is None else [self._at_effort(_candidate(spare))]

    def _at_effort(self, candidate: MethodSettings) -> MethodSettings:
        """Give a candidate that names no effort of its own that of the choice."""
        if not isinstance(candidate, Splitting) or "effort" in candidate.model_fields_set or self.effort == "standard":
            return candidate
        return candidate.model_copy(update={"effort": self.effort})

    def cost(self, acquisition: Acquisition) -> Cost:
        """Cost of its candidates together."""
        every = [part.cost(acquisition) for part in self.parts(acquisition)]
        return Cost(
            volumes=max(cost.volumes for cost in every) + 1,
            products=sum(cost.products for cost in every),
            evaluations=sum(cost.evaluations for cost in every),
            coil_volumes=max(cost.coil_volumes for cost in every),
        )

    def rehearsals(self, slices: int, acquisition: Acquisition) -> int:
        """Slices that are reconstructed by all candidates before the volume is."""
        judged = judged_together if acquisition.WHOLE_VOLUME else judged_slices
        return judged(slices) * USUAL_FOLDS

    def couples_slices(self) -> bool:
        """Always: what its candidates are tuned to may couple slices."""
        return True

    def in_one_piece(self) -> bool:
        """Whether a candidate is."""
        return any(_candidate(one).in_one_piece() for one in self.candidates or [])

    def tunable(self) -> bool:
        """Never: its candidates are."""
        return False


def _in_new_names(value: str | dict[str, Any], notes: list[str] | None) -> str | dict[str, Any]:
    """Rename a candidate and its settings where their old names are still accepted."""
    given = {"name": value} if isinstance(value, str) else dict(value)
    name = given.get("name")
    if name in RENAMED_METHODS and still_accepted(str(name), RENAMED_METHODS[str(name)], notes):
        given["name"] = name = str(RENAMED_METHODS[str(name)])
    if name in METHODS:
        given = METHODS[str(name)].in_new_names(given, notes)
    return given["name"] if isinstance(value, str) else given


def _candidate(value: str | dict[str, Any]) -> MethodSettings:
    """Settings of a candidate from its name, or a dictionary with ``name``; raises ValueError."""
    given = {"name": value} if isinstance(value, str) else value
    name = str(given.get("name"))
    if name not in METHODS or name == "auto":
        known = ", ".join(other for other in METHODS if other != "auto")
        raise ValueError(f"{name!r} is not one of {known}")
    try:
        found: MethodSettings = METHODS[name].model_validate(given)
    except ValidationError as error:
        raise ValueError(f"{name}: {reason(error)}") from error
    return found
