"""Optimiser of training: Muon for the convolution kernels, AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ADAMW_SHARE = 0.5
"""Learning rate of AdamW's parameters relative to Muon's."""


class Optimizer:
    """Muon (Jordan et al. 2024): orthogonalises the momentum of each kernel, seen as a matrix (out, in x taps).

    Against AdamW alone it reaches the same loss in clearly fewer steps (docs/research-log/training.md). The matrices
    are views of the kernels' memory in channels-last order, so that PyTorch's Muon, which takes matrices only, updates
    the network in place.

    Parameters
    ----------
    network
        In channels-last layout.
    learning_rate
        Peak learning rate, of Muon with its step matched to AdamW's.
    muon
        Without it AdamW updates everything at the full rate, for comparison.
    """

    def __init__(self, network: nn.Module, learning_rate: float, *, muon: bool = True) -> None:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)] if muon else []
        kernels: list[Tensor] = [layer.weight for layer in layers]
        own = {id(k) for k in kernels}
        others: list[Tensor] = [p for p in network.parameters() if id(p) not in own]
        self.parameters = kernels + others
        self.pairs = [(kernel, nn.Parameter(_matrix(kernel.detach()))) for kernel in kernels]
        matrices = [matrix for _, matrix in self.pairs]
        adamw = torch.optim.AdamW(others, learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.parts: dict[str, tuple[torch.optim.Optimizer, float]] = {"adamw": (adamw, ADAMW_SHARE if muon else 1.0)}
        if muon:
            own_steps = torch.optim.Muon(matrices, learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            self.parts["muon"] = (own_steps, 1.0)

    def step(self, learning_rate: float) -> None:
        """Update the parameters with the gradients that `backward` left, then clear these."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for kernel, matrix in self.pairs:
            assert kernel.grad is not None
            matrix.grad = _matrix(kernel.grad)
        for optimizer, share in self.parts.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * share
            optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """State of both optimisers."""
        return {name: optimizer.state_dict() for name, (optimizer, _) in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from `state_dict`."""
        for name, (optimizer, _) in self.parts.items():
            optimizer.load_state_dict(state[name])


def _matrix(kernel: Tensor) -> Tensor:
    """Reshape a kernel ``(first, second, rows, cols)`` to a matrix ``(first, rest)``, a view if channels-last."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)
