"""The denoising network: MONAI's diffusion U-Net behind a pixel-unshuffle stem, with EDM preconditioning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn
from torch.nn import functional

UNSHUFFLE = 2
"""The stem folds 2 x 2 pixels into channels: a quarter of the positions for the same receptive field."""


class Denoiser(nn.Module):
    """``D(x, sigma)``, an estimate of ``E[x0 | x = x0 + sigma n]`` with ``n ~ N(0, I)`` per real channel.

    Preconditioned after Karras et al. 2022 (arXiv 2206.00364, equation 7), so that the network itself
    always sees unit variance and predicts a unit-variance target.

    Parameters
    ----------
    image_channels
        1 for real images, 2 for complex ones (real and imaginary part).
    channels
        Feature channels of each resolution level, finest first.
    sigma_data
        Root mean square of a training image per channel, on the prior's axis.
    norm_groups
        Groups of the group normalisation; divides every entry of `channels`.
    """

    def __init__(self, image_channels: int, channels: Sequence[int], sigma_data: float, norm_groups: int = 16) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.sigma_data = sigma_data
        folded = image_channels * UNSHUFFLE**2
        self.multiple = UNSHUFFLE * 2 ** (len(channels) - 1)
        """Rows and columns must be multiples of this."""
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=folded,
            out_channels=folded,
            channels=tuple(channels),
            attention_levels=(False,) * len(channels),
            num_res_blocks=1,
            num_head_channels=channels[-1],
            norm_num_groups=norm_groups,
            use_flash_attention=True,
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise.

        Parameters
        ----------
        x
            Noisy images, shape ``(batch, image_channels, rows, cols)``, float32.
        sigma
            Noise levels, shape ``(batch,)``, on the same axis as `x`.

        Returns
        -------
        Tensor
            Denoised images, same shape, float32. Differentiable.
        """
        s = sigma.reshape(-1, 1, 1, 1).to(torch.float32)
        total = s.square() + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = s * self.sigma_data / total.sqrt()
        c_in = total.rsqrt()
        dtype = next(self.unet.parameters()).dtype
        folded = functional.pixel_unshuffle(x * c_in, UNSHUFFLE).to(dtype, memory_format=torch.channels_last)
        # MONAI's sinusoidal embedding expects a time in 0..1000: ln(sigma) from 1.5e-3 to 33 mapped onto it.
        time = 100.0 * (sigma.to(torch.float32).log() + 6.5)
        raw = functional.pixel_shuffle(self.unet(folded, time).to(torch.float32), UNSHUFFLE)
        return c_skip * x + c_out * raw
