"""The specification: short for the user, strict in what it accepts, the same from YAML, JSON and Python."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.errors import InputError
from recon.spec.acquisitions import methods_of
from recon.spec.acquisitions.ct import AngleRange, CTFan
from recon.spec.job import JobSpec
from recon.spec.methods import Diffusion
from recon.spec.registry import ACQUISITIONS

CT: dict[str, Any] = {"kind": "ct-parallel", "angles_rad": {"count": 4}, "detector_mm": 1.0}
MRI: dict[str, Any] = {"acquisition": "mri-cartesian", "method": "cg-sense"}


def test_a_methods_name_is_enough() -> None:
    for kind, acquisition in ACQUISITIONS.items():
        for method in methods_of(acquisition()):
            job = JobSpec.parse({"input": "a.npy", "acquisition": kind, "method": method})
            assert job.method.name == method


def test_yaml_json_and_python_give_the_same_job(tmp_path: Path) -> None:
    value = {"input": "data/a.npy", "acquisition": CT, "method": {"name": "dds", "eta": 0.5}, "seed": 3}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(value))
    (tmp_path / "a.json").write_text(json.dumps(value))
    from_yaml, from_json = JobSpec.read(tmp_path / "a.yaml"), JobSpec.read(tmp_path / "a.json")
    assert from_yaml == from_json == JobSpec.parse(value).with_base(tmp_path)
    assert from_yaml.input.path == str(tmp_path / "data" / "a.npy")  # relative to the specification's folder
    assert JobSpec.parse(json.loads(from_yaml.model_dump_json(exclude_unset=True))) == from_yaml


def test_a_prior_given_by_its_card_is_found_beside_the_specification(tmp_path: Path) -> None:
    value = {"input": "a.npy", "acquisition": CT, "method": {"name": "diffpir", "prior": "mine/knees.yaml"}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(value))
    method = JobSpec.read(tmp_path / "a.yaml").method
    assert isinstance(method, Diffusion) and method.paths() == {"prior": tmp_path / "mine" / "knees.yaml"}
    named = JobSpec.parse({**value, "method": {"name": "dds", "prior": "ct"}}).with_base(tmp_path).method
    assert isinstance(named, Diffusion) and named.prior == "ct" and not named.paths()


def test_angle_range() -> None:
    fan = CTFan(angles_rad=AngleRange(start_rad=1.0, count=4))
    assert fan.angles() == pytest.approx([1 + k * math.pi / 2 for k in range(4)])  # half a turn determines no image
    assert AngleRange(count=4).angles() == pytest.approx([0, math.pi / 4, math.pi / 2, 3 * math.pi / 4])


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"method": "magic"}, "method", "'magic' is not one of auto, fbp, sirt"),
        ({"method": {"name": "diffpir", "steps": 0}}, "method.steps", "0 is not at least 1"),
        ({"method": {"name": "diffpir", "stepz": 5}}, "method.stepz", "there is no field 'stepz'"),
        ({"acquisition": {"kind": "ct-spiral"}}, "acquisition", "'ct-spiral' is not one of ct-parallel, ct-fan,"),
        ({"acquisition": {**CT, "angles_rad": [0, 45, 90]}}, "acquisition.angles_rad", "they look like degrees"),
        ({"acquisition": {**CT, "angles_rad": [0.0, math.inf]}}, "acquisition.angles_rad.1", "is not a finite number"),
        ({"acquisition": {**CT, "pixel_mm": -1}}, "acquisition.pixel_mm", "-1 is not more than 0"),
        ({"acquisition": {**CT, "detector_shift_mm": 1, "rotation_center_column": 3}}, "acquisition", "not both"),
        ({"acquisition": "mri-cartesian", "method": "fbp"}, "method", "does not fit mri-cartesian"),
        ({"output": {"baselines": ["cg-sense"]}}, "output.baselines", "does not fit ct-parallel"),
        ({"input": {}}, "input", "either path or upload"),
        ({"input": {"path": "a", "upload": "b" * 26}}, "input", "either path or upload"),
        ({"input": {"path": "a.npy", "slices": [4, 4]}}, "input.slices", "must be below"),
        ({"input": {"path": "a.npy", "simulate": {}}}, "input.simulate", "simulate needs format nifti"),
        ({"seed": -1}, "seed", "-1 is not at least 0"),
        ({"output": {"format": "dcm"}}, "output.format", "'dcm' is not one of nifti, nii, numpy, dicom,"),
        ({"output": {"format": "ismrmrd"}}, "output.format", "ismrmrd holds no volumes of ct-parallel"),
        ({"output": {"parts": ["phase"]}}, "output.parts", "real: it has no magnitude and phase"),
        ({**MRI, "output": {"parts": ["real"]}}, "output.parts.0", "'magnitude', 'phase' or 'complex'"),
        ({**MRI, "output": {"parts": []}}, "output.parts", "it has 0 entries"),
        ({**MRI, "output": {"format": "dicom", "parts": ["complex"]}}, "output",
         "dicom holds no complex numbers: ask for magnitude and phase, or use nifti or nii or numpy or ismrmrd"),
        ({"colour": "red"}, "colour", "there is no field 'colour'"),
    ],
)  # fmt: skip
def test_wrong_specifications_name_the_field(change: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InputError, match=r".") as caught:
        JobSpec.parse({"input": "a.npy", "acquisition": CT, "method": "fbp", **change})
    assert caught.value.field == field
    assert says in caught.value.message
    assert caught.value.remedy


def test_unreadable_specifications(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(InputError, match="there is no file"):
        JobSpec.read(path)
    path.write_text("input: [unclosed")
    with pytest.raises(InputError, match=r"not valid YAML: .*line 1"):
        JobSpec.read(path)
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"^spec: .*not valid YAML.*recon samples"):
        JobSpec.read(path)
    path.write_text("just text")
    with pytest.raises(InputError, match="'just text' is not fields with their values"):
        JobSpec.read(path)
    path.write_text("x" * 1_000_001)
    with pytest.raises(InputError, match="at most 1 MB"):
        JobSpec.read(path)
