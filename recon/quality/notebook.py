"""Three planes of a volume with sliders, for notebooks: widgets where ipywidgets is installed, else plain HTML."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from recon.quality import png
from recon.quality.views import View, grey_window, views_of
from recon.spec.affine import Affine

MOST_SLICES, LONGEST_SIDE = 24, 192
"""Slices of a plane and pixels of a side in plain HTML, which holds all its pictures and is kept in the notebook."""
SHOWN_PX = 260
"""Height of the pictures on the screen."""
# What a slider does: of the pictures beside it, all but one are hidden.
_TURN = (
    "var s=this.value,f=this.closest('figure');"
    "f.querySelectorAll('img').forEach(function(p,i){p.hidden=i!=s});"
    "f.querySelector('output').textContent=f.querySelectorAll('img')[s].alt"
)


def html(values: NDArray[Any], affine: Affine, unit: str, *, in_patient: bool) -> str:
    """Make HTML with a slider under each plane, which needs nothing else; slices and pixels are thinned out.

    Parameters
    ----------
    values
        Volume ``(slices, rows, cols)``.
    affine
        Voxel ``(col, row, slice)`` to millimetres.
    unit
        Unit of the values.
    in_patient
        Whether the affine leads into the patient.
    """
    low, high = grey_window(values)
    figures = []
    for view in _shown(values, affine, in_patient=in_patient):
        count = values.shape[view.across]
        # The middle is among them, which is what is seen first.
        step = -(-count // MOST_SLICES)
        chosen = list(range(count // 2 % step, count, step))
        middle = chosen.index(count // 2)
        images = [
            f'<img src="data:image/png;base64,{_base64(_picture(values, view, index, (low, high), LONGEST_SIDE))}" '
            f'alt="{view.plane}, {index + 1} of {count}" {"" if place == middle else "hidden "}'
            f'style="height:{SHOWN_PX}px;width:{_width_px(values, view)}px;background:#000">'
            for place, index in enumerate(chosen)
        ]
        slider = (
            f'<input type="range" min="0" max="{len(chosen) - 1}" value="{middle}" aria-label="{view.plane} slice" '
            f'style="width:100%" oninput="{escape(_TURN)}">'
        )
        told = f"<figcaption><output>{view.plane}, {count // 2 + 1} of {count}</output>{_sides(view)}</figcaption>"
        figures.append(f'<figure style="margin:0">{"".join(images)}{slider if len(chosen) > 1 else ""}{told}</figure>')
    window = escape(f"grey from {low:.4g} to {high:.4g} {unit}")
    return f'<div style="display:flex;gap:12px;flex-wrap:wrap">{"".join(figures)}</div><div>{window}</div>'


def widget(values: NDArray[Any], affine: Affine, *, in_patient: bool) -> Any:
    """Make a widget of three planes with sliders, every slice and pixel; None where ipywidgets is not installed."""
    if find_spec("ipywidgets") is None:
        return None
    import ipywidgets

    window = grey_window(values)
    boxes = []
    for view in _shown(values, affine, in_patient=in_patient):
        count = values.shape[view.across]
        image = ipywidgets.Image(format="png", height=SHOWN_PX, width=_width_px(values, view))
        slider = ipywidgets.IntSlider(count // 2 + 1, 1, count, description=view.plane)
        draw = _drawer(values, view, window, image)
        draw({"new": slider.value})
        slider.observe(draw, "value")
        boxes.append(ipywidgets.VBox([image, slider, ipywidgets.Label(_sides(view).strip(" ,"))]))
    return ipywidgets.HBox(boxes)


def _drawer(
    values: NDArray[Any], view: View, window: tuple[float, float], image: Any
) -> Callable[[dict[str, Any]], None]:
    def draw(change: dict[str, Any]) -> None:
        image.value = _picture(values, view, change["new"] - 1, window)

    return draw


def _shown(values: NDArray[Any], affine: Affine, *, in_patient: bool) -> list[View]:
    """Views of a volume; of a single slice the one that shows it."""
    return [v for v in views_of(affine, in_patient=in_patient) if len(values) > 1 or v.across == 0]


def _picture(
    values: NDArray[Any], view: View, index: int, window: tuple[float, float], longest: int | None = None
) -> bytes:
    plane = view.picture(values, index)
    step = 1 if longest is None else -(-max(plane.shape) // longest)
    return png.encode(png.windowed(plane[::step, ::step], *window))


def _width_px(values: NDArray[Any], view: View) -> int:
    height_mm = values.shape[view.down] * view.down_mm
    return max(1, round(float(SHOWN_PX * values.shape[view.right] * view.right_mm / height_mm)))


def _sides(view: View) -> str:
    left, _, top, _ = view.labels
    told = [f"{label} {side}" for label, side in ((left, "left"), (top, "on top")) if label]
    return f", {', '.join(told)}" if told else ""


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
