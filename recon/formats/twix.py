"""Siemens twix raw data (``.dat``) of syngo VB, VD, VE and XA: headers, counters and samples of each readout.

Cartesian scans and EPI, whose backward lines are turned and corrected and whose samples on ramps are regridded. Readout
oversampling is removed. The last measurement of a file is read.

References
----------
Siemens IDEA manual, "Measurement data headers" (MDH); `twixtools` (MIT), P. Ehses, whose fields these follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

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

MAX_HEADER_BYTES = 64_000_000
MAX_SCANS = 64
_COUNTERS = [(name, "<u2") for name in (
    "line", "average", "slice", "partition", "contrast", "phase", "repetition", "set", "segment",
    "a", "b", "c", "d", "e",
)]  # fmt: skip
_PLACE = [("position", "<f4", (3,)), ("quaternion", "<f4", (4,))]
_BEGIN = [("length", "<u4"), ("uid", "<i4"), ("number", "<u4"), ("time", "<u4"), ("pmu_time", "<u4")]
NEW = np.dtype([
    *_BEGIN, ("system", "<u2"), ("table_delay", "<u2"), ("table", "<i4", (3,)), ("reserved", "<u4"), ("flags", "<u8"),
    ("samples", "<u2"), ("coils", "<u2"), *_COUNTERS, ("cut", "<u2", (2,)), ("centre", "<u2"), ("selected", "<u2"),
    ("off_centre", "<f4"), ("since_rf", "<u4"), ("centre_line", "<u2"), ("centre_partition", "<u2"), *_PLACE,
    ("ice", "<u2", (24,)), ("more", "<u2", (4,)), ("application", "<u2", (2,)), ("crc", "<u4"),
])  # fmt: skip
"""Header of a readout since syngo VD, 192 bytes; 32 bytes more precede the samples of each coil."""
OLD = np.dtype([
    *_BEGIN, ("flags", "<u8"), ("samples", "<u2"), ("coils", "<u2"), *_COUNTERS, ("cut", "<u2", (2,)),
    ("centre", "<u2"), ("selected", "<u2"), ("off_centre", "<f4"), ("since_rf", "<u4"), ("centre_line", "<u2"),
    ("centre_partition", "<u2"), ("ice", "<u2", (4,)), ("more", "<u2", (4,)), *_PLACE, ("channel", "<u2"),
    ("table", "<u2"),
])  # fmt: skip
"""Header of a readout of syngo VB, 128 bytes, before the samples of each coil."""
CHANNEL_BYTES = 32
END, SYNC, PHASE_CORRECTION, REFERENCE, REFERENCE_AND_IMAGE, MIRRORED, NOISE = 0, 5, 21, 22, 23, 24, 25
"""Bits of a readout's flags."""
_RAMPS = (
    "alRegridMode", "alRegridRampupTime", "alRegridFlattopTime", "alRegridRampdownTime", "alRegridDelaySamplesTime",
    "aflRegridADCDuration",
)  # fmt: skip
_NO_IMAGE = (END, 1, 2, SYNC, 14, 15, PHASE_CORRECTION, NOISE)
"""Bits of readouts that are no part of the image; 1 and 2 are feedback, 14 and 15 phase stabilisation."""


@dataclass(frozen=True)
class Scan:
    """One measurement of a file, of which there are several where adjustments were stored with it.

    Parameters
    ----------
    protocol
        What the protocol says, by dotted name.
    heads
        Headers of the readouts, without those of other data.
    offsets
        Byte at which each begins.
    new
        Whether it is of syngo VD or later.
    """

    protocol: dict[str, str]
    heads: NDArray[np.void]
    offsets: NDArray[np.int64]
    new: bool


def _read(path: Path, given: Input) -> Measurement:
    notes: list[str] = []
    with existing(path).open("rb") as stream:
        scan = _last_scan(stream, path, notes)
        return _measurement(stream, scan, given, notes)


