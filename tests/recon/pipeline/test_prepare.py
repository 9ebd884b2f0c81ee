"""Preparing a job: what runs is what was planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.formats import hdf5, reader
from recon.measurement.measurement import Measurement
from recon.pipeline.prepare import Prepared, prepare
from recon.planning import plan
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from tests.recon.pipeline.test_reconstruct import job


def prepared(spec: JobSpec) -> Prepared:
    steps = prepare(spec, local_files(spec))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        found: Prepared = end.value
        return found


@pytest.mark.parametrize(
    ("method", "output", "baselines"),
    [
        ("tv", {}, ["fbp"]),
        ("fbp", {}, []),
        ("sirt", {"baselines": []}, []),
        ("sirt", {"baselines": ["cgls", "sirt", "fbp"]}, ["cgls", "fbp"]),
    ],
)
def test_the_baselines_that_are_planned_are_those_that_run(
    ct_file: Path, method: str, output: dict[str, Any], baselines: list[str]
) -> None:
    spec = job(input=str(ct_file), acquisition="ct-parallel", method=method, output=output)
    header = reader.check(spec, local_files(spec))
    planned, found = plan.make(spec, header), prepared(spec)
    assert spec.baselines(header.acquisition, header.shape) == baselines
    assert [one.name for one in found.reconstructions] == [*baselines, method]
    assert found.planned.model_dump() == planned.model_dump()
    alone = spec.model_copy(update={"output": spec.output.model_copy(update={"baselines": []})})
    saved = planned.memory["volumes"] - plan.make(alone, header).memory["volumes"]
    assert (saved > 0) == bool(baselines)


def test_a_job_without_acquisition_gets_the_baseline_of_the_files(tmp_path: Path) -> None:
    acquisition = CTParallel(angles_rad=[0.0, 0.5, 1.0], detector_mm=1.0)
    hdf5.write_measurement(tmp_path / "m.h5", Measurement(np.ones((1, 3, 12), np.float32), acquisition))
    spec = job(input={"path": str(tmp_path / "m.h5"), "format": "hdf5"}, method="cgls")
    assert [one.name for one in prepared(spec).reconstructions] == ["fbp", "cgls"]
