"""Bruker ParaVision raw data: a scan's folder with ``fid``, ``acqp`` and ``method``.

Cartesian scans, 2D and 3D. Slices that are not parallel are chosen by `input.slices`.

References
----------
Bruker ParaVision manual, "File formats": blocks of the fid, JCAMP-DX parameters.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats import kspace, readouts
from recon.formats.format import Format
from recon.formats.kspace import Complex, Plane
from recon.formats.readouts import Encoding, Readouts
from recon.formats.safety import check_size, existing
from recon.measurement.measurement import Measurement
from recon.spec.job import Input

MAX_PARAMETER_BYTES = 10_000_000
BLOCK_BYTES = 1024
_NUMBERS = {"GO_32BIT_SGN_INT": "i4", "GO_16BIT_SGN_INT": "i2", "GO_32BIT_FLOAT": "f4"}
_OTHER_SCANS = ("epi", "spiral", "ute", "zte", "radial", "press", "steam", "csi", "singlepulse")
"""Parts of the names of methods whose readouts are no lines of a Cartesian raster."""
_TO_LPS = {"Head_Supine": np.diag([1.0, 1.0, -1.0])}
"""From the gradients' axes to the patient's, by the patient's position: the one that was checked on a scan."""

Parameters = dict[str, str]


def parameters(path: Path) -> Parameters:
    """Read the parameters of a JCAMP-DX file as text; shapes of arrays are left out."""
    if not path.is_file():
        raise InputError(
            f"there is no file {path.name} in {path.parent.name}",
            field="input.path",
            remedy="give the folder of a ParaVision scan, with fid, acqp and method in it",
        )
    if path.stat().st_size > MAX_PARAMETER_BYTES:
        raise InputError(
            f"{path.name} has {path.stat().st_size} bytes, too many for parameters",
            field="input",
            remedy="give the folder as ParaVision wrote it",
        )
    text = re.sub(r"^\$\$.*$", "", path.read_text("latin-1"), flags=re.MULTILINE)
    found = {}
    for part in text.split("##$")[1:]:
        name, sign, value = part.partition("=")
        value = value.split("\n##", 1)[0]
        if sign:
            found[name.strip()] = re.sub(r"^\(\s*\d[\d ,]*\)\s*\n", "", value).replace("\n", " ").strip()
    if not found:
        raise InputError(
            f"{path.name} holds no JCAMP-DX parameters", field="input", remedy="give the folder as ParaVision wrote it"
        )
    return found


def _numbers(found: Parameters, name: str, count: int | None = None) -> list[float]:
    """Read a parameter that is a list of numbers."""
    if name not in found:
        raise InputError(f"the parameter {name} is missing", field="input", remedy="copy acqp and method again")
    # ParaVision shortens repeated values: @3*(0) is 0 0 0.
    text = re.sub(r"@(\d{1,6})\*\(([^()]*)\)", lambda m: " ".join([m[2]] * min(int(m[1]), 100_000)), found[name])
    try:
        values = [float(word) for word in text.split()]
    except ValueError as error:
        raise InputError(f"the parameter {name} is {found[name][:40]!r}, expected numbers", field="input") from error
    if not values or not np.isfinite(values).all() or (count is not None and len(values) < count):
        raise InputError(f"the parameter {name} has {len(values)} numbers, expected {count or 'some'}", field="input")
    return values


def _whole(found: Parameters, name: str, default: int | None = None) -> int:
    if name not in found and default is not None:
        return default
    value = int(_numbers(found, name, 1)[0])
    if not 1 <= value <= 1_000_000:
        raise InputError(
            f"the parameter {name} is {value}", field="input", remedy="copy acqp and method of this scan again"
        )
    return value


def _read(path: Path, given: Input) -> Measurement:
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name != "fid":
        raise InputError(f"{path.name} is not the fid of a scan", field="input.path", remedy="give the scan's folder")
    if not (folder / "fid").is_file() and (folder / "rawdata.job0").is_file():
        raise InputError(
            "the scan is stored as rawdata.job0, as ParaVision 360 does, and only a fid is read",
            field="input",
            remedy="have ParaVision write a fid, or convert the scan to ISMRMRD",
        )
    acqp, method = parameters(folder / "acqp"), parameters(folder / "method")
    found = {**acqp, **method}
    _check_kind(found)
    notes: list[str] = []
    scan, encoding = _scan(existing(folder / "fid"), found, notes)
    return readouts.measurement(scan, encoding, given, notes)


