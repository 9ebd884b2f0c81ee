"""Refusals of acquisitions, checked on a file as a job would have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import ReconError
from recon.formats import reader
from recon.spec.job import JobSpec, local_files


def check_refused(folder: Path, acquisition: dict[str, Any], says: str) -> None:
    """Check that an acquisition of 20 rows, 12 views and 40 columns is refused by a sentence that matches `says`."""
    np.save(folder / "scan.npy", np.zeros((20, 12, 40), np.float32))
    with pytest.raises(ReconError, match=says):
        job = JobSpec.parse({"input": str(folder / "scan.npy"), "acquisition": acquisition, "method": "fbp"})
        reader.check(job, local_files(job))
