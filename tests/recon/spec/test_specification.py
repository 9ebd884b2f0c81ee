"""docs/specification.md holds every field of the models, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from recon.spec.acquisitions.ct import AngleRange
from recon.spec.job import Input, JobSpec, Output
from recon.spec.preparation import BeamHardening, Binning, KSpacePreparation, Paganin, Preparation
from recon.spec.registry import ACQUISITIONS, METHODS
from recon.spec.simulation import Simulation

DOCUMENT = Path(__file__).parents[3] / "docs" / "specification.md"
FIELD = re.compile(r"`([a-z][a-z0-9_]*)(?:: ([^`]+))?`")
SHARED = "Settings that methods with a prior share"


def fields(text: str) -> dict[str, str | None]:
    """Fields in backticks with the default after the colon, if there is one; the first mention of a default counts."""
    found: dict[str, str | None] = {}
    for name, default in FIELD.findall(text):
        found[name] = found.get(name) or default or None
    return found


def sections() -> dict[str, str]:
    """Text of the document by heading."""
    _, *parts = re.split(r"^#{2,3} +", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


def method_fields(name: str) -> dict[str, str | None]:
    """Fields of a method: of its row or section, and the shared ones; a method's own default counts."""
    found = sections()
    rows = [line for line in found["Methods"].splitlines() if line.startswith("|") and f"`{name}`" in line]
    return fields(found[SHARED]) | fields("\n".join(rows)) | fields(found.get(f"`{name}`", ""))


def check(model: type[BaseModel], written: dict[str, str | None]) -> None:
    for name, field in model.model_fields.items():
        assert name in written, f"{model.__name__}.{name} is missing in {DOCUMENT.name}"
        if isinstance(field.default, bool | int | float | str) and field.default != "":
            default = yaml.safe_load(written[name] or "null")
            given = float(default) if isinstance(field.default, float) and default is not None else default
            assert given == pytest.approx(field.default), f"{model.__name__}.{name} is {field.default!r} by default"


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        (JobSpec, "The job"),
        (Input, "Input"),
        (Simulation, "Simulation (volumes as input)"),
        (Output, "Output and results"),
        (Preparation, "Preparation of CT data"),
        (KSpacePreparation, "Preparation of k-space"),
        (Binning, "Preparation of CT data"),
        (Paganin, "Preparation of CT data"),
        (BeamHardening, "Preparation of CT data"),
    ],
)
def test_the_document_has_every_field_of_a_job(model: type[BaseModel], heading: str) -> None:
    check(model, fields(sections()[heading]))


@pytest.mark.parametrize("kind", ACQUISITIONS)
def test_the_document_has_every_field_of_an_acquisition(kind: str) -> None:
    own = next(text for heading, text in sections().items() if f"`{kind}`" in heading)
    check(ACQUISITIONS[kind], {**fields(sections()["Acquisition"]), **fields(own), "kind": kind})


def test_the_document_has_every_field_of_an_angle_range() -> None:
    own = fields(sections()["`ct-parallel`, `ct-fan`"])
    assert AngleRange.model_fields.keys() <= own.keys()


@pytest.mark.parametrize("name", METHODS)
def test_the_document_has_every_setting_of_a_method(name: str) -> None:
    check(METHODS[name], {**method_fields(name), "name": name})


def test_the_document_has_no_field_that_is_gone() -> None:
    parts = (Preparation, BeamHardening, Binning, KSpacePreparation)
    known = set().union(*(m.model_fields for m in (JobSpec, Input, Simulation, Output, AngleRange, *parts)))
    known |= set().union(*(m.model_fields for m in (*ACQUISITIONS.values(), *METHODS.values())))
    rows = [line.split("|")[1] for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    defaults = {name for name, default in fields("\n".join(rows)).items() if default}
    assert defaults <= known, defaults - known
