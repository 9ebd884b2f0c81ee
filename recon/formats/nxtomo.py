"""NeXus: tomography as NXtomo, or as beamlines write it without that definition.

Projections, flat and dark frames lie in one dataset of an NXdetector, and its ``image_key`` tells them apart. Angles
are those of the NXsample, or of the NXdata group that shows the same frames. Frames may lie in files beside the one
that is given.

References
----------
Könnecke et al. 2015, J. Appl. Cryst. 48, 301-305.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError
from recon.formats import detect, detector_frames, hdf5, hdf5_links
from recon.formats.format import Format, RawCounts
from recon.formats.safety import check_size, slice_range
from recon.measurement.counts import Counts
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import Input
from recon.spec.validation import invalid

if TYPE_CHECKING:
    import h5py

PROJECTION, FLAT, DARK, INVALID, ALIGNMENT = 0, 1, 2, 3, -1
"""Values of ``image_key``; the last only in ESRF's ``image_key_control``."""
_ANGLE = re.compile(r"rotation_?angle|theta|(^|_)(rot|phi|angle)(_|$)", re.IGNORECASE)
_MOST_NODES = 100_000


@dataclass(frozen=True)
class _Scan:
    """Places of a scan's parts: names of the frames, their keys, and the groups that may hold the rest."""

    data: str
    key: str
    detector: str


def _read(path: Path, given: Input) -> RawCounts:
    notes: list[str] = []
    with hdf5_links.opened(path, folder=detect.around(path, given)) as linked:
        groups = _groups(linked.file)
        scan = _scan(linked, groups, given.dataset)
        node = linked.dataset(scan.data)
        keys = _keys(linked, scan, node.shape[0], notes)
        angles = _angles(linked, groups, scan, keys, notes)
        order = [np.flatnonzero(keys == kind) for kind in (PROJECTION, FLAT, DARK)]
        if not len(order[1]):
            raise InputError(
                f"{scan.key} marks no frame as flat field (1)",
                field="input",
                remedy="add flat fields; line integrals, -log(I / I0), can be read as format hdf5",
            )
        first, last = slice_range(given.slices, node.shape[1]) if node.ndim == 3 else (0, 1)
        check_size((sum(map(len, order)), last - first, node.shape[-1]), node.dtype.itemsize, scan.data)
        # Frames that the key marks as invalid are not looked at.
        projections, flats = (detector_frames.frames(node, scan.data, given.slices, 0, wanted) for wanted in order[:2])
        darks = detector_frames.frames(node, scan.data, given.slices, 0, order[2]) if len(order[2]) else None
        rows = node.shape[1]
        pixel_mm, slice_mm = (_pixel_mm(linked, groups, scan, f"{axis}_pixel_size", notes) for axis in "xy")
    places = [indices.astype(np.float64) for indices in order]
    counts = Counts(
        projections,
        flats,
        darks,
        projection_times=places[0],
        flat_times=places[1],
        dark_times=places[2],
        names=(scan.data, f"{scan.data}, flat fields,", f"{scan.data}, dark fields,"),
    )
    try:
        stated = CTParallel(angles_rad=angles, detector_mm=pixel_mm, slice_mm=slice_mm)
    except ValidationError as error:
        raise invalid(error, path.name) from error
    return RawCounts(counts, stated, notes, slices_in_file=rows)


def _groups(file: h5py.File) -> dict[str, str]:
    """Class of every group of the file itself that has one, by name."""
    import h5py

    found: dict[str, str] = {}
    seen = 0

    def note(name: str, node: h5py.Group | h5py.Dataset) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(node, h5py.Group) and "NX_class" in node.attrs:
            found[name] = detector_frames.text(node.attrs["NX_class"]) or ""
        return True if seen > _MOST_NODES else None

    if file.visititems(note):
        raise InputError(f"the file has more than {_MOST_NODES} objects", field="input", remedy="copy the scan alone")
    return found


def _scan(linked: hdf5_links.LinkedFile, groups: dict[str, str], wanted: str | None) -> _Scan:
    """The scan that is asked for, or the only one whose frames can be found."""
    import h5py

    scans, missing = [], []
    for name in (n for n, kind in groups.items() if kind == "NXdetector"):
        node = linked.file[name]
        key = next((k for k in ("image_key_control", "image_key") if k in node), None)
        if key is not None and "data" in node:
            scans.append(_Scan(f"{name}/data", f"{name}/{key}", name))
    if wanted is not None:
        return _of_dataset(linked, scans, wanted)
    usable = []
    for scan in scans:
        try:
            frames = linked.dataset(scan.data)
        except InputError as error:
            missing.append(error)
            continue
        if frames.ndim == 3:
            usable.append(scan)
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise InputError(
            f"the file holds {len(usable)} scans",
            field="input.dataset",
            remedy=f"choose one of: {', '.join(s.data for s in usable)}",
        )
    for name in (n for n, kind in groups.items() if kind == "NXdata" and not scans):
        try:
            if isinstance(linked.file[name].get("data", getlink=True), h5py.ExternalLink):
                linked.dataset(f"{name}/data")
        except InputError as error:
            missing.append(error)
    if missing:
        raise InputError("; ".join(e.message for e in missing), field="input", remedy=missing[-1].remedy)
    raise InputError(
        "there is no NXdetector with data and image_key, which tells projections, flat and dark frames apart",
        field="input",
        remedy="line integrals, -log(I / I0), can be read as format hdf5 with input.dataset",
    )


