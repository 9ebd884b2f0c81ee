"""Fan-beam sinograms of the Helsinki Tomography Challenge 2022 in one ``.npz``.

Keys ``NAME__sino (views, detectors)`` and ``NAME__deg``, with the scanner's distances beside them. The
angles count as ASTRA's do, without offset, and the challenge's reference images need neither flip nor turn.

References
----------
Meaney, Silva de Moura and Siltanen 2022, Zenodo 8041800 (CC BY 4.0).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError
from recon.formats.detector_frames import angles_rad
from recon.formats.format import Format
from recon.formats.safety import check_finite, check_size, existing, real
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTFan
from recon.spec.job import Input
from recon.spec.validation import invalid

_SCALARS = ("distanceSourceOrigin_mm", "distanceSourceDetector_mm", "detectorPixel_mm")


def read(path: Path, scan: str | None) -> tuple[NDArray[np.float32], CTFan]:
    """Read line integrals ``(1, views, detectors)`` of one scan, and the geometry that the file states."""
    existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(item.file_size for item in archive.infolist())
    except zipfile.BadZipFile as error:
        raise InputError(f"{path.name} is not a .npz file", field="input") from error
    check_size((max(total, 1),), 1)
    try:
        sinogram, degrees, distances = _scan(path, scan)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name} is damaged: its arrays cannot be read", field="input") from error
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


def _scan(path: Path, scan: str | None) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[float, ...]]:
    """Read sinogram, angles in degrees, and the three distances."""
    with np.load(path, allow_pickle=False) as archive:
        scans = sorted(k.removesuffix("__sino") for k in archive.files if k.endswith("__sino"))
        chosen = scan if scan is not None else (scans[0] if len(scans) == 1 else None)
        if chosen not in scans:
            raise InputError(
                f"scan {scan!r} is not in {path.name}" if scan else f"{path.name} holds {len(scans)} scans",
                field="input.scan",
                remedy=f"choose one of: {', '.join(scans)}",
            )
        missing = [k for k in (*_SCALARS, f"{chosen}__deg") if k not in archive.files]
        if missing:
            raise InputError(f"{path.name} lacks {', '.join(missing)}", field="input")
        distances = tuple(float(archive[k]) for k in _SCALARS)
        return real(archive[f"{chosen}__sino"]), archive[f"{chosen}__deg"].astype(np.float64), distances


def _read(path: Path, given: Input) -> Measurement:
    return Measurement(*read(path, given.scan))


def _recognised(path: Path) -> bool:
    """Whether the archive has the challenge's distances."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in _SCALARS} <= set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise InputError(f"{path.name} is not a .npz file", field="input") from error


FORMAT = Format(name="htc", endings=(".npz",), magic=(b"PK",), read=_read, recognises=_recognised)
