"""`output.undetermined`: what a result has that no sample asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from operators.fourier import CartesianMRI, fourier
from operators.geometry import ParallelBeam
from operators.linear import random_element
from operators.tomography import Tomography
from recon.formats import nifti
from recon.pipeline.reconstruct import run
from recon.pipeline.undetermined import determined
from recon.problem.problem import Problem
from recon.spec.job import JobSpec, local_files
from tests.conftest import disc, voxels

SIDE = 48


def test_of_one_coil_it_is_what_lies_at_points_that_were_not_measured() -> None:
    """Closed form: the projection on what a masked Fourier transform sees is the mask's."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(SIDE, SIDE, generator=generator) < 0.4
    operator = CartesianMRI(mask, torch.ones(1, SIDE, SIDE, dtype=torch.complex64))
    volume = random_element(operator.domain, 2, generator)
    problem = Problem(operator, operator(volume), 0.0)
    kept = fourier(determined(problem, volume))
    assert torch.allclose(kept, mask * fourier(volume), atol=2e-3 * float(fourier(volume).abs().max()))


def test_in_every_slice_it_ends_at_the_noise_of_the_samples() -> None:
    """What the samples say no more of than noise does is not determined by them, in each slice by its own noise."""
    angles = tuple(np.linspace(0, np.pi, 40, endpoint=False))
    operator = Tomography(ParallelBeam(SIDE, SIDE, 1.0, angles, 70, 1.0))
    volume = (0.02 * disc(SIDE, 1.0, 18.0)).expand(2, SIDE, SIDE)
    clean = operator(volume)
    noise = torch.tensor([0.001, 0.05])
    problem = Problem(operator, clean, noise)
    left = (operator(determined(problem, volume)) - clean).flatten(1).norm(dim=1)
    limits = noise * clean[0].numel() ** 0.5
    assert bool((left <= limits).all()) and float(left[1]) > 5 * float(left[0])


def test_a_job_writes_it_and_says_how_much_it_is(tmp_path: Path) -> None:
    """The fewer views, the more is drawn."""
    volume = (-1000 + 1000 * disc(SIDE, 2.0, 35.0)).expand(2, SIDE, SIDE).numpy().copy()
    nifti.write(tmp_path / "disc.nii.gz", volume, np.diag([2.0, 2.0, 3.0, 1.0]), "test")
    shares = []
    for count in (8, 60):
        spec = JobSpec.parse(
            {
                "input": {"path": str(tmp_path / "disc.nii.gz"), "simulate": {"views": count, "model": "ideal"}},
                "acquisition": "ct-parallel",
                "method": "tv",
                "output": {"undetermined": True, "baselines": []},
            }
        )
        report = run(spec, local_files(spec), tmp_path / str(count))
        told = report.undetermined
        assert told is not None and any(note.startswith("no sample determined") for note in report.notes)
        part, result = (voxels(tmp_path / str(count) / f"{name}.nii.gz") for name in ("undetermined", "volume"))
        assert part.shape == result.shape
        within = np.broadcast_to((disc(SIDE, 2.0, 30.0) > 0).numpy(), (2, SIDE, SIDE))
        assert float(np.sqrt((part[within] ** 2).mean())) / 1000 == pytest.approx(told.inside, rel=0.6)
        assert (tmp_path / str(count) / "undetermined.png").stat().st_size > 5_000
        shares.append(told.inside)
    assert shares[0] > 2 * shares[1] > 0


def test_it_is_made_for_those_who_ask(tmp_path: Path) -> None:
    volume = (-1000 + 1000 * disc(SIDE, 2.0, 35.0)).expand(1, SIDE, SIDE).numpy().copy()
    nifti.write(tmp_path / "disc.nii.gz", volume, np.diag([2.0, 2.0, 3.0, 1.0]), "test")
    spec = JobSpec.parse(
        {
            "input": {"path": str(tmp_path / "disc.nii.gz"), "simulate": {"views": 5}},
            "acquisition": "ct-parallel",
            "method": "fbp",
        }
    )
    report = run(spec, local_files(spec), tmp_path / "out")
    assert report.undetermined is None and not (tmp_path / "out" / "undetermined.nii.gz").exists()
