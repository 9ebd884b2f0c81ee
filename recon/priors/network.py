"""Denoising network: a residual U-Net of plain convolutions behind a pixel-unshuffle stem, EDM-preconditioned.

There is no normalisation layer and no attention: what is not a convolution moves memory without arithmetic, and on
a CPU costs more than the convolutions themselves; and statistics taken over a crop in training are not those of
a whole slice. The shape follows DRUNet (Zhang et al. 2021, arXiv 2008.13751), the conditioning on the noise level
by a scale and a shift of every block follows ADM (Dhariwal and Nichol 2021, arXiv 2105.05233).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

NOISE_FEATURES = 128
"""Number of Fourier features of the noise level."""
EMBEDDING = 112
"""Width of the noise level's embedding."""
FACTOR_FEATURES = 16
"""Number of Fourier features of the super-resolution factors along rows and along columns, half each."""
PHASE_BLOCK = 4
"""Width in pixels of the low-pass filter whose phase is removed for a complex network."""


class NetworkShape(Protocol):
    """Hyperparameters of a network, as cards and recipes state them; see `Denoiser`."""

    @property
    def complex(self) -> bool:
        """Whether images are complex: two channels."""

    @property
    def channels(self) -> Sequence[int]: ...  # noqa: D102 - see Denoiser

    @property
    def sigma_data(self) -> float: ...  # noqa: D102

    @property
    def blocks(self) -> int: ...  # noqa: D102

    @property
    def unshuffle(self) -> int: ...  # noqa: D102

    @property
    def conditional(self) -> bool:
        """Whether the network is given a condition."""

    @property
    def told(self) -> bool:
        """Whether the network is told the super-resolution factors."""

    @property
    def regression(self) -> bool:
        """Whether the network sees the condition alone."""


class Block(nn.Module):
    """Residual block ``x + conv(relu(conv(x) * (1 + scale) + shift))``, scale and shift from the noise level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.level = nn.Linear(EMBEDDING, 2 * channels)
        # The block starts as the identity: without normalisation layers, this keeps a deep network stable.
        _zero(self.second)
        _zero(self.level)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features ``(batch, channels, rows, cols)``, embedding ``(batch or 1, EMBEDDING)`` to features."""
        if len(embedding) == 1:
            # One level for the whole batch: the modulation costs nothing as part of the convolution.
            scale, shift = self.level(embedding)[0].chunk(2)
            gain = 1 + scale
            weight, bias = self.first.weight * gain[:, None, None, None], self.first.bias * gain + shift
            hidden = functional.conv2d(x, weight, bias, padding=1)
        else:
            scale, shift = self.level(embedding)[:, :, None, None].chunk(2, dim=1)
            hidden = torch.addcmul(shift, self.first(x), 1 + scale)
        out: Tensor = self.second(functional.relu(hidden, inplace=True)).add_(x)
        return out


