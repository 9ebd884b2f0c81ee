"""Preconditioners in Fourier space, for conjugate gradients on normal operators that act like a blur."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from operators.differences import BetweenSlices
from operators.linear import LinearOperator


def frequencies(shape: tuple[int, int]) -> Tensor:
    """Radial frequency in cycles per pixel on the grid of `torch.fft.rfft2`; the mean gets that of half a period."""
    rows, cols = shape
    radial = torch.hypot(torch.fft.fftfreq(rows)[:, None], torch.fft.rfftfreq(cols)[None, :])
    radial[0, 0] = 0.5 / max(rows, cols)
    return radial


def projection_spectrum(operator: LinearOperator) -> Tensor:
    """Eigenvalues of ``A^H A`` for line integrals ``A``, as if it were a convolution: ``c / |f|``.

    Back-projected projections are blurred by ``1 / r`` around the axis, whatever the number of views, hence the form;
    `c` is measured with one bright pixel in the centre. Between the radial lines of few views the true values
    are lower.

    References
    ----------
    Fessler and Booth 1999, IEEE Trans. Image Process. 8, 688-699 (circulant preconditioners for tomography).
    """
    *slices, rows, cols = operator.domain.shape
    pixel = torch.zeros(operator.slices or 1, *operator.domain.shape)
    plane = pixel[:, slices[0] // 2] if slices else pixel
    plane[:, rows // 2, cols // 2] = 1.0
    found = operator.normal(pixel)[0]
    # Of a volume, the pixel's own slice.
    around = found[slices[0] // 2] if slices else found
    response = torch.fft.rfft2(torch.fft.ifftshift(around)).real
    radial = frequencies((rows, cols))
    spectrum: Tensor = (response * radial).mean() / radial
    return spectrum


def laplacian_spectrum(shape: tuple[int, int], *, complex: bool = False) -> Tensor:
    """Eigenvalues of ``D^T D`` for forward differences along rows and columns, on the grid of the images' transform.

    That is `torch.fft.rfft2` of real images and `torch.fft.fft2` of `complex` ones.
    """
    along_cols = torch.fft.fftfreq(shape[1]) if complex else torch.fft.rfftfreq(shape[1])
    rows, cols = (2 - 2 * torch.cos(2 * math.pi * f) for f in (torch.fft.fftfreq(shape[0]), along_cols))
    total: Tensor = rows[:, None] + cols[None, :]
    return total


def normal_inverse(
    operator: LinearOperator,
    more: Tensor | float,
    fidelity: Tensor | float = 1.0,
    between: BetweenSlices | None = None,
) -> Callable[[Tensor], Tensor] | None:
    """Approximate inverse of ``fidelity A^H A + R + K`` on the support of ``A``. None if ``A`` has no spectrum.

    Where rays have weights of their own, `R` and `K` are balanced like ``A^H A``.

    Parameters
    ----------
    operator
        `A`.
    more
        Spectrum of `R`, or one number per slice, ``(slices, 1, 1)``.
    fidelity
        Weight of ``A^H A``, one number, or one per slice.
    between
        `K`, coupling of neighbouring slices; nothing when None.
    """
    spectrum = operator.spectrum()
    if spectrum is None:
        return None
    inner = fourier_inverse(fidelity * spectrum + more, operator.domain.shape[-1], between)
    balance, support = operator.balance(), operator.support()
    balanced = inner if balance is None else lambda x: inner(x / balance) / balance
    # What is solved for is zero outside the support: the inverse is restricted to such images, and stays definite.
    return balanced if support is None else lambda x: balanced(x) * support


def fourier_inverse(eigenvalues: Tensor, cols: int, between: BetweenSlices | None = None) -> Callable[[Tensor], Tensor]:
    """Divide images ``(..., rows, cols)`` by positive `eigenvalues` in Fourier space, periodic ends.

    Eigenvalues of complex images are on the grid of `torch.fft.fft2`, those of real ones on that of `torch.fft.rfft2`.
    With a coupling `between` slices, ``(..., slices, rows, cols)``, it is the inverse of the sum of both: at each
    frequency a tridiagonal system along the slices, solved by elimination.
    """
    solved = partial(_tridiagonal_solved, eigenvalues, between) if between is not None else (1.0 / eigenvalues).mul

    def apply(x: Tensor) -> Tensor:
        if x.is_complex():
            found: Tensor = torch.fft.ifft2(solved(torch.fft.fft2(x)))
            return found
        real: Tensor = torch.fft.irfft2(solved(torch.fft.rfft2(x)), s=(x.shape[-2], cols))
        return real

    return apply


def _tridiagonal_solved(eigenvalues: Tensor, between: BetweenSlices, x: Tensor) -> Tensor:
    """Solve ``(diag(eigenvalues) + K) u = x`` along the slices ``(..., slices, rows, cols)``, in place of `x`.

    Elimination without pivoting: the matrix is positive definite. `eigenvalues` are broadcast to the slices.
    """
    slices = x.shape[-3]
    stiffness, off = between.bands(slices)
    diagonal, off_diagonal = (eigenvalues + stiffness).unbind(-3), off.unbind(-3)
    values = x.unbind(-3)
    pivots = [diagonal[0]]
    for k in range(1, slices):
        ratio = off_diagonal[k - 1] / pivots[-1]
        pivots.append(diagonal[k] - ratio * off_diagonal[k - 1])
        values[k].sub_(ratio * values[k - 1])
    values[-1].div_(pivots[-1])
    for k in range(slices - 2, -1, -1):
        values[k].sub_(off_diagonal[k] * values[k + 1]).div_(pivots[k])
    return x
