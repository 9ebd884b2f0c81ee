"""Gallery of examples: runs the scripts of this folder and writes each as a page with pictures and as a notebook.

A script is a sequence of cells: ``# %% [markdown]`` begins text, in comments, and ``# %%`` begins code. Run one as it
is, ``python examples/sparse_ct.py``, or write pages and notebooks of all of them::

    python -m examples.gallery --out docs/gallery
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, TEXT = "# %%", "[markdown]"


@dataclass(frozen=True)
class Cell:
    """Cell of a script.

    Parameters
    ----------
    source
        Text in Markdown, or code.
    code
        Whether it is code.
    line
        Number of its first line in the script.
    """

    source: str
    code: bool
    line: int = 1


@dataclass(frozen=True)
class Output:
    """Output of a cell of code: what it printed, and the picture or the text of its last expression."""

    printed: str = ""
    shown: str = ""
    png: bytes | None = None


def scripts() -> list[Path]:
    """List the examples, in the order of README.md."""
    order = (HERE / "README.md").read_text()
    found = [path for path in HERE.glob("*.py") if path.read_text().startswith(BEGIN)]
    return sorted(found, key=lambda path: order.find(f"({path.name})"))


def cells(script: str) -> list[Cell]:
    """Cut a script into its cells; text loses its comment signs."""
    found: list[Cell] = []
    lines = script.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(BEGIN)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        inside = lines[start + 1 : end]
        code = TEXT not in lines[start]
        source = "\n".join(inside if code else [line.removeprefix("#").removeprefix(" ") for line in inside]).strip(
            "\n"
        )
        found.append(Cell(source, code, start + 2))
    return found


def name_of(path: Path) -> str:
    """Name of a script's page."""
    return path.stem.replace("_", "-")


def title(script: str) -> str:
    """Title of a script: the heading of its first cell."""
    return cells(script)[0].source.splitlines()[0].removeprefix("# ")


def execute(path: Path) -> Iterator[Output]:
    """Run the cells of a script in the current folder, one after the other; yields the output of each."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(path.read_text()):
        yield _executed(cell, path, names) if cell.code else Output()


def _executed(cell: Cell, path: Path, names: dict[str, Any]) -> Output:
    tree = ast.increment_lineno(ast.parse(cell.source), cell.line - 1)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    printed = io.StringIO()
    value: Any = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, path, "exec"), names)  # noqa: S102 - our own scripts
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), path, "eval"), names)  # noqa: S307
    if hasattr(value, "_repr_png_"):
        return Output(printed.getvalue(), png=value._repr_png_())
    return Output(printed.getvalue(), "" if value is None else repr(value))


def markdown(path: Path, outputs: list[Output]) -> tuple[str, dict[str, bytes]]:
    """Write a script with its outputs as a page in Markdown; returns it with its pictures, by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    name, heading = name_of(path), title(path.read_text())
    for cell, output in zip(cells(path.read_text()), outputs, strict=True):
        parts.append(f"```python\n{cell.source}\n```" if cell.code else cell.source)
        told = (output.printed + output.shown).strip()
        if told:
            parts.append(f"```text\n{told}\n```")
        if output.png is not None:
            file = f"{name}-{len(pictures) + 1}.png"
            pictures[file] = output.png
            parts.append(f"![{heading}]({file})")
    parts.append(f"Script: `examples/{path.name}`. Download: [notebook]({path.stem}.ipynb)")
    return "\n\n".join(parts) + "\n", pictures


def notebook(script: str) -> str:
    """Write a script as a notebook that was not run yet (nbformat 4.5)."""
    found = []
    for number, cell in enumerate(cells(script)):
        common = {"id": f"cell-{number}", "metadata": {}, "source": cell.source.splitlines(keepends=True)}
        if cell.code:
            found.append({"cell_type": "code", **common, "execution_count": None, "outputs": []})
        else:
            found.append({"cell_type": "markdown", **common})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps({"cells": found, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def write(path: Path, out: Path) -> float:
    """Run a script in an empty folder; write its page, pictures and notebook to `out`. Returns its seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        outputs = list(execute(path))
    page, pictures = markdown(path, outputs)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name_of(path)}.md").write_text(page)
    (out / f"{path.stem}.ipynb").write_text(notebook(path.read_text()))
    for file, png in pictures.items():
        (out / file).write_bytes(png)
    return time.monotonic() - began


def index(out: Path) -> str:
    """Write the page that leads to the pages in `out`, with the last picture of each."""
    parts = [
        "# Gallery",
        "Each page is a script that the test suite runs too. At its end are the script and a notebook to download.",
    ]
    for path in scripts():
        name = name_of(path)
        if (out / f"{name}.md").exists():
            pictures = sorted(out.glob(f"{name}-*.png"))
            shown = f"\n\n[![]({pictures[0].name})]({name}.md)" if pictures else ""
            parts.append(f"## [{title(path.read_text())}]({name}.md){shown}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write pages and notebooks of the examples that are named, or of all."""
    parser = argparse.ArgumentParser(description="Run examples; write pages with pictures and notebooks.")
    parser.add_argument("names", nargs="*", help="examples to run, as sparse_ct; default: all")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder to write to")
    given = parser.parse_args()
    out = given.out.resolve()
    for path in scripts():
        if not given.names or path.stem in given.names:
            print(f"{path.stem}: {write(path, out):.0f} s", flush=True)
    (out / "index.md").write_text(index(out))


if __name__ == "__main__":
    main()