def _last_scan(stream: IO[bytes], path: Path, notes: list[str]) -> Scan:
    """Read the headers of the file's last measurement, which the image is made of."""
    size = path.stat().st_size
    first = np.frombuffer(stream.read(8).ljust(8, b"\0"), "<u4")
    new = bool(first[0] < 10_000 and 1 <= first[1] <= MAX_SCANS)
    if size < 10_240 or (not new and not 32 <= first[0] <= min(size, MAX_HEADER_BYTES)):
        raise InputError(f"{path.name} is no Siemens raw data file", field="input", remedy="give a twix .dat file")
    begin, end = 0, size
    if new:
        entries = np.frombuffer(stream.read(152 * int(first[1])), np.dtype([
            ("id", "<u4", (2,)), ("offset", "<u8"), ("length", "<u8"), ("names", "V128"),
        ]))  # fmt: skip
        begin = int(entries[-1]["offset"])
        length = int(entries[-1]["length"])
        end = begin + length if length else size
        if len(entries) > 1:
            notes.append(f"the file holds {len(entries)} measurements: the last is read")
    if begin >= size or end > size:
        raise InputError(
            f"{path.name} is truncated: its measurement ends at byte {end}, the file at {size}",
            field="input",
            remedy="copy it again",
        )
    stream.seek(begin)
    length = int(np.frombuffer(stream.read(4).ljust(4, b"\0"), "<u4")[0])
    if not 16 <= length <= min(end - begin, MAX_HEADER_BYTES):
        raise InputError(f"{path.name} has a header of {length} bytes", field="input", remedy="copy it again")
    stream.seek(begin)
    protocol = _protocol(stream.read(length))
    heads, offsets = _heads(stream, begin + length, end, path.name, new=new)
    return Scan(protocol, heads, offsets, new)


def _protocol(header: bytes) -> dict[str, str]:
    """Read the protocol's assignments (``sSliceArray.lSize = 1``) from the text of the headers."""
    text = header.decode("latin-1")
    # There may be two, of the phoenix and of the measurement; the last that has the matrix is the measurement's.
    parts = re.findall(r"### ASCCONV BEGIN[^\n]*\n(.*?)\n### ASCCONV END ###", text, flags=re.DOTALL)
    parts = [part for part in parts if "sKSpace.lBaseResolution" in part]
    if not parts:
        raise InputError("the header has no protocol with sKSpace.lBaseResolution", field="input")
    pairs = (line.partition("=") for line in parts[-1].splitlines())
    found: dict[str, str] = {
        name.strip(): value.partition("#")[0].strip().strip('"') for name, sign, value in pairs if sign
    }
    for name in _RAMPS:
        value = re.search(rf'<Param\w+\."{name}">\s*\{{\s*(?:<Precision>\s*\d+)?\s*([-\d.]+)', text)
        if value:
            found[name] = value[1]
    position = re.search(r'<ParamString\."[ts]?Pat(?:ient)?Pos(?:ition)?">\s*\{\s*"(\w+)"', text)
    return {**found, "patient position": position[1] if position else ""}


def _value(protocol: dict[str, str], name: str, default: float | None = None) -> float:
    text = protocol.get(name)
    if text is None:
        if default is None:
            raise InputError(f"the protocol does not state {name}", field="input")
        return default
    try:
        found = float(int(text, 16)) if text.lower().startswith("0x") else float(text)
    except ValueError as error:
        raise InputError(f"the protocol says {name} = {text[:40]!r}, expected a number", field="input") from error
    if not np.isfinite(found):
        raise InputError(f"the protocol says {name} = {text}", field="input")
    return found


