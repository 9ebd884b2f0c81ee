"""Diffusion priors: ``load(name)`` gives a `Prior` with one method, ``denoise``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recon.priors.prior import NetworkPrior


def load(name: str) -> NetworkPrior:
    """Load a shipped prior by name, see `recon.priors.registry.load`."""
    from recon.priors import registry

    return registry.load(name)


__all__ = ["load"]
