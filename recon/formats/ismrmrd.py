"""ISMRMRD 1.x raw data: k-space of any vendor in HDF5, with its header in XML.

Readout oversampling is removed, averages are averaged, EPI lines corrected and regridded; slices lie where the scanner
put them, and noise readouts give the noise. Spirals, radial scans and any trajectory in the plane that the acquisitions
carry become ``mri-noncartesian``, stacks of them too.

References
----------
Inati et al. 2017, ISMRM Raw data format, Magn. Reson. Med. 77, 411-421.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats import dicom_source, hdf5, kspace, off_grid, readouts
from recon.formats.format import Format
from recon.formats.hdf5_chunks import check_chunks
from recon.formats.kspace import Complex, positive
from recon.formats.readouts import Encoding, Readouts
from recon.formats.safety import check_size
from recon.measurement.measurement import Measurement
from recon.spec.job import Input

if TYPE_CHECKING:
    import h5py

MAX_XML_BYTES = 16_000_000
BATCH_BYTES = 2**26
NOISE, CALIBRATION, CALIBRATION_AND_IMAGE, REVERSE, NAVIGATION, PHASE_CORRECTION = 19, 20, 21, 22, 23, 24
FEEDBACK, DUMMY, REALTIME_FEEDBACK, SURFACE_COIL, PHASE_REFERENCE = 26, 27, 28, 29, 30
"""Numbers of an acquisition's flags."""
_NO_IMAGE = (NOISE, NAVIGATION, PHASE_CORRECTION, FEEDBACK, DUMMY, REALTIME_FEEDBACK, SURFACE_COIL, PHASE_REFERENCE)
_RAMPS = ("numSamples", "dwellTime", "acqDelayTime", "rampUpTime", "flatTopTime", "rampDownTime")
_COUNTERS = {
    "line": "kspace_encode_step_1", "partition": "kspace_encode_step_2", "slice": "slice", "contrast": "contrast",
    "phase": "phase", "repetition": "repetition", "set": "set",
}  # fmt: skip
_SOURCE = {
    "PatientName": "subjectInformation/patientName", "PatientID": "subjectInformation/patientID",
    "PatientBirthDate": "subjectInformation/patientBirthdate", "PatientSex": "subjectInformation/patientGender",
    "PatientWeight": "subjectInformation/patientWeight_kg", "PatientSize": "subjectInformation/patientHeight_m",
    "StudyInstanceUID": "studyInformation/studyInstanceUID", "StudyDate": "studyInformation/studyDate",
    "StudyTime": "studyInformation/studyTime", "StudyID": "studyInformation/studyID",
    "AccessionNumber": "studyInformation/accessionNumber", "StudyDescription": "studyInformation/studyDescription",
    "ReferringPhysicianName": "studyInformation/referringPhysicianName",
    "BodyPartExamined": "studyInformation/bodyPartExamined",
    "FrameOfReferenceUID": "measurementInformation/frameOfReferenceUID",
    "PatientPosition": "measurementInformation/patientPosition",
}  # fmt: skip
"""Places in the XML header of what DICOM has of patient and study, by keyword."""
_HEAD = {
    "flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample",
    "encoding_space_ref", "sample_time_us", "position", "read_dir", "phase_dir", "slice_dir", "idx",
}  # fmt: skip


@dataclass(frozen=True)
class Space:
    """Points ``(x, y, z)`` of k-space or pixels of an image, and the size of its field of view, None if unknown."""

    matrix: tuple[int, int, int]
    fov_mm: tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class EncodingSpace:
    """Encoding of k-space that a header states.

    Parameters
    ----------
    encoded, recon
        What is measured, and the image that comes of it.
    trajectory
        ``cartesian``, ``epi``, ``radial``, ``spiral``, ...
    line, partition
        Counters where the phase encoding is zero.
    calibration
        How lines for parallel imaging are measured: ``embedded``, ``separate``, ...
    ramps
        Times of an EPI train's readouts by name, where samples were taken on the gradient's ramps, too.
    """

    encoded: Space
    recon: Space
    trajectory: str
    line: int
    partition: int
    calibration: str
    ramps: dict[str, float] | None = None

    @property
    def kept(self) -> int:
        """Pixels along the readout without its oversampling."""
        return self._kept(0)

    @property
    def kept_partitions(self) -> int:
        """Partitions without the oversampling of the slab."""
        return self._kept(2)

    def _kept(self, axis: int) -> int:
        width = self.encoded.matrix[axis]
        outer, inner = self.encoded.fov_mm[axis], self.recon.fov_mm[axis]
        if outer is None or inner is None:
            # Without sizes the ratio of the matrices tells an oversampling, which is two.
            return width // 2 if width == 2 * self.recon.matrix[axis] else width
        return min(width, max(1, round(width * inner / outer)))


