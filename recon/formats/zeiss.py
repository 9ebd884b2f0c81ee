"""Zeiss (Xradia) ``.txrm`` and ``.xrm``: projections, angles and geometry as streams of an OLE2 container.

Parallel beams of zone-plate microscopes are read row by row. Laboratory scanners have cone beams, which are read as a
whole; their middle row alone is a fan beam, and that row is read where it is asked for as a slice. Rows run upwards, as
the Core Imaging Library has them. Each frame is moved by the shifts that the microscope's alignment has stored for it.
Counts are divided by the reference image of the file, or of the only ``.xrm`` beside it that is called ``ref``. Single
radiographs and reconstructed volumes are refused.

References
----------
Streams and their types: txrm2tiff (Diamond Light Source), dxchange (Argonne). Distances, the pixel size, which is that
at the axis, and the sign of shifts: Jørgensen et al. 2021, Phil. Trans. R. Soc. A 379, 20200192 (Core Imaging Library).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError, ReconError
from recon.formats import detect, detector_frames
from recon.formats.format import Format, Incomplete, RawCounts
from recon.formats.safety import check_size, existing, real, slice_range
from recon.measurement.counts import Counts
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.job import Input
from recon.spec.validation import invalid, reason

if TYPE_CHECKING:
    import olefile

_TYPES = {3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 10: "<f4", 11: "<f8"}
"""Numbers of ``DataType``."""
_CONE = 1
"""Number of ``XrayGeometry``."""
_PER_STORAGE = 100
"""Images in each of the storages ImageData1, ImageData2, ..."""
_MOST_IMAGES = 100_000
_MOST_BYTES = 10_000_000
"""Size limit of a stream that is no image."""
_MOST_TRANSMISSION = 2.0
"""Floats up to here have been divided by a reference already."""
_MARGIN = 3
"""Rows beside those asked for that interpolation needs."""
_REFERENCES = re.compile(r"(^|[^a-z])(refs?|references?|flats?|whites?|air)([^a-z]|$)", re.IGNORECASE)
FIRST_ROW = "the first row of the images is taken for the lowest: the volume may be upside down"
HANDEDNESS = "the file does not say which way the stage turns: the image may be a mirror image"


def _read(path: Path, given: Input) -> RawCounts:
    notes: list[str] = []
    with _opened(path) as ole:
        count, rows, columns = _check_kind(ole, path)
        angles = _floats(ole, "ImageInfo/Angles", count, path)
        geometry = _geometry(ole, count, path)
        stated = {"angles_rad": detector_frames.angles_rad(angles, "deg", "ImageInfo/Angles", notes), **geometry}
        diverges = "source_origin_mm" in stated
        cone = diverges and rows > 1 and given.slices is None
        try:
            acquisition: CTFan | CTParallel | CTCone = CTFan(**stated) if diverges else CTParallel(**stated)
            if cone:
                acquisition = CTCone(**stated, row_mm=geometry["detector_mm"])
        except ValidationError as error:
            raise invalid(error, path.name) from error
        said = [f"pixel size {1e3 * geometry['detector_mm']:.5g} um on the detector, {count} angles in degrees"]
        said += [HANDEDNESS, FIRST_ROW] if cone else [HANDEDNESS]
        try:
            wanted = _middle(rows, given, notes) if diverges and not cone else slice_range(given.slices, rows)
            counts = _counts(ole, path, given, (count, rows, columns), wanted, notes)
        except _Lacking as error:
            raise Incomplete(error, acquisition, (rows, count, columns), [*notes, *said]) from error
    return RawCounts(counts, acquisition, [*notes, *said])


class _Lacking(InputError):
    """Error of a sound file: something beside it, or in the specification, is missing."""


@contextmanager
def _opened(path: Path) -> Iterator[olefile.OleFileIO]:
    """Open a container; anything that cannot be read in it is an `InputError`."""
    import olefile

    try:
        with olefile.OleFileIO(existing(path)) as ole:
            yield ole
    except (ReconError, MemoryError):
        raise
    except Exception as error:  # a damaged container can fail in any sector
        raise InputError(
            f"{path.name} is not a readable Zeiss file: {reason(error)}", field="input", remedy="copy it again"
        ) from error


def _check_kind(ole: olefile.OleFileIO, path: Path) -> tuple[int, int, int]:
    """Number, rows and columns of a tomography's images; other things are refused by name."""
    columns, rows = (_number(ole, f"ImageInfo/Image{side}", "<i4", path) for side in ("Width", "Height"))
    if columns is None or rows is None:
        raise InputError(f"{path.name} has no ImageInfo: it is no file of a Zeiss microscope", field="input")
    taken, planned = (_number(ole, f"ImageInfo/{name}", "<i4", path) for name in ("ImagesTaken", "NoOfImages"))
    count = int(taken or planned or 0)
    if path.suffix.lower() == ".txm":
        raise InputError(
            f"{path.name} is a reconstructed volume, not projections", field="input", remedy="give the .txrm"
        )
    if _number(ole, "ImageInfo/MosiacMode", "<i4", path):  # the maker's spelling
        raise InputError(f"{path.name} is a mosaic of fields of view", field="input", remedy="stitch it first")
    if count == 1:
        raise InputError(
            f"{path.name} holds one projection, no tomography", field="input", remedy="give the .txrm of the whole scan"
        )
    if not (1 < count <= _MOST_IMAGES and 1 <= rows <= 65536 and 1 <= columns <= 65536):
        raise InputError(f"{path.name} says {count} images of {rows:g} x {columns:g}", field="input")
    return count, int(rows), int(columns)


