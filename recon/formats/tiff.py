"""TIFF: projections or sinograms, as pages of one file or as files of a folder.

Flat and dark fields lie in sub-folders, or in files, that are called so; angles in a file beside the images. Unsigned
integers are counts. Floats are line integrals, unless there are flat fields, or the air is one: then transmissions.
Images whose name says ``sino``, and a single image, are sinograms ``(views, detectors)``.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError, ReconError
from recon.formats import angle_file, detect
from recon.formats.format import Format, PlainArray, RawCounts
from recon.formats.safety import check_size, existing, limit_bytes, slice_range
from recon.measurement.counts import SMALLEST_TRANSMISSION, Counts
from recon.spec.acquisitions.ct import LARGEST_LINE_INTEGRAL
from recon.spec.job import Input
from recon.spec.validation import reason

if TYPE_CHECKING:
    import tifffile


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_ENDINGS = (".tif", ".tiff")
_WORDS = {
    "flats": {"flat", "flats", "flatfield", "flatfields", "ff", "white", "whites", "open", "bright", "ref", "refs"},
    "darks": {"dark", "darks", "darkfield", "darkfields", "df", "offset", "offsets"},
}
_SINOGRAMS = re.compile(r"(^|[^a-z])sino", re.IGNORECASE)
_MOST_FRAMES = 200_000
_EXPANDS = 1.1
"""Compressed over plain size, beyond which strips are no strips of this image."""
_FEW = 1000
"""Bytes that a strip may have beyond that."""
_PLAIN, _LZW, _DEFLATE, _LZMA, _PACKBITS, _OLD_DEFLATE = 1, 5, 8, 34925, 32773, 32946
"""Numbers of compressions."""
_RATIOS = {_LZW: 2731, _DEFLATE: 1032, _OLD_DEFLATE: 1032, _LZMA: 10_000, _PACKBITS: 64}
"""Largest ratio of plain to compressed bytes."""
_INFLATE: dict[int, Callable[[], _Decompressor]] = {
    _DEFLATE: zlib.decompressobj, _OLD_DEFLATE: zlib.decompressobj, _LZMA: lzma.LZMADecompressor,
}  # fmt: skip
_SAVE = "save it again, uncompressed"


@dataclass(frozen=True)
class Images:
    """Images of one kind: files, and how many pages each has."""

    paths: list[Path]
    pages: list[int]
    shape: tuple[int, int]
    dtype: np.dtype[np.generic]

    @property
    def count(self) -> int:
        """Number of images in all files."""
        return sum(self.pages)

    @property
    def bytes(self) -> int:
        """Bytes of an image."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def _read(path: Path, given: Input) -> PlainArray | RawCounts:
    notes: list[str] = []
    around = detect.around(path, given)
    names = _names(path, beside=around is not None)
    stacks = {kind: headers(paths) for kind, paths in names.items() if paths}
    if "projections" not in stacks:
        raise InputError(f"{path.name} holds no projections in TIFF", field="input", remedy="give a folder of TIFFs")
    images = stacks.pop("projections")
    sinograms = images.count == 1 or _SINOGRAMS.search(images.paths[0].stem) or _SINOGRAMS.search(path.stem)
    if sinograms and stacks:
        kinds = " and ".join(stacks)
        raise InputError(
            f"{path.name} holds {'one image, taken as a sinogram,' if images.count == 1 else 'sinograms'} and {kinds}",
            field="input",
            remedy="flat and dark fields belong to projections: give all projections, or take the fields away from"
            " sinograms of line integrals",
        )
    for kind, stack in stacks.items():
        if stack.shape != images.shape:
            raise InputError(
                f"{kind} are images of {stack.shape}, projections of {images.shape}",
                field="input",
                remedy="give fields of the size of the projections",
            )
        notes.append(f"{stack.count} {kind} from {_place(names[kind], path)}")
    if path.is_dir():
        _note_gaps(images.paths, notes)
    beside = None if around is None else angle_file.beside(path if path.is_dir() else path.parent)
    stated = {} if beside is None else {"angles_rad": angle_file.read(beside, notes)}
    rows = slice_range(given.slices, images.shape[0])
    if sinograms:
        return PlainArray(_sinograms(images, given, notes), stated, notes=notes)
    if "flats" not in stacks:
        return PlainArray(_projections(images, rows, notes), stated, notes=notes)
    flats, darks = (pixels(stacks[kind], rows) if kind in stacks else None for kind in ("flats", "darks"))
    assert flats is not None
    counts = Counts(pixels(images, rows), flats, darks, names=("projections", "flats", "darks"))
    return RawCounts(counts, stated, notes, slices_in_file=images.shape[0])