def _heads(
    stream: IO[bytes], begin: int, end: int, name: str, *, new: bool
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Read the headers of all readouts."""
    dtype = NEW if new else OLD
    heads: list[np.void] = []
    offsets: list[int] = []
    at = begin
    while True:
        stream.seek(at)
        raw = stream.read(dtype.itemsize)
        if at + dtype.itemsize > end or len(raw) < dtype.itemsize:
            raise InputError(
                f"{name} is truncated: {len(heads)} readouts, and none says that it is the last",
                field="input",
                remedy="copy it again; a scan that was stopped has no end",
            )
        head = np.frombuffer(raw, dtype)[0]
        flags, stored = int(head["flags"]), int(head["length"]) & 0x1FFFFFF
        if flags >> END & 1:
            break
        if new and flags >> SYNC & 1:
            if stored < dtype.itemsize:
                raise InputError(
                    f"{name} is damaged after {len(heads)} readouts", field="input", remedy="copy it again"
                )
            at += stored
            continue
        samples, coils = int(head["samples"]), int(head["coils"])
        if not samples or not coils:
            raise InputError(f"{name} is damaged after {len(heads)} readouts", field="input", remedy="copy it again")
        heads.append(head)
        offsets.append(at)
        at += dtype.itemsize + coils * (CHANNEL_BYTES + 8 * samples) if new else coils * (dtype.itemsize + 8 * samples)
        if at > end:
            raise InputError(
                f"{name} is truncated within readout {len(heads) - 1}", field="input", remedy="copy it again"
            )
    if not heads:
        raise InputError(f"{name} holds no readout", field="input")
    check_size((len(heads),), dtype.itemsize)
    return np.array(heads, dtype), np.array(offsets, dtype=np.int64)


def _flag(heads: NDArray[np.void], bit: int) -> NDArray[np.bool_]:
    return np.asarray(heads["flags"] >> np.uint64(bit) & np.uint64(1) == 1)


def _measurement(stream: IO[bytes], scan: Scan, given: Input, notes: list[str]) -> Measurement:
    protocol, heads = scan.protocol, scan.heads
    trajectory = int(_value(protocol, "sKSpace.ucTrajectory", 1))
    if trajectory not in (0, 1):
        names = {2: "radial", 4: "spiral", 8: "blades"}
        raise InputError(
            f"the trajectory is {names.get(trajectory, trajectory)!r}, and only Cartesian k-space is read",
            field="input",
            remedy="grid the samples onto a Cartesian raster first",
        )
    image = ~np.logical_or.reduce([_flag(heads, bit) for bit in _NO_IMAGE])
    only = image & _flag(heads, REFERENCE) & ~_flag(heads, REFERENCE_AND_IMAGE)
    # In mode 2 calibration lines are a part of the image's own k-space; in 4 and beyond they are a scan of their own.
    if only.any() and int(_value(protocol, "sPat.ucRefScanMode", 1)) not in (1, 2):
        image &= ~only
        notes.append(f"{int(only.sum())} calibration lines of a separate scan are left out of the image")
    if not image.any():
        raise InputError("there is no readout of an image in the file", field="input")
    pre = heads["cut"][:, 0].astype(np.int64)
    samples = heads["samples"].astype(np.int64) - pre - heads["cut"][:, 1]
    counters = {name: heads[name].astype(np.int64) for name in (
        "line", "partition", "slice", "contrast", "phase", "repetition", "set",
    )}  # fmt: skip
    found = Readouts(
        counters=counters,
        samples=samples,
        centre=np.where(samples > 0, heads["centre"].astype(np.int64) - pre, 0),
        coils=heads["coils"].astype(np.int64),
        mirrored=_flag(heads, MIRRORED),
        dwell_us=np.zeros(len(heads)),
        image=image,
        noise=np.zeros(len(heads), dtype=bool),
        navigator=_flag(heads, PHASE_CORRECTION),
        planes=_planes(heads, counters["slice"], image),
        load=_loader(stream, scan, pre, samples),
    )
    encoding = _encoding(protocol, heads[image])
    found = replace(found, positions=_positions(protocol, int(samples[image].max()), encoding.matrix[0]))
    return readouts.measurement(found, encoding, given, notes)


def _positions(protocol: dict[str, str], samples: int, width: int) -> NDArray[np.float64] | None:
    """Positions of samples that were taken on the gradient's ramps."""
    mode = int(_value(protocol, "alRegridMode", 1))
    if mode not in (2, 4):
        return None
    up, flat, down, delay, duration = (_value(protocol, name) for name in _RAMPS[1:])
    return readouts.on_ramps(samples, width, delay, duration, (up, flat, down), sinusoidal=mode == 4)


def _encoding(protocol: dict[str, str], heads: NDArray[np.void]) -> Encoding:
    """Encoding of k-space, as the protocol states it; the readout is oversampled beyond its base resolution."""
    base = int(_value(protocol, "sKSpace.lBaseResolution"))
    lines = int(_value(protocol, "sKSpace.lPhaseEncodingLines", base))
    deep = int(_value(protocol, "sKSpace.ucDimension", 2)) == 4
    partitions = int(_value(protocol, "sKSpace.lPartitions", 1)) if deep else 1
    if not (1 <= base <= 16384 and 1 <= lines <= 16384 and 1 <= partitions <= 16384):
        raise InputError(f"the protocol says {base} x {lines} x {partitions} points", field="input")
    width = int(heads["samples"].max())
    # A partial echo has fewer samples than the whole readout, which is oversampled twice.
    width = max(width, 2 * base if width > base else base)
    read, phase, thick = (
        kspace.positive(_value(protocol, f"sSliceArray.asSlice[0].{name}", 0.0))
        for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")
    )
    over = 1 + _value(protocol, "sKSpace.dPhaseOversamplingForDialog", 0.0)
    over_slices = 1 + _value(protocol, "sKSpace.dSliceOversamplingForDialog", 0.0)
    return Encoding(
        matrix=(width, lines, partitions),
        fov_mm=(
            None if read is None else read * width / base,
            None if phase is None else phase * over,
            None if thick is None else thick * (over_slices if deep else 1),
        ),
        kept=base,
        kept_partitions=max(1, round(partitions / over_slices)) if deep and over_slices > 1 else partitions,
        line=int(heads["centre_line"][0]),
        partition=int(heads["centre_partition"][0]) if deep else 0,
        in_patient=bool(protocol["patient position"]),
    )


def _planes(heads: NDArray[np.void], slices: NDArray[np.int64], image: NDArray[np.bool_]) -> dict[int, Plane | None]:
    """Places of the slices: the quaternion turns (phase, readout, slice) into the patient's LPS."""
    found = {}
    for number in np.unique(slices[image]).tolist():
        head = heads[np.flatnonzero(image & (slices == number))[0]]
        w, x, y, z = (float(n) for n in head["quaternion"])
        phase = [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)]
        read = [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)]
        across = [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)]
        found[int(number)] = kspace.plane(head["position"], read, phase, across)
    return found


def _loader(
    stream: IO[bytes], scan: Scan, pre: NDArray[np.int64], samples: NDArray[np.int64]
) -> Callable[[int], Complex]:
    """Make the function that reads a readout, conjugated: directions hold for the forward transform."""

    def load(index: int) -> Complex:
        coils, count = int(scan.heads["coils"][index]), int(scan.heads["samples"][index])
        skipped = (NEW.itemsize, CHANNEL_BYTES) if scan.new else (0, OLD.itemsize)
        stream.seek(int(scan.offsets[index]) + skipped[0])
        row = skipped[1] + 8 * count
        raw = np.frombuffer(stream.read(coils * row), np.uint8).reshape(coils, row)[:, skipped[1] :]
        found = np.ascontiguousarray(raw).view("<c8")[:, pre[index] : pre[index] + samples[index]]
        if not np.isfinite(found).all():
            raise InputError(f"readout {index} has samples that are not finite", field="input")
        return found.conj()

    return load


FORMAT = Format(name="twix", endings=(".dat",), read=_read, selects=True)
