"""Base class of acquisitions: all that the service has to know of a kind of scan without computing with it."""

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
    """What was measured and how; a kind is one subclass here and one heavy module, `PHYSICS`.

    Fields of type `File` are files that a job needs beside its input; they are found by themselves.
    """

    kind: str
    pixel_mm: float | None = Field(None, gt=0)
    """Pixel size of the result."""
    slice_mm: float | None = Field(None, gt=0)
    """Distance of the slices' centres. Default: the pixel size."""
    noise_std: float | None = Field(None, ge=0)
    """Standard deviation of the measurement's noise, per real channel."""

    MODALITY: ClassVar[Literal["ct", "mri"]]
    AXES: ClassVar[tuple[str, ...]]
    """Axes of the measured array; the first are slices."""
    COMPLEX_DATA: ClassVar[bool] = False
    """Whether samples are complex64, else float32."""
    METHODS: ClassVar[tuple[str, ...]]
    """Methods that fit, in the order they are listed in; those that name the kind in `FOR` come after them."""
    BASELINE: ClassVar[str]
    """The quick classical method shown beside every result."""
    PHYSICS: ClassVar[str]
    """Name of the heavy module with ``build`` and ``simulate``, see `recon.problem.physics`."""
    TUNED_AS: ClassVar[tuple[str, ...]] = ()
    """Kinds in the table of tuned settings that serve as well as its own."""
    PRECONDITIONED: ClassVar[bool] = False
    """Whether conjugate gradients have a preconditioner."""
    RESAMPLES: ClassVar[bool] = True
    """Whether there is another scan of the same kind, from which errors to be expected are mapped."""
    MEASURES_VOLUMES: ClassVar[bool] = False
    """Whether a volume file without `simulate` is itself the measurement."""
    ALTERNATIVES: ClassVar[tuple[frozenset[str], ...]] = ()
    """Groups of fields that are ways to say one thing: one that the user gives replaces all that the file states."""
    GRID: ClassVar[tuple[str, ...]] = ("pixel_mm", "slice_mm")
    """Fields that decide the voxel grid of the result."""

    @abstractmethod
    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Shape ``(slices, rows, cols)`` of the result of a measurement of `shape`; raises for impossible ones."""

    @abstractmethod
    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """The acquisition that measures a volume ``(slices, rows, cols)``, and the shape of what it measures."""

    @abstractmethod
    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Bytes that the operator of a measurement of `shape` takes at its peak."""

    def library_bytes(self, costs: MachineCosts) -> float:
        """Bytes of the libraries that only this kind of scan loads."""
        del costs
        return 0.0

    @abstractmethod
    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Seconds of a product of one slice with the operator, where `per_chunk` slices are multiplied at once."""

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Raise `InputError` unless measured data, and what its files hold, are plausible."""

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Raise `InputError` unless a known volume can be measured like this."""

    def read_files(self, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """What the files of this acquisition hold, checked and converted; by field."""
        return dict(arrays)

    def result_affine(self, affine: Affine, shape: Shape) -> Affine:
        """Affine of the result, from that of a measured stack of `shape`."""
        del shape
        return affine

    def slices_of_result(self, first: int, last: int) -> tuple[int, int]:
        """Slices of the result that measured slices ``[first, last)`` become."""
        return first, last

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float] | None:
        """How samples are spread and the undersampling, where these can be told without the data."""
        del shape
        return None

    @property
    def refined(self) -> int | None:
        """Factor by which super-resolution refines; None for other scans."""
        return None

    @property
    def axes(self) -> str:
        """Axes of the measured array as they are written in messages."""
        return f"({', '.join(self.AXES)})"

    def files(self) -> dict[str, File]:
        """Files that a job needs beside its input, by field."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, File)}

    def completed_by(self, given: Acquisition) -> Self:
        """What a file states, with what the user gives on top.

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