def _sinograms(images: Images, given: Input, notes: list[str]) -> NDArray[np.float32]:
    """Images that are sinograms, in line integrals or transmissions."""
    notes.append(f"{images.count} images are taken as sinograms (views, detectors), one per slice")
    if images.dtype.kind != "f":
        raise InputError(
            f"sinograms of {images.dtype} hold counts, not line integrals", field="input", remedy="take -log(I / I0)"
        )
    first, last = slice_range(given.slices, images.count)
    return _as_line_integrals(pixels(images, (0, images.shape[0]), (first, last)), notes)


def _projections(images: Images, rows: tuple[int, int], notes: list[str]) -> NDArray[np.float32]:
    """Images that are projections without flat fields, in line integrals or transmissions."""
    if images.dtype.kind != "f":
        raise InputError(
            f"projections of {images.dtype} are counts, and there are no flat fields",
            field="input",
            remedy="put them beside the projections in a folder called flats (darks for dark fields), "
            "or take -log(I / I0) and save it as 32-bit float",
        )
    return _as_line_integrals(pixels(images, rows), notes).transpose(1, 0, 2)


def _as_line_integrals(data: NDArray[np.float32], notes: list[str]) -> NDArray[np.float32]:
    """Floats without flat fields: line integrals as they are, transmissions by their logarithm."""
    largest, lowest = float(data.max()), float(data.min())
    if largest > LARGEST_LINE_INTEGRAL:
        raise InputError(
            f"values reach {largest:g}: these are counts, and there are no flat fields",
            field="input",
            remedy="put flat fields beside the projections in a folder called flats, or take -log(I / I0)",
        )
    border = float(np.median(data[..., [0, -1]]))
    if lowest >= 0 and 0.8 < border < 1.2 and border > float(np.median(data)):
        notes.append("the air at the border is 1 and the object is darker: transmissions, of which -log is taken")
        return np.asarray(-np.log(np.maximum(data, SMALLEST_TRANSMISSION)), dtype=np.float32)
    notes.append(f"values from {lowest:.3g} to {largest:.3g} in {data.dtype} are taken as line integrals, -log(I / I0)")
    return data


def _names(path: Path, *, beside: bool) -> dict[str, list[Path]]:
    """Files of projections, flats and darks."""
    if not path.is_dir():
        others = [p for p in tiff_files(path.parent) if p != path and _kind(p.stem)] if beside else []
        own = {kind: [p for p in others if _kind(p.stem) == kind] for kind in _WORDS}
        return {"projections": [existing(path)], **own}
    files = tiff_files(path)
    found = {kind: [p for p in files if _kind(p.stem) == kind] for kind in _WORDS}
    found["projections"] = [p for p in files if _kind(p.stem) is None]
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    for folder in folders:
        if kind := _kind(folder.name):
            found[kind] = [*found[kind], *tiff_files(folder)]
    rest = [tiffs for p in folders if _kind(p.name) is None and (tiffs := tiff_files(p))]
    if not found["projections"] and rest:
        if len(rest) > 1:
            raise InputError(
                f"{path.name} has {len(rest)} folders of TIFFs: {', '.join(r[0].parent.name for r in rest)}",
                field="input.path",
                remedy="name the one with the projections; flats and darks are found by these names",
            )
        found["projections"] = rest[0]
    return found


