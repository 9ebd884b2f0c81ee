"""Stripes along the views, which become rings: removed by the filters of algotom.

References
----------
Vo et al. 2018, Opt. Express 26, 28396-28412 (sorting, filtering, large and dead stripes).
Münch et al. 2009, Opt. Express 17, 8567-8591 (wavelets and Fourier filtering).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.spec.preparation import Stripes
from recon.spec.report import Step

FUNCTIONS: dict[Stripes, str] = {
    "filtering": "remove_stripe_based_filtering",
    "sorting": "remove_stripe_based_sorting",
    "large": "remove_large_stripe",
    "dead": "remove_dead_stripe",
    "all": "remove_all_stripe",
    "wavelet-fft": "remove_stripe_based_wavelet_fft",
}
"""Functions of ``algotom.prep.removal``, with its own settings."""


def remove(sinograms: NDArray[np.float32], how: Stripes, order: NDArray[np.intp]) -> Step:
    """Remove stripes from sinograms ``(slices, views, detectors)``, in place.

    Parameters
    ----------
    how
        The filter.
    order
        Views in the order of their angles.
    """
    from algotom.prep import removal  # compiles with numba

    square = 0.0
    for sinogram in sinograms:
        before = sinogram[order]
        after = np.asarray(getattr(removal, FUNCTIONS[how])(before), dtype=np.float32)
        square += float(np.square(after - before).mean())
        sinogram[order] = after
    rms = float(np.sqrt(square / len(sinograms)))
    text = f"stripes are removed by algotom's {FUNCTIONS[how]}, which changes line integrals by {rms:.2g} (rms)"
    return Step(name="stripes", changed=True, text=text, numbers={"rms": round(rms, 6)})
