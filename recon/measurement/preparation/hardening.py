"""Beam hardening: line integrals of a beam of many energies are bent straight by a polynomial.

A fitted polynomial makes the object of one slice flat: images of the powers of the line integrals are added up so that
they are constant inside the object and zero outside, as one of water would be.

References
----------
Kachelriess, Sourbelle, Kalender 2006, Med. Phys. 33, 1269-1274 (empirical cupping correction).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.measurement.sampled import sampled
from recon.spec.acquisitions.ct import CT
from recon.spec.preparation import BeamHardening
from recon.spec.report import Step

SIZE = 192
"""Rows and columns of the images, at most."""
EDGE = 2
"""Pixels from the edge of the object that are neither inside nor outside."""
LEAST_INSIDE = 100
"""Pixels inside an object, at least."""


def correct(sinograms: NDArray[np.float32], settings: BeamHardening, acquisition: CT) -> tuple[Step, tuple[float, ...]]:
    """Correct line integrals ``(slices, views, detectors)`` in place; also returns the coefficients ``a2, a3, ...``.

    Raises
    ------
    InputError
        If a polynomial is to be fitted, and the middle slice shows no object, or none that it could make flatter; or if
        given coefficients let line integrals fall where they should rise.
    """
    numbers: dict[str, int | float | list[int]] = {}
    field = "acquisition.preparation.beam_hardening"
    if settings.coefficients is None:
        coefficients, numbers = _fitted(_middle(sinograms), settings.degree, acquisition)
        how = f"fitted: cupping {numbers['cupping_before']:.1%} before, {numbers['cupping_after']:.1%} after"
    else:
        coefficients, how = settings.coefficients, "given"
    largest = float(sinograms.max())
    slope = 1 + sum(
        (power + 2) * a * np.linspace(0, largest, 200) ** (power + 1) for power, a in enumerate(coefficients)
    )
    if float(np.min(slope)) <= 0:
        raise InputError(
            f"the polynomial falls between 0 and {largest:.3g}, the largest line integral",
            field=field if settings.coefficients is None else f"{field}.coefficients",
            remedy="the object is not of one material: give coefficients"
            if settings.coefficients is None
            else "give a2, a3, ... of p + a2 p^2 + a3 p^3 + ..., in line integrals",
        )
    for sinogram in sinograms:
        powers = sinogram.astype(np.float64)
        sinogram[:] = powers + sum(a * powers ** (power + 2) for power, a in enumerate(coefficients))
    listed = ", ".join(f"a{power + 2} = {a:.4g}" for power, a in enumerate(coefficients))
    numbers |= {f"a{power + 2}": a for power, a in enumerate(coefficients)}
    text = f"beam hardening is corrected by a polynomial, {how}: {listed}"
    return Step(name="beam_hardening", changed=True, text=text, numbers=numbers), coefficients


def _middle(sinograms: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle one of those that stand for all."""
    some = sampled(len(sinograms))
    found: NDArray[np.float32] = sinograms[some[len(some) // 2]]
    return found


def _fitted(
    sinogram: NDArray[np.float32], degree: int, acquisition: CT
) -> tuple[tuple[float, ...], dict[str, int | float | list[int]]]:
    """Coefficients with which the object is flattest, and its cupping without and with them."""
    images = _images(np.stack([sinogram.astype(np.float64) ** power for power in range(1, degree + 1)]), acquisition)
    inside, outside = _regions(images[0])
    used = inside | outside
    # Least squares: image + a2 image2 + a3 image3 + ... - level inside = 0.
    matrix = np.concatenate([images[1:, used], -inside[used][None].astype(np.float64)]).T
    weights = np.where(inside[used], 1 / inside.sum(), 1 / max(outside.sum(), 1)) ** 0.5
    solution, *_ = np.linalg.lstsq(matrix * weights[:, None], -images[0, used] * weights, rcond=None)
    coefficients = tuple(float(a) for a in solution[:-1])
    corrected = images[0] + np.tensordot(solution[:-1], images[1:], axes=1)
    before, after = (_cupping(image, inside) for image in (images[0], corrected))
    if abs(after) > abs(before):
        raise InputError(
            f"no polynomial makes the object of the middle slice flatter: its middle is {before:.1%} below its rim,"
            f" with the best one {after:.1%}",
            field="acquisition.preparation.beam_hardening",
            remedy="give coefficients, or leave it out",
        )
    numbers: dict[str, int | float | list[int]] = {"cupping_before": round(before, 5), "cupping_after": round(after, 5)}
    return coefficients, numbers


def _images(sinograms: NDArray[np.float64], acquisition: CT) -> NDArray[np.float64]:
    """Images ``(powers, rows, columns)`` of sinograms ``(powers, views, detectors)`` on a coarse grid."""
    import torch

    from operators.fbp import filtered_back_projection

    whole = acquisition.geometry(sinograms.shape[2])
    factor = max(max(whole.rows, whole.cols) / SIZE, 1.0)
    rows, cols = (max(int(n / factor), 1) for n in (whole.rows, whole.cols))
    coarse = replace(whole, rows=rows, cols=cols, pixel_mm=whole.pixel_mm * factor)
    data = torch.from_numpy(np.ascontiguousarray(sinograms, dtype=np.float32))
    return filtered_back_projection(data, coarse, "hann").numpy().astype(np.float64)


def _regions(image: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels of the object and of the air around it, a few pixels from its edge."""
    from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, median_filter

    rows, cols = image.shape
    y, x = np.mgrid[:rows, :cols]
    disc = np.hypot(y - (rows - 1) / 2, x - (cols - 1) / 2) < min(rows, cols) / 2 - 1
    smooth = median_filter(image, 3)
    level = float(np.percentile(smooth[disc], 98))
    thing = disc & (smooth > level / 2)
    inside = binary_erosion(thing, iterations=EDGE) & disc
    outside = disc & ~binary_dilation(binary_fill_holes(thing), iterations=EDGE)
    if inside.sum() < LEAST_INSIDE:
        raise InputError(
            "the middle slice shows no object large enough to fit a polynomial to",
            field="acquisition.preparation.beam_hardening",
            remedy="give coefficients, or slices with a uniform object",
        )
    return inside, outside


def _cupping(image: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Cupping: distance of the object's middle below its rim, over the rim."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(inside)
    rim = inside & (depth <= np.percentile(depth[inside], 33))
    middle = inside & (depth >= np.percentile(depth[inside], 67))
    return float(1 - np.median(image[middle]) / np.median(image[rim]))
