"""SIRT and CGLS by ASTRA's CPU algorithms, one slice per thread; of whole volumes by `recon.solvers.iterative`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import astra
import torch
from torch import Tensor

from operators.errors import InputError
from operators.interrupt import checkpoint
from operators.tomography import Projector, Tomography
from recon.problem.problem import Problem, Progress, Solver, check_finite
from recon.solvers import iterative
from recon.spec.methods import CGLS, SIRT

CHUNKS = 10
"""Progress reports per run; continuing an ASTRA algorithm is exact, so blocks of iterations cost nothing."""
AT_ONCE = 5
"""Maximum iterations of a slice between two cancellation checks."""


def solve(problem: Problem, settings: SIRT | CGLS) -> Solver:
    """Run SIRT (non-negative) or CGLS on every slice, on its support; reports progress at most ten times."""
    operator = problem.operator
    if operator.whole_volume:
        if isinstance(settings, SIRT):
            return (yield from iterative.sirt(problem, settings))
        return (yield from iterative.cgls(problem, settings))
    if not isinstance(operator, Tomography):
        raise InputError(f"{settings.name} needs a CT acquisition", field="method.name")
    volume = problem.zeros()
    # CGLS divides by the norm of the data: an empty slice stays empty instead of becoming NaN.
    slices = [i for i in range(problem.slices) if bool(problem.data[i].any())]
    options = {"MinConstraint": 0.0} if settings.name == "sirt" else {}
    projector = Projector(operator.geometry)
    done = 0
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        _algorithms(settings.name.upper(), projector, problem, volume, slices, options) as algorithms,
    ):
        for chunk in range(1, min(CHUNKS, settings.iterations) + 1):
            until = settings.iterations * chunk // min(CHUNKS, settings.iterations)
            while done < until:
                count = min(AT_ONCE, until - done)
                for _ in pool.map(lambda a, n=count: astra.algorithm.run(a, n), algorithms):
                    checkpoint()
                done += count
            yield Progress(done, settings.iterations, volume.clone(), problem)  # ASTRA goes on writing to it
    return check_finite(volume, settings.name)


@contextmanager
def _algorithms(
    kind: str, projector: Projector, problem: Problem, volume: Tensor, slices: list[int], options: dict[str, float]
) -> Iterator[list[int]]:
    """Make ASTRA algorithms that write into `volume`; every id is deleted at the end."""
    objects: list[int] = []
    algorithms: list[int] = []
    try:
        for index in slices:
            image = astra.data2d.link("-vol", projector.volume_geometry, volume[index].numpy())
            objects.append(image)
            given = problem.data[index].float().numpy()
            sinogram = astra.data2d.create("-sino", projector.projection_geometry, given)
            objects.append(sinogram)
            config = astra.astra_dict(kind)
            config["ProjectorId"] = projector.id
            config["ProjectionDataId"] = sinogram
            config["ReconstructionDataId"] = image
            config["option"] = dict(options)
            if problem.support is not None:
                inside = problem.support[index].float().numpy()
                mask = astra.data2d.create("-vol", projector.volume_geometry, inside)
                objects.append(mask)
                config["option"]["ReconstructionMaskId"] = mask
            algorithms.append(astra.algorithm.create(config))
        yield algorithms
    finally:
        astra.algorithm.delete(algorithms)
        astra.data2d.delete(objects)
