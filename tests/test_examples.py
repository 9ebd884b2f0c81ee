"""Every example runs, and becomes a page and a notebook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import gallery

SHORT = ("own_solver", "train_a_prior")
NAMES = [path.stem for path in gallery.scripts()]


@pytest.mark.parametrize("name", [n if n in SHORT else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_an_example_becomes_a_page_and_a_notebook(name: str, tmp_path: Path, all_cores: None) -> None:
    gallery.write(gallery.HERE / f"{name}.py", tmp_path)
    stem = name.replace("_", "-")
    page = (tmp_path / f"{stem}.md").read_text()
    assert page.startswith("# ") and "```text" in page
    pictures = sorted(tmp_path.glob("*.png"))
    assert pictures or name == "service"
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.name in page
    book = json.loads((tmp_path / f"{name}.ipynb").read_text())
    assert book["nbformat"] == 4
    kinds = [cell["cell_type"] for cell in book["cells"]]
    assert kinds[0] == "markdown" and "code" in kinds
    assert f"({stem}.md)" in gallery.index(tmp_path)


def test_the_list_of_examples_is_complete() -> None:
    listed = (gallery.HERE / "README.md").read_text()
    for path in gallery.scripts():
        assert f"[{gallery.title(path.read_text())}]({path.name})" in listed


def test_an_error_names_the_line_of_the_script(tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text("# %% [markdown]\n# # Wrong\n\n# %%\nx = 1\n\n# %%\ny = x\n1 / (y - 1)\n")
    with pytest.raises(ZeroDivisionError) as error:
        list(gallery.execute(script))
    assert error.traceback[-1].lineno == 8  # counted from 0


def test_cells_show_what_they_print_and_their_last_expression(tmp_path: Path) -> None:
    script = tmp_path / "small.py"
    script.write_text("# %% [markdown]\n# # Small\n# text\n\n# %%\nx = 2\nprint('hello')\nx + 1\n")
    outputs = list(gallery.execute(script))
    assert [(o.printed, o.shown) for o in outputs] == [("", ""), ("hello\n", "3")]
    page, pictures = gallery.markdown(script, outputs)
    assert "```text\nhello\n3\n```" in page and pictures == {}


def test_the_gallery_is_that_of_the_scripts() -> None:
    """What scripts print depends on the machine; that their code is the one on the pages does not."""
    shown = gallery.HERE.parent / "docs" / "gallery"
    for path in gallery.scripts():
        script = path.read_text()
        assert (shown / f"{path.stem}.ipynb").read_text() == gallery.notebook(script), "make examples"
        page = (shown / f"{gallery.name_of(path)}.md").read_text()
        for cell in gallery.cells(script):
            assert cell.source in page, "make examples"
    assert (shown / "index.md").read_text() == gallery.index(shown)
