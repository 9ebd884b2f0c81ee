"""Wheels of a release: the package without its weights, and one wheel of weights per modality.

Usage: ``make wheels``, or ``python -m tools.release.wheels --out dist``. The package index takes files up to 100 MB;
with all weights inside, the wheel has 107 MB, and every release of code would be as large. So the weights are data
packages, on which the package depends: they are installed with it, mirrored and cached as every wheel is, and verified
by the checksums in their cards. A checkout needs none of this: its weights are in place.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from recon.priors.card import Card

ROOT = Path(__file__).parent.parent.parent
WEIGHTS = Path("recon") / "priors" / "weights"
PACKAGES = ("operators", "recon", "workers", "api")
LEGAL = ("LICENSE", "NOTICE")
LIMIT_BYTES = 100_000_000
"""Largest file that the package index takes."""
DATA_PACKAGE = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"
description = "Weights of the {modality} priors of diffusion-recon, with their cards"
requires-python = ">=3.11"
license = "GPL-3.0-or-later"
license-files = ["LICENSE", "NOTICE"]

[tool.setuptools]
packages = ["recon.priors.weights"]

[tool.setuptools.package-data]
"recon.priors.weights" = ["*"]
"""


def version() -> str:
    """Version of the project, as pyproject.toml has it."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return found


def priors() -> dict[str, list[Path]]:
    """Cards of the shipped priors by modality."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / WEIGHTS).glob("*.yaml")):
        found.setdefault(Card.read(path).modality, []).append(path)
    return found


def data_package(modality: str) -> str:
    """Name of the data package of a modality."""
    return f"diffusion-recon-priors-{modality}"


def build(out: Path) -> list[Path]:
    """Build the wheels into `out`; returns their paths.

    Raises
    ------
    ValueError
        If one is larger than the package index takes.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for modality, cards in priors().items():
            _wheel(_staged_weights(Path(folder) / modality, modality, cards), out)
        _wheel(_staged_package(Path(folder) / "package"), out)
    wheels = sorted(out.glob(f"diffusion_recon*-{version()}-*.whl"))
    for wheel in wheels:
        if wheel.stat().st_size > LIMIT_BYTES:
            raise ValueError(f"{wheel.name} has {wheel.stat().st_size / 1e6:.0f} MB, at most {LIMIT_BYTES / 1e6:.0f}")
    return wheels


def _staged_weights(place: Path, modality: str, cards: list[Path]) -> Path:
    """Lay out the data package of a modality; returns its folder."""
    (place / WEIGHTS).mkdir(parents=True)
    for path in cards:
        shutil.copy(path, place / WEIGHTS)
        shutil.copy(path.with_name(Card.read(path).weights), place / WEIGHTS)
    _copy_legal(place)
    text = DATA_PACKAGE.format(name=data_package(modality), version=version(), modality=modality.upper())
    (place / "pyproject.toml").write_text(text)
    return place


def _staged_package(place: Path) -> Path:
    """Lay out the package without weights, which depends on the data packages of its minor version."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", *(["weights"] if package == "recon" else []))
        shutil.copytree(ROOT / package, place / package, ignore=ignored)
    shutil.copy(ROOT / "README.md", place)
    _copy_legal(place)
    needed = "".join(f'    "{data_package(modality)}~={version()}",\n' for modality in priors())
    before, start, after = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [\n")
    (place / "pyproject.toml").write_text(before + start + needed + after)
    return place


def _copy_legal(place: Path) -> None:
    for name in LEGAL:
        shutil.copy(ROOT / name, place)


def _wheel(project: Path, out: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*command, str(project)], check=True)  # noqa: S603 - our own command


def main() -> None:
    """Build the wheels and print their sizes."""
    parser = argparse.ArgumentParser(description="Build the wheels of a release.")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder to write to")
    for wheel in build(parser.parse_args().out):
        print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
