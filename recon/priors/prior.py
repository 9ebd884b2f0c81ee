"""Trained prior with one method, ``denoise``, on the intensity scale that its card declares."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from operators.interrupt import checkpoint
from recon.priors import diagnose, precision
from recon.priors.card import Card
from recon.priors.mirrored import continued, cut_back
from recon.priors.network import Denoiser, as_channels, from_channels
from recon.spec.costs import NETWORK_BATCH


class Prior(Protocol):
    """Protocol of a prior, as solvers use it."""

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for each slice of ``(slices, rows, cols)``."""


@runtime_checkable
class CardedPrior(Protocol):
    """Protocol of a prior with a card."""

    @property
    def card(self) -> Card:
        """Card: training data, intensity scale, limits."""


@runtime_checkable
class JointPrior(Protocol):
    """Protocol of a prior whose estimate of a slice may depend on more than that noisy slice."""

    @property
    def joint(self) -> bool:
        """Whether it depends on other slices."""

    def denoise(self, x: Tensor, sigma: float, *, index: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for the slices of `index`; `x` are all slices of the problem."""


def denoise_some(prior: Prior, x: Tensor, sigma: float, index: Tensor) -> Tensor:
    """``E[x0 | x = x0 + sigma n]`` for the slices of `index` out of ``(slices, rows, cols)``."""
    if isinstance(prior, JointPrior) and prior.joint:
        return prior.denoise(x, sigma, index=index)
    return prior.denoise(x[index], sigma)


@runtime_checkable
class ConditionalPrior(Protocol):
    """Protocol of a conditional prior: of images given another of the same size, such as a low-resolution slice."""

    card: Card

    @property
    def conditional(self) -> bool:
        """Whether `denoise` needs a condition."""

    def denoise(self, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n, condition]`` for each slice of ``(slices, rows, cols)``."""


class Given:
    """Conditional prior bound to its condition; for solvers, a prior like any other.

    Parameters
    ----------
    prior
        The conditional prior.
    condition
        Condition of every slice of the problem, ``(slices, rows, cols)`` on the prior's scale.
    """

    joint = True

    def __init__(self, prior: ConditionalPrior, condition: Tensor) -> None:
        self._prior, self._condition = prior, condition

    @property
    def card(self) -> Card:
        """Card of the conditional prior."""
        return self._prior.card

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return self._condition.is_complex()

    def denoise(self, x: Tensor, sigma: float, *, index: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n, condition]`` for the slices of `index`; `x` are all slices of the problem."""
        if index is None:
            return self._prior.denoise(x, sigma, self._condition)
        return self._prior.denoise(x[index], sigma, self._condition[index])

    def changed(self, change: Callable[[Tensor], Tensor]) -> Given:
        """Return the prior for transformed images, for instance rotated ones, with its condition transformed alike."""
        return Given(self._prior, change(self._condition))


class Apart:
    """Prior of each of several images that lie one below the other; for solvers, a prior like any other.

    Parameters
    ----------
    prior
        Prior of one image, conditional or not.
    images
        Number of images in a slice's rows.
    """

    def __init__(self, prior: Any, images: int) -> None:
        self._prior, self._images = prior, images

    @property
    def card(self) -> Card:
        """Card of the prior of one image; raises `AttributeError` if it has none."""
        card: Card = self._prior.card
        return card

    @property
    def conditional(self) -> bool:
        """Whether the prior of one image is conditional."""
        return bool(getattr(self._prior, "conditional", False))

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return bool(self._prior.complex)

    def denoise(self, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for each image of ``(slices, images * rows, cols)``, given its condition."""
        given = () if condition is None else (self._apart(condition),)
        found: Tensor = self._prior.denoise(self._apart(x), sigma, *given)
        return found.reshape(x.shape)

    def _apart(self, x: Tensor) -> Tensor:
        return x.reshape(len(x) * self._images, -1, x.shape[-1])


class NetworkPrior:
    """Prior given by a trained `Denoiser`.

    Parameters
    ----------
    network
        The denoiser, in evaluation mode.
    card
        Training data, intensity scale and limits.
    factors
        For a prior that is told them: super-resolution factors along rows and columns.
    """

    def __init__(self, network: Denoiser, card: Card, factors: tuple[float, float] | None = None) -> None:
        self.network, self.card, self.factors = network, card, factors
        self.evaluations = 0
        """Number of slices denoised so far, the usual measure of a solver's cost."""
        self.seconds = 0.0
        """Seconds spent in the network so far."""

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return self.card.complex

    @property
    def conditional(self) -> bool:
        """Whether `denoise` needs a condition."""
        return self.card.conditional

    def at(self, factors: tuple[float, float] | None) -> NetworkPrior:
        """Return the prior for super-resolution by these factors; itself if it is not told them.

        Raises
        ------
        InputError
            If it is told them and there are none.
        """
        if not self.card.told:
            return self
        if factors is None:
            raise InputError(
                f"prior {self.card.name!r} needs {self.card.condition}, which this acquisition does not give",
                field="method.prior",
                remedy="use one that is not conditional",
            )
        return NetworkPrior(self.network, self.card, factors)

    def denoise(self, x: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        """Denoise: ``E[x0 | x = x0 + sigma n]`` of every slice; differentiable, slowly, if `x` requires a gradient.

        Parameters
        ----------
        x
            Noisy slices ``(slices, rows, cols)`` on the prior's scale, float32, or complex64 for a complex
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
            says = (
                f"is conditional, it needs {self.card.condition} of each slice"
                if self.conditional
                else "is not conditional"
            )
            raise InputError(
                f"prior {self.card.name!r} {says}",
                field="condition",
                remedy="start the solver by recon.solvers.registry.start, which finds it" if self.conditional else None,
            )
        if self.card.told and self.factors is None:
            raise InputError(
                f"prior {self.card.name!r} is told the super-resolution factors, and was not",
                field="factors",
                remedy="call at() with those along rows and columns",
            )
        if condition is not None:
            self._check(condition, "condition")
            if condition.shape != x.shape:
                raise InputError(f"shape {tuple(condition.shape)}, x has {tuple(x.shape)}", field="condition")
        # Beyond the range trained on (metal) the network would be guessing: that part passes by it unchanged.
        limit = self.card.largest + 4 * sigma
        inside = _limited(x, limit)
        given = inside if x.is_complex() else inside.clamp(min=-1.0 - 4 * sigma)
        condition = None if condition is None else _limited(condition, limit)
        rest = (x - inside).detach()
        self.evaluations += len(given)
        started = time.perf_counter()
        if self.card.refines:
            wider = None if condition is None else continued(condition)
            clean = cut_back(apply(self.network, continued(given), sigma, wider, self.factors)) + rest
        else:
            clean = apply(self.network, given, sigma, condition) + rest
        self.seconds += time.perf_counter() - started
        return clean

    def familiarity(self, x: Tensor) -> Tensor:
        """Familiarity of slices (out-of-distribution score): a percentile among slices like those trained on.

        The denoiser's residuals at several noise levels are compared with those on reference slices, of whole
        subjects that were left out in turn. Near 0 means that hardly any reference slice is as unusual: the
        prior does not know such images, and what it fills in is not to be trusted. A high number is no proof
        of the opposite.

        Parameters
        ----------
        x
            Slices ``(slices, rows, cols)`` on the prior's scale, as reconstructed (not noisy).

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
        if x.numel() == 0:
            raise InputError(f"got {tuple(x.shape)}, an image without pixels", field=field)
        if not bool(torch.isfinite(x).all()):
            raise InputError("some values are not finite", field=field, remedy="mend or leave out these slices")


def _limited(x: Tensor, limit: float) -> Tensor:
    return x * (limit / x.abs().clamp(min=limit)) if x.is_complex() else x.clamp(max=limit)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def apply(
    network: Denoiser,
    x: Tensor,
    sigma: float,
    condition: Tensor | None = None,
    factors: tuple[float, float] | None = None,
) -> Tensor:
    """Apply a network to slices ``(slices, rows, cols)`` of any size, float32 or complex64, in blocks.

    Sizes that the network cannot take are padded by repeating the edge, and cropped again.
    """
    if not len(x):
        return x
    found = []
    with torch.inference_mode(not x.requires_grad), precision.autocast(enabled=x.requires_grad):
        for first in range(0, len(x), NETWORK_BATCH):
            checkpoint()
            some = slice(first, first + NETWORK_BATCH)
            given = as_channels(x[some])
            more = None if condition is None else as_channels(condition[some])
            found.append(from_channels(_block(network, given, sigma, more, factors)))
        return torch.cat(found)


def _block(
    network: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, factors: tuple[float, float] | None
) -> Tensor:
    """Apply a network to ``(batch, channels, rows, cols)`` of any size."""
    rows, cols = x.shape[2:]
    below, right = -rows % network.multiple, -cols % network.multiple
    device = next(network.parameters()).device

    def fitted(given: Tensor | None) -> Tensor | None:
        if given is None:
            return None
        return functional.pad(given, (0, right, 0, below), mode="replicate").to(device)

    level = torch.full((1,), sigma, dtype=torch.float32, device=device)
    told = None if factors is None else torch.tensor([factors], device=device)
    found: Tensor = network(fitted(x), level, fitted(condition), told)[..., :rows, :cols]
    return found.to(x.device)
