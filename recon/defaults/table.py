"""What a tuning run found for each method, task by task, and which of it is nearest to a scan.

Apart from `recon.defaults.lookup`, which looks at data, so that a job can be planned where there is no torch.
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
from recon.spec.methods import TV, Diffusion, Method
from recon.spec.validation import reason

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
    def read(cls, path: Path, field: str = "out") -> Table:
        """Read a table; `InputError` if the file is none."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise InputError(
                f"{path.name} is no table of settings: {reason(error)}",
                field=field,
                remedy="give a file that `recon tune` wrote, or a new one",
            ) from error

    def write(self, path: Path) -> None:
        """Write the table."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


def angular_cover(angles_rad: Sequence[float]) -> float:
    """Share of all directions, modulo half a turn, that views cover: the largest gap beyond a usual one is missing."""
    directions = sorted(angle % math.pi for angle in angles_rad)
    gaps = [b - a for a, b in pairwise([*directions, directions[0] + math.pi])]
    return 1 - (max(gaps) - statistics.median(gaps)) / math.pi


@cache
def installed() -> Table:
    """The table that is shipped."""
    return Table.read(TABLE, "recon/defaults.yaml")


def nearest(method: Method, kind: str, spread: Pattern, ratio: float, *, noisy: bool) -> Tuned | None:
    """What was found for the nearest task of the same kind and pattern, with the better prior unless one is named.

    Parameters
    ----------
    method
        As the user gave it.
    kind
        Of the acquisition, as in a specification.
    spread, ratio, noisy
        How the samples are spread, the undersampling, and whether there is noise.
    """
    wanted = {kind, "ct"} if kind.startswith("ct") else {kind}
    found = [t for t in installed().tuned if t.kind in wanted and (t.method, t.pattern) == (method.name, spread)]
    if isinstance(method, Diffusion) and method.prior is not None:
        # What was found with this very prior, or else with the usual one.
        own = [t for t in found if t.settings.get("prior") == method.prior]
        found = own or [t for t in found if "prior" not in t.settings]
    alike = [t for t in found if t.noisy == noisy]
    found = alike or found  # all of them know the noise, and may take settings found for another
    return min(found, key=lambda t: (abs(math.log(t.undersampling / ratio)), -t.psnr), default=None)


def tunable(method: Method) -> bool:
    """Whether a method leaves its settings to the table: no preset of published constants, no way of its own."""
    own = {"update": "adam", "schedule": "ddpm"}
    if getattr(method, "preset", "tuned") not in ("tuned", "fast") or any(
        getattr(method, name, None) == value for name, value in own.items()
    ):
        return False
    return not (isinstance(method, TV) and method.weight is not None)


def completed(method: Method, found: Tuned | None) -> Method:
    """The method with what it leaves open set as found."""
    if found is None or not tunable(method):
        return method
    given = {k: getattr(method, k) for k in method.model_fields_set}
    if any(k in found.settings and v != found.settings[k] for k, v in given.items()):
        # Tuned values belong together: whoever sets one of them otherwise starts from the method's own defaults.
        return method
    try:
        return type(method).model_validate({**found.settings, **given})
    except ValidationError:
        return method  # what is given does not go with what was found, as a first level below the last