def _stream(ole: olefile.OleFileIO, name: str, path: Path, most: int = _MOST_BYTES) -> bytes | None:
    """Read a stream; None if there is none."""
    if not ole.exists(name) or ole.get_type(name) != 2:  # of the container's types, that of a stream
        return None
    if ole.get_size(name) > most:
        raise InputError(f"{path.name} has {ole.get_size(name)} bytes in {name}", field="input")
    return bytes(ole.openstream(name).read())


def _number(ole: olefile.OleFileIO, name: str, kind: str, path: Path) -> float | None:
    """First number of a stream; None if there is none."""
    held = _stream(ole, name, path)
    size = np.dtype(kind).itemsize
    value = None if held is None or len(held) < size else float(np.frombuffer(held[:size], kind)[0])
    return value if value is not None and math.isfinite(value) else None


def _floats(ole: olefile.OleFileIO, name: str, count: int, path: Path) -> NDArray[np.float32]:
    """One number per image."""
    held = _stream(ole, name, path) or b""
    if len(held) < 4 * count:
        raise GeometryError(
            f"{path.name} has {len(held) // 4} of {count} numbers in {name}",
            field="input",
            remedy="copy it again; a scan needs an angle for each image",
        )
    return np.frombuffer(held[: 4 * count], "<f4")


def _geometry(ole: olefile.OleFileIO, count: int, path: Path) -> dict[str, Any]:
    """Pitch of the detector; and the distances, if the beam is a cone."""
    pixel_um = _number(ole, "ImageInfo/PixelSize", "<f4", path)
    if pixel_um is None or pixel_um <= 0:
        raise InputError(f"{path.name} says {pixel_um} um in ImageInfo/PixelSize", field="input")
    source, detector = (_distance_mm(ole, f"ImageInfo/{end}toRADistance", count, path) for end in "SD")
    kind = _number(ole, "ImageInfo/XrayGeometry", "<i4", path)
    # Where there is no cone both distances are a placeholder, 1.
    if kind != _CONE and (kind is not None or source is None or source == detector == 1):
        return {"detector_mm": pixel_um / 1e3}
    if not source or detector is None:
        raise GeometryError(
            f"{path.name} is a cone beam without distances of source and detector",
            field="input",
            remedy="copy it again",
        )
    # The size is that at the axis.
    pitch = pixel_um / 1e3 * (source + detector) / source
    return {"detector_mm": pitch, "source_origin_mm": source, "origin_detector_mm": detector}


def _distance_mm(ole: olefile.OleFileIO, name: str, count: int, path: Path) -> float | None:
    """Distance from the axis, the same for all images; its sign is that of the stage."""
    if not ole.exists(name):
        return None
    found = np.abs(_floats(ole, name, count, path))
    if np.ptp(found) > 1e-3 * float(found.max()):
        raise GeometryError(f"{name} changes from {found.min():g} to {found.max():g} during the scan", field="input")
    return float(found[0])