@dataclass(frozen=True)
class Header:
    """Header of a file, as its XML states it.

    Parameters
    ----------
    encodings
        Those that acquisitions refer to, by number.
    in_patient
        Whether it says how the patient lay.
    relative_bandwidth
        Of the receiver's noise, of imaging against noise readouts.
    conjugated
        Whether directions hold for the complex conjugate of k-space: Siemens states them for an image that the forward
        Fourier transform makes.
    source
        Patient and study, as in `Measurement`.
    """

    encodings: list[EncodingSpace]
    in_patient: bool
    relative_bandwidth: float
    conjugated: bool
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parsed(xml: bytes | str) -> Header:
    """Read the XML header.

    Raises
    ------
    InputError
        If it is no ISMRMRD header, or has no matrix.
    """
    text = xml.decode("utf-8", "replace") if isinstance(xml, bytes) else xml
    if len(text) > MAX_XML_BYTES or re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise InputError("the XML header declares entities, or is too long", field="input")
    try:
        root = ElementTree.fromstring(text.strip().encode())  # noqa: S314 - declares no entities, which are the danger
    except ElementTree.ParseError as error:
        raise InputError(f"the XML header cannot be read: {error}", field="input") from error
    found = [_encoding(element) for element in root.iterfind("{*}encoding")]
    if not root.tag.endswith("ismrmrdHeader") or not found:
        raise InputError("the XML header has no encoding: it is no ISMRMRD header", field="input")
    position = root.findtext("{*}measurementInformation/{*}patientPosition")
    bandwidth = _number(root, "{*}acquisitionSystemInformation/{*}relativeReceiverNoiseBandwidth")
    vendor = root.findtext("{*}acquisitionSystemInformation/{*}systemVendor") or ""
    return Header(
        encodings=found,
        in_patient=bool(position and position.strip()),
        relative_bandwidth=positive(bandwidth) or 1.0,
        conjugated="siemens" in vendor.lower(),
        source=_source(root),
    )


def _source(root: ElementTree.Element) -> dict[str, Any]:
    """Patient and study, in DICOM's JSON model; dates and times there are without signs between their parts."""
    texts = {
        name: (root.findtext("/".join(f"{{*}}{part}" for part in path.split("/"))) or "").strip()
        for name, path in _SOURCE.items()
    }
    for name in ("PatientBirthDate", "StudyDate", "StudyTime"):
        texts[name] = re.sub(r"[-:]", "", texts[name])
    return dicom_source.of_texts(texts)


def _encoding(element: ElementTree.Element) -> EncodingSpace:
    encoded = _space(element, "encodedSpace")
    if encoded is None:
        raise InputError("the XML header has no encodedSpace with a matrix", field="input")
    limits = "{*}encodingLimits/{*}kspace_encoding_step_"
    centres = [_number(element, f"{limits}{n}/{{*}}center") for n in (1, 2)]
    line, partition = (
        encoded.matrix[n] // 2 if centre is None else int(centre) for n, centre in enumerate(centres, start=1)
    )
    return EncodingSpace(
        encoded=encoded,
        recon=_space(element, "reconSpace") or encoded,
        trajectory=(element.findtext("{*}trajectory") or "cartesian").strip().lower(),
        line=line,
        partition=partition,
        calibration=(element.findtext("{*}parallelImaging/{*}calibrationMode") or "embedded").strip().lower(),
        ramps=_ramps(element),
    )


