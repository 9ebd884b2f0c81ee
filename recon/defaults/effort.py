"""Table of efforts: settings that make a method quicker or better, and what each costs in dB, measured.

Apart from anything that looks at data, so that a job can be planned where there is no torch.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from operators.errors import InputError
from recon.defaults.table import M
from recon.spec.methods import Splitting
from recon.spec.registry import ACQUISITIONS
from recon.spec.validation import read_yaml

TABLE = Path(__file__).parent / "effort.yaml"


class Row(BaseModel):
    """Effort of one method on one kind of scan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """Kind of acquisition; ``ct`` for all kinds of CT."""
    method: str
    effort: Literal["draft", "best"]
    settings: dict[str, Any]
    """Settings that replace the tuned ones."""
    gain_db: dict[str, float]
    """PSNR on the tuning slices over the standard effort, by task; negative where it loses."""
    over_tv_db: dict[str, float]
    """PSNR over tuned TV, by task."""
    evaluations: dict[str, float]
    """Network evaluations per slice, by task."""

    @property
    def mean_gain_db(self) -> float:
        """Gain over the standard effort in dB, averaged over the tasks."""
        return sum(self.gain_db.values()) / len(self.gain_db)


class Efforts(BaseModel):
    """Table of efforts: the whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str
    efforts: list[Row] = Field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Efforts:
        """Read a table; raises `InputError`."""
        remedy = "give a file that `recon tune-effort` wrote, or a new one"
        return read_yaml(cls, path, "a table of efforts", field="out", remedy=remedy)

    def write(self, path: Path) -> None:
        """Write the table."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


@cache
def installed() -> Efforts:
    """Read the shipped table."""
    return Efforts.read(TABLE)


def row_of(method: object, kind: str) -> Row | None:
    """Row that a method's effort asks for; None for the standard effort.

    Raises
    ------
    InputError
        If that effort of the method was not measured on this kind of scan.
    """
    if not isinstance(method, Splitting) or method.effort == "standard":
        return None
    kinds = {kind, *(ACQUISITIONS[kind].TUNED_AS if kind in ACQUISITIONS else ())}
    for row in installed().efforts:
        if row.kind in kinds and row.method == method.name and row.effort == method.effort:
            return row
    raise InputError(
        f"{method.effort!r} has not been measured for {method.name} on {kind}",
        field="method.effort",
        remedy="leave it out, or set steps yourself",
    )


def applied(method: M, given: M, kind: str) -> M:
    """Give a method with its tuned settings those of its effort; what the user gave stays as it is.

    Parameters
    ----------
    method
        With its tuned settings.
    given
        As the user gave it.
    kind
        Kind of acquisition, as in a specification.
    """
    row = row_of(given, kind)
    if row is None:
        return method
    own = {name: getattr(given, name) for name in given.model_fields_set}
    tuned = {name: getattr(method, name) for name in method.model_fields_set}
    return type(method).model_validate({**tuned, **row.settings, **own})
