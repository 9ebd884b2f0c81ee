"""DICOM: a folder of CT or MR slices, or a multi-frame file, as a volume.

Slices are sorted by their positions along their normal, and the distance of these is theirs, whatever their thickness.
Values are those of the modality, rescaled slice by slice: HU, where the file says so. Padding becomes air. Missing or
uneven slices, mosaics, sheared stacks (a tilted gantry) and compressed pixels without a decoder are refused; objects
that are no images are left out by name.

References
----------
DICOM PS3.3: C.7.6.2 (image plane), C.7.6.16 (functional groups of multi-frame images), C.8.2 and C.8.15 (CT), C.8.3 and
C.8.13 (MR).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError, ReconError
from recon.formats import dicom_source, volumes
from recon.formats.format import Format, KnownVolume
from recon.formats.kspace import LPS_TO_RAS
from recon.formats.safety import check_size, existing
from recon.spec.affine import Affine
from recon.spec.job import Input
from recon.spec.validation import reason
from recon.storage.patterns import lies_in

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_FILES = 100_000
_MAGIC, _MAGIC_AT = b"DICM", 128
_DEFLATED = "1.2.840.10008.1.2.1.99"
_AIR_HU = -1000.0
_PARALLEL = 1e-3
"""Largest difference of direction cosines between slices of one stack."""
_SAME_MM = 0.01
"""Distance up to which slices count as being at the same position."""
_EVEN, _ROUNDED = 0.1, 0.01
"""Largest distance of a slice from where it should lie, as a share of slices' distance; and that which is said."""
SCANNER = "SCANNER FRAME"
"""Position reference of files that we write of a volume whose place in the patient is unknown."""
UNORIENTED = "the DICOM file does not say how it lies in the patient: its positions are those of a scanner's frame"
_MAPS = {
    "STD_DEVIATION", "PERFUSION", "RCBF", "RCBV", "CBF", "CBV", "MTT", "TTP", "TMAX", "COLOR", "DUAL_ENERGY_MAP",
    "MATERIAL",
}  # fmt: skip
"""Types of images whose values are no attenuation."""
_SCOUTS = {"LOCALIZER", "SCOUT"}
_PHASES = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}
_TAGS = [
    "ImageType", "ComplexImageComponent", "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime",
    "TriggerTime", "DiffusionBValue", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PositionReferenceIndicator", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One slice: where its pixels are, what they mean, and where it lies.

    Parameters
    ----------
    path, index
        File, and number of the frame in it.
    series, title, modality, types
        Series it belongs to, and what kind of image it is.
    shape
        Rows and columns.
    order
        Sorts images of one position: by echo, time and the like.
    position_mm
        Of the first pixel's centre, LPS.
    directions
        Along which the columns, and the rows, of the image count: LPS unit vectors ``(2, 3)``.
    sides_mm
        Distance of columns and of rows.
    thickness_mm
        Of the slice, if stated.
    scaling
        Slope and intercept, if stated.
    rescaled_to
        Unit of the rescaled values, as the file has it.
    reference
        What positions refer to, as the file has it.
    """

    path: Path
    index: int
    series: tuple[str, int | None]
    title: str
    modality: str
    types: frozenset[str]
    shape: tuple[int, int]
    order: tuple[Any, ...]
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    sides_mm: tuple[float, float]
    thickness_mm: float | None
    scaling: tuple[float, float] | None
    rescaled_to: str
    reference: str


def _read(path: Path, given: Input) -> KnownVolume:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values against the standard; those that matter are checked
        return _volume(path, given)


def _volume(path: Path, given: Input) -> KnownVolume:
    notes: list[str] = []
    wanted = volumes.choices(given, ("series", "volume"))
    stack = _chosen_series(_frames(path, notes), wanted, notes)
    stack = _chosen_volume(_sorted(stack), wanted)
    if stack[0].types & _PHASES:
        raise InputError(
            f"the images are of type {'/'.join(sorted(stack[0].types & _PHASES))}, not magnitudes",
            field="input.scan",
            remedy="choose the magnitude's volume or series",
        )
    affine = _affine(stack, notes)
    unit = _unit(stack[0])
    in_patient = stack[0].reference != SCANNER
    if not in_patient:
        notes.append(UNORIENTED)
    data, source = _values(stack, unit, notes), dicom_source.kept(stack[0].path)
    return KnownVolume(data, affine, in_patient=in_patient, unit=unit, notes=notes, source=source)


class _Unplaced(InputError):
    """An image that is no slice of a volume: a report, or a picture of a screen."""


def _frames(path: Path, notes: list[str]) -> list[Frame]:
    """Slices in all files, without those of other kinds, which are said."""
    found: list[Frame] = []
    others: Counter[str] = Counter()
    for file in _files(path):
        header = _dataset(file, pixels=False)
        modality, shape = str(header.get("Modality", "")), (header.get("Rows"), header.get("Columns"))
        if modality not in ("CT", "MR") or None in shape:
            others[header.get("SOPClassUID", "").name if "SOPClassUID" in header else f"modality {modality}"] += 1
            continue
        try:
            found.extend(_of_file(file, header))
        except _Unplaced:
            if not path.is_dir():
                raise
            others["images without a place in the patient"] += 1
    for name, count in others.items():
        notes.append(f"{count} file{'s' * (count > 1)} left out: {name or 'another kind'}")
    scouts = [frame for frame in found if frame.types & _SCOUTS]
    if scouts and len(scouts) < len(found):
        notes.append(f"{len(scouts)} localizer images left out")
        found = [frame for frame in found if not frame.types & _SCOUTS]
    if not found:
        kinds = f", but {', '.join(others)}" if others else ""
        raise InputError(f"{path.name} holds no CT or MR image in DICOM{kinds}", field="input")
    if not path.is_dir() and len(found) == 1:
        notes.append(f"{path.name} is one slice: give the folder for the whole series")
    return found


def _files(path: Path) -> Iterator[Path]:
    """Files of DICOM's kind, by their first bytes."""
    if not path.is_dir():
        if not _is_dicom(existing(path)):
            raise InputError(f"{path.name} is not a DICOM file", field="input", remedy="give a file or folder of DICOM")
        yield path
        return
    for child in sorted(islice(path.rglob("*"), _MOST_FILES)):
        if not child.is_file():
            continue
        if not lies_in(child, path):
            raise InputError(
                f"{child.name} is a link to outside of the folder", field="input", remedy="copy the file there"
            )
        if _is_dicom(child) and child.name.upper() != "DICOMDIR":
            yield child


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(_MAGIC_AT + 4)[_MAGIC_AT:] == _MAGIC


def _dataset(path: Path, *, pixels: bool) -> Dataset:
    """Read a file, or only what describes its images."""
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
        if syntax is None or not syntax.is_transfer_syntax or syntax == _DEFLATED:
            raise InputError(
                f"{path.name} is stored as {'nothing known' if syntax is None else syntax.name}, which is not read",
                field="input",
                remedy="save it uncompressed, for instance by gdcmconv --raw",
            )
        return dcmread(path) if pixels else dcmread(path, stop_before_pixels=True, specific_tags=[*_TAGS])
    except (ReconError, MemoryError):
        raise
    except Exception as error:  # a damaged file can fail in any element
        raise InputError(
            f"{path.name} is not readable DICOM: {reason(error)}", field="input", remedy="copy it again"
        ) from error


def _of_file(path: Path, header: Dataset) -> Iterator[Frame]:
    """Slices of a file, one or those of its functional groups."""
    try:
        count = int(header.get("NumberOfFrames") or 1)
        types = _types(header.get("ImageType"))
        if "MOSAIC" in types:
            raise InputError(
                f"{path.name} is a Siemens mosaic, which has all slices side by side in one picture",
                field="input",
                remedy="convert it to NIfTI, for instance by dcm2niix",
            )
        if int(header.get("SamplesPerPixel") or 1) != 1:
            raise InputError(f"{path.name} has colours, expected one value per pixel", field="input")
        check_size((count, header.Rows, header.Columns), max(int(header.BitsAllocated) // 8, 4))
        groups = header.get("PerFrameFunctionalGroupsSequence") or []
        if count != max(len(groups), 1):
            raise InputError(
                f"{path.name} has {count} frames, and says of {len(groups)} where they lie",
                field="input",
                remedy="give enhanced CT or MR, or one file per slice",
            )
        shared = next(iter(header.get("SharedFunctionalGroupsSequence") or []), header)
        for index in range(count):
            yield _frame(path, index, header, [*([groups[index]] if groups else []), shared, header], types)
    except (ReconError, MemoryError):
        raise
    except Exception as error:  # values of another kind than the standard says
        raise InputError(
            f"{path.name} has a header that cannot be read: {reason(error)}", field="input", remedy="copy it again"
        ) from error


def _frame(path: Path, index: int, header: Dataset, places: list[Dataset], types: frozenset[str]) -> Frame:
    def stated(name: str, group: str) -> Any:
        """Value of the frame's own functional group, of the shared one, or of the file."""
        for place in places:
            inside = next(iter(place.get(group) or []), None)
            for held in (inside, place):
                if held is not None and held.get(name) not in (None, ""):
                    return held[name].value
        return None

    position = _vector(stated("ImagePositionPatient", "PlanePositionSequence"), 3)
    directions = _vector(stated("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = _vector(stated("PixelSpacing", "PixelMeasuresSequence"), 2)
    missing = [name for name, value in (
        ("ImagePositionPatient", position), ("ImageOrientationPatient", directions), ("PixelSpacing", spacing),
    ) if value is None]  # fmt: skip
    if missing or spacing is None or position is None or directions is None or min(spacing) <= 0:
        raise _Unplaced(
            f"{path.name} has no {' or '.join(missing) or 'positive PixelSpacing'}: it is no slice of a volume",
            field="input",
            remedy="leave it out of the folder",
        )
    cosines = directions.reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    if abs(lengths - 1).max() > 0.01 or abs(cosines[0] @ cosines[1]) > 0.01:
        raise GeometryError(f"{path.name}: ImageOrientationPatient is {directions.tolist()}", field="input")
    slope, intercept, unit = (
        stated(name, "PixelValueTransformationSequence") for name in ("RescaleSlope", "RescaleIntercept", "RescaleType")
    )
    own = types.union(*(_types(stated("FrameType", f"{kind}ImageFrameTypeSequence")) for kind in ("CT", "MR")))
    own |= _types(stated("ComplexImageComponent", "MRImageFrameTypeSequence"))
    thickness = stated("SliceThickness", "PixelMeasuresSequence")
    number = header.get("SeriesNumber")
    return Frame(
        path=path,
        index=index,
        series=(str(header.get("SeriesInstanceUID", "")), None if number in (None, "") else int(number)),
        title=str(header.get("SeriesDescription", "")),
        modality=str(header.Modality),
        types=own,
        shape=(int(header.Rows), int(header.Columns)),
        order=(
            _order(stated("EffectiveEchoTime", "MREchoSequence") or header.get("EchoTime")),
            bool(own & _PHASES),
            _order(stated("DiffusionBValue", "MRDiffusionSequence")),
            _order(stated("TemporalPositionIndex", "FrameContentSequence") or header.get("TemporalPositionIdentifier")),
            _order(header.get("TriggerTime")),
            _order(header.get("AcquisitionNumber")),
            _order(header.get("InstanceNumber")),
            index,
        ),
        position_mm=position,
        directions=cosines / lengths[:, None],
        sides_mm=(float(spacing[1]), float(spacing[0])),
        thickness_mm=None if thickness is None else float(thickness),
        scaling=None if intercept is None and slope is None else (float(slope or 1.0), float(intercept or 0.0)),
        rescaled_to=str(unit or "").strip().upper(),
        reference=str(header.get("PositionReferenceIndicator") or ""),
    )


def _types(value: Any) -> frozenset[str]:
    return frozenset(str(word).upper() for word in ([value] if isinstance(value, str) else value or []))


def _vector(value: Any, count: int) -> NDArray[np.float64] | None:
    """Vector of `count` finite numbers; None for anything else."""
    found = np.asarray([float(n) for n in value or []])
    return found if found.shape == (count,) and np.isfinite(found).all() else None


def _order(value: Any) -> float:
    """A number to sort by; those without one come first."""
    return float(value) if value not in (None, "") else -1.0


def _chosen_series(frames: list[Frame], wanted: dict[str, int], notes: list[str]) -> list[Frame]:
    """Slices of the only series, or of that which is asked for."""
    groups: dict[tuple[str, tuple[int, int]], list[Frame]] = {}
    for frame in frames:
        groups.setdefault((frame.series[0], frame.shape), []).append(frame)
    numbers = [group[0].series[1] for group in groups.values()]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(groups) + 1))
    by_number = dict(zip(numbers, groups.values(), strict=True))
    if "series" in wanted or len(groups) > 1:
        found = by_number.get(wanted.get("series"))
        if found is None:
            listed = ", ".join(
                f"series={n} ({len(g)} images of {g[0].shape[0]} x {g[0].shape[1]}, {g[0].modality} {g[0].title})"
                for n, g in sorted(by_number.items(), key=lambda item: str(item[0]))
            )
            raise InputError(f"there are {len(groups)} series", field="input.scan", remedy=f"choose one: {listed}")
        notes.append(f"series {wanted['series']} of {len(groups)} is read")
        return found
    return frames


def _sorted(frames: list[Frame]) -> list[list[Frame]]:
    """Slices at each position, in order along the normal of the first."""
    first = frames[0]
    for frame in frames:
        if np.abs(frame.directions - first.directions).max() > _PARALLEL or frame.sides_mm != first.sides_mm:
            raise InputError(
                f"the slices of {frame.path.name} and {first.path.name} have different directions or pixels: they "
                "are no volume",
                field="input",
                remedy="give a folder with one stack of parallel slices",
            )
    normal = np.cross(*first.directions)
    ordered = sorted(frames, key=lambda frame: float(frame.position_mm @ normal))
    found: list[list[Frame]] = []
    for frame in ordered:
        if found and np.abs(frame.position_mm - found[-1][0].position_mm).max() <= _SAME_MM:
            found[-1].append(frame)
        else:
            found.append([frame])
    return [sorted(frames, key=lambda frame: frame.order) for frames in found]


def _chosen_volume(positions: list[list[Frame]], wanted: dict[str, int]) -> list[Frame]:
    """One slice per position, of the volume that is asked for."""
    counts = {len(frames) for frames in positions}
    if len(counts) > 1:
        raise InputError(
            f"there are {min(counts)} to {max(counts)} images at each of {len(positions)} positions: slices are "
            "missing or twice there",
            field="input",
            remedy="give a folder with one volume, or several whole ones",
        )
    number = volumes.number_of(wanted, counts.pop())
    return [frames[number] for frames in positions]


def _affine(stack: list[Frame], notes: list[str]) -> Affine:
    """Affine to RAS; raises unless slices are evenly spaced along a line."""
    first, last = stack[0], stack[-1]
    normal = np.cross(*first.directions)
    if len(stack) > 1:
        step = (last.position_mm - first.position_mm) / (len(stack) - 1)
        _check_even(stack, step, normal, notes)
    else:
        step = normal * (first.thickness_mm or first.sides_mm[0])
    found = np.eye(4)
    found[:3, :2] = (first.directions * np.array(first.sides_mm)[:, None]).T
    found[:3, 2], found[:3, 3] = step, first.position_mm
    found[:3] = LPS_TO_RAS @ found[:3]
    return volumes.check_affine(found, first.path.name)


def _check_even(stack: list[Frame], step: NDArray[np.float64], normal: NDArray[np.float64], notes: list[str]) -> None:
    positions = np.array([frame.position_mm for frame in stack])
    should = positions[0] + np.arange(len(stack))[:, None] * step
    off = float(np.linalg.norm(positions - should, axis=1).max() / np.linalg.norm(step))
    steps = np.diff(positions @ normal)
    if off > _EVEN:
        usual = float(np.median(steps))
        wide = int(np.argmax(steps))
        lies = f"{steps[wide]:.4g} mm between {stack[wide].path.name} and {stack[wide + 1].path.name}"
        missing = float(steps.max()) > 1.5 * usual
        raise GeometryError(
            f"slices are {usual:.4g} mm apart, but {lies}: "
            + ("are some missing?" if missing else "they are unevenly spaced"),
            field="input",
            remedy="give a folder with evenly spaced slices, none missing",
        )
    if off > _ROUNDED:
        notes.append(f"slices are {steps.min():.4g} to {steps.max():.4g} mm apart: their mean distance is taken")


def _unit(frame: Frame) -> str | None:
    """Unit that the file states; None if it states none."""
    if frame.modality != "CT":
        return "MR signal"
    maps = sorted(frame.types & _MAPS)
    if maps:
        return f"a map ({'/'.join(maps)})"
    if frame.rescaled_to == "HU" or (not frame.rescaled_to and frame.scaling is not None and frame.scaling[1] < 0):
        return "HU"
    return None if frame.rescaled_to in ("", "US") else frame.rescaled_to


def _values(stack: list[Frame], unit: str | None, notes: list[str]) -> NDArray[np.float32]:
    """Values of the slices in order; those of padding become air, or the lowest there is."""
    check_size((len(stack), *stack[0].shape), 4)
    found = np.empty((len(stack), *stack[0].shape), np.float32)
    padded = np.zeros(found.shape, bool)
    held: tuple[Path, NDArray[np.generic], NDArray[np.bool_]] | None = None
    for index, frame in enumerate(stack):
        if held is None or held[0] != frame.path:
            held = (frame.path, *_pixels(frame.path))
        found[index] = volumes.scaled(held[1][frame.index], *(frame.scaling or (1.0, 0.0)))
        padded[index] = held[2][frame.index]
    if padded.any() and not padded.all():
        found[padded] = _AIR_HU if unit == "HU" else found[~padded].min()
        notes.append(f"{int(padded.sum())} pixels of padding outside of the scan count as air")
    return found


def _pixels(path: Path) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Stored numbers ``(frames, rows, cols)`` of a file, and which of them are padding."""
    data = _dataset(path, pixels=True)
    syntax = data.file_meta.TransferSyntaxUID
    try:
        stored = np.asarray(data.pixel_array)
    except MemoryError:
        raise
    except Exception as error:  # a missing decoder, or pixels that are cut short
        if syntax.is_compressed:
            raise InputError(
                f"{path.name} is compressed ({syntax.name}), and it cannot be decoded: {reason(error)}",
                field="input",
                remedy="save it uncompressed (gdcmconv --raw), or install pylibjpeg with pylibjpeg-libjpeg and "
                "pylibjpeg-openjpeg where it is read",
            ) from error
        raise InputError(
            f"the pixels of {path.name} cannot be read: {reason(error)}", field="input", remedy="copy it again"
        ) from error
    stored = stored.reshape(-1, *stored.shape[-2:])
    value, limit = data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit")
    if value is None:
        return stored, np.zeros(stored.shape, bool)
    # Some writers state it as a number of the other sign.
    ends = sorted(int(np.array(int(n)).astype(stored.dtype)) for n in (value, value if limit is None else limit))
    return stored, (stored >= ends[0]) & (stored <= ends[1])


FORMAT = Format(
    name="dicom",
    endings=(".dcm", ".dicom", ".ima"),
    magic=(_MAGIC,),
    magic_at=_MAGIC_AT,
    certain=True,
    volumes=True,
    media_type="application/dicom",
    read=_read,
    folders=True,
)
