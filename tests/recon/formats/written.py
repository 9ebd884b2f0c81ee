"""Volumes for the tests of formats of results, oblique in the patient, in slabs as a job hands them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from recon.formats.format import Origin, Written

SHAPE = 5, 14, 18
METHOD = "red-diff with the prior ct"


def oblique() -> np.ndarray:
    """Affine to RAS of voxels of 0.8 x 1.1 x 3.3 mm whose axes are turned about all of the patient's."""
    directions, _ = np.linalg.qr(np.array([[-0.9, 0.1, 0.2], [0.2, -1.0, 0.1], [0.1, 0.2, 1.0]]))
    directions *= np.sign(np.diag(directions)) * [-1, -1, 1]
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = directions * [0.8, 1.1, 3.3], [31.25, -17.5, 801.123456]
    return found


def values(modality: Literal["ct", "mri"] = "ct") -> np.ndarray:
    """Every slice different, no symmetry; HU with metal and air, or small magnitudes."""
    noise = np.random.default_rng(7).random(SHAPE).astype(np.float32)
    found = noise * 4000 - 1024 if modality == "ct" else noise * 3e-4
    found[1, 2, 3] = 20000 if modality == "ct" else 0
    return found.astype(np.float32)


def written(modality: Literal["ct", "mri"] = "ct", data: np.ndarray | None = None, **more: Any) -> Written:
    """Volume to write, two slices at a time; `source` and what `Written` has may be given."""
    data = values(modality) if data is None else data
    origin = Origin(modality, f"{modality} data", "diffusion-recon 1.2", more.pop("source", {}))

    def slabs() -> Iterator[np.ndarray]:
        return iter([data[:2], data[2:]])

    fields = {"affine": oblique(), "unit": "HU" if modality == "ct" else "a.u.", "method": METHOD, **more}
    return Written(data.shape, data.dtype, slabs=slabs, origin=origin, **fields)
