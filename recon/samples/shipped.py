"""Samples that a page runs at a click: a file that comes with the package, and the specification of its job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.samples import SAMPLES


@dataclass(frozen=True)
class Sample:
    """Shipped file with a specification, which lacks the file itself.

    Parameters
    ----------
    title, about
        What it is, for people.
    file
        Name of the file in this folder.
    source
        Where it comes from, and its licence; see NOTICE.
    input, rest
        Fields of the specification: of ``input`` besides the file, and all others.
    """

    title: str
    about: str
    file: str
    source: str
    input: dict[str, Any]
    rest: dict[str, Any]

    @property
    def path(self) -> Path:
        """Place of the file."""
        return SAMPLES / self.file

    def specification(self, upload: str) -> dict[str, Any]:
        """Specification of the sample's job, once its file is an upload."""
        return {"name": self.title, "input": {"upload": upload, **self.input}, **self.rest}


SHIPPED = {
    "body-ct": Sample(
        title="Body CT, 60 views",
        about="Eight slices, measured by simulation with 100,000 photons per ray.",
        file="ct_body.nii.gz",
        source="TotalSegmentator example volume, Apache-2.0",
        input={
            "format": "nifti",
            "slices": [52, 60],
            "simulate": {"views": 60, "photons_per_ray": 1e5},
        },
        rest={
            "acquisition": {"kind": "ct-parallel"},
            "method": "auto",
            "output": {"baselines": ["fbp", "tv"]},
        },
    ),
    "brain-mri": Sample(
        title="Brain MRI, 8 coils",
        about="Measured k-space, about one point in eight.",
        file="mri_brain_8coil.npy",
        source="sigpy tutorial data, BSD-3-Clause",
        input={"format": "numpy"},
        rest={
            "acquisition": {"kind": "mri-cartesian"},
            "method": "red-diff",
            "output": {"baselines": ["zero-filled", "cg-sense"]},
        },
    ),
    "tooth": Sample(
        title="Tooth, 181 views",
        about="Raw counts of a synchrotron with flat and dark fields.",
        file="ct_tooth.h5",
        source="TomoPy test data, UChicago Argonne, BSD style",
        input={"format": "dxchange"},
        rest={
            "acquisition": {"kind": "ct-parallel", "detector_mm": 0.01, "rotation_center_column": "auto"},
            "method": "cgls",
            "output": {"baselines": ["fbp"]},
        },
    ),
    "acrylic-disc": Sample(
        title="Acrylic disc, 30 degrees",
        about="Measured fan-beam CT over a twelfth of a turn.",
        file="ct_htc2022.npz",
        source="Helsinki Tomography Challenge 2022, CC BY 4.0",
        input={"format": "htc", "scan": "ta_subsample73"},
        rest={
            "acquisition": {"kind": "ct-fan", "pixel_mm": 0.5},
            "method": "auto",
            "output": {"baselines": ["fbp", "tv"]},
        },
    ),
}
"""Samples by name."""
