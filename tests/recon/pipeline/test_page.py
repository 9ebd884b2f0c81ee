"""The report as a page: self-contained, everything escaped, what matters in sentences."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from recon.formats import nifti
from recon.pipeline import page
from recon.pipeline.reconstruct import run
from recon.spec.job import JobSpec, local_files
from recon.spec.report import Report
from tests.conftest import disc

SIDE = 48


class Words(HTMLParser):
    """Text, tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.sources = "", [], []  # type: str, list[str], list[str]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("page")
    volume = (-1000 + 1000 * disc(SIDE, 2.0, 35.0)).expand(1, SIDE, SIDE).numpy().copy()
    nifti.write(folder / "disc.nii.gz", volume, np.diag([2.0, 2.0, 3.0, 1.0]), "test")
    spec = JobSpec.parse(
        {
            "name": "<script>alert(1)</script> & more",
            "input": {"path": str(folder / "disc.nii.gz"), "simulate": {"views": 20, "photons_per_ray": 1e5}},
            "acquisition": "ct-parallel",
            "method": "tv",
            "output": {"undetermined": True},
        }
    )
    return folder / "out", run(spec, local_files(spec), folder / "out")


def test_the_page_holds_what_the_report_says(done: tuple[Path, Report]) -> None:
    folder, report = done
    words = Words((folder / "report.html").read_text())
    said = re.sub(r"\s+", " ", words.text)
    assert "Not for clinical use" in said and report.spec_sha256 in said
    for note in report.notes:
        assert note in said
    assert report.against_truth is not None and f"{report.against_truth['tv'].psnr:.2f}"[:4] in said
    assert f"differ from the measured ones by {report.misfit:.2%}" in said
    assert all(version in said for version in report.versions.values())


def test_its_pictures_are_in_it_and_nothing_is_fetched(done: tuple[Path, Report]) -> None:
    folder, _ = done
    words = Words((folder / "report.html").read_text())
    held = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in words.sources]
    assert held == [(folder / f"{name}.png").read_bytes() for name in ("montage", "undetermined")]


def test_what_users_wrote_is_no_markup(done: tuple[Path, Report]) -> None:
    folder, report = done
    words = Words((folder / "report.html").read_text())
    assert "script" not in words.tags and report.name in words.text


@pytest.mark.parametrize(
    ("misfit", "ratio", "mark"),
    [(0.05, 1.0, "good"), (0.05, 1.6, "fair"), (0.05, 4.0, "poor"), (0.02, 4.0, "fair"), (0.002, 8.0, "good")],
)
def test_a_misfit_is_judged_by_the_noise(done: tuple[Path, Report], misfit: float, ratio: float, mark: str) -> None:
    """And by its size: of data without noise nothing is explained by noise, and a model is right to some per mille."""
    found = done[1].model_copy(update={"data_misfit": {"tv": misfit}, "expected_misfit": misfit / ratio})
    assert page.fit(found)[0] == mark
    assert page.fit(found.model_copy(update={"expected_misfit": None}))[0] == "unknown"


def test_long_lists_are_told_by_their_ends() -> None:
    told = page.flat({"angles_rad": list(range(100)), "size": {"rows": 3, "name": None}, "few": [1, 2.5]})
    assert told == {"angles_rad": "100 values, 0 to 99", "size.rows": "3", "size.name": "-", "few": "1, 2.5"}
    assert page.flat({"data": [{"file": "a"}, {"file": "b"}]}) == {"data.1.file": "a", "data.2.file": "b"}
