"""qGGMRF reconstruction by svmbir, model-based: the classical rival of total variation in CT."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.errors import BackendUnavailable, InputError
from operators.geometry import FanBeam
from operators.tomography import Tomography
from recon.problem.problem import Problem

QGGMRF = "qggmrf"
MANY_VIEWS = 40
MANY: dict[str, float] = {"snr_db": 60.0, "T": 0.1, "sharpness": -2.0, "max_iterations": 100}
FEW: dict[str, float] = {"snr_db": 45.0, "T": 0.1, "max_iterations": 400}
"""Best constants of 18 and 15 combinations on the tuning slices, at 60, and at 23 and 8 views
(research log)."""
LIMITED: dict[str, float] = {"snr_db": 38.0, "T": 0.05, "max_iterations": 1000}
"""Best constants of nine combinations at 90 of 180 degrees."""
FIELD = 1e6
"""Radius in mm of the reconstructed disc: all of the image."""


def qggmrf(problem: Problem, given: dict[str, Any]) -> Callable[[], Tensor]:
    """Reconstruct a parallel-beam scan by svmbir and its projector; `given` may have constants (`snr_db`, `T`, ...).

    References
    ----------
    Thibault et al. 2007, Med. Phys. 34, 4526-4544 (qGGMRF). Bouman et al., svmbir (https://github.com/cabouman/svmbir).
    """
    operator = problem.operator
    if (
        not isinstance(operator, Tomography)
        or isinstance(operator.geometry, FanBeam)
        or operator.geometry.detector_shift_mm
    ):
        raise InputError("qggmrf is compared in centred parallel beams only", field="methods")
    geometry = operator.geometry
    tuned = dict(MANY if len(geometry.angles_rad) >= MANY_VIEWS else FEW)
    if problem.operator.sampling_pattern == "limited":
        tuned = dict(LIMITED)
    noisy = bool(problem.noise.any())
    if noisy:
        signal = float(problem.data.square().mean() / problem.noise.square().mean())
        tuned["snr_db"] = min(tuned["snr_db"], 10 * math.log10(signal))
    constants = {**tuned, **{k: v for k, v in given.items() if k != "name"}}
    svmbir = _svmbir()

    def solve() -> Tensor:
        volume = svmbir.recon(
            np.ascontiguousarray(problem.data.numpy().transpose(1, 0, 2)),
            np.asarray(geometry.angles_rad),
            num_rows=geometry.rows,
            num_cols=geometry.cols,
            delta_channel=geometry.detector_mm,
            delta_pixel=geometry.pixel_mm,
            weight_type="transmission" if noisy else "unweighted",
            roi_radius=FIELD,
            stop_threshold=0.0,
            num_threads=torch.get_num_threads(),
            svmbir_lib_path=str(Path(gettempdir()) / "svmbir"),
            verbose=0,
            **constants,
        )
        # Its axes are ours turned and mirrored.
        return torch.from_numpy(np.ascontiguousarray(np.rot90(volume, 3, axes=(1, 2))[:, :, ::-1]))

    return solve


def _svmbir() -> Any:
    try:
        import svmbir
    except ImportError as error:
        raise BackendUnavailable(
            f"svmbir cannot be imported: {error}",
            field="methods",
            remedy="install the extra: pip install 'diffusion-recon[peers]'",
        ) from error
    return svmbir
