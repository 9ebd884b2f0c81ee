"""MATLAB ``.mat`` files, versions 4 to 7.3: sinograms of line integrals.

A struct with ``sinogram`` and ``parameters``, or variables of the same names, as the Helsinki Tomography Challenge and
the FIPS data have them, carry their fan geometry in millimetres and degrees. Other sinograms are arrays ``([slices,]
views, detectors)``, in the order of MATLAB's indices; where a vector of angles lies beside them, its length tells the
axis of the views.

References
----------
Meaney, Silva de Moura and Siltanen 2022, Zenodo 7418878.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError, ReconError
from recon.formats import hdf5
from recon.formats.angle_file import unit_in
from recon.formats.detector_frames import angles_rad
from recon.formats.format import Format, PlainArray
from recon.formats.hdf5_chunks import check_chunks
from recon.formats.safety import check_finite, check_size, existing, limit_bytes, real
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTFan
from recon.spec.job import Input
from recon.spec.validation import invalid, reason

_ANGLES = re.compile(r"angle|theta|(^|_)(deg|degrees|rad|radians)($|_)", re.IGNORECASE)
_SINOGRAMS = ("sinogram", "sino", "data", "projections", "proj", "m")
"""Usual names, where several arrays could be meant."""
_PIECE = 2**20
_COMPRESSED = 15
"""Type of a compressed element in version 5."""
_DEPTH = 4


def _read(path: Path, given: Input) -> PlainArray | Measurement:
    with _opened(path, given.dataset) as variables:
        name = given.dataset or _chosen(variables, path)
        if name not in variables:
            raise InputError(
                f"there is no variable {name!r} in {path.name}",
                field="input.dataset",
                remedy=f"choose one of: {', '.join(sorted(variables))}",
            )
        held = variables[name]
        if isinstance(held, Mapping):
            return _of_struct(held, name, path)
        if {"angles", "distanceSourceOrigin", "distanceSourceDetector"} <= variables.keys():
            return _of_struct({"sinogram": held, "parameters": variables}, name, path)
        return _of_array(name, variables)


def _of_struct(held: Mapping[str, Any], name: str, path: Path) -> PlainArray | Measurement:
    """Sinogram and geometry of a struct, distances in millimetres and angles in degrees."""
    parameters = held.get("parameters")
    if "sinogram" not in held or not isinstance(parameters, Mapping) or "angles" not in parameters:
        raise InputError(f"the struct {name} has no sinogram, or no parameters.angles", field="input.dataset")
    data = real(_array(held["sinogram"]))
    if data.ndim != 2:
        raise InputError(f"{name}.sinogram has shape {data.shape}, expected (views, detectors)", field="input")
    degrees = _array(parameters["angles"]).reshape(-1)
    if len(degrees) != len(data):
        raise GeometryError(f"{len(degrees)} angles for a sinogram of shape {data.shape}", field="input")
    check_finite(data)
    notes: list[str] = []
    angles = angles_rad(degrees, "deg", f"{name}.parameters.angles", notes)
    source, detector = (_number(parameters, f"distanceSource{end}") for end in ("Origin", "Detector"))
    pitch = _pitch_mm(parameters, data.shape[1])
    if pitch is not None:
        notes.append(f"detector pitch {pitch[0]:g} mm, from {name}.parameters.{pitch[1]}")
    if source is None or detector is None:
        return PlainArray(data, {"angles_rad": angles, "detector_mm": pitch and pitch[0]}, notes=notes)
    try:
        stated = CTFan(
            angles_rad=angles,
            detector_mm=pitch and pitch[0],
            source_origin_mm=source,
            origin_detector_mm=detector - source,
        )
    except ValidationError as error:
        raise invalid(error, path.name) from error
    return Measurement(data[None], stated, notes=notes)


def _pitch_mm(parameters: Mapping[str, Any], columns: int) -> tuple[float, str] | None:
    """Pitch of the detector after binning, if that is what has as many elements, and where it was found."""
    for ending in ("Post", ""):
        count, pitch = _number(parameters, f"numDetectors{ending}"), _number(parameters, f"pixelSize{ending}")
        if pitch is not None and count in (None, columns):
            return pitch, f"pixelSize{ending}"
    return None


def _of_array(name: str, variables: Mapping[str, Any]) -> PlainArray:
    """An array, turned so that its views lie where the acquisition has them, if angles tell."""
    notes: list[str] = []
    data = real(_array(variables[name]))
    if data.ndim not in (2, 3):
        raise InputError(f"{name} has shape {data.shape}, expected (views, detectors)", field="input.dataset")
    vectors = [n for n, v in variables.items() if n != name and _is_vector(v) and _ANGLES.search(n)]
    if len(vectors) != 1:
        return PlainArray(data, notes=notes)
    values = _array(variables[vectors[0]]).reshape(-1)
    views = data.ndim - 2
    places = [axis for axis, length in enumerate(data.shape) if length == len(values)]
    if not places:
        raise GeometryError(f"{len(values)} angles in {vectors[0]} for {name} of shape {data.shape}", field="input")
    if views not in places:
        # radon() gives (detectors, views); a stack is (views, detectors, slices) or (slices, detectors, views).
        order = (1, 0) if data.ndim == 2 else (2, 0, 1) if places == [0] else (0, 2, 1)
        notes.append(f"{name} has shape {data.shape} and there are {len(values)} angles: its axes are reordered")
        data = np.ascontiguousarray(data.transpose(order))
    if len(places) > 1 or (data.ndim == 3 and places == [1]):
        axes = f"{'' if data.ndim == 2 else 'slices, '}views, detectors"
        notes.append(
            f"the {len(values)} angles do not tell all axes of {name}: it is taken as ({axes}), {data.shape}; permute "
            "it if that is wrong, as for a stack of what radon() gives"
        )
    unit = unit_in(vectors[0])
    before = len(notes)
    angles = angles_rad(values, unit, vectors[0], notes)
    if len(notes) == before:
        notes.append(f"angles in {'radians' if unit == 'rad' else 'degrees'} from {vectors[0]}")
    return PlainArray(data, {"angles_rad": angles}, notes=notes)


def _chosen(variables: Mapping[str, Any], path: Path) -> str:
    """The only variable that can be a sinogram, or the one that is called so."""
    structs = [n for n, v in variables.items() if isinstance(v, Mapping) and "sinogram" in v]
    arrays = [n for n, v in variables.items() if not isinstance(v, Mapping) and len(_size(v)) in (2, 3)]
    fits = structs or arrays
    named = [n for n in _SINOGRAMS if n in fits]
    if len(fits) == 1 or named:
        return fits[0] if len(fits) == 1 else named[0]
    raise InputError(
        f"{path.name} holds {len(fits)} variables that can be sinograms" if fits else f"{path.name} holds no sinogram",
        field="input.dataset",
        remedy=f"choose one of: {', '.join(sorted(fits or variables)) or 'none'}",
    )


def _size(value: Any) -> tuple[int, ...]:
    """Shape without axes of length 1; MATLAB has no vectors and no scalars."""
    kind = getattr(getattr(value, "dtype", None), "kind", "O")
    return tuple(n for n in value.shape if n != 1) if kind in "iuf" else ()


def _is_vector(value: Any) -> bool:
    return not isinstance(value, Mapping) and len(_size(value)) == 1


def _array(value: Any) -> NDArray[np.generic]:
    """An array of real numbers with MATLAB's order of axes, without those of length 1."""
    import h5py

    if isinstance(value, h5py.Dataset):
        check_size(value.shape, value.dtype.itemsize)
        check_chunks(value)
        value = np.asarray(value[()]).T  # columns come first in the file
    found = np.asarray(value).squeeze()
    if found.dtype.kind not in "iuf":
        raise InputError(f"dtype {found.dtype}, expected real numbers", field="input")
    return found


