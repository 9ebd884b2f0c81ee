"""Base class of acquisitions: everything the service needs to know about a kind of scan without computing with it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from operators.errors import InputError
from operators.geometry import SamplingPattern
from recon.spec.affine import Affine
from recon.spec.base import Strict
from recon.spec.costs import MachineCosts
from recon.spec.files import File
from recon.spec.simulation import Simulation

Shape = tuple[int, ...]
Volume = NDArray[np.float32]


class Acquisition(Strict, ABC):
    """Acquisition: geometry and noise of a scan. A kind is one subclass here and one heavy module, `PHYSICS`.

    Fields of type `File`, here or in a field's own model, are additional files of the job; `files` finds them.
    """

    kind: str
    """Kind of scan; selects the other fields."""
    pixel_mm: float | None = Field(None, gt=0)
    """Pixel size of the result in mm. Default: the detector pitch at the rotation axis (CT); 1 (MRI), and the report
    says so."""
    slice_mm: float | None = Field(None, gt=0)
    """Distance between slice centres in mm. Default: what the input says, else the pixel size (CT); slices of k-space
    whose distance is unknown are reconstructed each by itself (MRI)."""
    noise_std: float | None = Field(None, ge=0)
    """Noise standard deviation of the measurement, per real channel. Default: estimated."""

    MODALITY: ClassVar[Literal["ct", "mri"]]
    AXES: ClassVar[tuple[str, ...]]
    """Axes of the measured array; the first are slices."""
    COMPLEX_DATA: ClassVar[bool] = False
    """Whether samples are complex64; float32 otherwise."""
    COMPLEX_VOLUME: ClassVar[bool] = False
    """Whether the solver's volume is complex64; float32 otherwise."""
    METHODS: ClassVar[tuple[str, ...]]
    """Names of the methods that fit, in the order of listing; those that name the kind in `FOR` follow."""
    BASELINE: ClassVar[str]
    """Quick classical method shown beside every result."""
    SUSPECTS: ClassVar[str] = "the geometry, units, or axes of the array in another order"
    """Causes to suspect where no image fits the data, as messages list them."""
    PHYSICS: ClassVar[str]
    """Name of the heavy module with ``build`` and ``simulate``."""
    PREPARE: ClassVar[str | None] = None
    """Name of the function that prepares measured data: ``(measurement, counts, *, planning, like)`` to a
    measurement."""
    TUNED_AS: ClassVar[tuple[str, ...]] = ()
    """Other kinds whose tuned settings apply as well."""
    PRECONDITIONED: ClassVar[bool] = False
    """Whether conjugate gradients have a preconditioner."""
    RESAMPLES: ClassVar[bool] = True
    """Whether comparable scans exist (other views or k-space lines), from which expected errors are estimated."""
    FROM_DATA: ClassVar[frozenset[str]] = frozenset()
    """Fields that `completed_from` tells."""
    WHOLE_VOLUME: ClassVar[bool] = False
    """Whether its operator acts on a whole volume, and not slice by slice."""
    SLICES_APART: ClassVar[bool] = False
    """Whether each slice of a measurement is a slice of the result, and plausible or not by itself."""
    MEASURES_VOLUMES: ClassVar[bool] = False
    """Whether a volume file without `simulate` is itself the measurement."""
    VOLUME_FILES: ClassVar[tuple[str, ...]] = ()
    """Fields whose files are volumes (NIfTI); the affine of one is read as the array ``NAME.affine``."""
    ALTERNATIVES: ClassVar[tuple[frozenset[str], ...]] = ()
    """Groups of fields that state the same thing: a given one replaces all that the file states."""
    GRID: ClassVar[tuple[str, ...]] = ("pixel_mm", "slice_mm")
    """Fields that determine the voxel grid of the result."""

    @abstractmethod
    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Shape ``(slices, rows, cols)`` of the result of a measurement of `shape`; raises for impossible ones."""

    def baseline(self, shape: Shape) -> str:
        """Quick classical method shown beside the result of a measurement of `shape`."""
        del shape
        return self.BASELINE

    def left_out_of_choice(self) -> tuple[str, ...]:
        """Methods that fit, but that the automatic choice does not try unless they are named."""
        return ()

    def solved_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Shape ``(slices, rows, cols)`` of what is solved, if that is more than the result."""
        return self.result_shape(shape)

    def completed_from(self, data: NDArray[np.generic]) -> tuple[Self, list[str]]:
        """The acquisition completed by what measured data show, and remarks for the report."""
        del data
        return self, []

    @abstractmethod
    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """The acquisition that measures a volume ``(slices, rows, cols)``, and the shape of what it measures."""

    @abstractmethod
    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Bytes that the operator of a measurement of `shape` takes at its peak."""

    def setup_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Bytes that stay allocated after setting up the inverse problem, beside the operator: loaded libraries."""
        del shape, costs
        return 0.0

    @abstractmethod
    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Seconds per slice of a product with the operator, when `per_chunk` slices are multiplied at once."""

    def missing_axis(self) -> int:
        """Position in `AXES` of the axis that an array with one axis too few lacks: the slices, unless a field says."""
        return 0

    def check_missing_axis(self, shape: Shape) -> None:
        """Raise `InputError` if it is not clear which axis an array of `shape`, with one axis too few, lacks."""

    def slices_apart(self) -> bool:
        """Whether each slice can be read and prepared without others."""
        return self.SLICES_APART

    @property
    def slices_encoded(self) -> bool:
        """Whether each slice needs all of the measured data's first axis: one of k-space, or rows of a cone beam."""
        return False

    def of_slices(self, data: NDArray[np.generic], first: int, last: int) -> tuple[Self, NDArray[np.generic]]:
        """The acquisition and the data of slices ``[first, last)`` alone."""
        return self, data[first:last]

    def check_selection(self) -> None:
        """Raise `InputError` unless slices of the measurement can be chosen."""

    def in_one_piece(self) -> bool:
        """Whether the volume cannot be solved in chunks, because what is solved are no slices of it."""
        return False

    def planned(self) -> Self:
        """The acquisition with a stand-in for what is found in the data, as a plan needs it before these are read."""
        return self

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Raise `InputError` unless measured data, and what its files hold, are plausible."""

    def check_unit(self, volume: Volume, unit: str | None) -> None:
        """Raise `InputError` unless a known volume's values are what this kind measures; `unit` is None if unknown."""

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Raise `InputError` unless a known volume can be measured like this."""

    def read_files(self, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """Check and convert the arrays in the files of this acquisition, by field."""
        return dict(arrays)

    def result_affine(self, affine: Affine, shape: Shape) -> Affine:
        """Affine of the result, from that of a measured stack of `shape`."""
        del shape
        return affine

    def first_of_result(self, first: int) -> float:
        """Position at which measured slice `first` begins in the result, in slices of the result."""
        return first

    def slices_of_result(self, first: int, last: int) -> tuple[int, int]:
        """Range of result slices that belongs to measured slices ``[first, last)``."""
        return first, last

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float] | None:
        """Sampling pattern and undersampling factor, where these are known without the data."""
        del shape
        return None

    @property
    def refined(self) -> float | None:
        """Super-resolution factor; None for other scans."""
        return None

    @property
    def axes(self) -> str:
        """Axes of the measured array, as messages write them."""
        return f"({', '.join(self.AXES)})"

    def files(self) -> dict[str, File]:
        """Additional files of the job, by field; those of a field's own fields by both names, with a dot."""
        return _files(self)

    def completed_by(self, given: Acquisition) -> Self:
        """Combine what a file states with what the user gives; the user's values win.

        Raises
        ------
        InputError
            If the user says another kind.
        """
        if given.kind != self.kind:
            raise InputError(f"{given.kind!r}, the file holds {self.kind}", field="acquisition.kind")
        stated: dict[str, None] = {}
        for group in self.ALTERNATIVES:
            if group & given.model_fields_set:
                stated |= dict.fromkeys(group)
        wanted = {k: getattr(given, k) for k in given.model_fields_set if getattr(given, k) is not None}
        return self.model_copy(update={**stated, **wanted})

    def same_grid(self, other: Acquisition) -> bool:
        """Whether the result has the same voxel grid as that of `other`."""
        return all(getattr(self, name) == getattr(other, name, None) for name in self.GRID)

    def data_bytes(self, shape: Shape) -> int:
        """Bytes of a measurement of `shape`."""
        return math.prod(shape) * (8 if self.COMPLEX_DATA else 4)


def _files(model: Strict) -> dict[str, File]:
    found: dict[str, File] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, File):
            found[name] = value
        elif isinstance(value, Strict):
            found |= {f"{name}.{inner}": file for inner, file in _files(value).items()}
    return found


def as_mask(array: NDArray[np.generic], field: str) -> NDArray[np.bool_]:
    """Convert a mask of 0 and 1 to bool; raises `InputError` for other values."""
    if array.dtype.kind not in "biuf" or not np.isin(np.unique(array), (0, 1)).all():
        raise InputError("a mask holds only 0 and 1", field=field, remedy="save it as bool, or as 0 and 1")
    return array.astype(bool)
