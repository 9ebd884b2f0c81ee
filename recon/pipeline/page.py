"""Report of a job as one self-contained page, to read and to print."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from recon.pipeline.doubt import NOTABLE_MISFIT, NOTABLE_TIMES
from recon.quality.body import REGIONS
from recon.spec.report import Report

PICTURES = {
    "montage": "The result, and the classical method beside it",
    "undetermined": "What no sample determined: drawn by the prior, the regulariser or the filter",
    "uncertainty": "Errors to be expected: half of the interval that holds 90 % of the object, and standard deviation",
    "preparation": "A sinogram before and after its preparation",
}
"""Captions of the pictures, in their order."""
SHOWN = 6
"""Longest list that is written out."""
WITHIN, LITTLE = 1.3, 0.005
"""Misfit over that of noise alone, and misfit, up to which a result fits its data."""


def write(path: Path, report: Report, folder: Path) -> None:
    """Write the page of a report, with those of `PICTURES` that are in `folder` as ``NAME.png``."""
    pictures = {
        caption: base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        for name, caption in PICTURES.items()
        if (folder / f"{name}.png").exists()
    }
    path.write_text(_template().render(page(report), pictures=pictures), encoding="utf-8")


def page(report: Report) -> dict[str, Any]:
    """Facts of a report as the page shows them."""
    name = report.method["name"]
    return {
        "title": report.name or f"{report.acquisition['kind']}, {name}",
        "report": report,
        "name": name,
        "size": " x ".join(str(n) for n in report.shape),
        "fit": fit(report),
        "rows": [
            {"method": method, "misfit": misfit, "scores": (report.against_truth or {}).get(method)}
            for method, misfit in report.data_misfit.items()
        ],
        "regions": REGIONS,
        "tables": {
            "Method": flat(report.method),
            "Acquisition": flat(report.acquisition),
            "Prior": {} if report.prior is None else flat(report.prior),
            "Origin of the data": flat(report.provenance),
            "Versions": dict(report.versions),
        },
    }


def fit(report: Report) -> tuple[str, str]:
    """Fit of a result to its data: ``good``, ``fair``, ``poor`` or ``unknown``, and a sentence."""
    misfit, noise = report.misfit, report.expected_misfit
    found = f"The result's samples differ from the measured ones by {misfit:.2%}"
    if not noise:
        return "unknown", f"{found}; how much of that is noise is not known."
    times = misfit / noise
    if times <= WITHIN:
        return "good", f"{found}, as noise alone would ({noise:.2%})."
    said = f"{found}, {times:.1f} times as much as noise alone would ({noise:.2%})"
    if misfit <= LITTLE:
        return "good", f"{said}; both are little."
    if misfit > NOTABLE_MISFIT and times > NOTABLE_TIMES:
        return "poor", f"{said}: the geometry, the data or the method may be wrong."
    return "fair", f"{said}."


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Entries of nested settings by dotted names, as text; long lists by their length and ends."""
    found: dict[str, str] = {}
    for key, entry in value.items():
        name = f"{prefix}{key}"
        if isinstance(entry, Mapping):
            found |= flat(entry, f"{name}.")
        elif isinstance(entry, (list, tuple)) and entry and isinstance(entry[0], Mapping):
            for number, one in enumerate(entry, 1):
                found |= flat(one, f"{name}.{number}.")
        elif isinstance(entry, (list, tuple)) and len(entry) > SHOWN:
            found[name] = f"{len(entry)} values, {_text(entry[0])} to {_text(entry[-1])}"
        elif isinstance(entry, (list, tuple)):
            found[name] = ", ".join(_text(one) for one in entry)
        else:
            found[name] = _text(entry)
    return found


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else str(value)


@cache
def _template() -> Template:
    places = FileSystemLoader(Path(__file__).parent)
    # What a report holds comes from files and users: none of it is markup.
    made = Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.get_template("report.html.jinja")