def _number(held: Mapping[str, Any], name: str) -> float | None:
    value = held.get(name)
    if value is None or isinstance(value, str | Mapping) or int(np.prod(value.shape, dtype=np.int64)) != 1:
        return None
    found = float(np.asarray(_array(value)))
    return found if np.isfinite(found) else None


@contextmanager
def _opened(path: Path, wanted: str | None) -> Iterator[dict[str, Any]]:
    """Variables by name: arrays, structs as mappings, and in version 7.3 datasets that are not read yet."""
    with existing(path).open("rb") as stream:
        new = stream.read(19) == b"MATLAB 7.3 MAT-file"
    if not new:
        yield _old(path, wanted)
        return
    with hdf5.opened(path) as file:
        yield _tree(file, _DEPTH)


def _tree(group: Any, depth: int) -> dict[str, Any]:
    """Numbers and structs of a group that lie in the file itself."""
    import h5py

    found: dict[str, Any] = {}
    for name in group:
        if name.startswith("#") or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        node = group[name]
        if isinstance(node, h5py.Group):
            if depth and "MATLAB_sparse" not in node.attrs:
                found[name] = _tree(node, depth - 1)
        elif node.dtype.kind in "iuf" and not node.is_virtual and not node.external:
            found[name] = node
    return found


def listed(path: Path) -> Sequence[tuple[str, tuple[int, ...], str]]:
    """List name, shape and class of the variables of versions 4 and 5; raises `InputError` for a damaged file."""
    from scipy import io

    _check_inflated(path)
    with _readable(path):
        found = io.whosmat(path)
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever the block raises for a damaged file into an `InputError`."""
    try:
        yield
    except (ReconError, MemoryError):
        raise
    except Exception as error:  # a damaged file can fail in any element
        raise InputError(
            f"{path.name} is not a readable MATLAB file: {reason(error)}", field="input", remedy="save it again"
        ) from error


def _old(path: Path, wanted: str | None) -> dict[str, Any]:
    """Variables of versions 4 and 5."""
    from scipy import io

    listing = listed(path)
    with _readable(path):
        for _, shape, kind in listing:
            if kind in ("cell", "struct"):
                check_size(shape, 64)
        small = {name for name, shape, _ in listing if np.prod(shape, dtype=np.float64) <= 1 or _ANGLES.search(name)}
        names = [name for name, _, kind in listing if kind not in ("sparse", "function", "opaque", "unknown")]
        if wanted is not None:
            names = [name for name in names if name == wanted or name in small]
        found = io.loadmat(path, variable_names=names, simplify_cells=True)
    kept = {n: _wrapped(v) for n, v in found.items() if not n.startswith("__")}
    return {n: v for n, v in kept.items() if isinstance(v, Mapping | np.ndarray)}


def _wrapped(value: Any) -> Any:
    """Numbers of a struct as arrays."""
    if isinstance(value, Mapping):
        return {n: _wrapped(v) for n, v in value.items()}
    return np.atleast_1d(value) if isinstance(value, int | float | np.number) else value


def _check_inflated(path: Path) -> None:
    """Inflate the elements of a file of version 5 piece by piece, to see that they are not too large."""
    with path.open("rb") as stream:
        header = stream.read(128)
        if header[126:128] not in (b"IM", b"MI"):
            return  # version 4, which compresses nothing
        order = cast(Any, "little" if header[126:128] == b"IM" else "big")
        total = 0
        while len(tag := stream.read(8)) == 8:
            kind, size = (int.from_bytes(tag[i : i + 4], order) for i in (0, 4))
            if kind != _COMPRESSED:
                stream.seek(size, 1)
                continue
            inflate = zlib.decompressobj()
            while size > 0 and (piece := stream.read(min(size, _PIECE))):
                size -= len(piece)
                try:
                    while piece:
                        total += len(inflate.decompress(piece, _PIECE))
                        piece = inflate.unconsumed_tail
                        if total > limit_bytes():
                            check_size((total,), 1)
                except zlib.error as error:
                    raise InputError(f"{path.name} is damaged: {error}", field="input") from error


FORMAT = Format(
    name="matlab",
    endings=(".mat",),
    magic=(b"MATLAB 5.0 MAT-", b"MATLAB 7.3 MAT-"),
    certain=True,
    read=_read,
)
