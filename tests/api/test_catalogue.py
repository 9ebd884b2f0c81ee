"""The catalogue says what the specification accepts, so that a form made from it is never refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from operators.errors import InputError
from recon.priors.cards import card_of
from recon.spec.job import JobSpec
from recon.spec.registry import ACQUISITIONS, METHODS
from tests.service.serving import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("catalogue") / "store", devices=("cpu", "gpu")) as found:
        yield found


@pytest.fixture(scope="module")
def catalogue(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/v1/catalogue").json()
    return found


def fits(kind: str, method: str) -> bool:
    acquisition: dict[str, Any] = {"kind": kind}
    if kind in ("ct-parallel", "ct-fan"):
        acquisition |= {"angles_rad": {"count": 6}, "detector_mm": 1.0}
    if kind in ("ct-fan", "ct-cone"):
        acquisition |= {"source_origin_mm": 500.0, "origin_detector_mm": 500.0}
    try:
        JobSpec.parse({"input": {"upload": "a" * 26}, "acquisition": acquisition, "method": method})
    except InputError as error:
        assert "does not fit" in error.message, error
        return False
    return True


def test_methods_fit_as_it_says(catalogue: dict[str, Any]) -> None:
    assert [a["name"] for a in catalogue["acquisitions"]] == list(ACQUISITIONS)
    assert [m["name"] for m in catalogue["methods"]] == list(METHODS)
    for acquisition in catalogue["acquisitions"]:
        assert acquisition["baseline"] in acquisition["methods"]
        for method in catalogue["methods"]:
            kind, name = acquisition["name"], method["name"]
            said = name in acquisition["methods"]
            assert said == (kind in method["acquisitions"]) == fits(kind, name), (kind, name)
    assert catalogue["default_method"] == JobSpec.parse({"input": {"upload": "a" * 26}}).method.name


def test_everything_has_its_text(catalogue: dict[str, Any]) -> None:
    for entry in catalogue["acquisitions"] + catalogue["methods"]:
        assert entry["summary"].endswith(".") and "`" not in entry["summary"] + entry["description"], entry["name"]
        schema = entry.get("fields") or entry["settings"]
        for name, field in schema["properties"].items():
            assert name in ("kind", "name") or field.get("description"), (entry["name"], name)
    classical = {m["name"] for m in catalogue["methods"] if m["classical"]}
    assert {"fbp", "tv", "zero-filled"} <= classical and not classical & {"auto", "red-diff", "dps"}


def test_priors_come_with_their_limits(catalogue: dict[str, Any]) -> None:
    assert {p["modality"] for p in catalogue["priors"] if p["default"]} == {"ct", "mri"}
    for prior in catalogue["priors"]:
        card = card_of(prior["name"])
        assert prior["limits"] == card.limits and prior["limits"] and prior["licences"]
        assert prior["low"] == card.intensity_range.low < prior["high"] and prior["unit"]


def test_what_the_server_accepts(server: Server, catalogue: dict[str, Any]) -> None:
    assert catalogue["devices"] == ["cpu", "gpu"] and catalogue["version"]
    assert catalogue["limits"]["upload_bytes"] == server.service.settings.max_upload_bytes
    assert catalogue["limits"]["memory_bytes"] > 0
    assert {"nifti", "dicom"} <= {f["name"] for f in catalogue["output_formats"]}
