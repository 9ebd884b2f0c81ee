"""Table of what the clues to an error say: their shares in it, fitted to true errors by kind of data and of method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat

from operators.geometry import SamplingPattern
from recon.spec.validation import read_yaml

TABLE = Path(__file__).parent / "errors.yaml"
CLUES = ("replicates", "edges", "undetermined", "level")
"""Clues to an error; see `recon.pipeline.uncertainty.Clues`."""


class Shares(BaseModel):
    """Shares of the clues in an error, which is the root of the sum of their squares, each times its share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicates: NonNegativeFloat
    edges: NonNegativeFloat
    undetermined: NonNegativeFloat
    level: NonNegativeFloat

    @classmethod
    def of(cls, values: Sequence[float]) -> Shares:
        """Make shares from numbers in the order of `CLUES`."""
        return cls(**dict(zip(CLUES, values, strict=True)))

    def values(self) -> tuple[float, ...]:
        """Shares in the order of `CLUES`."""
        return tuple(getattr(self, name) for name in CLUES)


class Fitted(BaseModel):
    """Shares that were fitted for one modality, one kind of method and one scan.

    Parameters
    ----------
    errors_like
        Methods that it is for: `recon.spec.methods.base.MethodSettings.ERRORS_LIKE`.
    expected
        Of the standard deviation of the error.
    interval
        Of half the width of a 90 % interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: str
    errors_like: str
    pattern: SamplingPattern
    """Sampling pattern: full or limited angular coverage in CT, lines or points in MRI."""
    undersampling: float = Field(gt=0)
    expected: Shares
    interval: Shares


class ErrorTable(BaseModel):
    """Table of fitted shares: the whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str
    fitted: list[Fitted]

    @classmethod
    def read(cls, path: Path, field: str = "out") -> ErrorTable:
        """Read a table; raises `InputError`."""
        remedy = "give a file that `recon tune-errors` wrote, or a new one"
        return read_yaml(cls, path, "a table of errors", field=field, remedy=remedy)

    def write(self, path: Path) -> None:
        """Write the table."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))

    def around(
        self, modality: str, errors_like: str, pattern: SamplingPattern, undersampling: float
    ) -> list[tuple[Fitted, float]]:
        """Rows of the next scans with less and with more undersampling, and their weights, with sum 1.

        Weights are linear in the logarithm of the undersampling; beyond the ends it is the row there. Scans of a
        pattern that nothing was fitted to are taken for those of others.
        """
        every = [one for one in self.fitted if (one.modality, one.errors_like) == (modality, errors_like)]
        alike = [one for one in every if one.pattern == pattern] or every
        rows = sorted(alike, key=lambda one: one.undersampling)
        less = [one for one in rows if one.undersampling <= undersampling]
        more = [one for one in rows if one.undersampling > undersampling]
        if not less or not more:
            return [(more[0] if more else less[-1], 1.0)]
        near, far = less[-1], more[0]
        share = math.log(undersampling / near.undersampling) / math.log(far.undersampling / near.undersampling)
        return [(near, 1 - share), (far, share)]


@cache
def installed() -> ErrorTable:
    """Read the shipped table."""
    return ErrorTable.read(TABLE, "recon/defaults/errors.yaml")
