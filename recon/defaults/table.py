"""Table of tuned settings by method and task, and the lookup of the nearest task.

Apart from `recon.defaults.lookup`, which looks at data, so that a job can be planned where there is no torch.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from operators.geometry import SamplingPattern
from recon.spec.methods import Diffusion, Method
from recon.spec.registry import ACQUISITIONS
from recon.spec.validation import read_yaml

TABLE = Path(__file__).parent / "defaults.yaml"
M = TypeVar("M", bound=Method)


class Tuned(BaseModel):
    """Tuned settings of one method on one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """Kind of acquisition; ``ct`` for all kinds of CT."""
    task: str
    pattern: SamplingPattern
    """Sampling pattern: full or limited angular coverage in CT, lines or points in MRI."""
    undersampling: float = Field(gt=0)
    noisy: bool
    """Whether the data are noisy; noiseless data are fitted more closely."""
    method: str
    settings: dict[str, Any]
    psnr: float
    """PSNR on the tuning slices with these settings."""
    psnr_before: float
    """PSNR with the method's own defaults."""


class Table(BaseModel):
    """Table of tuned settings: the whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str
    tuned: list[Tuned]

    @classmethod
    def read(cls, path: Path, field: str = "out") -> Table:
        """Read a table; raises `InputError`."""
        return read_yaml(
            cls, path, "a table of settings", field=field, remedy="give a file that `recon tune` wrote, or a new one"
        )

    def write(self, path: Path) -> None:
        """Write the table."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


@cache
def installed() -> Table:
    """Read the shipped table."""
    return Table.read(TABLE, "recon/defaults/defaults.yaml")


def rows(method: Method, kind: str) -> list[Tuned]:
    """List what was tuned of a method for a kind of scan, or for kinds that count as the same."""
    wanted = {kind, *(ACQUISITIONS[kind].TUNED_AS if kind in ACQUISITIONS else ())}
    return [t for t in installed().tuned if t.kind in wanted and t.method == method.name]


def nearest(method: Method, kind: str, spread: SamplingPattern, ratio: float, *, noisy: bool) -> Tuned | None:
    """Look up the nearest task of the same kind and pattern, with the usual prior unless one is named.

    Parameters
    ----------
    method
        As the user gave it.
    kind
        Kind of acquisition, as in a specification.
    spread, ratio, noisy
        Sampling pattern, undersampling, and whether there is noise.
    """
    every = rows(method, kind)
    found = [t for t in every if t.pattern == spread]
    if isinstance(method, Diffusion):
        # What was found with the prior that is named, or else with the usual one. No other is chosen for a job that
        # names none: a prior that is given projections is better on slices like those it was tuned on, and invents
        # more on others. Of a prior that is named the pattern matters less: its intensity scale is its own.
        named = [t for t in every if method.prior is not None and t.settings.get("prior") == method.prior]
        own = [t for t in named if t.pattern == spread]
        found = own or named or [t for t in found if "prior" not in t.settings]
    alike = [t for t in found if t.noisy == noisy]
    found = alike or found  # all of them know the noise, and may take settings found for another
    return min(found, key=lambda t: (abs(math.log(t.undersampling / ratio)), -t.psnr), default=None)


def completed(method: M, found: Tuned | None) -> M:
    """Fill in the method's open settings from a row."""
    if found is None or not method.tunable():
        return method
    given = {k: getattr(method, k) for k in method.model_fields_set}
    if any(k in found.settings and v != found.settings[k] for k, v in given.items()):
        # Tuned values belong together: a job that sets one of them otherwise starts from the method's own defaults.
        return method
    try:
        return type(method).model_validate({**found.settings, **given})
    except ValidationError:
        return method  # what is given does not go with what was found, as a first level below the last