def _ramps(element: ElementTree.Element) -> dict[str, float] | None:
    """Read the times of a readout, in microseconds, from the description of a conventional EPI train."""
    found = {}
    for parameter in element.iterfind("{*}trajectoryDescription/*"):
        name, value = (parameter.findtext("{*}name") or "").strip(), _number(parameter, "{*}value")
        if value is not None:
            found[name] = value
    return found if set(found) >= set(_RAMPS) else None


def _space(element: ElementTree.Element, name: str) -> Space | None:
    sizes = [_number(element, f"{{*}}{name}/{{*}}matrixSize/{{*}}{axis}") for axis in "xyz"]
    if sizes[0] is None or sizes[1] is None:
        return None
    matrix = tuple(1 if size is None else int(size) for size in sizes)
    if any(size < 1 or size > 65536 for size in matrix):
        raise InputError(f"the XML header has a {name} of {matrix} points", field="input")
    fov = [positive(_number(element, f"{{*}}{name}/{{*}}fieldOfView_mm/{{*}}{axis}")) for axis in "xyz"]
    return Space((matrix[0], matrix[1], matrix[2]), (fov[0], fov[1], fov[2]))


def _number(element: ElementTree.Element, path: str) -> float | None:
    text = element.findtext(path)
    if text is None or not text.strip():
        return None
    try:
        found = float(text)
    except ValueError as error:
        raise InputError(f"the XML header says {text[:40]!r}, expected a number", field="input") from error
    if not np.isfinite(found):
        raise InputError(f"the XML header says {text[:40]!r}, expected a finite number", field="input")
    return found


def _read(path: Path, given: Input) -> Measurement:
    with hdf5.opened(path) as file:
        table, xml = _tables(file, given.dataset)
        header = parsed(xml)
        heads = _heads(table)
        notes: list[str] = []
        space = _space_of(heads, header, notes)
        return replace(_measurement(table, heads, header, space, given, notes), source=header.source)


def _tables(file: h5py.File, name: str | None) -> tuple[h5py.Dataset, bytes]:
    """Find the table of acquisitions and the header of the group that is named, or that has both."""
    names = [name] if name else [n for n in file if stored(file, f"{n}/xml") and stored(file, f"{n}/data")]
    if not names and any(stored(file, f"{n}/{image}/header") for n in file for image in _children(file, n)):
        raise InputError(
            "the file holds ISMRMRD images, not raw data",
            field="input",
            remedy="give the raw data; for super-resolution of images, convert them to NIfTI",
        )
    if len(names) != 1:
        raise InputError(
            f"there are {len(names)} groups with ISMRMRD raw data (datasets data and xml) in the file",
            field="input.dataset" if names else "input",
            remedy=f"give one in input.dataset: {', '.join(names)}" if names else "give an ISMRMRD file of raw data",
        )
    table, xml = stored(file, f"{names[0]}/data"), stored(file, f"{names[0]}/xml")
    if table is None or xml is None:
        raise InputError(f"there is no ISMRMRD raw data (datasets data and xml) in {names[0]!r}", field="input.dataset")
    return table, text_of(xml)


def text_of(node: h5py.Dataset) -> bytes:
    """Read a dataset of one text."""
    if node.size != 1 or node.dtype.kind not in "OS":
        raise InputError(f"{node.name} holds no text", field="input")
    check_size((1,), node.dtype.itemsize)
    text = np.asarray(node[()]).reshape(-1)[0]
    return text if isinstance(text, bytes) else str(text).encode()


def _children(file: h5py.File, name: str) -> list[str]:
    import h5py

    node = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    return list(node)[:100] if isinstance(node, h5py.Group) else []


