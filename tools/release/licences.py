"""Licence list of what an installation consists of: dependencies, sample data, weights and vendored files.

Usage: ``python -m tools.release.licences`` prints it as Markdown, from the metadata of the installed packages that
`diffusion-recon` needs, directly or not, and from what the repository ships beside its code.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
PROJECT = "diffusion-recon"
VENDORED = {"api/page/vendor/niivue": "NiiVue, BSD-2-Clause, with what it contains (see its README.md)"}
"""Folders of other people's files, and their licence."""
UNKNOWN = "not stated"


def needed(name: str = PROJECT) -> dict[str, Distribution]:
    """Installed distributions that a distribution needs without extras, directly or not, by name."""
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if _normal(current) in found:
            continue
        try:
            found[_normal(current)] = distribution(current)
        except PackageNotFoundError:
            continue  # for another platform or Python, by a marker of a marker
        for text in distribution(current).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    del found[_normal(name)]
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """Licence of a distribution: its SPDX expression, else its classifiers, else the first line of its own words."""
    metadata = package.metadata
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    classifiers = metadata.get_all("Classifier") or []
    told = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License ::")]
    told = [text for text in told if text != "OSI Approved"]
    stated = (metadata["License"] or "").strip().splitlines()
    return ", ".join(told) or (stated[0] if stated else UNKNOWN)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def table() -> str:
    """Write the list as Markdown."""
    rows = [f"| {name} | {package.version} | {licence(package)} |" for name, package in needed().items()]
    samples = (ROOT / "recon" / "samples" / "NOTICE").read_text().strip()
    weights = (ROOT / "NOTICE").read_text().partition("Weights in ")[2].strip()
    vendored = "\n".join(f"- `{folder}`: {told}" for folder, told in VENDORED.items())
    return "\n".join(
        [
            "# Licences of what is shipped and needed",
            "",
            "The project: GPL-3.0-or-later. Vendored files:",
            "",
            vendored,
            "",
            f"```text\n{samples}\n```",
            "",
            f"```text\nWeights in {weights}\n```",
            "",
            "## Dependencies, as installed where this list was written",
            "",
            "| package | version | licence |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Print the list."""
    print(table())


if __name__ == "__main__":
    main()
