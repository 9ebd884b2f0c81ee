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
    """Type of the numbers, as NumPy names it."""
    unit: str | None = None
    """Unit that the file states."""
    note: str | None = None
    """Value of a single number or text, where a link leads, or how many files there are."""


class Angles(_Part):
    """Angles of the views, in degrees."""

    count: int
    """Number of views."""
    first_deg: float
    """Angle of the first view in degrees."""
    last_deg: float
    """Angle of the last view in degrees."""
    step_deg: float | None
    """Median step from view to view in degrees; null for one view."""
    equispaced: bool
    """Whether all steps are the median, within a tenth of it."""
    source: str
    """Source of the angles, as ``the file``."""


class ValueRange(_Part):
    """Range of the values that were read."""

    lowest: float
    """Lowest value, in the unit of the data."""
    highest: float
    """Highest value, in the unit of the data."""
    slices: tuple[int, int]
    """Slices ``[first, last)`` that were read."""


class Missing(_Part):
    """Field of a specification that the file does not tell, and that is needed."""

    field: str
    """``input`` where no field helps, but something that belongs beside the file."""
    why: str
    """Reason in a sentence for which it is needed."""
    remedy: str | None
    """Advice to the user."""
    suggestion: Any = None
    """Value that stands in the specification to start from, to be checked; null where nothing can be suggested."""


class Contents(_Part):
    """Contents of a file or folder, and a specification to start from."""

    file: str | None
    """File that is read, by its name in the folder; null for a file, and for a folder that is read as a whole."""
    format: str | None
    """Format; null if it cannot be told."""
    told_by: str | None
    """Evidence for the format, as its name or its first bytes."""
    bytes: int
    """Size of all files in bytes."""
    files: int
    """Number of files."""
    datasets: list[DataSet]
    """Arrays and other parts of the file."""
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
    """Range of the values that were read; null if none were."""
    angles: Angles | None = None
    """Angles of the views; null if the file has none."""
    geometry: dict[str, float | int | str] = {}
    """Fields of the acquisition that the file states, besides the angles; units are in their names."""
    affine: list[list[float]] | None = None
    """From voxel ``(col, row, slice)`` to millimetres."""
    in_patient: bool | None = None
    """Whether `affine` leads into the patient's RAS frame; null without an affine."""
    orientation: str | None = None
    """Directions in which columns, rows and slices count, such as ``LAS``; null where the file does not say."""
    notes: list[str] = []
    """Sentences about what the reader found and did."""
    missing: list[Missing]
    """Fields that the user has to fill in or to check."""
    specification: dict[str, Any]
    """Specification to start from; complete once what is `missing` is filled in."""
