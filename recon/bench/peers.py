"""Peer solvers (deepinv) with our operator and our prior, on the same data: the optional extra ``peers``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from operators.errors import BackendUnavailable
from recon.priors.prior import Prior
from recon.problem.data_step import DataStep
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import IntensityMap

DIFFPIR, DPS = "deepinv-diffpir", "deepinv-dps"
NAMES = (DIFFPIR, DPS)
SIGMA = 1e-3
"""Lower bound on the noise that peers assume, on [0, 1]; they divide by it."""


def solver(model: InverseProblem, given: dict[str, Any], prior: Prior, intensity: IntensityMap) -> Callable[[], Tensor]:
    """Run deepinv's DiffPIR or DPS; `given` may have constants (`lambda_`, `zeta`, `max_iter`; `weight`, `num_steps`).

    deepinv's images lie in [0, 1], channels first, complex numbers as two of them; the operator has norm one.

    References
    ----------
    Tachella et al. 2025, DeepInverse (arXiv 2505.20160). Zhu et al. 2023, DiffPIR (arXiv 2305.08995).
    """
    deepinv = _deepinv()
    problem = model.problem.whitened
    term = DataStep(problem, intensity, 1e-9, 1)
    constants = {k: v for k, v in given.items() if k != "name"}
    is_complex = problem.operator.domain.complex

    def to_image(x: Tensor) -> Tensor:
        """Convert deepinv's images to our slices on the prior's scale."""
        u = 2 * x - 1
        return torch.complex(u[:, 0], u[:, 1]) if is_complex else u[:, 0]

    def from_image(u: Tensor) -> Tensor:
        parts = torch.stack([u.real, u.imag], 1) if is_complex else u[:, None]
        return (parts + 1) / 2

    # A (2 x - 1) = d is linear in x: A x = (d + A 1) / 2, and complex images have 1 + i for their 1.
    one = torch.full_like(problem.zeros(), 1 + 1j if is_complex else 1.0)
    data = (term.data + term.operator.forward(one)) / 2

    def forward(x: Tensor, **_: Any) -> Tensor:
        parts = torch.complex(x[:, 0], x[:, 1]) if is_complex else x[:, 0]
        return term.operator.forward(parts.contiguous())

    def adjoint(y: Tensor, **_: Any) -> Tensor:
        back = term.operator.adjoint(y)
        return torch.stack([back.real, back.imag], 1) if is_complex else back[:, None]

    class Denoiser(deepinv.models.Denoiser):  # type: ignore[misc, name-defined]
        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
            level = 2 * float(torch.as_tensor(sigma).flatten()[0])
            return from_image(prior.denoise(to_image(x.float()), level)).to(x.dtype)

    sigma = max(SIGMA, float(term.sigma.mean()) / 2)
    physics = deepinv.physics.LinearPhysics(A=forward, A_adjoint=adjoint)
    physics.noise_model = deepinv.physics.GaussianNoise(sigma)
    fidelity = deepinv.optim.data_fidelity.L2()
    start = from_image(intensity.to_prior(model.problem.initial_image()))

    def solve() -> Tensor:
        torch.manual_seed(0)
        if given["name"] == DIFFPIR:
            method = deepinv.sampling.DiffPIR(Denoiser(), fidelity, sigma=sigma, **constants)
            found = method(data, physics, x_init=start)
        else:
            method = deepinv.sampling.DPS(Denoiser(), **constants)
            found = method(data, physics, x_init=tuple(start.shape), seed=0)
        return intensity.to_physical(to_image(found.float()))

    return solve


def _deepinv() -> Any:
    try:
        with _torchvision_without_kernels():
            import deepinv
    except ImportError as error:
        raise BackendUnavailable(
            f"deepinv cannot be imported: {error}",
            field="methods",
            remedy="install the extra: pip install 'diffusion-recon[peers]'",
        ) from error
    return deepinv


@contextmanager
def _torchvision_without_kernels() -> Iterator[None]:
    """Let torchvision, which deepinv imports but does not need here, load beside a torch it was not built for."""
    register = torch.library.register_fake

    def where_it_can(name: str, *args: Any, **options: Any) -> Any:
        def apply(function: Any) -> Any:
            try:
                return register(name, *args, **options)(function)
            except RuntimeError:
                if not name.startswith("torchvision::"):
                    raise
                return function

        return apply

    torch.library.register_fake = where_it_can  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.library.register_fake = register
