"""Non-Cartesian multi-coil MRI operator: coil sensitivities and a non-uniform Fourier transform along a trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Literal

import finufft
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from operators.errors import GeometryError, InputError
from operators.fourier import coil_energy, fourier
from operators.geometry import SamplingPattern
from operators.linear import LinearOperator, Space, Withheld, conjugate_gradient

ACCURACY = {torch.complex64: 2e-5, torch.complex128: 1e-9}
"""Tolerance asked of finufft."""
UPSAMPLING = {torch.complex64: 1.25, torch.complex128: 2.0}
"""Oversampling of finufft's grid: the smaller one is up to four times as fast, and right to 1e-6."""
KERNEL_ACCURACY = 1e-12
"""Tolerance for the kernel of the normal operator, which is computed once."""
LEAST_DENSITY = 1e-3
"""Lower bound on the eigenvalues of the preconditioner, relative to the largest: corners of k-space without samples."""
INITIAL_ITERATIONS = 5
TURN_RAD = math.pi * (3 - math.sqrt(5))
"""Golden angle by which the trajectory of a comparable scan is turned."""
LEAP = 4.0
"""Step between samples, over the median one, with which another readout begins."""
TURNED = -0.5
"""Cosine between the steps before and after one, below which the trajectory turns back."""
FOLDS, SHARES, LEAST_READOUTS = 2, 10, 8
"""Number of folds, of which each withholds one readout in so many, and readouts below which none is withheld."""
DensityRule = Literal["ramp", "voronoi"]


