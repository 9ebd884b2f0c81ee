"""A trained prior: one method, ``denoise``, on the intensity axis its card declares."""

from __future__ import annotations

import math
import time
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from operators.interrupt import checkpoint
from recon.priors import diagnose
from recon.priors.card import Card
from recon.priors.network import Denoiser, as_channels, from_channels

BATCH = 8
"""Slices that go through the network at once."""


class Prior(Protocol):
    """What solvers need to know of a prior."""

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for each slice of ``(slices, rows, cols)``."""


@runtime_checkable
class ConditionalPrior(Protocol):
    """A prior of images given something else of the same size, as the same slice at low resolution."""

    card: Card

    @property
    def conditional(self) -> bool:
        """Whether `denoise` needs a condition."""

    def denoise(self, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n, condition]`` for each slice of ``(slices, rows, cols)``."""


class NetworkPrior:
    """A prior given by a trained `Denoiser`.

    Parameters
    ----------
    network
        The denoiser, in evaluation mode.
    card
        What it was trained on, its axis and its limits.
    """

    def __init__(self, network: Denoiser, card: Card) -> None:
        self.network, self.card = network, card
        self.evaluations = 0
        """Slices denoised so far, the usual measure of a solver's cost."""
        self.seconds = 0.0
        """That it took."""

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return self.card.complex

    @property
    def conditional(self) -> bool:
        """Whether `denoise` needs a condition."""
        return self.card.super_resolution is not None

    def denoise(self, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n]``, slice by slice; differentiable, slowly, if `x` requires a gradient.

        Parameters
        ----------
        x
            Noisy slices ``(slices, rows, cols)`` on the prior's axis, float32, or complex64 for a complex
            prior (then `sigma` is the noise of the real and of the imaginary part). Any size.
        sigma
            Noise level, positive.
        condition
            For a conditional prior: what the estimate is conditioned on, like `x`.

        Returns
        -------
        Tensor
            Same shape and dtype. On a CPU a slice's result does not depend on the others, to the bit.

        Raises
        ------
        InputError
            If shape, dtype or noise level do not fit, or values are not finite.
        """
        self._check(x, "x")
        if not (sigma > 0 and math.isfinite(sigma)):
            raise InputError(f"{sigma} is not a positive noise level", field="sigma")
        if (condition is not None) != self.conditional:
            says = f"needs the low-resolution slices: it is conditional (x{self.card.super_resolution})"
            raise InputError(
                f"prior {self.card.name!r} {says if self.conditional else 'is not conditional'}", field="condition"
            )
        if condition is not None:
            self._check(condition, "condition")
            if condition.shape != x.shape:
                raise InputError(f"shape {tuple(condition.shape)}, x has {tuple(x.shape)}", field="condition")
        self.evaluations += len(x)
        # Beyond the range trained on (metal) the network would be guessing: that part passes by it unchanged.
        limit = self.card.largest + 4 * sigma
        inside = _limited(x, limit)
        given = inside if x.is_complex() else inside.clamp(min=-1.0 - 4 * sigma)
        condition = None if condition is None else _limited(condition, limit)
        started = time.perf_counter()
        clean = apply(self.network, given, sigma, condition) + (x - inside).detach()
        self.seconds += time.perf_counter() - started
        return clean

    def familiarity(self, x: Tensor) -> Tensor:
        """How usual slices look to the prior, as a percentile of slices of the kind it was trained on.

        The denoiser's residuals at several noise levels are compared with those on reference slices, of whole
        subjects that were left out in turn. Near 0 means that hardly any reference slice is as unusual: the
        prior does not know such images, and what it fills in is not to be trusted. A high number is no proof
        of the opposite.

        Parameters
        ----------
        x
            Slices ``(slices, rows, cols)`` on the prior's axis, as reconstructed (not noisy).

        Returns
        -------
        Tensor
            ``(slices,)`` float64, 0 to 100; NaN for a slice without content.

        Raises
        ------
        InputError
            If shape or dtype do not fit, or the prior's card has no reference.
        """
        self._check(x, "x")
        if self.card.familiarity is None:
            raise InputError(
                f"the card of prior {self.card.name!r} has no reference residuals",
                field="familiarity",
                remedy="conditional priors have none; write the card of another again with recon export",
            )
        known = self.card.familiarity
        return diagnose.percentile(known, diagnose.residuals(self.denoise, x, known.sigmas))

    def _check(self, x: Tensor, field: str) -> None:
        dtype = torch.complex64 if self.complex else torch.float32
        if x.ndim != 3 or x.dtype != dtype:
            raise InputError(
                f"got {tuple(x.shape)} {_name(x.dtype)}, prior {self.card.name!r} needs (slices, rows, cols)"
                f" {_name(dtype)}",
                field=field,
            )
        if not bool(torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all()):
            raise InputError("some values are not finite", field=field, remedy="mend or leave out these slices")


def _limited(x: Tensor, limit: float) -> Tensor:
    return x * (limit / x.abs().clamp(min=limit)) if x.is_complex() else x.clamp(max=limit)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def apply(network: Denoiser, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
    """A network on slices ``(slices, rows, cols)`` of any size, float32 or complex64, in blocks.

    Sizes that the network cannot take are padded by repeating the edge, and cropped again.
    """
    given = [x] if condition is None else [x, condition]
    if not len(x):
        return x
    with torch.inference_mode(not x.requires_grad), torch.autocast("cpu", torch.bfloat16, enabled=x.requires_grad):
        blocks = zip(*(g.split(BATCH) for g in given), strict=True)
        found = []
        for block in blocks:
            checkpoint()
            found.append(_block(network, list(block), sigma))
        return torch.cat(found)


def _block(network: Denoiser, given: list[Tensor], sigma: float) -> Tensor:
    rows, cols = given[0].shape[1:]
    below, right = -rows % network.multiple, -cols % network.multiple
    device = next(network.parameters()).device
    padded = [functional.pad(as_channels(g), (0, right, 0, below), mode="replicate").to(device) for g in given]
    level = torch.full((1,), sigma, dtype=torch.float32, device=device)
    denoised = network(padded[0], level, *padded[1:])[..., :rows, :cols].to(given[0].device)
    return from_channels(denoised)
