"""Notebooks show three planes with sliders, upright, as plain HTML or as widgets."""

from __future__ import annotations

import base64
import io
import re
import sys
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from recon.quality import notebook

AFFINE = np.diag([1.0, 1, 2, 1])


class Found(HTMLParser):
    """Tags of a text, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(tag: dict[str, str | None]) -> np.ndarray:
    data = base64.b64decode(str(tag["src"]).partition(",")[2])
    found: np.ndarray = np.rint(imread(io.BytesIO(data), format="png") * 255).astype(np.uint8)
    return found


def volume() -> np.ndarray:
    """Columns grow to the patient's right, where it is bright."""
    values = np.zeros((30, 20, 25), np.float32)
    values[:, :, 20:] = 1.0
    return values


def test_each_plane_has_a_slider_and_its_middle_is_seen() -> None:
    found = Found(notebook.html(volume(), AFFINE, "HU", in_patient=True))
    images, sliders = found.all("img"), found.all("input")
    assert len(sliders) == 3 and len(images) == sum(int(str(s["max"])) + 1 for s in sliders)
    seen = [image for image in images if "hidden" not in image]
    assert [image["alt"] for image in seen] == ["axial, 16 of 30", "coronal, 11 of 20", "sagittal, 13 of 25"]
    axial = picture(seen[0])
    assert axial.shape == (20, 25) and axial[:, :5].min() == 255 and axial[:, 5:].max() == 0
    for slider, plane in zip(sliders, seen, strict=True):
        of_plane = [i for i in images if str(i["alt"]).partition(",")[0] == str(plane["alt"]).partition(",")[0]]
        assert of_plane[int(str(slider["value"]))] is plane


def test_what_is_kept_in_a_notebook_is_small() -> None:
    found = Found(notebook.html(np.random.default_rng(0).random((70, 500, 400)), AFFINE, "", in_patient=True))
    assert len(found.all("img")) <= 3 * notebook.MOST_SLICES
    assert all(max(picture(image).shape) <= notebook.LONGEST_SIDE for image in found.all("img"))


def test_of_one_slice_there_is_one_picture() -> None:
    found = Found(notebook.html(volume()[:1], AFFINE, "<b>", in_patient=False))
    assert len(found.all("img")) == 1 and not found.all("input") and not found.all("b")


class Widget:
    """As much of ipywidgets as is used."""

    def __init__(self, *given: Any, **more: Any) -> None:
        self.given, self.value = given, given[0] if given else None
        self.__dict__ |= more

    def observe(self, told: Any, name: str) -> None:
        self.told = told


def test_widgets_show_every_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("ipywidgets")
    for name in ("Image", "IntSlider", "VBox", "HBox", "Label"):
        setattr(fake, name, type(name, (Widget,), {}))
    monkeypatch.setitem(sys.modules, "ipywidgets", fake)
    monkeypatch.setattr(notebook, "find_spec", lambda name: name)
    values = volume() * np.linspace(0.5, 1, 30, dtype=np.float32)[:, None, None]
    found = notebook.widget(values, AFFINE, in_patient=True)
    image, slider, label = found.given[0][0].given[0]
    assert slider.given == (16, 1, 30) and "R left" in label.value
    before = image.value
    slider.told({"new": 1})
    assert image.value != before and re.match(rb"\x89PNG", image.value)


def test_without_ipywidgets_there_is_no_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    assert notebook.widget(volume(), AFFINE, in_patient=True) is None