def tiff_files(folder: Path) -> list[Path]:
    """List the TIFFs of a folder in the order of the numbers in their names."""
    found = [p for p in folder.iterdir() if p.name.lower().endswith(_ENDINGS) and not p.name.startswith(".")]
    if len(found) > _MOST_FRAMES:
        raise InputError(
            f"{folder.name} holds {len(found)} files, at most {_MOST_FRAMES} are read",
            field="input",
            remedy="give a folder with the images of one scan",
        )
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _kind(name: str) -> str | None:
    """Kind of images that the words of a name tell; None for projections."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    return next((kind for kind, known in _WORDS.items() if words & known), None)


def _place(paths: list[Path], path: Path) -> str:
    folder = paths[0].parent
    return folder.name if path.is_dir() and folder != path else paths[0].name


def _note_gaps(paths: list[Path], notes: list[str]) -> None:
    """Say where the numbers of the files leave some out: a frame may be missing."""
    numbers = [int(found[-1]) for p in paths if (found := re.findall(r"\d+", p.stem))]
    steps = np.diff(numbers)
    if len(numbers) == len(paths) > 2 and len(odd := np.flatnonzero(steps != np.median(steps))):
        after, before = paths[int(odd[0])].name, paths[int(odd[0]) + 1].name
        notes.append(f"the files' numbers jump {len(odd)} times, first from {after} to {before}: is a frame missing?")


def headers(paths: list[Path]) -> Images:
    """Read the headers of all files, which must hold images of one size and type."""
    pages, shape, dtype = [], None, None
    for path in paths:
        with _opened(path) as file:
            count, *size, kind = _header(file, path)
        if shape is not None and (tuple(size) != shape or kind != dtype):
            raise InputError(
                f"{path.name} holds images of {tuple(size)} {kind}, {paths[0].name} of {shape} {dtype}",
                field="input",
                remedy="give a folder with the images of one scan, all of one size",
            )
        shape, dtype = (size[0], size[1]), kind
        pages.append(count)
    assert shape is not None and dtype is not None
    return Images(paths, pages, shape, dtype)


def _header(file: tifffile.TiffFile, path: Path) -> tuple[int, int, int, np.dtype[np.generic]]:
    """Number, rows, columns and dtype of the images of a file."""
    page = file.pages.first
    if page.ndim != 2:
        raise InputError(
            f"{path.name} has images of shape {page.shape}: colours, or more",
            field="input",
            remedy="save them as grey images",
        )
    if page.dtype is None or page.dtype.kind not in "iuf":
        raise InputError(
            f"{path.name} has images of {page.dtype}, expected real numbers",
            field="input",
            remedy="save them as unsigned integers or 32-bit floats",
        )
    rows, columns = page.shape
    together = _contiguous(file)
    return together[0] if together else len(file.pages), rows, columns, page.dtype


def _contiguous(file: tifffile.TiffFile) -> tuple[int, int] | None:
    """Number and place of images that ImageJ writes behind each other with one header; None for others."""
    if not file.is_imagej or len(file.pages) > 1:
        return None
    series = file.series[0]
    count = int(np.prod(series.shape[:-2], dtype=np.int64))
    return (count, series.dataoffset) if count > 1 and series.dataoffset is not None else None


def pixels(stack: Images, rows: tuple[int, int], images: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Read some rows of all images, or of those of a range, one image at a time."""
    first, last = images or (0, stack.count)
    check_size(stack.shape, stack.dtype.itemsize)
    check_size((last - first, rows[1] - rows[0], stack.shape[1]), 4)
    found = np.empty((last - first, rows[1] - rows[0], stack.shape[1]), np.float32)
    index = 0
    for path, count in zip(stack.paths, stack.pages, strict=True):
        wanted = range(max(first - index, 0), min(last - index, count))
        if wanted:
            with _opened(path) as file:
                for page in wanted:
                    found[index + page - first] = _image(file, path, page, stack)[slice(*rows)]
        index += count
    return found


def _image(file: tifffile.TiffFile, path: Path, index: int, stack: Images) -> NDArray[np.generic]:
    together = _contiguous(file)
    if together is not None:
        return _mapped(path, file, together[1] + index * stack.bytes, stack)
    page = file.pages[index]
    if page.shape != stack.shape or page.dtype != stack.dtype:
        raise InputError(
            f"page {index} of {path.name} is {page.shape} {page.dtype}, the first is {stack.shape} {stack.dtype}",
            field="input",
            remedy="give the images of one scan, all of one size",
        )
    if page.is_memmappable:
        return _mapped(path, file, page.dataoffsets[0], stack)
    _check_segments(file, path, index, page, stack)
    return np.asarray(page.asarray(maxworkers=1))


def _check_segments(
    file: tifffile.TiffFile, path: Path, index: int, page: tifffile.TiffPage | tifffile.TiffFrame, stack: Images
) -> None:
    """Refuse strips and tiles that would be inflated to more than they are: tifffile has no limit."""
    size = check_size(page.chunks, stack.dtype.itemsize)
    if page.compression == _PLAIN:
        return
    if page.compression not in _RATIOS:
        raise InputError(
            f"page {index} of {path.name} is compressed by {page.compression!s}", field="input", remedy=_SAVE
        )
    largest = max(page.databytecounts, default=0)
    too_much = InputError(
        f"page {index} of {path.name} has more compressed data than an image has", field="input", remedy=_SAVE
    )
    if largest > _EXPANDS * size + _FEW:
        raise too_much
    if largest * _RATIOS[page.compression] <= limit_bytes():
        return
    if page.compression not in _INFLATE:
        raise too_much
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.filehandle.seek(offset)
        inflated = _INFLATE[page.compression]().decompress(file.filehandle.read(count), size + _FEW + 1)
        if len(inflated) > size + _FEW:
            raise too_much


def _mapped(path: Path, file: tifffile.TiffFile, offset: int, stack: Images) -> NDArray[np.generic]:
    """Image that lies in the file as it is; only what is used of it is read."""
    dtype = stack.dtype.newbyteorder(file.byteorder)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=stack.shape)


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file for reading; anything that cannot be read in it is an `InputError`."""
    import tifffile

    try:
        with tifffile.TiffFile(existing(path)) as file:
            yield file
    except (ReconError, MemoryError):
        raise
    except Exception as error:  # a damaged file can fail in any tag
        raise InputError(
            f"{path.name} is not a readable TIFF: {reason(error)}",
            field="input",
            remedy="save it again, uncompressed; some compressions need the package imagecodecs",
        ) from error


FORMAT = Format(
    name="tiff",
    endings=_ENDINGS,
    magic=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    certain=True,
    media_type="image/tiff",
    read=_read,
    selects=True,
    slicewise=True,
    folders=True,
)
