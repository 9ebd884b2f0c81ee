"""Coil sensitivities, estimated by ESPIRiT from the fully sampled centre of k-space."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from operators.fourier import inverse_fourier
from operators.interrupt import checkpoint

MINIMUM_CALIBRATION = 8
MAXIMUM_CALIBRATION = 32
"""Largest side of the calibration region where both are limited."""
LONGEST_CALIBRATION = 64
"""Largest side of it along lines that were sampled as a whole."""
THRESHOLD = 0.02
"""Singular values below this share of the largest are noise."""
SUPPORT = 0.8
"""Pixels whose ESPIRiT eigenvalue is below this hold no signal; their sensitivity is zero. A larger one leaves less
beside the object and cuts into its rim: with 0.9 pixels of 4 % of the largest value were gone."""
SHARED = 1.1
"""Largest singular value of blocks of noise that share samples, over that of independent ones."""
LARGEST_KERNEL = 6
FOLDED = 0.9
"""Second eigenvalue above which a pixel holds more than one part of the object."""
COARSE = LONGEST_CALIBRATION
"""Side of the grid on which the second eigenvalue is looked at."""
ROWS_AT_ONCE = 32
TOLD = 10.0
"""Noise of a combination of coils over that of the usual one, up to which whitened maps tell its sensitivity."""
FAINT = 0.1
"""Energy of a coil over that of the one with most below which its phase does not become the image's."""
NOTHING = 0.1
"""Energy of a slice over that of its noise up to which it holds nothing: chance makes a few per cent of it."""
ENERGY = 0.9
"""Share of the image's energy that the maps must cover."""


def acs_width(mask: Tensor, limit: int = MAXIMUM_CALIBRATION) -> int:
    """Side of the largest centred square of `mask` ``(rows, cols)`` that is fully sampled, at most `limit`."""
    rows, cols = mask.shape
    width = 0
    for candidate in range(1, min(rows, cols, limit) + 1):
        top, left = rows // 2 - candidate // 2, cols // 2 - candidate // 2
        if not bool(mask[top : top + candidate, left : left + candidate].all()):
            break
        width = candidate
    return width


def calibration_region(mask: Tensor, width: int | None = None) -> tuple[int, int]:
    """Rows and columns of the region in the centre of k-space that calibrates the coils.

    The largest square that is fully sampled in `mask` ``(rows, cols)``, at most `MAXIMUM_CALIBRATION` points wide, and
    longer along the axis that allows it: of eight to twenty lines each is known from end to end, and a square of them
    has fewer equations than ESPIRiT's kernels have unknowns.

    Parameters
    ----------
    width
        Side of the square, if it is given.

    Raises
    ------
    InputError
        If the square is not sampled, or too small.
    """
    available = acs_width(mask, max(width or 0, MAXIMUM_CALIBRATION))
    wanted = width or available
    if wanted > available or wanted < MINIMUM_CALIBRATION:
        raise InputError(
            f"the fully sampled centre of k-space is {available} x {available} points, "
            f"calibration needs {max(wanted, MINIMUM_CALIBRATION)}",
            field="acquisition.acs_width",
            remedy="measure more central lines, or give coil maps with acquisition.coil_maps",
        )
    if width is not None or wanted >= MAXIMUM_CALIBRATION:
        return wanted, wanted
    sides = _longest(mask, wanted), _longest(mask.T, wanted)
    return (wanted, sides[0]) if sides[0] >= sides[1] else (sides[1], wanted)


def _longest(mask: Tensor, rows: int) -> int:
    """Columns, at most `LONGEST_CALIBRATION`, up to which the central `rows` of a mask are fully sampled."""
    top, middle = mask.shape[0] // 2 - rows // 2, mask.shape[1] // 2
    whole = mask[top : top + rows].all(0)
    columns = rows
    while columns < min(LONGEST_CALIBRATION, mask.shape[1]):
        left = middle - (columns + 1) // 2
        if not bool(whole[left : left + columns + 1].all()):
            break
        columns += 1
    return columns


def espirit_maps(kspace: Tensor, mask: Tensor, width: int | None = None, noise_std: Tensor | None = None) -> Tensor:
    """Estimate coil sensitivity maps, one set per slice.

    Parameters
    ----------
    kspace
        ``(slices, coils, rows, cols)`` complex.
    mask
        Sampled points, ``(rows, cols)`` bool.
    width
        Side of the calibration square. Default: `calibration_region`.
    noise_std
        Of each slice, ``(slices,)``, per real channel: what is no larger than noise makes it is no signal. Default: no
        noise.

    Returns
    -------
    Tensor
        ``(slices, coils, rows, cols)`` complex64, unit norm over coils inside the object, zero outside.

    Raises
    ------
    InputError
        If the centre of k-space is not sampled, or tells the sensitivities of a part of the object only.

    References
    ----------
    Uecker et al. 2014, Magn. Reson. Med. 71, 990-1001.
    """
    if kspace.shape[1] == 1:
        return torch.ones_like(kspace, dtype=torch.complex64)  # nothing to calibrate
    found = espirit_sets(kspace, mask, 1, width, noise_std)[:, 0]
    region = calibration_region(mask, width)
    for one, maps, noise in zip(kspace, found, _levels(kspace, noise_std), strict=True):
        kept = _energy_inside(_centre(one, region), maps, noise)
        if kept < ENERGY:
            raise InputError(
                f"ESPIRiT found sensitivities for {100 * kept:.0f} % of the signal only,"
                f" from {region[0]} x {region[1]} points",
                field="acquisition.acs_width",
                remedy="measure more central lines, or give coil maps with acquisition.coil_maps",
            )
    return found


