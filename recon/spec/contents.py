"""Contents of a file: what `recon inspect` shows, and ``GET /v1/uploads/ID/contents`` answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class DataSet(_Part):
    """Array, text, link or file inside."""

    name: str
    """Name in the file, or in the folder."""
    shape: list[int] | None = None
    """Shape as stored; null for what is no array."""
    dtype: str | None = None
    unit: str | None = None
    """Unit that the file states."""
    note: str | None = None
    """Value of a single number or text, where a link leads, or how many files there are."""


class Angles(_Part):
    """Angles of the views, in degrees."""

    count: int
    first_deg: float
    last_deg: float
    step_deg: float | None
    """Median step from view to view; null for one view."""
    equispaced: bool
    """Whether all steps are the median, within a tenth of it."""
    source: str
    """Where they come from."""


class ValueRange(_Part):
    """Range of the values that were read."""

    lowest: float
    highest: float
    slices: tuple[int, int]
    """Slices ``[first, last)`` that were read."""


class Missing(_Part):
    """Field of a specification that the file does not tell, and that is needed."""

    field: str
    """``input`` where no field helps, but something that belongs beside the file."""
    why: str
    remedy: str | None
    suggestion: Any = None
    """Value that stands in the specification to start from, to be checked; null where nothing can be suggested."""


class Contents(_Part):
    """What a file or folder holds, and a specification to start from."""

    file: str | None
    """File that is read, by its name in the folder; null for a file, and for a folder that is read as a whole."""
    format: str | None
    """Format; null if it cannot be told."""
    told_by: str | None
    """How the format was told."""
    bytes: int
    files: int
    """Number of files."""
    datasets: list[DataSet]
    datasets_left_out: int
    """Number of those that are not listed, because there are very many."""
    holds: Literal["measurement", "volume", "array"] | None = None
    """A measurement with its geometry, an image volume, or an array of which the file does not say what it is; null if
    it could not be told because of a question, which is among `missing`."""
    kind: str | None = None
    """Kind of acquisition that the file states."""
    shape: list[int] | None = None
    """Shape of what is read, all slices included."""
    axes: list[str] | None = None
    """Names of these axes; null if the file leaves them open."""
    values: ValueRange | None = None
    angles: Angles | None = None
    geometry: dict[str, float | int | str] = {}
    """Fields of the acquisition that the file states, besides the angles; units are in their names."""
    affine: list[list[float]] | None = None
    """From voxel ``(col, row, slice)`` to millimetres."""
    in_patient: bool | None = None
    """Whether `affine` leads into the patient's RAS frame; null without an affine."""
    orientation: str | None = None
    """Directions in which columns, rows and slices count, such as ``LAS``; null where the file does not say."""
    notes: list[str] = []
    """What the reader found and did."""
    missing: list[Missing]
    specification: dict[str, Any]
    """Specification to start from; complete once what is `missing` is filled in."""
