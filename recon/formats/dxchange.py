"""DXchange HDF5: raw projections with flat and dark fields to line integrals.

Layout: ``/exchange/data (views, rows, columns)``, ``data_white``, ``data_dark`` and ``theta`` in degrees.
A detector row is a slice of the volume.

References
----------
De Carlo et al. 2014, J. Synchrotron Rad. 21, 1224-1230.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError
from recon.formats import hdf5
from recon.formats.format import Format
from recon.formats.safety import check_finite, real
from recon.measurement.counts import line_integrals
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import Input
from recon.spec.validation import invalid

def read(path: Path) -> tuple[NDArray[np.float32], tuple[float, ...] | None, float | None, list[str]]:
    """Read line integrals, angles, noise and remarks.

    Returns
    -------
    tuple
        Line integrals ``(slices, views, detectors)``, angles in radians if the file has them, the standard
        deviation of the line integrals' noise if there are flat fields enough to show it, and remarks.

    Raises
    ------
    InputError
        If a dataset is missing, counts are negative, or flat fields are not brighter than dark ones.
    """
    with hdf5.opened(path) as file:
        counts = _counts(hdf5.dataset(file, "exchange/data"), "exchange/data")
        flats = _counts(hdf5.dataset(file, "exchange/data_white"), "exchange/data_white")
        darks = _counts(hdf5.dataset(file, "exchange/data_dark"), "exchange/data_dark")
        has_theta = "theta" in file["exchange"]
        theta = real(hdf5.dataset(file, "exchange/theta"), "exchange/theta") if has_theta else None
    found = line_integrals(counts, flats, darks, ("exchange/data", "exchange/data_white", "exchange/data_dark"))
    return found.data, _angles(theta, len(counts)), found.noise_std, found.notes


def _counts(data: NDArray[np.generic], field: str) -> NDArray[np.float32]:
    if data.ndim != 3:
        raise InputError(f"shape {data.shape}, expected (frames, rows, columns)", field=field)
    counts = real(data, field)
    check_finite(counts, field)
    return counts


def _angles(theta_deg: NDArray[np.float32] | None, views: int) -> tuple[float, ...] | None:
    if theta_deg is None:
        return None
    if theta_deg.shape != (views,):
        raise GeometryError(f"{theta_deg.size} angles for {views} projections", field="exchange/theta")
    return tuple(float(a) for a in np.deg2rad(theta_deg.astype(np.float64)))


def _read(path: Path, given: Input) -> Measurement:
    del given
    data, angles, noise, notes = read(path)
    try:
        stated = CTParallel(angles_rad=None if angles is None else list(angles))
    except ValidationError as error:
        raise invalid(error, path.name) from error
    return Measurement(data, stated, noise_std=noise, notes=notes)


FORMAT = Format(name="dxchange", endings=(".h5", ".hdf5", ".hdf"), magic=(hdf5.MAGIC,), read=_read)
