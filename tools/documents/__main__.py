"""Write the reference pages: ``python -m tools.documents``."""

from __future__ import annotations

from pathlib import Path

from tools.documents.pages import PAGES

FOLDER = Path(__file__).parents[2] / "docs" / "reference"

if __name__ == "__main__":
    for name, made in PAGES.items():
        (FOLDER / name).write_text(made())
