"""Validation errors are sentences about fields: no dictionaries of Python, none of the validator's own words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from operators.errors import InputError
from recon.spec.job import JobSpec

FILE = {"upload": "a" * 26}
CT = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 1.0}
RED = {"name": "red-diff"}
WRONG: list[tuple[Any, str, str, str]] = [
    # specification, field, message, remedy
    ({}, "input", "it is missing", "give it"),
    (None, "specification", "null is not fields with their values", "give fields"),
    ([], "specification", "[] is not fields", "give fields"),
    ({"inputs": FILE}, "inputs", "there is no field 'inputs'; 1 more", "did you mean input?"),
    ({"input": 5}, "input", "5 is not fields with their values", "give fields"),
    ({"input": {}}, "input", "give either path or upload", "/docs"),
    ({"input": {"upload": "x"}}, "input.upload", "'x' is not written as it should be", "match ^[a-z2-7]{26}$"),
    ({"input": {**FILE, "format": "zip"}}, "input.format", "'zip' is not one of numpy, hdf5,", "choose one"),
    ({"input": {**FILE, "slices": [5]}}, "input.slices", "[5] has too few entries", "give all"),
    ({"input": {**FILE, "slices": [5, 2]}}, "input.slices", "the first must be below the last", "/docs"),
    ({"acquisition": "ct"}, "acquisition", "'ct' is not one of ct-parallel,", "choose one"),
    ({"acquisition": {"kind": 5}}, "acquisition", "'5' is not one of", "choose one"),
    ({"acquisition": {}}, "acquisition.kind", "it is missing", "choose one of ct-parallel, ct-fan"),
    ({"acquisition": {**CT, "detector_mm": 0}}, "acquisition.detector_mm", "0 is not more than 0", "more than 0"),
    (
        {"acquisition": {**CT, "detector_mm": math.nan}},
        "acquisition.detector_mm",
        "not a finite number",
        "give a finite",
    ),
    ({"acquisition": {**CT, "angles_rad": {"count": 0}}}, "acquisition.angles_rad.count", "0 is not at least 1", "1"),
    ({"acquisition": {**CT, "angles_rad": [1, "x"]}}, "acquisition.angles_rad.1", "'x' is not a number", "a number"),
    ({"acquisition": {**CT, "angles_rad": []}}, "acquisition.angles_rad", "no angles", "give one angle for each"),
    ({"method": "red_diff"}, "method", "'red_diff' is not one of auto, fbp,", "did you mean red-diff?"),
    ({"method": {"iterations": 5}}, "method.name", "it is missing", "choose one of auto, fbp"),
    ({"method": {"name": "tv", "iterations": "many"}}, "method.iterations", "'many' is not a whole number", "give a"),
    ({"method": {"name": "tv", "iterations": 1.5}}, "method.iterations", "1.5 is not a whole number", "give a"),
    ({"method": {**RED, "update": "sgd"}}, "method.update", "'sgd' is not 'proximal' or 'adam'", "choose one"),
    ({"method": {**RED, "decay": "cosine"}}, "method.decay", "decay has no effect", "leave it out"),
    ({"method": "zero-filled"}, "method", "zero-filled does not fit ct-parallel", "use one of fbp, sirt"),
    ({"output": {"baselines": ["zero-filled"]}}, "output.baselines", "zero-filled does not fit", "use one of fbp"),
    ({"acquisition": "mri-superresolution", "output": {"uncertainty": 5}}, "output.uncertainty", "no other", "leave"),
    ({"tags": "x"}, "tags", "'x' is not a list", "give a list"),
    ({"tags": ["a"] * 20}, "tags", "it has 20 entries", "give at most 16"),
    ({"name": "x" * 200}, "name", "it has 200 characters", "give at most 100"),
    ({"name": True}, "name", "true is not a text", "give a text"),
    ({"priority": "urgent"}, "priority", "'urgent' is not 'high', 'normal' or 'low'", "choose one"),
]


@pytest.mark.parametrize(("change", "field", "says", "remedy"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_what_is_wrong_is_said_of_its_field(change: Any, field: str, says: str, remedy: str) -> None:
    whole = change if not change or "inputs" in change else {"input": FILE, "acquisition": CT, **change}
    with pytest.raises(InputError) as caught:
        JobSpec.parse(whole)
    assert caught.value.field == field
    assert says in caught.value.message and remedy in str(caught.value.remedy)
    said = f"{caught.value.message} {caught.value.remedy}"
    for jargon in ("{'", "Input should", "tag", "dictionary", "discriminator", "JobSpec", "Value error", "None"):
        assert jargon not in said, said
    assert len(said) < 600


def test_the_document_is_named_where_there_are_several() -> None:
    with pytest.raises(InputError, match=r"^seed: -1 is not at least 0, in scan\.yaml \(give at least 0\)$"):
        JobSpec.parse({"input": FILE, "seed": -1}, "scan.yaml")