def _middle(rows: int, given: Input, notes: list[str]) -> tuple[int, int]:
    """The middle row of a cone beam, if it is what is asked for."""
    middle = {(rows - 1) // 2, rows // 2}
    if given.slices is not None and (given.slices[1] - given.slices[0] > 1 or given.slices[0] not in middle):
        first = max(middle)
        raise _Lacking(
            f"the {rows} rows of a cone beam's detector are no slices of the volume",
            field="input.slices",
            remedy=f"leave it out; or give [{first}, {first + 1}], the middle row, which is a fan beam",
        )
    if rows > 1:
        notes.append(f"the fan beam of the middle row of {rows}; the other rows of the cone beam are left out")
    return slice_range(given.slices, rows)


def _counts(
    ole: olefile.OleFileIO,
    path: Path,
    given: Input,
    shape: tuple[int, int, int],
    wanted: tuple[int, int],
    notes: list[str],
) -> Counts:
    """Counts of some rows and those around them, with the shifts of each frame."""
    count, rows, columns = shape
    shifts = _shifts(ole, count, path)
    around = 0 if shifts is None or not shifts[0].any() else math.ceil(float(np.abs(shifts[0]).max())) + _MARGIN
    first, last = max(0, wanted[0] - around), min(rows, wanted[1] + around)
    dtype = _dtype(ole, "ImageInfo/DataType", path)
    check_size((count, last - first, columns), 4)
    projections = np.empty((count, last - first, columns), np.float32)
    for index in range(count):
        name = f"ImageData{index // _PER_STORAGE + 1}/Image{index + 1}"
        projections[index] = _image(ole, name, dtype, (rows, columns), path)[first:last]
    reference = _reference(ole, projections, (first, last), (rows, columns), path, given, notes)
    if shifts is not None:
        most = np.abs(shifts).max(1)
        notes.append(f"frames are moved by the file's alignment, up to {most[1]:.3g} columns and {most[0]:.3g} rows")
    return Counts(
        projections,
        reference,
        shifts=shifts,
        kept_rows=(wanted[0] - first, wanted[1] - first),
        names=("ImageData", "ReferenceData", "dark signal"),
    )


def _shifts(ole: olefile.OleFileIO, count: int, path: Path) -> NDArray[np.float64] | None:
    """Rows and columns by which each frame has to be moved, ``(2, frames)``; None if by nothing."""
    names = [f"Alignment/{axis}-Shifts" for axis in "YX"]
    if not all(ole.exists(name) for name in names):
        return None
    found = np.array([_floats(ole, name, count, path) for name in names], dtype=np.float64)
    if not np.isfinite(found).all():
        raise InputError(f"{path.name} has shifts in Alignment that are not finite", field="input")
    return found if found.any() else None


def _dtype(ole: olefile.OleFileIO, name: str, path: Path) -> np.dtype[np.generic]:
    kind = _number(ole, name, "<i4", path)
    if kind is None or int(kind) not in _TYPES:
        raise InputError(f"{path.name} holds images of DataType {kind}, expected numbers", field="input")
    return np.dtype(_TYPES[int(kind)])


def _image(
    ole: olefile.OleFileIO, name: str, dtype: np.dtype[np.generic], shape: tuple[int, int], path: Path
) -> NDArray[np.float32]:
    """Read one image ``(rows, columns)``."""
    promised = check_size(shape, dtype.itemsize)
    held = _stream(ole, name, path, promised)
    if held is None or len(held) != promised:
        raise InputError(
            f"{path.name} is truncated: {name} has {0 if held is None else len(held)} bytes of {promised}",
            field="input",
            remedy="copy it again",
        )
    return real(np.frombuffer(held, dtype).reshape(shape))


def _reference(
    ole: olefile.OleFileIO,
    projections: NDArray[np.float32],
    rows: tuple[int, int],
    shape: tuple[int, int],
    path: Path,
    given: Input,
    notes: list[str],
) -> NDArray[np.float32]:
    """Read the reference image ``(1, rows, columns)``, of the file or beside it; ones if it was applied already."""
    corrected = _number(ole, "ImageInfo/OriginalDataRefCorrected", "<i4", path)
    if corrected and float(projections.max()) <= _MOST_TRANSMISSION:
        notes.append("the projections have been divided by the reference already")
        return np.ones((1, *projections.shape[1:]), np.float32)
    if ole.exists("ReferenceData/Image"):
        dtype = _dtype(ole, "ReferenceData/DataType", path)
        return _image(ole, "ReferenceData/Image", dtype, shape, path)[None, slice(*rows)]
    return _reference_beside(path, shape, given, notes)[None, slice(*rows)]


def _reference_beside(path: Path, shape: tuple[int, int], given: Input, notes: list[str]) -> NDArray[np.float32]:
    """Read the reference of a scan that has none from the only ``.xrm`` beside it that is called so."""
    around = detect.around(path, given)
    beside = [] if around is None else [p for p in sorted(path.parent.glob("*.xrm")) if _REFERENCES.search(p.stem)]
    if len(beside) != 1:
        raise _Lacking(
            f"{path.name} holds counts and no reference image, and there are {len(beside)} .xrm called ref beside it",
            field="input",
            remedy="apply the reference in the microscope's software, or put its .xrm beside, with ref in its name",
        )
    with _opened(beside[0]) as ole:
        dtype = _dtype(ole, "ImageInfo/DataType", beside[0])
        found = _image(ole, "ImageData1/Image1", dtype, shape, beside[0])
    notes.append(f"reference image from {beside[0].name}")
    return found


FORMAT = Format(
    name="zeiss",
    endings=(".txrm", ".xrm", ".txm"),
    magic=(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
    certain=True,
    read=_read,
    selects=True,
)
