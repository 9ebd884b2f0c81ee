"""Priors of slices that are not those of a problem: of volumes, or across, as where 3D k-space is solved in planes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from recon.priors.prior import Prior


class Slicewise:
    """Prior of the slices of volumes ``(volumes, slices, rows, cols)``; for solvers, a prior like any other."""

    joint = True

    def __init__(self, prior: Prior) -> None:
        self._prior = prior

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return self._prior.complex

    def denoise(self, x: Tensor, sigma: float, *, index: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for the volumes of `index`; `x` are all volumes of the problem."""
        found = self._prior.denoise(x.flatten(0, 1), sigma).reshape(x.shape)
        return found if index is None else found[index]

    def changed(self, change: Callable[[Prior], Prior]) -> Slicewise:
        """Change the prior inside."""
        return Slicewise(change(self._prior))


class Across:
    """Prior that sees a problem's volume in slices along another of its axes; for solvers, a prior like any other.

    Parameters
    ----------
    prior
        Prior of the slices.
    axes
        Axes of the problem's volume in the order in which the prior sees it: slices, rows, columns.
    shape
        Shape of the problem's volume.
    """

    joint = True

    def __init__(self, prior: Prior, axes: tuple[int, int, int], shape: tuple[int, ...]) -> None:
        self._prior, self._axes, self._shape = prior, axes, shape
        self._back = (axes.index(0), axes.index(1), axes.index(2))

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return self._prior.complex

    def denoise(self, x: Tensor, sigma: float, *, index: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for the planes of `index`; `x` are all planes of the problem."""
        seen = x.permute(self._axes).contiguous()
        found = self._prior.denoise(seen, sigma).permute(self._back)
        return (found if index is None else found[index]).contiguous()

    def changed(self, change: Callable[[Prior, tuple[int, int]], Prior]) -> Across:
        """Change the prior inside, given the rows and columns that it sees."""
        _, rows, cols = (self._shape[axis] for axis in self._axes)
        return Across(change(self._prior, (rows, cols)), self._axes, self._shape)
