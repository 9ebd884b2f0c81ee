"""Settings nobody has to know: what a tuning run found for a method, by kind of scan and how little was measured.

`recon tune` writes ``defaults.yaml``. What a job says itself always wins, and presets of published constants are
left as they are.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from operators.fourier import CartesianMRI
from recon.methods import Method
from recon.solvers.problem import Problem

TABLE = Path(__file__).parent / "defaults.yaml"


class Tuned(BaseModel):
    """What was found for one method on one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """Of acquisition: ``ct``, ``mri-cartesian`` or ``mri-resolution``."""
    task: str
    undersampling: float = Field(gt=0)
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
        """Read the table."""
        return cls.model_validate(yaml.safe_load(path.read_text()))

    def write(self, path: Path) -> None:
        """Write the table."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


def undersampling(problem: Problem) -> float:
    """Unknowns of a slice over the samples of one of its measurements; coils see the same, and count once."""
    domain, data = problem.operator.domain, problem.operator.range
    if isinstance(problem.operator, CartesianMRI):
        return 1.0 / max(float(problem.operator.mask.float().mean()), 1e-9)
    return math.prod(domain.shape) / math.prod(data.shape)


def resolved(method: Method, kind: str, problem: Problem) -> Method:
    """The method with what it leaves open set as tuned for the nearest task of the same kind.

    Parameters
    ----------
    method
        As the user gave it.
    kind
        Of the acquisition, as in a specification.
    problem
        What is to be solved.
    """
    if getattr(method, "preset", "tuned") == "paper":
        return method
    wanted = "ct" if kind.startswith("ct") else kind
    found = [t for t in _table().tuned if t.kind == wanted and t.method == method.name]
    if not found:
        return method
    ratio = math.log(undersampling(problem))
    nearest = min(found, key=lambda t: abs(math.log(t.undersampling) - ratio))
    # What the user has set stays, and stays marked as set: the report tells the rest apart.
    fill = {k: v for k, v in nearest.settings.items() if k not in method.model_fields_set}
    return method.model_copy(update=fill)


@cache
def _table() -> Table:
    return Table.read(TABLE)
