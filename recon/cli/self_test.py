"""Self-test of the installation: versions, backends, every operator, priors, Redis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from operators.errors import ReconError
from recon.pipeline import versions
from recon.storage.redis_binary import redis_server


@dataclass(frozen=True)
class Check:
    """Outcome of one check."""

    name: str
    ok: bool
    detail: str


def checks() -> Iterator[Check]:
    """Run every check; a check that raises is broken, and says why."""
    for name, version in versions.installed().items():
        yield Check(name, version != "not installed", version)
    tests: list[tuple[str, Callable[[], str]]] = [
        ("parallel beam", _parallel),
        ("fan beam", _fan),
        ("cone beam", _cone),
        ("Cartesian MRI", _mri),
        ("finite differences", _differences),
        ("redis-server", redis_server),
        ("priors", _priors),
        ("arithmetic", _arithmetic),
    ]
    for name, test in tests:
        try:
            yield Check(name, True, test())
        except (ReconError, ArithmeticError, OSError, RuntimeError) as error:
            yield Check(name, False, str(error))
    yield Check("GPU", True, _gpu())


def _require(value: float, limit: float, what: str) -> str:
    if not value <= limit:
        raise ArithmeticError(f"{what} {value:.2e}, at most {limit:.0e} expected")
    return f"{what} {value:.1e}"


def _parallel() -> str:
    from operators.geometry import ParallelBeam

    angles = tuple(np.linspace(0, np.pi, 12, endpoint=False).tolist())
    return _tomography(ParallelBeam(64, 64, 0.7, angles, 96, 0.7))


def _fan() -> str:
    from operators.geometry import FanBeam

    angles = tuple(np.linspace(0, 2 * np.pi, 12, endpoint=False).tolist())
    return _tomography(FanBeam(64, 64, 0.7, angles, 160, 0.7, source_origin_mm=200, origin_detector_mm=100))


def _tomography(geometry: object) -> str:
    import torch

    from operators.geometry import ParallelBeam
    from operators.linear import dot_product_error
    from operators.tomography import Tomography

    assert isinstance(geometry, ParallelBeam)
    operator = Tomography(geometry)
    text = _require(dot_product_error(operator), 1e-5, "adjoint error")
    y, x = torch.meshgrid(*[(torch.arange(64) - 31.5) * 0.7] * 2, indexing="ij")
    radius = 14.0
    disc = (x**2 + y**2 <= radius**2).float()[None]
    middle = operator(disc)[0, :, geometry.detectors // 2 - 2 : geometry.detectors // 2 + 2].mean()
    text += ", " + _require(abs(float(middle) / (2 * radius) - 1), 0.03, "disc projects to 2R within")
    own = Tomography(geometry, backend="astra")(disc)
    difference = float((own - operator(disc)).abs().max() / own.abs().max())
    return text + ", " + _require(difference, 1e-5, "matrix against ASTRA")


def _cone() -> str:
    import torch

    from operators.linear import dot_product_error
    from operators.volume_geometry import VolumeBeam, circular
    from operators.volume_tomography import VolumeTomography

    angles = np.linspace(0, 2 * np.pi, 5, endpoint=False).tolist()
    vectors = circular(angles, source_origin_mm=200, origin_detector_mm=100, column_mm=1.0, row_mm=1.0)
    operator = VolumeTomography(VolumeBeam(32, 32, 32, 1.0, 1.0, vectors, 48, 48))
    text = _require(dot_product_error(operator, slices=1), 1e-5, "adjoint error")
    z, y, x = torch.meshgrid(*[torch.arange(32) - 15.5] * 3, indexing="ij")
    radius = 12.0
    ball = (x**2 + y**2 + z**2 <= radius**2).float()[None]
    middle = operator(ball)[0, :, 23:25, 23:25].mean()
    return text + ", " + _require(abs(float(middle) / (2 * radius) - 1), 0.05, "ball projects to 2R within")


def _mri() -> str:
    import torch

    from operators.fourier import CartesianMRI
    from operators.linear import dot_product_error

    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 32, 24, dtype=torch.complex64, generator=generator)
    mask = torch.rand(32, 24, generator=generator) < 0.3
    return _require(dot_product_error(CartesianMRI(mask, maps)), 1e-5, "adjoint error")


def _differences() -> str:
    import torch

    from operators.differences import gradient, gradient_adjoint

    generator = torch.Generator().manual_seed(0)
    x, p = torch.randn(5, 6, 7, generator=generator), torch.randn(3, 5, 6, 7, generator=generator)
    left, right = float((gradient(x) * p).sum()), float((x * gradient_adjoint(p)).sum())
    return _require(abs(left - right) / max(abs(left), 1.0), 1e-5, "adjoint error")


def _priors() -> str:
    import torch

    from recon.priors import registry
    from recon.training.evaluate import judged_factors

    found = []
    for name in registry.names():
        prior = registry.load(name)
        prior = prior.at(judged_factors(prior.card))
        x = torch.zeros((1, 32, 32), dtype=torch.complex64 if prior.complex else torch.float32)
        value = prior.denoise(x, 0.1, x if prior.conditional else None).abs().max()
        if not math.isfinite(float(value)):
            raise ArithmeticError(f"prior {name} returns values that are not finite")
        found.append(f"{name} ({prior.card.parameters / 1e6:.1f} M parameters)")
    return ", ".join(found) or "none installed"


def _arithmetic() -> str:
    from recon.priors import precision

    lacks = precision.lacks_int8()
    int8 = "int8 where a job asks for it" if lacks is None else f"no int8: {lacks}"
    return f"networks compute in {precision.name()}: {precision.reason()}; {int8}"


def _gpu() -> str:
    import astra
    import torch

    torch_sees = torch.cuda.is_available()
    return f"torch: {'yes' if torch_sees else 'no'}, ASTRA: {'yes' if astra.use_cuda() else 'no'}"
