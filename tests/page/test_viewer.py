"""The viewer of `recon view` in a real browser: the right value under the cursor, upright, with and without WebGL2."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.image import imread

from recon import library
from recon.formats import nifti
from recon.quality.views import views_of
from tests.page import browser as browsers
from tests.page.conftest import Visiting
from tests.service.serving import showing, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Columns run to the front, rows to the bottom, slices to the patient's left.
AFFINE = np.array([[0.0, 0, -4, 10], [2, 0, 0, -40], [0, -2, 0, 50], [0, 0, 0, 1]])
NO_WEBGL2 = """
const own = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind === "webgl2" ? null : own.call(this, kind, ...more);
};
"""
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""What was drawn before is on the screen."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result in HU, a baseline and a map of errors, stored in an unusual order and direction of axes."""
    volume = np.full((10, 40, 48), -1000.0, np.float32)
    volume[2:9, 6:34, 8:42] = np.linspace(0, 60, 34, dtype=np.float32)
    volume[2:4, 12:30, 12:36] = 900.0  # bone on the patient's right
    measured = library.simulate(volume, "ct-parallel", affine=AFFINE, views=20)
    found = library.reconstruct(measured, method={"name": "cgls", "iterations": 5}, baselines=["fbp"], progress=False)
    path = found.save(tmp_path_factory.mktemp("viewer") / "results")
    errors = (np.abs(np.asarray(found.volume)) / 10).astype(np.float32)
    nifti.write(path / "uncertainty.nii.gz", errors, AFFINE, "test")
    return path


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with showing(folder) as found:
        yield found


def readout(page: Page) -> dict[str, str]:
    """What is told of the cursor, once the values are there."""
    page.locator(".viewer-readout").filter(has_not_text="\u2026").wait_for()
    terms = page.locator(".viewer-readout dt").all_inner_texts()
    return dict(zip(terms, page.locator(".viewer-readout dd").all_inner_texts(), strict=True))


def number(text: str) -> float:
    return float(text.strip("±").removesuffix(" HU").replace("\u2212", "-"))


def drawn(page: Page, key: str) -> None:
    """Wait until a row shows the slices of the cursor."""
    page.locator(f'.viewer-line[data-row="{key}"] .viewer-cell[data-plane="axial"][data-shown]').wait_for()


