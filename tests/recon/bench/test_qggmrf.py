"""The qGGMRF rival, where it is installed: upright, unmirrored, and in our units."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from operators.errors import BackendUnavailable, InputError
from operators.geometry import FanBeam, ParallelBeam
from operators.tomography import Tomography
from recon.bench import qggmrf as bench
from recon.problem.problem import Problem

ANGLES = tuple(math.pi * k / 60 for k in range(60))


def test_its_image_lies_as_ours() -> None:
    pytest.importorskip("svmbir")
    truth = torch.zeros(2, 48, 48)
    truth[:, 8:20, 10:30], truth[1, 30:36, 12:16] = 0.02, 0.04  # alike under no turn or mirror
    operator = Tomography(ParallelBeam(48, 48, 1.5, ANGLES, 70, 1.5))
    found = bench.qggmrf(Problem(operator, operator.forward(truth)), {"name": "qggmrf"})()
    assert float((found - truth).norm() / truth.norm()) < 0.25


def test_what_it_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fan = Tomography(FanBeam(16, 16, 1.0, ANGLES, 24, 2.0, source_origin_mm=50.0, origin_detector_mm=50.0))
    with pytest.raises(InputError, match="parallel beams only"):
        bench.qggmrf(Problem(fan, torch.zeros(1, 60, 24)), {"name": "qggmrf"})
    monkeypatch.setitem(sys.modules, "svmbir", None)
    flat = Tomography(ParallelBeam(16, 16, 1.0, ANGLES, 24, 1.0))
    with pytest.raises(BackendUnavailable, match="peers"):
        bench.qggmrf(Problem(flat, torch.zeros(1, 60, 24)), {"name": "qggmrf"})