def stored(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Find the dataset of that name, if it lies in the file itself; its chunks are checked."""
    import h5py

    node: h5py.Group | h5py.Dataset = file
    for part in name.split("/"):
        if not isinstance(node, h5py.Group) or not isinstance(node.get(part, getlink=True), h5py.HardLink):
            return None
        node = node[part]
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external or node.shape is None:
        return None
    check_chunks(node)
    return node


def _heads(table: h5py.Dataset) -> NDArray[np.void]:
    """Read the headers of all acquisitions, without their samples."""
    names = table.dtype.names or ()
    head = table.dtype["head"] if {"head", "traj", "data"} <= set(names) else None
    if table.ndim != 1 or head is None or not head.names or not set(head.names) >= _HEAD:
        raise InputError("the dataset data is no table of ISMRMRD acquisitions", field="input")
    if head["idx"].names is None or not set(head["idx"].names) >= set(_COUNTERS.values()):
        raise InputError("the acquisitions have no ISMRMRD counters", field="input")
    check_size(table.shape, table.dtype.itemsize)
    found: NDArray[np.void] = table.fields("head")[()]
    return found


def _flag(heads: NDArray[np.void], number: int) -> NDArray[np.bool_]:
    return np.asarray((heads["flags"] >> np.uint64(number - 1)) & np.uint64(1) == 1)


def _space_of(heads: NDArray[np.void], header: Header, notes: list[str]) -> int:
    """Choose the encoding that makes the image: the first that acquisitions have."""
    image = ~np.logical_or.reduce([_flag(heads, number) for number in _NO_IMAGE])
    spaces = np.unique(heads["encoding_space_ref"][image]).tolist()
    if any(space >= len(header.encodings) for space in spaces):
        raise InputError(
            f"acquisitions are of encoding {max(spaces)}, the header has {len(header.encodings)}", field="input"
        )
    if not spaces:
        raise InputError("there is no acquisition of an image in the file", field="input")
    if len(spaces) > 1:
        notes.append(f"the file has encodings {', '.join(map(str, spaces))}: {spaces[0]} is read")
    return int(spaces[0])


def _measurement(
    table: h5py.Dataset, heads: NDArray[np.void], header: Header, number: int, given: Input, notes: list[str]
) -> Measurement:
    space = header.encodings[number]
    image = ~np.logical_or.reduce([_flag(heads, flag) for flag in _NO_IMAGE])
    image &= heads["encoding_space_ref"] == number
    only = _flag(heads, CALIBRATION) & ~_flag(heads, CALIBRATION_AND_IMAGE) & image
    if only.any() and space.calibration == "separate":
        image &= ~only
        notes.append(f"{int(only.sum())} calibration lines of a separate scan are left out of the image")
    pre, post = heads["discard_pre"].astype(np.int64), heads["discard_post"].astype(np.int64)
    samples = heads["number_of_samples"].astype(np.int64) - pre - post
    centre = heads["center_sample"].astype(np.int64) - pre
    mirrored = _flag(heads, REVERSE)
    # A readout that ran backwards has its centre counted from its other end, unless that is the middle anyway.
    centre = np.where(mirrored & (2 * centre != samples), samples - 1 - centre, centre)
    counters = {name: heads["idx"][field].astype(np.int64) for name, field in _COUNTERS.items()}
    found = Readouts(
        counters=counters,
        samples=samples,
        centre=centre,
        coils=heads["active_channels"].astype(np.int64),
        mirrored=mirrored,
        dwell_us=heads["sample_time_us"].astype(np.float64),
        image=image,
        noise=_flag(heads, NOISE),
        navigator=_flag(heads, PHASE_CORRECTION),
        planes=_planes(heads, counters["slice"], image),
        load=_loader(table, heads, pre, samples, conjugated=header.conjugated),
        positions=_positions(space),
    )
    if space.trajectory not in ("cartesian", "epi"):
        grid = off_grid.Grid(
            encoded=space.encoded.matrix[:2],
            recon=space.recon.matrix[:2],
            partitions=space.encoded.matrix[2],
            kept_partitions=space.kept_partitions,
            partition=space.partition,
            encoded_mm=space.encoded.fov_mm[:2],
            recon_mm=space.recon.fov_mm[:2],
            thickness_mm=space.encoded.fov_mm[2],
            in_patient=header.in_patient,
            relative_bandwidth=header.relative_bandwidth,
        )
        return off_grid.measurement(found, _locator(table, heads, pre, samples), grid, given, notes)
    encoding = Encoding(
        matrix=space.encoded.matrix,
        fov_mm=space.encoded.fov_mm,
        kept=space.kept,
        kept_partitions=space.kept_partitions,
        line=space.line,
        partition=space.partition,
        relative_bandwidth=header.relative_bandwidth,
        in_patient=header.in_patient,
    )
    return readouts.measurement(found, encoding, given, notes)


def _positions(space: EncodingSpace) -> NDArray[np.float64] | None:
    """Find where samples lie that were taken on the gradient's ramps."""
    if space.ramps is None or space.trajectory != "epi":
        return None
    samples, dwell, delay, up, flat, down = (space.ramps[name] for name in _RAMPS)
    if not 1 <= samples <= 65536:
        raise InputError(f"the XML header says {samples:g} samples of an EPI readout", field="input")
    width = space.encoded.matrix[0]
    return readouts.on_ramps(int(samples), width, delay, dwell * samples, (up, flat, down))


def _planes(
    heads: NDArray[np.void], slices: NDArray[np.int64], image: NDArray[np.bool_]
) -> dict[int, kspace.Plane | None]:
    found = {}
    for number in np.unique(slices[image]).tolist():
        head = heads[np.flatnonzero(image & (slices == number))[0]]
        found[int(number)] = kspace.plane(head["position"], head["read_dir"], head["phase_dir"], head["slice_dir"])
    return found


def _loader(
    table: h5py.Dataset,
    heads: NDArray[np.void],
    pre: NDArray[np.int64],
    samples: NDArray[np.int64],
    *,
    conjugated: bool,
) -> Callable[[int], Complex]:
    """Make the function that reads an acquisition's samples; neighbours are read together."""
    raw = heads["number_of_samples"].astype(np.int64) * heads["active_channels"].astype(np.int64)
    size = max(1, BATCH_BYTES // (8 * max(int(raw.max(initial=1)), 1)))
    held: dict[str, Any] = {"first": -1, "rows": None}

    def load(index: int) -> Complex:
        first = index // size * size
        if held["first"] != first:
            held.update(first=first, rows=table.fields("data")[first : first + size])
        values = np.asarray(held["rows"][index - first])
        if values.dtype.kind != "f" or values.size != 2 * raw[index]:
            raise InputError(
                f"acquisition {index} has {values.size} numbers, its header says {2 * int(raw[index])}", field="input"
            )
        lines = values.astype(np.float32).view(np.complex64).reshape(int(heads["active_channels"][index]), -1)
        found: Complex = lines[:, pre[index] : pre[index] + samples[index]]
        if not np.isfinite(found).all():
            raise InputError(f"acquisition {index} has samples that are not finite", field="input")
        return found.conj() if conjugated else found

    return load


def _locator(
    table: h5py.Dataset, heads: NDArray[np.void], pre: NDArray[np.int64], samples: NDArray[np.int64]
) -> Callable[[int], NDArray[np.float64]]:
    """Make the function that reads where in k-space an acquisition's samples lie."""

    def locate(index: int) -> NDArray[np.float64]:
        dimensions = int(heads["trajectory_dimensions"][index])
        values = np.asarray(table.fields("traj")[index], np.float64)
        raw = int(heads["number_of_samples"][index])
        if dimensions and values.size != dimensions * raw:
            raise InputError(
                f"acquisition {index} has a trajectory of {values.size} numbers, its header says {dimensions} x {raw}",
                field="input",
                remedy="the file is damaged, or its converter is wrong",
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"acquisition {index} has a trajectory that is not finite", field="input", remedy="write it again"
            )
        points = values.reshape(raw, dimensions)
        return points[pre[index] : pre[index] + samples[index]]

    return locate


FORMAT = Format(
    name="ismrmrd",
    endings=(".h5", ".mrd", ".hdf5"),
    magic=(hdf5.MAGIC,),
    read=_read,
    selects=True,
    recognises=hdf5.holds("data", "xml"),
)
