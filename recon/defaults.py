"""Settings nobody has to know: what a tuning run found for a method, by kind of scan and how little was measured.

`recon tune` writes ``defaults.yaml``. What a job says itself always wins: one that sets a tuned setting to another
value gets the method's own defaults for the rest, since tuned values belong together. Presets of published constants
are left as they are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.tomography import Tomography
from recon.methods import TV, Diffusion, Method
from recon.solvers.problem import Problem

TABLE = Path(__file__).parent / "defaults.yaml"


Pattern = Literal["full", "limited", "lines", "points"]
FULL_CIRCLE = 0.9
"""Share of the directions above which a CT scan counts as one from all sides."""


class Tuned(BaseModel):
    """What was found for one method on one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """Of acquisition; ``ct`` for all kinds of CT."""
    task: str
    pattern: Pattern
    """How the samples are spread: CT over all angles or not, MRI along lines or in points."""
    undersampling: float = Field(gt=0)
    noisy: bool
    """Whether there is noise to be told from the image: data without any are fitted harder."""
    method: str
    settings: dict[str, Any]
    psnr: float
    """On the tuning slices, with these settings."""
    psnr_before: float
    """With the method's own defaults."""


class Table(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str
    tuned: list[Tuned]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a table; `InputError` if the file is none."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise InputError(
                f"{path.name} is no table of settings: {str(error).splitlines()[0]}",
                field="out",
                remedy="give a file that `recon tune` wrote, or a new one",
            ) from error

    def write(self, path: Path) -> None:
        """Write the table."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


def undersampling(problem: Problem) -> float:
    """Unknowns of a slice over the samples of one of its measurements; coils see the same, and count once."""
    domain, data = problem.operator.domain, problem.operator.range
    if isinstance(problem.operator, CartesianMRI):
        return 1.0 / max(float(problem.operator.mask.float().mean()), 1e-9)
    return math.prod(domain.shape) / math.prod(data.shape)


def pattern(problem: Problem) -> Pattern:
    """How the samples of a problem are spread."""
    operator = problem.operator
    if isinstance(operator, CartesianMRI):
        # Lines are sampled alike in all columns, or all rows.
        mask = operator.mask
        lines = any(bool((mask == mask.select(axis, 0).unsqueeze(axis)).all()) for axis in (-1, -2))
        return "lines" if lines else "points"
    if isinstance(operator, Tomography):
        return "full" if angular_cover(operator.geometry.angles_rad) > FULL_CIRCLE else "limited"
    return "full"


def angular_cover(angles_rad: Sequence[float]) -> float:
    """Share of all directions, modulo half a turn, that views cover: the largest gap beyond a usual one is missing."""
    directions = sorted(angle % math.pi for angle in angles_rad)
    gaps = [b - a for a, b in pairwise([*directions, directions[0] + math.pi])]
    return 1 - (max(gaps) - statistics.median(gaps)) / math.pi


def tuned(method: Method, kind: str, problem: Problem) -> Tuned | None:
    """What was found for the nearest task of the same kind and pattern, with the better prior unless one is named.

    Arguments as of `resolved`.
    """
    wanted = {kind, "ct"} if kind.startswith("ct") else {kind}
    spread, noisy = pattern(problem), problem.noise_std > 0
    found = [t for t in _table().tuned if t.kind in wanted and (t.method, t.pattern) == (method.name, spread)]
    if isinstance(method, Diffusion) and method.prior is not None:
        # What was found with this very prior, or else with the usual one.
        own = [t for t in found if t.settings.get("prior") == method.prior]
        found = own or [t for t in found if "prior" not in t.settings]
    alike = [t for t in found if t.noisy == noisy]
    found = alike or found  # all of them know the noise, and may take settings found for another
    ratio = math.log(undersampling(problem))
    return min(found, key=lambda t: (abs(math.log(t.undersampling) - ratio), -t.psnr), default=None)


def resolved(method: Method, kind: str, problem: Problem) -> Method:
    """The method with what it leaves open set as tuned for the nearest task of the same kind and pattern.

    Parameters
    ----------
    method
        As the user gave it.
    kind
        Of the acquisition, as in a specification.
    problem
        What is to be solved.
    """
    own = {"update": "adam", "schedule": "ddpm"}
    if getattr(method, "preset", "tuned") not in ("tuned", "fast") or any(
        getattr(method, name, None) == value for name, value in own.items()
    ):
        return method
    if isinstance(method, TV) and method.weight is not None:
        return method
    nearest = tuned(method, kind, problem)
    if nearest is None:
        return method
    given = {k: getattr(method, k) for k in method.model_fields_set}
    if any(k in nearest.settings and v != nearest.settings[k] for k, v in given.items()):
        # Tuned values belong together: whoever sets one of them otherwise starts from the method's own defaults.
        return method
    return type(method).model_validate({**nearest.settings, **given})


@cache
def _table() -> Table:
    return Table.read(TABLE)