def _of_dataset(linked: hdf5_links.LinkedFile, scans: list[_Scan], wanted: str) -> _Scan:
    """The scan of frames that are named; their keys are those of the detector that has as many."""
    data = wanted.strip("/")
    for scan in scans:
        if scan.data == data:
            return scan
    frames = linked.dataset(data)
    for scan in scans:
        if linked.dataset(scan.key).shape == frames.shape[:1]:
            return _Scan(data, scan.key, scan.detector)
    raise InputError(
        f"there is no image_key for the {frames.shape[0]} frames of {data!r}",
        field="input.dataset",
        remedy=f"choose one of: {', '.join(s.data for s in scans) or 'none has one'}",
    )


def _keys(linked: hdf5_links.LinkedFile, scan: _Scan, frames: int, notes: list[str]) -> NDArray[np.int64]:
    """Key of each frame: projection, flat or dark field."""
    node = linked.dataset(scan.key)
    if node.shape != (frames,):
        raise GeometryError(
            f"{scan.key} has shape {node.shape} for {frames} frames",
            field="input",
            remedy="write one key per frame: 0 projection, 1 flat, 2 dark, 3 invalid",
        )
    check_size(node.shape, 8)
    keys = np.asarray(node[()]).astype(np.int64)
    strange = set(keys.tolist()) - {PROJECTION, FLAT, DARK, INVALID, ALIGNMENT}
    if strange:
        raise InputError(
            f"{scan.key} has the value {min(strange)}, expected 0, 1, 2 or 3",
            field="input",
            remedy="mark frames of other kinds as invalid (3)",
        )
    left_out = int(np.isin(keys, (INVALID, ALIGNMENT)).sum())
    if left_out:
        notes.append(f"{left_out} frames that {scan.key} marks as invalid or for alignment are left out")
    if not (keys == PROJECTION).any():
        raise InputError(
            f"{scan.key} marks no frame as projection (0)",
            field="input",
            remedy="choose another scan by input.dataset, or correct the key",
        )
    return keys


def _angles(
    linked: hdf5_links.LinkedFile, groups: dict[str, str], scan: _Scan, keys: NDArray[np.int64], notes: list[str]
) -> list[float] | None:
    """Angle of each projection; None if the file has none."""
    entry = _entry(groups, scan.detector)
    places = [f"{n}/rotation_angle" for n, kind in groups.items() if kind == "NXsample" and _entry(groups, n) == entry]
    places.append(f"{scan.detector}/rotation_angle")
    stated = len(places)
    shown = [n for n, kind in groups.items() if kind == "NXdata" and n.split("/")[0] == scan.data.split("/")[0]]
    # The group that shows the detector's frames is mostly called like it.
    shown.sort(key=lambda n: n.split("/")[-1] != scan.detector.split("/")[-1])
    for name in shown:
        members = sorted(linked.file[name], key=lambda m: (m != "rotation_angle", len(m)))
        places += [f"{name}/{member}" for member in members if _ANGLE.search(member)]
    wanted = keys == PROJECTION
    for index, place in enumerate(places):
        try:
            node = linked.dataset(place)
        except InputError:
            continue  # the next place, or the specification, may have them
        if node.shape not in ((len(keys),), (int(wanted.sum()),)):
            if index < stated and node.ndim == 1 and node.size > 1:
                raise GeometryError(
                    f"{node.size} angles in {place} for {len(keys)} frames",
                    field="input",
                    remedy="write one angle per frame, or per projection; or give acquisition.angles_rad",
                )
            continue
        values = np.asarray(node[()])
        unit = detector_frames.unit(node)
        before = len(notes)
        angles = detector_frames.angles_rad(values[wanted] if len(values) == len(keys) else values, unit, place, notes)
        if (index >= stated or unit is None) and len(notes) == before:
            notes.append(f"angles are those of {place}, {unit or 'taken as degrees: no unit is given'}")
        return angles
    return None


def _pixel_mm(
    linked: hdf5_links.LinkedFile, groups: dict[str, str], scan: _Scan, name: str, notes: list[str]
) -> float | None:
    """Pixel size on the sample, or else the detector's, which in parallel beams is the same."""
    entry = _entry(groups, scan.detector)
    samples = [n for n, kind in groups.items() if kind == "NXsample" and _entry(groups, n) == entry]
    for place in (*samples, scan.detector):
        found = detector_frames.number(linked.file, f"{place}/{name}")
        if found is None:
            continue
        pixel_mm = detector_frames.length_mm(*found)
        if pixel_mm is not None:
            notes.append(f"{name} {pixel_mm:.6g} mm, from {place}")
            return pixel_mm
        notes.append(f"{place}/{name} is {found[0]:g} {found[1] or 'without a unit'}: no pixel size, not used")
    return None


def _entry(groups: dict[str, str], name: str) -> str:
    """The innermost entry that a group lies in."""
    kinds = ("NXentry", "NXsubentry")
    around = [n for n, kind in groups.items() if kind in kinds and name.startswith(f"{n}/")]
    return max(around, key=len, default="")


def _recognised(path: Path) -> bool:
    """Whether the file has an entry, as all of NeXus do."""
    with hdf5.opened(path) as file:
        groups = (detector_frames.inside(file, name) for name in file)
        return any(
            detector_frames.text(g.attrs["NX_class"]) == "NXentry" for g in groups if g and "NX_class" in g.attrs
        )


FORMAT = Format(
    name="nxtomo",
    endings=(".nxs", ".nx"),
    magic=(hdf5.MAGIC,),
    certain=True,
    read=_read,
    selects=True,
    slicewise=True,
    recognises=_recognised,
    names_others=True,
)
