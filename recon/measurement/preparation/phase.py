"""Phase retrieval from one distance: projections of a beam that is coherent show edges, which are turned into density.

References
----------
Paganin et al. 2002, J. Microsc. 206, 33-40, eq. 12.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.spec.acquisitions.ct import CT, Diverging
from recon.spec.preparation import Paganin
from recon.spec.report import Step

WAVELENGTH_MM_KEV = 1.2398419843e-6
"""Wavelength in mm times photon energy in keV."""
REACH = 4.0
"""Range of the filter in units of its length, beyond which it does not matter."""


def retrieve(sinograms: NDArray[np.float32], settings: Paganin, acquisition: CT) -> Step:
    """Filter the transmission of each view of ``(slices, views, detectors)``, in place.

    The line integrals become ``-log(F^-1 F[exp(-p)] / (1 + a k^2))``, ``a = distance delta / mu``, with the attenuation
    ``mu = 4 pi beta / wavelength``: the object is of one material. Rows and columns are mirrored at the ends.

    Raises
    ------
    InputError
        If the beam is no parallel one, or the detector's pitch is not known.
    """
    if isinstance(acquisition, Diverging):
        raise InputError(
            "phase retrieval is for parallel beams",
            field="acquisition.preparation.phase",
            remedy="leave it out, or give ct-parallel",
        )
    if acquisition.detector_mm is None:
        raise InputError(
            "needed for phase retrieval, the file does not carry it",
            field="acquisition.detector_mm",
            remedy="give it in millimetres",
        )
    column_mm, row_mm = acquisition.detector_mm, acquisition.slice_mm or acquisition.detector_mm
    length_mm = filter_length_mm(settings)
    reach = [min(math.ceil(REACH * length_mm / mm), n) for mm, n in ((row_mm, len(sinograms)), (column_mm, 10**9))]
    pads = ((reach[0], reach[0]), (reach[1], reach[1])) if len(sinograms) > 1 else ((0, 0), (reach[1], reach[1]))
    rows, columns = (n + sum(pad) for n, pad in zip((len(sinograms), sinograms.shape[2]), pads, strict=True))
    across = (2 * np.pi * np.fft.rfftfreq(columns, column_mm)) ** 2
    along = (2 * np.pi * np.fft.fftfreq(rows, row_mm)) ** 2
    response = 1 / (1 + length_mm**2 * (along[:, None] + across))
    inner = tuple(slice(pad[0], pad[0] + n) for pad, n in zip(pads, (len(sinograms), sinograms.shape[2]), strict=True))
    for view in range(sinograms.shape[1]):
        seen = np.pad(np.exp(-sinograms[:, view].astype(np.float64)), pads, mode="symmetric")
        filtered = np.fft.irfft2(np.fft.rfft2(seen) * response, seen.shape)[inner]
        sinograms[:, view] = -np.log(np.maximum(filtered, 1e-6))
    rows_reached = math.ceil(REACH * length_mm / row_mm)
    few = len(sinograms) < 2 * reach[0] or len(sinograms) == 1
    text = f"phase retrieval by Paganin's filter of length {length_mm:.3g} mm"
    if few:
        text += f"; it reaches {rows_reached} rows, and the input has {len(sinograms)}: give more slices"
    numbers = {"length_mm": length_mm, "rows_reached": rows_reached}
    return Step(name="phase", changed=True, warning=few, text=text, numbers=numbers)


def filter_length_mm(settings: Paganin) -> float:
    """Length ``sqrt(distance delta / mu)`` of the filter."""
    wavelength_mm = WAVELENGTH_MM_KEV / settings.energy_kev
    return math.sqrt(settings.distance_mm * settings.delta_beta * wavelength_mm / (4 * math.pi))
