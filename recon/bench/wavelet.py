"""L1-wavelet regularised SENSE by sigpy: the classical rival of MRI methods."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError
from operators.fourier import CartesianMRI
from recon.problem.problem import Problem

WAVELET = "l1-wavelet"


def wavelet(problem: Problem, given: dict[str, object]) -> Callable[[], Tensor]:
    """Run sigpy's L1-wavelet regularised SENSE (Lustig et al. 2007) on data scaled to an image maximum of one."""
    from sigpy.mri.app import L1WaveletRecon

    assert isinstance(problem.operator, CartesianMRI)
    operator = problem.operator
    if operator.images > 1:
        raise InputError(
            f"sigpy's {WAVELET} takes one set of coil maps, there are {operator.images}",
            field="method.name",
            remedy="give acquisition.preparation.map_sets: 1",
        )
    scales = problem.scales.tolist()
    weight, iterations = float(str(given.get("weight", 1e-3))), int(str(given.get("iterations", 100)))

    sensitivities = operator.maps

    def one(index: int) -> Tensor:
        scale = scales[index]
        maps, mask = (v[index % len(v)].numpy() for v in (sensitivities, operator.mask))
        data, weights = problem.data[index].numpy() / scale, mask.astype(np.float32)
        app = L1WaveletRecon(data, maps, weight, weights=weights, max_iter=iterations, show_pbar=False)
        found: Tensor = torch.from_numpy(np.asarray(app.run(), dtype=np.complex64)) * scale
        return found

    return lambda: torch.stack([one(index) for index in range(problem.slices)])