def espirit_sets(
    kspace: Tensor, mask: Tensor, sets: int, width: int | None = None, noise_std: Tensor | None = None
) -> Tensor:
    """Estimate several sets of coil sensitivity maps per slice, for objects that are folded over.

    Parameters
    ----------
    kspace, mask, width, noise_std
        As of `espirit_maps`.
    sets
        Number of sets.

    Returns
    -------
    Tensor
        ``(slices, sets, coils, rows, cols)`` complex64, of unit norm over coils and orthogonal where something is seen
        by that many sets, zero elsewhere.

    References
    ----------
    Uecker et al. 2014, Magn. Reson. Med. 71, 990-1001.
    """
    region = calibration_region(mask, width)
    reference = _reference(kspace)
    return torch.stack(
        [
            _sets_of_slice(one.to(torch.complex64), region, sets, reference, noise)
            for one, noise in zip(kspace, _levels(kspace, noise_std), strict=True)
        ]
    )


def shaded_as_measured(maps: Tensor, unmixing: NDArray[np.complex128] | None) -> Tensor:
    """Recombine ESPIRiT's maps of whitened coils, pixel by pixel, so that the measured coils' maps are orthonormal.

    ESPIRiT's maps have unit norm over the coils that it is given, and so an image has the shading of these: the norm of
    all that they see. Whitened coils ``W S`` have another than the measured ones ``S``, since a noisy coil counts for
    less. With ``m / |W^-1 m|`` in place of the maps ``m`` the image has the shading ``|S|`` that ESPIRiT gives it
    without whitening, whatever the noise. Later sets are made orthogonal to those before (Gram and Schmidt): the root
    sum of squares of the images is that of what the measured coils see.

    Combinations of coils that are more than `TOLD` times as noisy as the usual one are not seen in whitened maps, whose
    errors ``W^-1`` would enlarge so often: the shading is that of the others, as if such a coil were dead.

    Parameters
    ----------
    maps
        ``(slices, [sets,] coils, rows, cols)`` complex, of the combined coils.
    unmixing
        Combination ``(measured coils, coils)``, ``W^-1``, that leads from what the coils see to what the measured ones
        see; None if they are these.
    """
    if unmixing is None or np.allclose(np.linalg.svd(unmixing, compute_uv=False), 1, atol=1e-6):
        return maps
    found = torch.stack([_shaded(own, unmixing) for own in (maps if maps.ndim == 5 else maps[:, None])])
    return found if maps.ndim == 5 else found[:, 0]


def _shaded(maps: Tensor, unmixing: NDArray[np.complex128]) -> Tensor:
    """`shaded_as_measured` of one slice ``(sets, coils, rows, cols)``."""
    left, values, right = np.linalg.svd(unmixing, full_matrices=False)
    told = torch.from_numpy((left * (values / (1 + (values / TOLD) ** 4))) @ right).to(maps.dtype)
    seen = torch.einsum("mc,jcrx->jmrx", told, maps)
    found: list[tuple[Tensor, Tensor]] = []
    for own, own_seen in zip(maps, seen, strict=True):
        for other, other_seen in found:
            along = (other_seen.conj() * own_seen).sum(0)
            own, own_seen = own - along * other, own_seen - along * other_seen
        norm = torch.linalg.vector_norm(own_seen, dim=0)
        scale = torch.where(norm > 0, 1 / norm, 0)
        found.append((own * scale, own_seen * scale))
    return torch.stack([own for own, _ in found])


def folded_share(kspace: Tensor, mask: Tensor, width: int | None, noise_std: Tensor) -> float:
    """Fraction of the energy of the image, of the slice with most, where ESPIRiT's second eigenvalue is nearly 1 too.

    There the coils' images are more than one object times one set of sensitivities: the field of view is smaller than
    the object. Evaluated on a coarse grid, since the eigenvalues are smooth.

    Parameters
    ----------
    kspace, mask, width
        As of `espirit_maps`.
    noise_std
        Of each slice, ``(slices,)``, per real channel: what is no larger than noise makes it is no signal.
    """
    if kspace.shape[1] < 2:
        return 0.0
    region = calibration_region(mask, width)
    found = [0.0]
    for one, noise in zip(kspace, noise_std.tolist(), strict=True):
        checkpoint()
        centre = _centre(one.to(torch.complex64), region)
        if not bool(centre.any()):
            continue
        grid = (max(COARSE, region[0]), max(COARSE, region[1]))
        values = torch.linalg.eigvalsh(_gram(_kernels(centre, noise), grid, slice(None)))
        energy = inverse_fourier(_padded(centre, grid)).abs().square().sum(0)
        found.append(float((energy * (values[..., -2] > FOLDED)).sum() / energy.sum()))
    return max(found)


