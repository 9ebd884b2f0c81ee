"""Header of a measurement: its geometry and size, enough to plan a job without its data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from recon.spec.acquisitions import AnyAcquisition


class Header(BaseModel):
    """Header of a job's measurement; small enough to send between processes.

    Parameters
    ----------
    acquisition
        Acquisition, completed from the file.
    shape
        Shape of the measurement after the selection of slices: ``(slices, views, detectors)``, ``(slices, coils, rows,
        cols)``, or ``(slices, rows, cols)`` of a low-resolution stack.
    source_bytes
        Most bytes that reading holds beside the measurement: the file's array before slices are selected, if its format
        has to read them all.
    slice_bytes
        Most bytes that reading a single slice holds, where slices can be read apart; None where they cannot.
    known
        Whether the true volume is known, for comparison.
    coil_maps
        Whether coil sensitivities are given.
    """

    model_config = ConfigDict(frozen=True)

    acquisition: AnyAcquisition
    shape: tuple[int, ...]
    source_bytes: int
    slice_bytes: int | None = None
    known: bool = False
    coil_maps: bool = False

    @property
    def data_bytes(self) -> int:
        """Bytes of the measurement."""
        return self.acquisition.data_bytes(self.shape)

    @property
    def result_shape(self) -> tuple[int, int, int]:
        """Shape ``(slices, rows, cols)`` of the result."""
        return self.acquisition.result_shape(self.shape)

    @property
    def solved_shape(self) -> tuple[int, int, int]:
        """Shape ``(slices, rows, cols)`` of what is solved, if that is more than the result."""
        return self.acquisition.solved_shape(self.shape)