class NonCartesianMRI(LinearOperator):
    """``y_c = F (S_c x)`` along a trajectory: ``(slices, rows, cols)`` to ``(slices, coils, samples)``, complex.

    ``(F x)(k) = sum_r x(r) exp(-2 pi i k . r / n) / sqrt(rows * cols)``, with pixel positions `r` counted from index
    ``n // 2``: along Cartesian lines it is `operators.fourier.fourier`. The normal operator is a convolution with a
    kernel that is computed once (Toeplitz embedding).

    Parameters
    ----------
    trajectory
        ``(samples, 2)`` float64 in cycles per field of view: along rows' index and along columns' index.
    maps
        Coil sensitivities, complex, ``(coils, rows, cols)`` or ``(slices, coils, rows, cols)``.
    density
        Area of k-space that each sample stands for, ``(samples,)``, in cells of the Cartesian grid; see `cell_areas`.
    compensated
        Whether samples are multiplied by the root of their density, so that ``A^H A`` is close to the identity.

    References
    ----------
    Barnett, Magland and af Klinteberg 2019, SIAM J. Sci. Comput. 41, C479-C504 (finufft). Fessler et al. 2005, IEEE
    Trans. Signal Process. 53, 3393-3402 (Toeplitz embedding). Pruessmann et al. 2001, Magn. Reson. Med. 46, 638-651.
    """

    def __init__(self, trajectory: Tensor, maps: Tensor, density: Tensor, *, compensated: bool = False) -> None:
        if trajectory.ndim != 2 or trajectory.shape[1] != 2 or trajectory.is_complex():
            raise InputError(f"shape {tuple(trajectory.shape)}, expected (samples, 2)", field="trajectory")
        if maps.ndim not in (3, 4) or not maps.is_complex():
            raise InputError(
                f"shape {tuple(maps.shape)} and dtype {maps.dtype}, expected complex ([slices,] coils, rows, cols)",
                field="coil_maps",
            )
        if density.shape != trajectory.shape[:1]:
            raise GeometryError(f"{len(density)} weights for {len(trajectory)} samples", field="density")
        rows, cols = maps.shape[-2:]
        super().__init__(Space((rows, cols), complex=True), Space((maps.shape[-3], len(trajectory)), complex=True))
        self.trajectory, self.density = trajectory.double(), density.double()
        self.maps = (maps if maps.ndim == 4 else maps[None]).contiguous()
        self._weights = self.density if compensated else None
        self.slices = len(self.maps) if len(self.maps) > 1 else None
        # Parts, and the operator with compensated density, share both: the trajectory is that of all slices.
        self._lags: dict[bool, Tensor] = {}
        self._kernels: dict[tuple[bool, int, int], Tensor] = {}
        self._boxes = [_box(sensitivities) for sensitivities in self.maps]
        self._transform = _Transform(self.trajectory, (rows, cols), maps.shape[-3])

    def compensated(self) -> NonCartesianMRI:
        """Make the operator whose samples, like the data it goes with, are multiplied by the root of their density."""
        found = copy(self)
        found.__dict__.pop("norms", None)
        found._weights = self.density
        return found

    def compensate(self, data: Tensor) -> Tensor:
        """Multiply samples by the root of their density."""
        return data * self.density.sqrt().to(data.real.dtype)

    @property
    def undersampling(self) -> float:
        """Undersampling factor: pixels per sample; all coils count once."""
        return math.prod(self.domain.shape) / len(self.trajectory)

    @property
    def sampling_pattern(self) -> SamplingPattern:
        """``points``: aliasing is spread like that of scattered points."""
        return "points"

    @property
    def scan(self) -> str:
        """Undersampling of k-space."""
        return f"k-space off the grid, one in {self.undersampling:.0f}"

    def another(self, index: int) -> NonCartesianMRI:
        """Comparable operator: the same coils, the trajectory turned about the centre of k-space."""
        turn = (index + 1) * TURN_RAD
        cos, sin = math.cos(turn), math.sin(turn)
        turned = self.trajectory @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
        limit = torch.tensor(self.domain.shape) / 2
        # Corners of a square in k-space leave the grid when it is turned: they come back on the other side.
        inside = (turned + limit).remainder(2 * limit) - limit
        return NonCartesianMRI(inside, self.maps, self.density, compensated=self._weights is not None)

    @cached_property
    def readouts(self) -> Tensor:
        """Number of the readout of each sample, ``(samples,)``: spokes, interleaves; told by leaps between samples."""
        steps = self.trajectory.diff(dim=0)
        lengths = steps.norm(dim=1)
        leaps = lengths > LEAP * lengths.median() if len(lengths) else lengths > 0
        # Spokes that are run through to and fro may follow each other without a leap.
        along = (steps[2:] * steps[:-2]).sum(1) / (lengths[2:] * lengths[:-2]).clamp(min=1e-30)
        turned = (along < TURNED) & ~leaps[2:] & ~leaps[1:-1] & ~leaps[:-2]
        turned[1:] &= ~turned[:-1]
        leaps[1:-1] |= turned
        return torch.cat([torch.zeros(1, dtype=torch.long), leaps.long().cumsum(0)])

    @property
    def folds(self) -> int:
        """`FOLDS`, or 0 where there are fewer than `LEAST_READOUTS`."""
        return FOLDS if int(self.readouts[-1]) + 1 >= LEAST_READOUTS else 0

    def withheld(self, fold: int) -> Withheld:
        """Withhold readouts; each sample's squared residual counts for the area of k-space that it stands for."""
        if self.folds == 0:
            return super().withheld(fold)
        count = int(self.readouts[-1]) + 1
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        chosen = order[torch.arange(count) % min(SHARES, count // FOLDS) == fold]
        held = torch.isin(self.readouts, chosen)
        # Samples of a unit, filled up to the longest with one beyond the end, which is zero.
        rows = [(self.readouts[held] == number).nonzero()[:, 0] for number in chosen]
        units = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=int(held.sum()))
        root = self.density[held].sqrt()

        def spectra(residuals: Tensor) -> Tensor:
            weighted = residuals * root.to(residuals.real.dtype)
            told: Tensor = functional.pad(weighted, (0, 1))[..., units]
            return told.movedim(2, 1).flatten(2)

        return Withheld(
            self._sampled(~held), self._sampled(held), lambda y: y[..., ~held], lambda y: y[..., held], spectra
        )

    def _sampled(self, chosen: Tensor) -> NonCartesianMRI:
        """Operator of some of the samples, which together stand for as much of k-space as all do."""
        density = self.density[chosen] * (self.density.sum() / self.density[chosen].sum())
        return NonCartesianMRI(self.trajectory[chosen], self.maps, density, compensated=self._weights is not None)

    def initial_image(self, data: Tensor) -> Tensor:
        """Conjugate gradients with compensated density, a few iterations."""
        operator = self.compensated()
        right = operator.adjoint(self.compensate(data))
        return conjugate_gradient(operator.normal, right, None, INITIAL_ITERATIONS)

    def gridding(self, data: Tensor) -> Tensor:
        """Coil-combined image of samples times their density, over the coils' energy, whatever norm maps have."""
        operator = self.compensated()
        return operator.adjoint(self.compensate(data)) / coil_energy(self.maps)

    def of_coils(self) -> LinearOperator:
        """Operator of the coils' own images, whatever their maps."""
        one = copy(self)
        one.__dict__.pop("norms", None)
        one.maps = torch.ones((1, 1, *self.domain.shape), dtype=self.maps.dtype)
        one._boxes = [_box(one.maps[0])]
        one.slices, one.range = None, Space((1, self.range.shape[1]), complex=True)
        one._transform = _Transform(self.trajectory, self._transform.shape, 1)
        return EachCoil(one, self.range.shape[0])

    def spectrum(self) -> Tensor:
        """Density of the samples on the grid of `torch.fft.fft2`: eigenvalues of the circulant nearest to ``A^H A``.

        References
        ----------
        Chan 1988, SIAM J. Sci. Stat. Comput. 9, 766-771, equation 3.
        """
        rows, cols = self.domain.shape
        kernel = torch.fft.ifft2(self._kernel(rows, cols).movedim(0, -1).flatten(1).T, norm="forward")
        wrapped = kernel
        for axis, n in ((0, rows), (1, cols)):
            near, far = wrapped.split(n, axis)
            lag = torch.arange(n, dtype=torch.float32).reshape(-1, *(1,) * (1 - axis))
            wrapped = ((n - lag) * near + lag * far) / n
        found = torch.fft.fft2(wrapped).real
        floored: Tensor = found.clamp(min=LEAST_DENSITY * float(found.max()))
        return floored

    def _kernel(self, rows: int, cols: int) -> Tensor:
        """Transposed spectrum, over its size, of the normal operator's kernel for images of some rows and columns.

        On twice their grid, ``(2, 2 cols, rows)``: the even frequencies along rows' index, and the odd ones. Real.
        """
        compensated = self._weights is not None
        if compensated not in self._lags:
            self._lags[compensated] = self._transform.lags(self._weights)
        key = (compensated, rows, cols)
        if key not in self._kernels:
            lags, (all_rows, all_cols) = self._lags[compensated], self._transform.shape
            near = lags[all_rows - rows : all_rows + rows, all_cols - cols : all_cols + cols].clone()
            # Lags of a whole image never occur; without them the kernel is Hermitian and its spectrum real.
            near[0], near[:, 0] = 0.0, 0.0
            turned = (torch.fft.fft2(torch.fft.ifftshift(near)).real / near.numel()).float().T
            self._kernels[key] = torch.stack([turned[:, 0::2], turned[:, 1::2]])
        return self._kernels[key]

    def _root(self, dtype: torch.dtype) -> Tensor | None:
        return None if self._weights is None else self._weights.sqrt().to(torch.empty((), dtype=dtype).real.dtype)

    def _part(self, first: int, last: int) -> NonCartesianMRI:
        found = copy(self)
        found.__dict__.pop("norms", None)
        if len(self.maps) > 1:
            found.maps, found._boxes = self.maps[first:last], self._boxes[first:last]
        found.slices = last - first
        return found

    def _forward(self, x: Tensor) -> Tensor:
        self._check_slices(x)
        out, root = x.new_empty((len(x), *self.range.shape)), self._root(x.dtype)
        for index, image in enumerate(x):
            samples = self._transform.forward(self._maps_of(index, x.dtype) * image)
            out[index] = samples if root is None else root * samples
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        self._check_slices(y)
        out, root = y.new_empty((len(y), *self.domain.shape)), self._root(y.dtype)
        for index, samples in enumerate(y):
            coils = self._transform.adjoint(samples if root is None else root * samples)
            out[index] = (self._maps_of(index, y.dtype).conj() * coils).sum(0)
        return out

    def _normal(self, x: Tensor) -> Tensor:
        self._check_slices(x)
        if x.dtype == torch.complex128:
            return self._adjoint(self._forward(x))  # the kernel is kept in single precision
        out = torch.zeros_like(x)
        for index, image in enumerate(x):
            # Pixels that no coil sees stay out of it.
            box = self._boxes[index if len(self.maps) > 1 else 0]
            seen, found = image[box], out[index][box]
            kernel = self._kernel(*seen.shape)
            # One coil at a time: its transform fits into a core's cache.
            for sensitivity in self._maps_of(index, x.dtype)[:, *box]:
                found.addcmul_(_convolved(sensitivity * seen, kernel), sensitivity.conj())
        return out

    def _maps_of(self, index: int, dtype: torch.dtype) -> Tensor:
        return self.maps[index if len(self.maps) > 1 else 0].to(dtype)

    def _check_slices(self, x: Tensor) -> None:
        if self.slices is not None and len(x) != self.slices:
            raise InputError(f"{len(x)} slices, the coil maps have {self.slices}", field="slices")


class EachCoil(LinearOperator):
    """Operator of one coil for each of several: ``(slices, coils, *domain)`` to ``(slices, coils, *samples)``.

    Parameters
    ----------
    one
        Operator to ``(1, *samples)``, the same in every slice.
    coils
        Number of coils.
    """

    def __init__(self, one: LinearOperator, coils: int) -> None:
        super().__init__(
            Space((coils, *one.domain.shape), complex=True), Space((coils, *one.range.shape[1:]), complex=True)
        )
        self.one = one

    @cached_property
    def norms(self) -> Tensor:
        """Largest singular value, that of one coil."""
        return self.one.norms

    def _forward(self, x: Tensor) -> Tensor:
        return self.one._forward(x.flatten(0, 1)).reshape(len(x), *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.one._adjoint(y.flatten(0, 1)[:, None]).reshape(len(y), *self.domain.shape)

    def _normal(self, x: Tensor) -> Tensor:
        return self.one._normal(x.flatten(0, 1)).reshape(x.shape)


class _Transform:
    """Non-uniform Fourier transforms of all coils of a slice; plans are made when first needed."""

    def __init__(self, trajectory: Tensor, shape: tuple[int, int], coils: int) -> None:
        self.shape, self.coils = shape, coils
        self._points = [
            np.ascontiguousarray(2 * math.pi / n * k) for n, k in zip(shape, trajectory.numpy().T, strict=True)
        ]
        self._plans: dict[tuple[int, torch.dtype], finufft.Plan] = {}

    def forward(self, images: Tensor) -> Tensor:
        """``(coils, rows, cols)`` to ``(coils, samples)``."""
        return self._executed(2, images)

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(coils, samples)`` to ``(coils, rows, cols)``."""
        return self._executed(1, samples)

    def lags(self, weights: Tensor | None) -> Tensor:
        """Kernel ``sum_s w_s exp(2 pi i k_s . d / n) / (rows * cols)`` on twice the grid, ``d = 0`` in the middle."""
        rows, cols = self.shape
        strengths = np.ones(len(self._points[0])) if weights is None else weights.numpy()
        plan = finufft.Plan(1, (2 * rows, 2 * cols), eps=KERNEL_ACCURACY, isign=1, dtype="complex128")
        plan.setpts(*self._points)
        return torch.from_numpy(plan.execute(strengths.astype(np.complex128))) / (rows * cols)

    def _executed(self, kind: int, values: Tensor) -> Tensor:
        plan = self._plan(kind, values.dtype)
        given = np.ascontiguousarray(values.numpy())
        found = torch.from_numpy(plan.execute(given[0] if self.coils == 1 else given))
        return (found[None] if self.coils == 1 else found) / math.sqrt(math.prod(self.shape))

    def _plan(self, kind: int, dtype: torch.dtype) -> finufft.Plan:
        if (kind, dtype) not in self._plans:
            real = np.float32 if dtype == torch.complex64 else np.float64
            plan = finufft.Plan(
                kind,
                self.shape,
                n_trans=self.coils,
                eps=ACCURACY[dtype],
                isign=-1 if kind == 2 else 1,
                dtype=np.result_type(real, np.complex64),
                upsampfac=UPSAMPLING[dtype],
                # Threads add to the grid in any order: with one, a slice always has the same bits.
                nthreads=torch.get_num_threads() if kind == 2 else 1,
            )
            plan.setpts(*(points.astype(real) for points in self._points))
            self._plans[kind, dtype] = plan
        return self._plans[kind, dtype]


def _box(maps: Tensor) -> tuple[slice, slice]:
    """Rows and columns in which coil maps ``(coils, rows, cols)`` see something, of sizes that are quickly transformed.

    What lies beyond takes no part in the normal operator.
    """
    from scipy.fft import next_fast_len  # takes its time, and solvers of Cartesian scans import this file too

    seen = (maps != 0).any(0)
    # Fewer columns are fewer lines of the larger transforms, whatever their length; fewer rows are shorter ones.
    return _span(seen.any(1), _quick), _span(seen.any(0), next_fast_len)


def _span(seen: Tensor, quick: Callable[[int], int]) -> slice:
    """Part of an axis that holds all that is seen, of a length that `quick` finds for the least if there is room."""
    index = seen.nonzero().flatten().tolist() or [0]
    length = min(quick(index[-1] + 1 - index[0]), len(seen))
    first = min(index[0], len(seen) - length)
    return slice(first, first + length)


def _quick(length: int) -> int:
    """Least power of two, or 3 or 5 times one, that is as long: other transforms take more time than longer ones."""
    power = 1 << (length - 1).bit_length()
    return min(size for size in (power, 3 * power // 4, 5 * power // 8) if size >= length)


def _convolved(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve ``(rows, cols)`` with a kernel of twice the size, given by its spectrum (`NonCartesianMRI._kernel`).

    Transforms of zeros are left out, and all run along the last axis, three times as fast as along the other. Along
    columns' index zeros are appended. Along rows' index none are: even frequencies of twice the grid are those of the
    image, odd ones those of the image with half a turn of phase along it.
    """
    rows, cols = image.shape
    turn = torch.polar(torch.ones(rows), -math.pi * torch.arange(rows) / rows)
    wide = torch.fft.fft(image, 2 * cols).T.contiguous()
    found = torch.fft.ifft(torch.fft.fft(wide).mul_(kernel[0]), norm="forward")
    odd = torch.fft.ifft(torch.fft.fft(wide.mul_(turn)).mul_(kernel[1]), norm="forward")
    found = found.addcmul_(odd, turn.conj()).T.contiguous()
    convolved: Tensor = torch.fft.ifft(found, norm="forward")[:, :cols]
    return convolved


def cell_areas(trajectory: Tensor, rule: DensityRule) -> Tensor:
    """Area of k-space, in cells of the Cartesian grid, that each sample stands for.

    Parameters
    ----------
    trajectory
        ``(samples, 2)`` in cycles per field of view.
    rule
        ``ramp``: by the distance from the centre, for spokes. ``voronoi``: the cell of points nearer to the sample than
        to any other, for any trajectory; samples in one place share it.

    References
    ----------
    Rasche et al. 1999, IEEE Trans. Med. Imaging 18, 385-392 (Voronoi cells).
    """
    if rule == "voronoi":
        return torch.from_numpy(_voronoi(trajectory.double().numpy()))
    radius = torch.linalg.vector_norm(trajectory.double(), dim=1)
    largest = float(radius.max())
    # The centre of a disc of as many samples; their sum is the disc's area.
    ramp = radius.clamp(min=largest / len(radius))
    areas: Tensor = ramp * (math.pi * largest**2 / float(ramp.sum()))
    return areas


def _voronoi(points: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial import ConvexHull, Voronoi

    places, inverse, counts = np.unique(points.round(6), axis=0, return_inverse=True, return_counts=True)
    guards = [_mirrored(places, equation) for equation in ConvexHull(places).equations]
    found = Voronoi(np.concatenate([places, *guards]))
    corners = [found.vertices[found.regions[found.point_region[i]]] for i in range(len(places))]
    areas = np.array([ConvexHull(c).volume if len(c) > 2 else 0.0 for c in corners])
    shared: NDArray[np.float64] = (areas / counts)[inverse.reshape(-1)]
    return shared


def _mirrored(places: NDArray[np.float64], equation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mirror points near an edge of the hull at a line half a cell outside of it, where their cells then end."""
    normal, outside = equation[:2], places @ equation[:2] + equation[2]
    near = outside > -1
    mirrored: NDArray[np.float64] = places[near] + np.outer(1 - 2 * outside[near], normal)
    return mirrored


def central_kspace(trajectory: Tensor, data: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cartesian k-space of samples near its centre, for calibration, and which of its points have samples near them.

    Parameters
    ----------
    trajectory
        ``(samples, 2)`` in cycles per field of view.
    data
        ``(slices, coils, samples)``.
    shape
        Rows and columns of the image.

    Returns
    -------
    Tensor
        ``(slices, coils, rows, cols)``, right near the centre only.
    Tensor
        ``(rows, cols)`` bool: points with a sample in their cell.
    """
    slices, coils, _ = data.shape
    ones = torch.ones((1, *shape), dtype=torch.complex64)
    density = cell_areas(trajectory, "voronoi")
    operator = NonCartesianMRI(trajectory, ones, density)
    images = operator.initial_image(data.reshape(slices * coils, 1, -1))
    cells = [(k.round().long() + n // 2).clamp(0, n - 1) for k, n in zip(trajectory.T, shape, strict=True)]
    near = torch.zeros(shape, dtype=torch.bool)
    near[cells[0], cells[1]] = True
    return fourier(images).reshape(slices, coils, *shape), near
