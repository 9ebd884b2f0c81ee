"""Fan-beam sinograms of the Helsinki Tomography Challenge 2022 in one ``.npz``.

Keys ``NAME__sino (views, detectors)`` and ``NAME__deg``, with the scanner's distances beside them. The
angles count as ASTRA's do, without offset, and the challenge's reference images need neither flip nor turn.

References
----------
Meaney, Silva de Moura and Siltanen 2022, Zenodo 8041800 (CC BY 4.0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError
from recon.formats import numpy_archives
from recon.formats.detector_frames import angles_rad
from recon.formats.format import Format
from recon.formats.numpy_archives import NumpyArchive
from recon.formats.safety import check_finite, no_real_numbers, real
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTFan
from recon.spec.job import Input
from recon.spec.validation import invalid

_SCALARS = ("distanceSourceOrigin_mm", "distanceSourceDetector_mm", "detectorPixel_mm")


def read(path: Path, scan: str | None) -> tuple[NDArray[np.float32], CTFan]:
    """Read line integrals ``(1, views, detectors)`` of one scan, and the geometry that the file states."""
    with numpy_archives.opened(path) as archive:
        sinogram, degrees, distances = _scan(archive, path.name, scan)
    source_origin, source_detector, pitch = distances
    check_finite(sinogram)
    if sinogram.ndim != 2 or degrees.shape != (sinogram.shape[0],):
        raise GeometryError(f"{degrees.size} angles for a sinogram of shape {sinogram.shape}", field="input")
    try:
        acquisition = CTFan(
            angles_rad=angles_rad(degrees, "deg", "input", []),
            detector_mm=pitch,
            source_origin_mm=source_origin,
            origin_detector_mm=source_detector - source_origin,
        )
    except ValidationError as error:
        raise invalid(error, path.name) from error
    return sinogram[None], acquisition


def _scan(
    archive: NumpyArchive, file_name: str, scan: str | None
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[float, ...]]:
    """Read sinogram, angles in degrees, and the three distances."""
    scans = sorted(k.removesuffix("__sino") for k in archive if k.endswith("__sino"))
    chosen = scan if scan is not None else (scans[0] if len(scans) == 1 else None)
    if chosen not in scans:
        raise InputError(
            f"scan {scan!r} is not in {file_name}" if scan else f"{file_name} holds {len(scans)} scans",
            field="input.scan",
            remedy=f"choose one of: {', '.join(scans)}",
        )
    missing = [k for k in (*_SCALARS, f"{chosen}__deg") if k not in archive]
    if missing:
        raise InputError(f"{file_name} lacks {', '.join(missing)}", field="input")
    distances = tuple(_number(archive.array(k), k) for k in _SCALARS)
    degrees = archive.array(f"{chosen}__deg")
    if degrees.dtype.kind not in "iuf":
        raise no_real_numbers(degrees.dtype)
    return real(archive.array(f"{chosen}__sino")), degrees.astype(np.float64), distances


def _number(array: NDArray[np.generic], name: str) -> float:
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise InputError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected a number", field="input")
    return float(array.reshape(-1)[0])


def _read(path: Path, given: Input) -> Measurement:
    return Measurement(*read(path, given.scan))


def _recognised(path: Path) -> bool:
    """Whether the archive has the challenge's distances; any other zip has not."""
    try:
        with numpy_archives.opened(path) as archive:
            return all(name in archive for name in _SCALARS)
    except InputError:
        return False


FORMAT = Format(name="htc", endings=(".npz",), magic=(b"PK",), read=_read, recognises=_recognised)
