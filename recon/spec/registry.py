"""Registries of acquisitions, methods and formats: name each kind and import it when it is first used.

A row is a name and a ``module:attribute`` string that is imported when it is first asked for, so that naming a kind
costs nothing. Other packages add rows by entry points of the registry's group, for instance in their pyproject.toml::

    [project.entry-points."recon.methods"]
    my-method = "my_package.my_method:MyMethod"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, reduce
from importlib.metadata import entry_points
from operator import or_
from pkgutil import resolve_name
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import Field

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Mapping from names to lazily imported objects: our rows first, then other packages' in order of their names.

    Parameters
    ----------
    group
        Group of entry points by which other packages add rows.
    rows
        Our own: name to ``module:attribute``.
    """

    def __init__(self, group: str, rows: dict[str, str]) -> None:
        self.group, self._ours = group, rows
        self._found: dict[str, T] = {}

    @cached_property
    def _rows(self) -> dict[str, str]:
        theirs = {entry.name: entry.value for entry in sorted(entry_points(group=self.group), key=lambda e: e.name)}
        twice = sorted(theirs.keys() & self._ours.keys())
        if twice:
            raise ValueError(f"an installed package adds {twice[0]!r} to {self.group}, a name that is taken")
        return {**self._ours, **theirs}

    def __getitem__(self, name: str) -> T:
        if name not in self._found:
            self._found[name] = cast(T, resolve_name(self._rows[name]))
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows  # without importing it

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def union(registry: Registry[Any], discriminator: str) -> Any:
    """The type of any of a registry's models, told apart by one field: for annotations of pydantic models."""
    return Annotated[reduce(or_, registry.values()), Field(discriminator=discriminator)]


def resolve(path: str) -> Any:
    """The object at ``module:attribute``, imported now."""
    return resolve_name(path)


# Rows are typed where they are used (`recon.spec.acquisitions`, `recon.spec.methods`, `recon.formats.format`).
ACQUISITIONS: Registry[Any] = Registry(
    "recon.acquisitions",
    {
        "ct-parallel": "recon.spec.acquisitions.ct:CTParallel",
        "ct-fan": "recon.spec.acquisitions.ct:CTFan",
        "ct-cone": "recon.spec.acquisitions.ct_cone:CTCone",
        "ct-laminography": "recon.spec.acquisitions.ct_laminography:CTLaminography",
        "mri-cartesian": "recon.spec.acquisitions.mri_cartesian:MRICartesian",
        "mri-noncartesian": "recon.spec.acquisitions.mri_noncartesian:MRINonCartesian",
        "mri-superresolution": "recon.spec.acquisitions.superresolution:MRISuperResolution",
        "ct-superresolution": "recon.spec.acquisitions.superresolution:CTSuperResolution",
    },
)
METHODS: Registry[Any] = Registry(
    "recon.methods",
    {
        "auto": "recon.spec.methods.auto:Auto",
        "fbp": "recon.spec.methods.classical:FBP",
        "sirt": "recon.spec.methods.classical:SIRT",
        "cgls": "recon.spec.methods.classical:CGLS",
        "tv": "recon.spec.methods.classical:TV",
        "l1-wavelet": "recon.spec.methods.classical:L1Wavelet",
        "low-rank": "recon.spec.methods.classical:LowRank",
        "zero-filled": "recon.spec.methods.classical:ZeroFilled",
        "gridding": "recon.spec.methods.classical:Gridding",
        "cg-sense": "recon.spec.methods.classical:CGSense",
        "interpolation": "recon.spec.methods.classical:Interpolation",
        "diffpir": "recon.spec.methods.diffpir:DiffPIR",
        "dds": "recon.spec.methods.dds:DDS",
        "red-diff": "recon.spec.methods.red_diff:REDDiff",
        "diffusion-mbir": "recon.spec.methods.diffusion_mbir:DiffusionMBIR",
        "dps": "recon.spec.methods.dps:DPS",
        "boundary": "recon.spec.methods.boundary:Boundary",
    },
)
FORMATS: Registry[Any] = Registry(
    "recon.formats",
    {
        "numpy": "recon.formats.numpy_files:FORMAT",
        "hdf5": "recon.formats.hdf5:FORMAT",
        "dxchange": "recon.formats.dxchange:FORMAT",
        "nxtomo": "recon.formats.nxtomo:FORMAT",
        "tiff": "recon.formats.tiff:FORMAT",
        "matlab": "recon.formats.matlab:FORMAT",
        "nikon": "recon.formats.nikon:FORMAT",
        "zeiss": "recon.formats.zeiss:FORMAT",
        "edf": "recon.formats.edf:FORMAT",
        "htc": "recon.formats.htc:FORMAT",
        "nifti": "recon.formats.nifti:FORMAT",
        "dicom": "recon.formats.dicom:FORMAT",
        "metaimage": "recon.formats.metaimage:FORMAT",
        "nrrd": "recon.formats.nrrd:FORMAT",
        "ismrmrd": "recon.formats.ismrmrd:FORMAT",
        "fastmri": "recon.formats.fastmri:FORMAT",
        "bart": "recon.formats.bart:FORMAT",
        "twix": "recon.formats.twix:FORMAT",
        "bruker": "recon.formats.bruker:FORMAT",
        "ge": "recon.formats.refused:GE",
        "gatan": "recon.formats.refused:GATAN",
        "ctsimu": "recon.formats.ctsimu:FORMAT",
        "raw": "recon.formats.refused:RAW",
    },
)
"""Input formats."""
OUTPUT_FORMATS: Registry[Any] = Registry(
    "recon.output_formats",
    {
        "nifti": "recon.formats.nifti:FORMAT",
        "nii": "recon.formats.nifti:PLAIN",
        "numpy": "recon.formats.numpy_files:FORMAT",
        "dicom": "recon.formats.dicom_results:SLICES",
        "dicom-enhanced": "recon.formats.dicom_results:ENHANCED",
        "ismrmrd": "recon.formats.ismrmrd_images:FORMAT",
    },
)
"""Formats of results."""
RENAMED_KINDS: dict[str, str] = {"mri-resolution": "mri-superresolution"}
RENAMED_METHODS: dict[str, str] = {"annealed": "diffpir"}
"""New names by old ones, plain or `recon.spec.old_names.Renamed`."""
