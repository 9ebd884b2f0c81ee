"""What a measurement is without its values: enough to plan a job, and small enough to send between processes."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from recon.spec.job import Acquisition


class Outline(BaseModel):
    """Size and geometry of a job's measurement.

    Parameters
    ----------
    acquisition
        Completed by what the file knew.
    shape
        Of the measurement, after the selection of slices: ``(slices, angles, detectors)``, ``(slices, coils, rows,
        cols)``, or ``(slices, rows, cols)`` of a low-resolution stack.
    source_bytes
        Largest array that reading holds, before slices are selected.
    known
        Whether the true volume is known, for comparison.
    coil_maps
        Whether coil sensitivities are given.
    """

    model_config = ConfigDict(frozen=True)

    acquisition: Acquisition
    shape: tuple[int, ...]
    source_bytes: int
    known: bool = False
    coil_maps: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of a sample: complex64 for k-space, else float32."""
        return 8 if self.acquisition.kind == "mri-cartesian" else 4

    @property
    def data_bytes(self) -> int:
        """Bytes of the measurement."""
        return math.prod(self.shape) * self.itemsize
