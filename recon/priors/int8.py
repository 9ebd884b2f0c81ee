"""8-bit integers in the blocks of a network, for processors that multiply them natively.

Weights of the blocks' convolutions are rounded to 255 levels by output channel, their inputs to 256 within fixed
ranges, which the card of a prior states. What lies between the convolutions, the first and the last one of the network
and those that change the resolution keep the precision that they have. OpenVINO computes such convolutions in integers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.priors.network import Block, Denoiser

Ranges = Sequence[tuple[float, float]]
"""Range of the input of each block's two convolutions, in the order of the blocks: it is taken to lie between minus
and plus the first number, and between 0 and the second, since it follows a rectifier."""


class _Convolution(nn.Module):
    """Convolution of rounded inputs with rounded weights."""

    def __init__(self, convolution: nn.Conv2d, largest: float, *, positive: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.positive = convolution.weight, convolution.bias, positive
        self.step = largest / (255 if positive else 127)
        steps = convolution.weight.detach().abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / 127
        self.register_buffer("steps", steps)
        self.register_buffer("zeros", torch.zeros(len(steps), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        low, high = (0, 255) if self.positive else (-128, 127)
        x = torch.fake_quantize_per_tensor_affine(x, self.step, 0, low, high)
        steps, zeros = cast(Tensor, self.steps), cast(Tensor, self.zeros)
        weight = torch.fake_quantize_per_channel_affine(self.weight, steps, zeros, 0, -127, 127)
        return functional.conv2d(x, weight, self.bias, padding=1)


class _Block(nn.Module):
    """Block whose convolutions are rounded; the noise level scales what the first one returns, not its weights."""

    def __init__(self, block: Block, ranges: tuple[float, float]) -> None:
        super().__init__()
        self.level = block.level
        self.first = _Convolution(block.first, ranges[0], positive=False)
        self.second = _Convolution(block.second, ranges[1], positive=True)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.level(embedding)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.second(functional.relu(self.first(x) * (1 + scale) + shift)) + x
        return out


def rounded(network: Denoiser, ranges: Ranges) -> Denoiser:
    """Copy of a network whose blocks compute with numbers that 8 bits can hold."""
    found = copy.deepcopy(network)
    places = [(blocks, index) for blocks in _lists(found) for index in range(len(blocks))]
    for (blocks, index), largest in zip(places, ranges, strict=True):
        blocks[index] = _Block(cast(Block, blocks[index]), largest)
    return found


def largest_inputs(network: Denoiser, evaluate: Callable[[], object]) -> Tensor:
    """Largest magnitudes of the inputs of each block's two convolutions while `evaluate` runs, ``(blocks, 2)``.

    `evaluate` calls the network, which must not be compiled.
    """
    blocks = [cast(Block, block) for block in chain.from_iterable(_lists(network))]
    found = torch.zeros(len(blocks), 2)

    def watch(row: int, column: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def seen(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            found[row, column] = torch.maximum(found[row, column], given[0].detach().abs().max().cpu())

        return seen

    modules = [(row, column, module) for row, b in enumerate(blocks) for column, module in enumerate((b, b.second))]
    hooks = [module.register_forward_pre_hook(watch(row, column)) for row, column, module in modules]
    try:
        evaluate()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _lists(network: Denoiser) -> list[nn.ModuleList]:
    """Lists of blocks, in the order in which cards state their ranges."""
    return [cast(nn.ModuleList, blocks) for blocks in (*network.encoder, network.bottom, *network.decoder)]
