"""Pages that are made from cards and metadata, and files that name the version, agree with their source."""

from __future__ import annotations

import json
import re
from importlib.metadata import requires
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from recon.priors import cards
from tools.release import licences, model_cards, wheels

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_model_cards_is_that_of_the_cards() -> None:
    assert (ROOT / "docs" / "reference" / "model-cards.md").read_text() == model_cards.page(), "make release-docs"


def test_every_dependency_has_a_licence() -> None:
    found = {name: licences.licence(package) for name, package in licences.needed().items()}
    direct = {Requirement(text).name.lower() for text in requires("diffusion-recon") or [] if "extra ==" not in text}
    assert direct <= found.keys()
    assert [name for name, told in found.items() if told == licences.UNKNOWN] == []


def test_the_licence_list_names_the_same_packages() -> None:
    """Versions differ from machine to machine; what is direct may not be missing."""
    page = (ROOT / "docs" / "reference" / "licences.md").read_text()
    named = set(re.findall(r"^\| ([a-z0-9-]+) \|", page, re.MULTILINE))
    direct = {Requirement(text).name.lower() for text in requires("diffusion-recon") or [] if "extra ==" not in text}
    assert direct <= named, "make release-docs"
    for folder in licences.VENDORED:
        assert (ROOT / folder / "LICENSE").is_file() and folder in page


def test_all_files_name_the_same_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changelog = (ROOT / "CHANGELOG.md").read_text()
    dated = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", changelog, re.MULTILINE)
    assert dated[0] == (wheels.version(), str(citation["date-released"]))
    assert citation["version"] == wheels.version()


def test_issue_templates_are_forms() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert form["name"] and form["description"] and form["body"], path


def test_the_readme_quotes_the_tables() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 120
    quality = (ROOT / "docs" / "benchmarks" / "quality.md").read_text()
    leads = dict(re.findall(r"^\| ([^|]+) \| [\w-]+ \| (\+[\d.]+) \|", quality, re.MULTILINE))
    # From the rows: a lead of 3.246 dB is 3.2, and no 3.3 by way of the table's 3.25.
    rows = json.loads((ROOT / "docs" / "benchmarks" / "quality.json").read_text())["rows"]
    psnr = {(row["task"], row["method"]): row["psnr"] for row in rows}
    tasks = [f"CT, {views} views, 1e5 photons" for views in (60, 23, 8)]
    ct = [psnr[task, "red-diff"] - psnr[task, "tv"] for task in tasks]
    assert [round(lead, 2) for lead in ct] == [float(leads[task]) for task in tasks]
    assert ", ".join(f"{lead:+.1f}" for lead in ct) + " dB" in readme
    mri = [float(leads[f"T1, equispaced x{factor}"]) for factor in (4, 8)]
    assert ", ".join(f"{lead:+.1f}" for lead in mri) + " dB" in readme
    scans = (ROOT / "docs" / "benchmarks" / "real-scans.md").read_text()
    table = [line.strip("| ").split(" | ") for line in scans.splitlines() if line.startswith("| ")]
    head = next(row for row in table if row[:3] == ["data", "pattern", "judged by, dB"])
    brain = next(row for row in table if row[:3] == ["brain, 8 coils", "Poisson-disc x8", "withheld samples"])
    found = dict(zip(head, brain, strict=True))
    caption = readme.split("*Measured")[1].split("*\n\n")[0]
    quoted = [f"{float(found[method]):.1f}" for method in ("red-diff", "tv", "l1-wavelet", "zero-filled")]
    assert re.findall(r"\b\d\.\d\b", caption) == quoted


def test_the_notice_names_all_weights() -> None:
    """What they were trained on asks for it."""
    notice = (ROOT / "NOTICE").read_text()
    assert [name for name in cards.names() if not re.search(rf"\b{name}\b(?!-)", notice)] == []
