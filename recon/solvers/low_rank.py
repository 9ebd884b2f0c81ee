"""Locally low rank of the coils' images, slice by slice, for MRI with several coils."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.linear import each_slice
from operators.noncartesian import NonCartesianMRI
from operators.phase import PhaseConstrained
from recon.problem.problem import Problem, Progress, Solver, check_finite
from recon.solvers.proximal_gradient import accelerated
from recon.spec.methods import LowRank

REPORT_EVERY = 5
LEAST_SENSITIVITY = 1e-4
"""Squared sensitivity of all coils together, relative to the largest, below which they count as blind."""


def solve(problem: Problem, settings: LowRank) -> Solver:
    """Minimise ``sum_c 1/2 |A x_c / |A| - y_c / |A||^2 + weight (sqrt(p) + sqrt(c)) sum_b |X_b|_*`` (CLEAR).

    The unknowns are the images `x_c` of the `c` coils, scaled to the robust maximum of the combined one. `X_b` is a
    block of them, ``(pixels, coils)``: sensitivities vary slowly, so that few columns tell all. The blocks of `p`
    pixels are shifted at random in every iteration. White noise of unit standard deviation has singular values up to
    ``sqrt(p) + sqrt(c)``, so that `weight` means the same for all blocks and numbers of coils. Coil maps do not take
    part but at the end: of all images, the one is given whose coils' images come nearest to those that were found.

    Where the phase of the image is known, each coil has a virtual one, whose image is the conjugate of its own with
    the known phase: `X_b` has their columns, too.

    References
    ----------
    Trzasko and Manduca 2011, Asilomar Conf. Signals Syst. Comput., 797-801 (CLEAR). Zhang, Pauly and Levesque 2015,
    Magn. Reson. Med. 73, 655-661. Cai, Candes and Shen 2010, SIAM J. Optim. 20, 1956-1982 (proximal map). Blaimer et
    al. 2009, Magn. Reson. Med. 61, 93-102 (virtual coils).
    """
    constrained = problem.operator
    phase = constrained.phase if isinstance(constrained, PhaseConstrained) else None
    operator = constrained.operator if isinstance(constrained, PhaseConstrained) else constrained
    if not isinstance(operator, CartesianMRI | NonCartesianMRI):
        raise InputError(
            f"{settings.name} needs an MRI acquisition", field="method.name", remedy="choose another method"
        )
    if operator.range.shape[0] < 2:
        raise InputError(
            f"{settings.name} needs several coils, there is one", field="method.name", remedy="use l1-wavelet"
        )
    if phase is not None and operator.images > 1:
        raise InputError(
            f"{settings.name} takes partial Fourier with one set of coil maps, there are {operator.images}",
            field="method.name",
            remedy="give acquisition.preparation.map_sets: 1 or partial_fourier: false",
        )
    coils = Coils(operator, phase)
    each = operator.of_coils()
    start = coils.seen(problem.initial_image())
    norm, scale = each_slice(each.norms, start), each_slice(problem.scales, start)
    start = start / scale
    weight = (settings.weight_per_noise * each_slice(problem.noise, start) / (norm * scale)).clamp(settings.min_weight)
    if settings.weight is not None:
        weight = torch.full_like(scale, settings.weight)
    width, columns = settings.block_width, start.shape[1] * (1 if phase is None else 2)
    threshold = (weight * (width + math.sqrt(columns))).flatten()
    data_side = each.adjoint(problem.data) / (norm**2 * scale)
    generator = torch.Generator().manual_seed(0)

    def step(ahead: Tensor) -> Tensor:
        down, across = torch.randint(0, width, (2,), generator=generator).tolist()
        descended = ahead - each.normal(ahead) / norm**2 + data_side
        return shrunk(descended, threshold, width, (down, across), phase)

    for count, found in enumerate(accelerated(start, step, settings.iterations), 1):
        if count % REPORT_EVERY == 0 or count == settings.iterations:
            volume = coils.combined(found * scale)
            yield Progress(count, settings.iterations, volume, problem, settings.name)
    return check_finite(volume, settings.name)


def shrunk(
    images: Tensor, threshold: Tensor, width: int, shift: tuple[int, int], phase: Tensor | None = None
) -> Tensor:
    """Soft threshold of the singular values of blocks of coil images, ``(slices, coils, rows, cols)``.

    Parameters
    ----------
    images
        Images of the coils.
    threshold
        Of each slice, ``(slices,)``, positive.
    width
        Rows and columns of a block; at the image's edges blocks are smaller.
    shift
        Rows and columns by which the blocks begin before the image.
    phase
        ``e^(i p)`` of the image, ``(slices, rows, cols)``, if virtual coils are to take part.
    """
    rows, cols = images.shape[-2:]
    down, across = ((s, -(n + s) % width) for n, s in zip((rows, cols), shift, strict=True))
    pad = (*across, *down)
    found = torch.empty_like(images)
    # One slice at a time: its blocks fit into a core's cache, and have the same bits in any stack.
    for index, one in enumerate(images):
        # Zeros leave the singular values as they are.
        padded = torch.nn.functional.pad(one, pad)
        matrix = _blocks(padded, width)
        if phase is not None:
            turned = _blocks(torch.nn.functional.pad(phase[index, None].square(), pad), width)
            matrix = torch.cat([matrix, turned * matrix.conj()], -1)
        # The eigenvalues are squares: single precision would leave those of a thousandth to chance.
        wide = matrix.to(torch.complex128)
        squares, vectors = torch.linalg.eigh(wide.mH @ wide)
        sizes = squares.clamp(min=0).sqrt()
        kept = 1 - threshold[index] / sizes.maximum(threshold[index].to(sizes.dtype))
        projection = (vectors * kept[..., None, :]) @ vectors[..., : len(one), :].mH
        whole = _unblocked(matrix @ projection.to(matrix.dtype), width, (padded.shape[-2], padded.shape[-1]))
        found[index] = whole[:, shift[0] : shift[0] + rows, shift[1] : shift[1] + cols]
    return found


def _blocks(images: Tensor, width: int) -> Tensor:
    """Blocks ``(blocks, pixels, coils)`` of ``(coils, rows, cols)``, whose sides are multiples of `width`."""
    coils, rows, cols = images.shape
    parts = images.reshape(coils, rows // width, width, cols // width, width)
    return parts.permute(1, 3, 2, 4, 0).reshape(-1, width * width, coils)


def _unblocked(blocks: Tensor, width: int, shape: tuple[int, int]) -> Tensor:
    """Inverse of `_blocks`, for images of a shape ``(rows, cols)``."""
    rows, cols = shape
    parts = blocks.reshape(rows // width, cols // width, width, width, -1)
    return parts.permute(4, 0, 2, 1, 3).reshape(-1, rows, cols)


class Coils:
    """Coil sensitivities ``S``: from an image to those of its coils, and back by least squares.

    Parameters
    ----------
    operator
        Operator with coil maps, one set or more.
    phase
        ``e^(i p)`` of the image, ``(slices, rows, cols)``, which is real but for it; None if it is free.
    """

    def __init__(self, operator: CartesianMRI | NonCartesianMRI, phase: Tensor | None = None) -> None:
        self.phase = phase
        maps = operator.maps
        self._maps = maps.reshape(len(maps), operator.images, -1, *maps.shape[-2:])
        gram = torch.einsum("nicrs,njcrs->nrsij", self._maps.conj(), self._maps)
        least = LEAST_SENSITIVITY * float(gram.abs().max())
        self._inverse = torch.linalg.pinv(gram, atol=least, hermitian=True)

    def seen(self, image: Tensor) -> Tensor:
        """Images of the coils ``(slices, coils, rows, cols)`` of ``(slices, images * rows, cols)``."""
        turned = image if self.phase is None else image * self.phase
        apart = turned.reshape(len(image), self._maps.shape[1], *self._maps.shape[-2:])
        return torch.einsum("nicrs,nirs->ncrs", self._maps.expand(len(image), *self._maps.shape[1:]), apart)

    def combined(self, images: Tensor) -> Tensor:
        """Image ``(slices, images * rows, cols)`` whose coils' images come nearest to those given."""
        every = (len(images), -1, -1, -1, -1)
        right = torch.einsum("nicrs,ncrs->nrsi", self._maps.conj().expand(every), images)
        found = torch.einsum("nrsij,nrsj->nirs", self._inverse.expand(every), right).flatten(1, 2)
        if self.phase is None:
            return found
        return torch.complex((found * self.phase.conj()).real, torch.zeros_like(found.real))