def _check_kind(found: Parameters) -> None:
    name = (found.get("Method") or found.get("ACQ_method") or "").strip("<> ").lower()
    if any(part in name for part in _OTHER_SCANS) or "PVM_EpiNEchoes" in found or "PVM_TrajSamples" in found:
        raise InputError(
            f"the method is {name or 'unknown'!r}, and only Cartesian scans of single lines are read",
            field="input",
            remedy="reconstruct it with ParaVision, or convert it to ISMRMRD",
        )


def _scan(fid: Path, found: Parameters, notes: list[str]) -> tuple[Readouts, Encoding]:
    """Readouts of a fid, memory-mapped, and what the parameters say of them."""
    size = [int(n) for n in _numbers(found, "ACQ_size", 2)]
    if len(size) > 3 or min(size) < 1:
        raise InputError(f"the parameter ACQ_size is {size}, expected two or three sizes", field="input")
    coils, objects, repetitions = (
        _whole(found, name, default) for name, default in (("PVM_EncNReceivers", 1), ("NI", None), ("NR", 1))
    )
    train = _whole(found, "ACQ_rare_factor", 1)
    lines, partitions = size[1], size[2] if len(size) == 3 else 1
    if lines % train:
        raise InputError(f"{lines} lines are no multiple of the echo train, {train}", field="input")
    raw = _blocks(fid, found, size[0] * coils, repetitions * partitions * lines * objects)
    # repetition, partition, train, object, echo of the train
    shape = (repetitions, partitions, lines // train, objects, train)
    repetition, partition, shot, thing, echo = (a.ravel() for a in np.indices(shape))
    steps = [_steps(found, n, count) for n, count in ((1, lines), (2, partitions))]
    slices, echoes, order = _objects(found, objects)
    number = order[thing]
    fov, antialias = _fov(found, len(size)), [*_numbers_or(found, "PVM_AntiAlias", [1.0] * len(size)), 1.0, 1.0]
    line, partition_step = steps[0][shot * train + echo], steps[1][partition]
    matrix = _matrix(found, size, antialias, (line, partition_step))
    planes, shifts = _planes(found, slices)

    def load(index: int) -> Complex:
        block = raw[index, : size[0] * coils].astype(np.float32).reshape(coils, size[0] // 2, 2)
        shift = shifts[int(number[index] // echoes)]
        turns = line[index] * shift[0] / (fov[1] or 1.0) + partition_step[index] * shift[1] / (fov[2] or 1.0)
        values = (block[..., 0] + 1j * block[..., 1]) * np.exp(2j * np.pi * turns)
        return np.asarray(values, dtype=np.complex64)

    count = len(number)
    flags = np.zeros(count, dtype=bool)
    zeros = np.zeros(count, dtype=np.int64)
    position = found.get("ACQ_patient_pos", "").strip("<> ")
    if position not in _TO_LPS:
        notes.append(f"the patient's position is {position or 'not stated'}: the affine is the gradients' frame")
    scan = Readouts(
        counters={
            "line": line, "partition": partition_step, "slice": number // echoes, "contrast": number % echoes,
            "phase": zeros, "repetition": repetition, "set": zeros,
        },
        samples=zeros + size[0] // 2, centre=zeros + size[0] // 4, coils=zeros + coils, mirrored=flags,
        dwell_us=np.zeros(count), image=~flags, noise=flags, navigator=flags, planes=dict(enumerate(planes)), load=load,
    )  # fmt: skip
    kept = max(1, round(matrix[0] / antialias[0]))
    kept_partitions = max(1, round(matrix[2] / antialias[2])) if len(size) == 3 else 1
    encoding = Encoding(matrix, fov, kept, kept_partitions, line=0, partition=0, in_patient=position in _TO_LPS)
    return scan, encoding


def _blocks(fid: Path, found: Parameters, samples: int, count: int) -> NDArray[np.generic]:
    """Readouts of a fid, one a row; rows may end in padding."""
    kind = found.get("GO_raw_data_format", "GO_32BIT_SGN_INT")
    if kind not in _NUMBERS:
        raise InputError(f"the fid's numbers are {kind}, expected one of {', '.join(_NUMBERS)}", field="input")
    dtype = np.dtype(("<" if found.get("BYTORDA", "little") == "little" else ">") + _NUMBERS[kind])
    stored = samples
    if found.get("GO_block_size", "") == "Standard_KBlock_Format":
        per_block = BLOCK_BYTES // dtype.itemsize
        stored = math.ceil(samples / per_block) * per_block
    promised = check_size((count, stored), dtype.itemsize)
    held = fid.stat().st_size
    if held != promised:
        raise InputError(
            f"the parameters promise a fid of {promised} bytes ({count} readouts of {samples // 2} points), it has "
            f"{held}",
            field="input",
            remedy="the scan was stopped, or the fid is truncated; copy the folder again",
        )
    return np.memmap(fid, dtype=dtype, mode="r", shape=(count, stored))


def _numbers_or(found: Parameters, name: str, default: list[float]) -> list[float]:
    return _numbers(found, name, len(default)) if name in found else default


def _steps(found: Parameters, axis: int, count: int) -> NDArray[np.int64]:
    """Phase-encoding steps in the order in which they were measured; 0 is the centre of k-space."""
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    return np.array(_numbers(found, f"PVM_EncSteps{axis}", count)[:count]).astype(np.int64)


def _objects(found: Parameters, objects: int) -> tuple[int, int, NDArray[np.int64]]:
    """Number of slices, echoes of each, and the object number of each image in the order of measurement."""
    slices = _whole(found, "NSLICES", objects)
    order = np.array(_numbers_or(found, "ACQ_obj_order", list(map(float, range(objects))))).astype(np.int64)
    if objects % slices or len(order) not in (slices, objects):
        raise InputError(f"{objects} images of {slices} slices, in an order of {len(order)}", field="input")
    echoes = objects // slices
    if len(order) < objects:
        order = (order[:, None] * echoes + np.arange(echoes)).ravel()
    if sorted(order.tolist()) != list(range(objects)):
        raise InputError(f"the parameter ACQ_obj_order is no order of {objects} images", field="input")
    return slices, echoes, order


def _fov(found: Parameters, axes: int) -> tuple[float | None, float | None, float | None]:
    """Size that k-space encodes, mm; the third is the thickness of a slice."""
    antialias = [*_numbers_or(found, "PVM_AntiAlias", [1.0] * axes), 1.0, 1.0]
    sides = [side * more for side, more in zip(_numbers(found, "PVM_Fov", axes), antialias, strict=False)]
    thick = sides[2] if axes == 3 else _numbers_or(found, "PVM_SliceThick", [0.0])[0]
    return kspace.positive(sides[0]), kspace.positive(sides[1]), kspace.positive(thick)


def _matrix(
    found: Parameters, size: list[int], antialias: list[float], steps: tuple[NDArray[np.int64], ...]
) -> tuple[int, int, int]:
    """Points of whole k-space, of which partial Fourier and parallel imaging measure fewer."""
    wanted = [int(n) for n in _numbers(found, "PVM_Matrix", len(size))]
    whole = [round(n * more) for n, more in zip(wanted, antialias, strict=False)]
    if size[0] // 2 != whole[0]:
        raise InputError(
            f"readouts have {size[0] // 2} points of {whole[0]}: partial echoes are not read",
            field="input",
            remedy="reconstruct the scan with ParaVision, or convert it to ISMRMRD",
        )
    reach = [max(int(s.max()) * 2 + 2, -int(s.min()) * 2) if len(s) and s.any() else 1 for s in steps]
    return whole[0], max(whole[1], reach[0]), max(whole[2] if len(size) == 3 else 1, reach[1])


def _planes(found: Parameters, slices: int) -> tuple[list[Plane | None], list[tuple[float, float]]]:
    """Places of the slices, and by how many mm their field of view is shifted along both phase encodings.

    The receiver's frequency shifts it along the readout; along the phase encodings the reconstruction has to.
    """
    packages = _whole(found, "PVM_NSPacks", 1)
    counts = [int(n) for n in _numbers_or(found, "PVM_SPackArrNSlices", [float(slices)])]
    turns = _numbers(found, "PVM_SPackArrGradOrient", 9 * packages)
    if len(counts) != packages or sum(counts) != slices:
        return [None] * slices, [(0.0, 0.0)] * slices
    to_lps = _TO_LPS.get(found.get("ACQ_patient_pos", "").strip("<> "), np.eye(3))
    planes: list[Plane | None] = []
    shifts = []
    for package, count in enumerate(counts):
        read, phase, normal = np.array(turns[9 * package : 9 * package + 9]).reshape(3, 3)
        offsets = [
            _numbers_or(found, f"PVM_SPackArr{name}Offset", [0.0] * packages)[package]
            for name in ("Read", "Phase1", "Phase2", "Slice")
        ]
        apart = _numbers_or(found, "PVM_SPackArrSliceDistance", [0.0] * packages)[package]
        for index in range(count):
            away = offsets[3] + (index - (count - 1) / 2) * apart
            centre = offsets[0] * read + offsets[1] * phase + away * normal
            planes.append(kspace.plane(*(to_lps @ vector for vector in (centre, read, phase, normal))))
            shifts.append((offsets[1], offsets[2]))
    return planes, shifts


FORMAT = Format(name="bruker", endings=(".fid",), read=_read, selects=True, folders=True)