class Denoiser(nn.Module):
    """Denoiser ``D(x, sigma)``: estimate of ``E[x0 | x = x0 + sigma n]`` with ``n ~ N(0, I)`` per real channel.

    Preconditioned after Karras et al. 2022 (arXiv 2206.00364, equation 7), so that the network itself
    always sees unit variance and predicts a unit-variance target.

    A complex image (two channels) is first relieved of its smooth phase, the phase of the image under a Gaussian
    low-pass, and gets it back afterwards. The network then sees nearly real images, and the whole is
    equivariant to a global phase by construction: ``D(exp(i a) x) = exp(i a) D(x)``.

    Parameters
    ----------
    image_channels
        1 for real images, 2 for complex ones (real and imaginary part).
    channels
        Feature channels of each resolution level, finest first.
    sigma_data
        Root mean square of a training image per channel, on the prior's scale.
    blocks
        Residual blocks of each level, on the way down and on the way up.
    condition_channels
        Channels of an image of the same size that the estimate is conditioned on; 0 for none.
    unshuffle
        The stem folds so many pixels each way into channels: fewer positions for the same receptive field.
    told
        Whether it is told the super-resolution factors along rows and columns, and so the direction, beside the level.
    regression
        Whether it is a regression network: the estimate depends on the condition alone, at one noise level.
    """

    def __init__(
        self,
        image_channels: int,
        channels: Sequence[int],
        sigma_data: float,
        blocks: int = 2,
        condition_channels: int = 0,
        unshuffle: int = 2,
        *,
        told: bool = False,
        regression: bool = False,
    ) -> None:
        super().__init__()
        self.told, self.regression = told, regression
        self.image_channels, self.condition_channels, self.sigma_data = image_channels, condition_channels, sigma_data
        self.engine: Callable[[Tensor, Tensor], Tensor] | None = None
        """Replacement for `body`, compiled by `recon.priors.engine`."""
        self.arithmetic = "float32"
        """Arithmetic of `engine`, or of `body` without one, in words."""
        self.unshuffle = unshuffle
        self.multiple = math.lcm(unshuffle * 2 ** (len(channels) - 1), PHASE_BLOCK)
        """Number of which rows and columns must be multiples."""
        folded = unshuffle**2
        self.known = NOISE_FEATURES + FACTOR_FEATURES * told
        """Number of features of the noise level and of what else the network is told."""
        self.embed = nn.Sequential(
            nn.Linear(self.known, EMBEDDING),
            nn.SiLU(),
            nn.Linear(EMBEDDING, EMBEDDING),
            nn.SiLU(),
        )
        self.stem = nn.Conv2d((image_channels + condition_channels) * folded, channels[0], 3, padding=1)
        self.head = nn.Conv2d(channels[0], image_channels * folded, 3, padding=1)
        _zero(self.head)

        def level(width: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width) for _ in range(blocks))

        self.encoder = nn.ModuleList(level(width) for width in channels[:-1])
        self.bottom = level(channels[-1])
        self.decoder = nn.ModuleList(level(width) for width in channels[:-1])
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs)

    def forward(
        self, x: Tensor, sigma: Tensor, condition: Tensor | None = None, factors: Tensor | None = None
    ) -> Tensor:
        """Denoise.

        Parameters
        ----------
        x
            Noisy images, shape ``(batch, image_channels, rows, cols)``, float32.
        sigma
            Noise levels, shape ``(batch,)``, or ``(1,)`` for one level, on the scale of `x`.
        condition
            Images to condition on, ``(batch, condition_channels, rows, cols)``, float32, on the scale of `x`.
        factors
            For a network that is told them: super-resolution factors along rows and columns, ``(batch, 2)``, or
            ``(1, 2)`` beside one noise level.

        Returns
        -------
        Tensor
            Denoised images, same shape as `x`, float32. Differentiable.
        """
        if self.regression:
            assert condition is not None
            x, sigma = condition, torch.full_like(sigma, self.sigma_data)
        features = self.features(sigma, factors)
        s = sigma.reshape(-1, 1, 1, 1).to(torch.float32)
        total = s.square() + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = s * self.sigma_data / total.sqrt()
        c_in = total.rsqrt()
        given = x * c_in
        if condition is not None:
            given = torch.cat([given, condition / self.sigma_data], dim=1)
        if self.image_channels == 1:
            return c_skip * x + c_out * self._raw(given, features)
        with torch.autocast(x.device.type, enabled=False):
            phase = smooth_phase_factor(x if condition is None else condition)
        return c_skip * x + c_out * turned(self._raw(turned(given, conjugate(phase)), features), phase)

    def features(self, sigma: Tensor, factors: Tensor | None = None) -> Tensor:
        """Features of the noise level, and of the factors where they are told, ``(batch, features)`` float32."""
        found = noise_features(sigma)
        if not self.told:
            return found
        assert factors is not None
        return torch.cat([found, factor_features(factors.to(found.device)).expand(len(found), -1)], dim=1)

    def _raw(self, x: Tensor, features: Tensor) -> Tensor:
        folded = functional.pixel_unshuffle(x, self.unshuffle)
        # What is compiled has no gradient.
        body = self.body if self.engine is None or folded.requires_grad else self.engine
        return functional.pixel_shuffle(body(folded, features), self.unshuffle)

    def body(self, x: Tensor, features: Tensor) -> Tensor:
        """Network body: folded images and noise features, float32, to folded images, float32.

        In between it computes in the dtype of its parameters; what is outside of it keeps float32, because
        bfloat16 would round an image by up to 0.4 %, more than the lowest noise levels.
        """
        dtype = self.stem.weight.dtype
        embedding = self.embed(features.to(dtype))
        x = self.stem(x.to(dtype, memory_format=torch.channels_last))
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = _through(blocks, x, embedding)
            skips.append(x)
            x = down(x)
        x = _through(self.bottom, x, embedding)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = _through(blocks, up(x) + skips.pop(), embedding)
        return cast(Tensor, self.head(x).to(torch.float32))


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _through(blocks: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        x = block(x, embedding)
    return x


def noise_features(sigma: Tensor) -> Tensor:
    """Fourier features of ``ln(sigma)`` at geometric frequencies, ``(batch, NOISE_FEATURES)`` float32."""
    frequencies = torch.exp(torch.linspace(-2.0, 2.5, NOISE_FEATURES // 2, device=sigma.device))
    angle = sigma.to(torch.float32).log()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def factor_features(factors: Tensor) -> Tensor:
    """Fourier features of the logarithms of factors ``(batch, 2)``, ``(batch, FACTOR_FEATURES)`` float32."""
    frequencies = torch.exp(torch.linspace(0.0, 1.5, FACTOR_FEATURES // 4, device=factors.device))
    angle = (factors.to(torch.float32).log()[:, :, None] * frequencies).flatten(1)
    return torch.cat([angle.sin(), angle.cos() - 1], dim=1)


def smooth_phase_factor(x: Tensor) -> Tensor:
    """Smooth phase ``exp(i phase)`` of a complex image ``(batch, 2, rows, cols)`` under a low-pass, same shape.

    Means over blocks, a binomial kernel on them, linear interpolation: about a Gaussian of `PHASE_BLOCK` pixels.
    """
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device) / 16
    kernel = (kernel[:, None] * kernel).expand(2, 1, 5, 5)
    blocks = functional.conv2d(functional.avg_pool2d(x, PHASE_BLOCK), kernel, padding=2, groups=2)
    smooth = functional.interpolate(blocks, scale_factor=PHASE_BLOCK, mode="bilinear", align_corners=False)
    one = torch.tensor([1.0, 0.0], device=x.device).reshape(1, 2, 1, 1)
    # Where coil maps have cut the background off there is no phase: that of the whole image turns with it too.
    return _unit(smooth, _unit(x.mean(dim=(2, 3), keepdim=True), one))


def _unit(x: Tensor, otherwise: Tensor) -> Tensor:
    """Divide complex numbers ``(batch, 2, rows, cols)`` by their magnitude; `otherwise` where that is 0."""
    power = x.square().sum(dim=1, keepdim=True)
    return torch.where(power > 1e-30, x * power.clamp(min=1e-30).rsqrt(), otherwise)


def conjugate(factor: Tensor) -> Tensor:
    """Complex conjugate of ``(batch, 2, rows, cols)``."""
    return torch.stack([factor[:, 0], -factor[:, 1]], dim=1)


def turned(x: Tensor, factor: Tensor) -> Tensor:
    """Complex product of `x`, one or more complex images in its channels, and `factor` ``(batch, 2, rows, cols)``."""
    real, imaginary = x[:, 0::2], x[:, 1::2]
    c, s = factor[:, :1], factor[:, 1:]
    return torch.stack([real * c - imaginary * s, real * s + imaginary * c], dim=2).flatten(1, 2)


def as_channels(x: Tensor) -> Tensor:
    """Convert slices ``(slices, rows, cols)``, real or complex, to ``(slices, 1 or 2, rows, cols)`` float32."""
    return torch.view_as_real(x.resolve_conj()).movedim(-1, 1).float() if x.is_complex() else x[:, None].float()


def from_channels(x: Tensor) -> Tensor:
    """Inverse of `as_channels`."""
    return torch.view_as_complex(x.movedim(1, -1).contiguous()) if x.shape[1] == 2 else x[:, 0]
