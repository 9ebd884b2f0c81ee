"""A trained prior: one method, ``denoise``, on the intensity axis its card declares."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from recon.priors.card import Card
from recon.priors.network import Denoiser

BATCH = 8
"""Slices that go through the network at once, at least."""


class Prior(Protocol):
    """What solvers need to know of a prior."""

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for each slice of ``(slices, rows, cols)``."""


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

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return self.card.complex

    @torch.inference_mode()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x = x0 + sigma n]``, slice by slice.

        Parameters
        ----------
        x
            Noisy slices ``(slices, rows, cols)`` on the prior's axis, float32, or complex64 for a complex
            prior (then `sigma` is the noise of the real and of the imaginary part). Any size; sizes that
            the network cannot take are padded by repeating the edge and cropped again.
        sigma
            Noise level, positive.

        Returns
        -------
        Tensor
            Same shape and dtype. A slice's result does not depend on the others.
        """
        if x.ndim != 3 or x.is_complex() != self.complex:
            kind = "complex64" if self.complex else "float32"
            raise InputError(
                f"got {tuple(x.shape)} {x.dtype}, prior {self.card.name!r} needs (slices, rows, cols) {kind}",
                field="x",
            )
        if not sigma > 0:
            raise InputError(f"{sigma} is not a positive noise level", field="sigma")
        # The convolution kernels split a batch over threads by images, or inside an image when they do not
        # divide evenly, and then sum in another order: whole multiples of the threads keep a slice's bits.
        unit = min(torch.get_num_threads(), BATCH)
        block = unit * -(-BATCH // unit)
        out = torch.empty_like(x)
        for first in range(0, len(x), block):
            part = x[first : first + block]
            filler = part[-1:].expand(-len(part) % unit, -1, -1)
            out[first : first + block] = self._block(torch.cat([part, filler]), sigma)[: len(part)]
        self.evaluations += len(x)
        return out

    def _block(self, x: Tensor, sigma: float) -> Tensor:
        channels = torch.view_as_real(x).movedim(-1, 1) if self.complex else x[:, None]
        rows, cols = x.shape[1:]
        multiple = self.network.multiple
        below, right = -rows % multiple, -cols % multiple
        padded = functional.pad(channels.float(), (0, right, 0, below), mode="replicate")
        device = next(self.network.parameters()).device
        level = torch.full((len(x),), sigma, dtype=torch.float32, device=device)
        denoised = self.network(padded.to(device), level)[..., :rows, :cols].to(x.device)
        if self.complex:
            return torch.view_as_complex(denoised.movedim(1, -1).contiguous())
        return torch.as_tensor(denoised[:, 0])