@pytest.mark.parametrize("drawn_by", ["server", "graphics", "no WebGL2"])
def test_the_right_value_is_under_the_cursor(visit: Visiting, address: str, folder: Path, drawn_by: str) -> None:
    visited = visit(address)
    visited.expected = ["GPU stall due to ReadPixels"]  # of a processor that computes what graphics would
    if drawn_by == "no WebGL2":
        visited.context.add_init_script(NO_WEBGL2)
    page = visited.open()
    drawn(page, "result")
    assert "Slices are pictures from the server" in page.locator(".viewer-source").inner_text()
    if drawn_by == "no WebGL2":
        assert "no WebGL2" in page.locator(".viewer-source").inner_text()
    if drawn_by == "graphics":
        page.get_by_role("button", name="Draw in the browser").click()
        page.locator('[data-drawn-by="graphics"] .viewer-graphics').first.wait_for()
        page.locator('.viewer-line[data-row="result"] [data-shown="volume.nii.gz|"]').first.wait_for()
    volumes = {"CGLS": "volume", "FBP": "baseline-fbp", "Error, 1 sd": "uncertainty"}
    values = {title: nifti.read(folder / f"{name}.nii.gz")[0] for title, name in volumes.items()}
    views = views_of(AFFINE, in_patient=True)

    # Slices are chosen by sliders that say where they are.
    for view, at in zip(views, (9, 13, 3), strict=True):
        slider = page.get_by_role("slider", name=view.plane.capitalize())
        slider.fill(str(at + 1))
        assert slider.get_attribute("aria-valuetext") == f"{at + 1} of {values['CGLS'].shape[view.across]}"
    voxel = [0, 0, 0]
    for view, at in zip(views, (9, 13, 3), strict=True):
        voxel[2 - view.across] = at
    check(page, voxel, values)

    # A pixel that is pointed at is the voxel that nibabel would have there.
    axial = page.locator('.viewer-line[data-row="result"] [data-plane="axial"] .viewer-frame')
    box = axial.bounding_box()
    assert box is not None
    view = views[0]
    shape = values["CGLS"].shape
    x, y = 6, 30
    page.mouse.click(
        box["x"] + (x + 0.5) * box["width"] / shape[view.right], box["y"] + (y + 0.5) * box["height"] / shape[view.down]
    )
    voxel[2 - view.right] = shape[view.right] - 1 - x if view.flip_right else x
    voxel[2 - view.down] = shape[view.down] - 1 - y if view.flip_down else y
    check(page, voxel, values)

    # Keys of the picture that was pointed at.
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("PageUp")
    voxel[2 - view.right] += -1 if view.flip_right else 1
    voxel[2 - view.down] += 1 if view.flip_down else -1
    voxel[2 - view.across] += 1
    check(page, voxel, values)
    title = page.locator('.viewer-line[data-row="result"] .viewer-title')
    page.keyboard.down("b")
    title.filter(has_text="FBP").wait_for()
    page.keyboard.up("b")
    title.filter(has_text="CGLS").wait_for()
    page.keyboard.press("e")
    page.locator('.viewer-line[data-row="map"]').wait_for(state="detached")
    width = page.get_by_label("Window width")
    for key, value in (("2", "1800"), ("]", "1980"), ("1", "400")):
        page.keyboard.press(key)
        until(lambda: width.input_value() == value)  # noqa: B023

    # What is bright lies on the patient's right, which is seen on the left; and nothing is a black square.
    for row, name in (("result", "volume"), ("against", "baseline-fbp")):
        cell = f'.viewer-line[data-row="{row}"] [data-plane="coronal"]'
        keys = [f"{name}.nii.gz||-160|240||coronal|{voxel[2 - views[1].across]}"]
        if drawn_by == "graphics":
            keys.append(f"{name}.nii.gz|")
        page.locator(", ".join(f'{cell}[data-shown="{key}"]' for key in keys)).wait_for()
        page.evaluate(PAINTED)
        shown = imread(io.BytesIO(page.locator(f'[data-row="{row}"] [data-plane="coronal"]').screenshot()), "png")
        grey = shown[..., :3].mean(2)
        left, right = grey[:, : grey.shape[1] // 2], grey[:, grey.shape[1] // 2 :]
        assert (left > 0.6).mean() > 3 * (right > 0.6).mean() and (left > 0.6).any()
        assert (right > 0.2).any()


def check(page: Page, voxel: list[int], values: dict[str, np.ndarray]) -> None:
    told = page.locator(".viewer-readout dd").nth(1)
    told.filter(has_text=", ".join(map(str, voxel))).wait_for()
    found = readout(page)
    mm = AFFINE[:3] @ [*voxel, 1]
    letters = [pair[int(value < 0)] for pair, value in zip(("RL", "AP", "SI"), mm, strict=True)]
    assert found["Place"] == " ".join(f"{a}{abs(v):.0f}" for a, v in zip(letters, mm, strict=True)) + " mm"
    for title, volume in values.items():
        if title in found:
            assert number(found[title]) == pytest.approx(float(volume[tuple(voxel[::-1])]), abs=0.51)


def test_what_cannot_be_shown_is_left_out_and_said(visit: Visiting, folder: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(folder, tmp_path / "results"))
    (results / "uncertainty.nii.gz").write_bytes(b"no volume")
    fbp = nifti.read(results / "baseline-fbp.nii.gz")[0]
    elsewhere = AFFINE.copy()
    elsewhere[0, 3] += 3
    nifti.write(results / "baseline-fbp.nii.gz", fbp, elsewhere, "test")
    nifti.write(results / "volume-phase.nii.gz", np.zeros_like(fbp), AFFINE, "test")
    nifti.write(results / "baseline-fbp-phase.nii.gz", np.zeros_like(fbp), AFFINE, "test")
    with showing(results) as found:
        visited = visit(found)
        visited.expected = ["422"]
        page = visited.open()
        drawn(page, "result")
        problem = page.locator(".viewer-problem")
        page.get_by_label("Map", exact=True).select_option("Error, 1 sd")
        problem.filter(has_text="Error, 1 sd is not shown.").wait_for()
        against = page.get_by_label("Compared with")
        assert against.locator("option").all_inner_texts() == ["FBP", "None"]
        assert against.input_value() == "None"  # FBP lies elsewhere
        assert list(readout(page)) == ["Place", "Voxel", "CGLS"]
        against.select_option("FBP")
        problem.filter(has_text="FBP is not shown. It lies otherwise than the result.").wait_for()
        page.get_by_label("Map", exact=True).select_option("Phase")
        drawn(page, "map")
        assert page.locator(".viewer-scale span").all_inner_texts() == ["\u22123.1 rad", "3.1 rad"]
        problem.filter(has_not_text="Error").wait_for()
        assert page.locator(".viewer-line").count() == 2


def test_a_slice_that_failed_is_asked_for_again(visit: Visiting, address: str) -> None:
    visited = visit(address)
    visited.expected = ["ERR_FAILED"]
    page = visited.open()
    drawn(page, "map")
    page.route("**/*.png?*", lambda route: route.abort())
    page.get_by_role("slider", name="Axial").fill("2")
    problem = page.locator(".viewer-problem")
    problem.filter(has_text="cannot be reached").wait_for()
    page.unroute("**/*.png?*")
    problem.wait_for(state="hidden")
    axial = page.locator('.viewer-line[data-row="result"] [data-plane="axial"]')
    assert axial.get_attribute("data-shown").endswith("|axial|1")  # type: ignore[union-attr]


def test_it_is_accessible(visit: Visiting, address: str) -> None:
    page = visit(address).open()
    drawn(page, "result")
    assert not browsers.violations(page)
    page.set_viewport_size({"width": 400, "height": 800})
    page.locator('.viewer-cell[data-plane="coronal"]').first.wait_for(state="hidden")
    page.get_by_role("button", name="Show the coronal plane").click()
    page.locator('.viewer-cell[data-plane="coronal"]').first.wait_for()
    assert not browsers.violations(page)