def _centre(kspace: Tensor, region: tuple[int, int]) -> Tensor:
    """Cut the calibration region ``(coils, rows, cols)`` out of k-space."""
    top, left = (n // 2 - side // 2 for n, side in zip(kspace.shape[-2:], region, strict=True))
    found: Tensor = kspace[..., top : top + region[0], left : left + region[1]]
    return found


def _padded(centre: Tensor, shape: tuple[int, int]) -> Tensor:
    """Continue ``(..., rows, cols)`` around its centre by zeros."""
    found = centre.new_zeros((*centre.shape[:-2], *shape))
    top, left = (n // 2 - m // 2 for n, m in zip(shape, centre.shape[-2:], strict=True))
    found[..., top : top + centre.shape[-2], left : left + centre.shape[-1]] = centre
    return found


def _kernels(centre: Tensor, noise_std: float = 0.0) -> Tensor:
    """Kernels ``(kernels, coils, rows, cols)`` that span the signal's part of a calibration region."""
    # A kernel wider than half the region leaves too few equations, and no signal space at all.
    rows, cols = (min(LARGEST_KERNEL, n // 2) for n in centre.shape[-2:])
    blocks = centre.unfold(1, rows, 1).unfold(2, cols, 1)  # (coils, places, places, rows, cols)
    matrix = blocks.permute(1, 2, 0, 3, 4).reshape(-1, len(centre) * rows * cols)
    _, values, vectors = torch.linalg.svd(matrix, full_matrices=False)
    # Largest singular value of noise alone (Marchenko and Pastur 1967), but that neighbouring blocks share samples.
    noise = SHARED * math.sqrt(2) * noise_std * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1]))
    signal = (values > THRESHOLD * values[0]) & (values > noise)
    found: Tensor = vectors[signal].reshape(-1, len(centre), rows, cols)
    return found


def _gram(kernels: Tensor, shape: tuple[int, int], rows: slice) -> Tensor:
    """ESPIRiT's operator at every pixel of some rows, ``(rows, cols, coils, coils)``; its eigenvalues are 0 to 1."""
    along = [_waves(n, side) for n, side in zip(shape, kernels.shape[-2:], strict=True)]
    images = torch.einsum("ry,kcyx,qx->rqck", along[0][rows], kernels, along[1])
    found: Tensor = images @ images.mH / (kernels.shape[-2] * kernels.shape[-1])
    return found


def _waves(n: int, side: int) -> Tensor:
    """Matrix ``(n, side)`` of the inverse Fourier transform of the middle `side` points out of `n`, without factor."""
    place, point = torch.arange(n) - n // 2, torch.arange(side) - side // 2
    found: Tensor = torch.exp(2j * torch.pi * torch.outer(place, point) / n)
    return found.to(torch.complex64)


def _sets_of_slice(kspace: Tensor, region: tuple[int, int], sets: int, reference: int, noise_std: float) -> Tensor:
    coils, rows, cols = kspace.shape
    found = kspace.new_zeros((sets, coils, rows, cols))
    centre = _centre(kspace, region)
    if not bool(centre.any()):
        return found
    kernels = _kernels(centre, noise_std)
    for first in range(0, rows, ROWS_AT_ONCE):
        checkpoint()
        part = slice(first, first + ROWS_AT_ONCE)
        values, vectors = torch.linalg.eigh(_gram(kernels, (rows, cols), part))
        for number in range(sets):
            vector = vectors[..., -1 - number]
            turned = vector * torch.exp(-1j * vector[..., reference, None].angle())
            found[number, :, part] = (turned * (values[..., -1 - number, None] > SUPPORT)).permute(2, 0, 1)
    return found


def _levels(kspace: Tensor, noise_std: Tensor | None) -> list[float]:
    """Noise of each slice; zero if it is not known."""
    return [0.0] * len(kspace) if noise_std is None else [float(v) for v in noise_std]


def _reference(kspace: Tensor) -> int:
    """Coil whose phase becomes the image's: the first, unless it hears hardly anything."""
    energy = kspace.abs().square().sum((0, 2, 3))
    return 0 if bool(energy[0] > FAINT * energy.max()) else int(energy.argmax())


def _energy_inside(centre: Tensor, maps: Tensor, noise_std: float) -> float:
    """Fraction of the energy of the image of a calibration region where the maps ``(coils, rows, cols)`` are not zero.

    What noise adds to it everywhere is left out. A slice that holds no more than noise misses nothing.
    """
    rows, cols = maps.shape[-2:]
    noise = 2 * noise_std**2 * centre.numel()
    energy = inverse_fourier(_padded(centre, (rows, cols))).abs().square().sum(0) - noise / (rows * cols)
    whole = float(energy.sum())
    return float((energy * (maps != 0).any(0)).sum()) / whole if whole > NOTHING * noise else 1.0
