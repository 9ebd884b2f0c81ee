"""Cartesian multi-coil MRI operator: coil sensitivities, centred orthonormal Fourier transform, sampling mask."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from operators.errors import GeometryError, InputError
from operators.geometry import SamplingPattern
from operators.linear import LinearOperator, Space, Withheld, random_element

FOLDS, SHARES = 4, 10
"""Number of folds, of which each withholds one point in so many, and one line or more."""
UNITS, LINES, SEGMENTS = 8, 4, 4
"""Units that points are put into, lines that a fold withholds if there are enough, and units in each line."""
FAINT = 1e-2
"""Energy of all coils in a pixel over the largest, below which it counts as that."""
RINGS = 16
"""Bands of radii of k-space along its longer side, of which each stands for what is missing in it."""


def fourier(x: Tensor) -> Tensor:
    """Centred orthonormal 2D Fourier transform of the last two axes; k = 0 at index ``n // 2``."""
    shifted = torch.fft.ifftshift(x, dim=(-2, -1))
    out: Tensor = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))
    return out


def inverse_fourier(y: Tensor) -> Tensor:
    """Inverse and adjoint of `fourier`."""
    shifted = torch.fft.ifftshift(y, dim=(-2, -1))
    out: Tensor = torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=(-2, -1))
    return out


class CartesianMRI(LinearOperator):
    """``y_c = M F (S_c x)``: ``(slices, rows, cols)`` to k-space ``(slices, coils, rows, cols)``, complex.

    Parameters
    ----------
    mask
        Sampled points, bool, ``(rows, cols)`` or ``(slices, rows, cols)``.
    maps
        Coil sensitivities, complex, ``(coils, rows, cols)`` or ``(slices, coils, rows, cols)``.
        With a slice axis in either, the operator acts on exactly that many slices.

    References
    ----------
    Pruessmann et al. 1999, SENSE, Magn. Reson. Med. 42, 952-962, equation 1.
    """

    def __init__(self, mask: Tensor, maps: Tensor) -> None:
        if mask.dtype != torch.bool:
            raise InputError(f"dtype {mask.dtype}, expected bool", field="mask")
        if mask.ndim not in (2, 3):
            raise InputError(f"shape {tuple(mask.shape)}, expected (rows, cols) or (slices, rows, cols)", field="mask")
        if maps.ndim not in (3, 4) or not maps.is_complex():
            raise InputError(
                f"shape {tuple(maps.shape)} and dtype {maps.dtype}, expected complex ([slices,] coils, rows, cols)",
                field="coil_maps",
            )
        if maps.shape[-2:] != mask.shape[-2:]:
            raise GeometryError(
                f"the coil maps are {tuple(maps.shape[-2:])} pixels, the mask {tuple(mask.shape[-2:])}",
                field="coil_maps",
            )
        if not bool(mask.any()):
            raise GeometryError("no point is sampled", field="mask")
        rows, cols = mask.shape[-2:]
        super().__init__(Space((rows, cols), complex=True), Space((maps.shape[-3], rows, cols), complex=True))
        self.mask = mask if mask.ndim == 3 else mask[None]
        # Shifted once for all transforms: the centre of image and k-space comes first there.
        self._maps = torch.fft.ifftshift(maps if maps.ndim == 4 else maps[None], dim=(-2, -1))
        self._kept = torch.fft.ifftshift(self.mask, dim=(-2, -1))
        # Transforms along lines that are sampled as a whole cancel in the normal operator.
        self._axes = [axis for axis in (-2, -1) if not bool((self.mask == self.mask.narrow(axis, 0, 1)).all())]
        counts = {n for n in (len(self.mask), len(self._maps)) if n > 1}
        if len(counts) > 1:
            raise GeometryError(f"{len(self._maps)} slices of coil maps, {len(self.mask)} of masks", field="coil_maps")
        self.slices = counts.pop() if counts else None

    @property
    def maps(self) -> Tensor:
        """Coil sensitivities ``(slices or 1, coils, rows, cols)``."""
        maps: Tensor = torch.fft.fftshift(self._maps, dim=(-2, -1))
        return maps

    @property
    def undersampling(self) -> float:
        """Undersampling factor: points of k-space per sampled point; all coils count once."""
        return 1.0 / max(float(self.measured_share.mean()), 1e-9)

    @property
    def measured_share(self) -> Tensor:
        """Fraction of k-space that was sampled, ``(slices or 1,)``."""
        return self.mask.float().mean(dim=(1, 2))

    @property
    def sampling_pattern(self) -> SamplingPattern:
        """Sampling pattern: ``lines`` if all columns or all rows are sampled alike, else ``points``."""
        alike = any(bool((self.mask == self.mask.select(axis, 0).unsqueeze(axis)).all()) for axis in (-1, -2))
        return "lines" if alike else "points"

    @property
    def scan(self) -> str:
        """Pattern and undersampling of k-space."""
        return f"k-space {self.sampling_pattern}, one in {self.undersampling:.0f}"

    def another(self, index: int) -> CartesianMRI:
        """Comparable operator: the same coils with other lines or points of k-space in the same pattern."""
        return self.sampled(torch.stack([_moved(mask, index) for mask in self.mask]))

    def sampled(self, mask: Tensor) -> Self:
        """Operator of the same coils that samples the points of another mask."""
        return type(self)(mask, self.maps)

    @property
    def folds(self) -> int:
        """`FOLDS`, or 0 where all of k-space, or hardly more than its centre, was sampled."""
        return 0 if _held(self.mask, 0)[0] is None else FOLDS

    def withheld(self, fold: int) -> Withheld:
        """Withhold sampled lines, or points, away from the centre, which coil maps are calibrated from.

        What is withheld at a radius stands for all that is missing there. Points are put into `UNITS` units, a line is
        cut into `SEGMENTS`: what a candidate gains differs along a line as much as between lines.
        """
        held, units, weights = _held(self.mask, fold)
        if held is None or units is None or weights is None:
            return super().withheld(fold)

        places = [unit.flatten().nonzero()[:, 0] for unit in units]
        at = pad_sequence(places, batch_first=True)
        measured = pad_sequence([torch.ones(len(one)) for one in places], batch_first=True)

        def spectra(residuals: Tensor) -> Tensor:
            weighted = (residuals * weights).flatten(2)[..., at] * measured  # (slices, coils, units, samples)
            return weighted.movedim(1, -1).flatten(2)

        return Withheld(
            self.sampled(self.mask & ~held), self.sampled(self.mask & held),
            lambda y: y * ~held, lambda y: y * held, spectra,
        )  # fmt: skip

    def of_coils(self) -> LinearOperator:
        """Operator of the coils' own images, whatever their maps."""
        return CoilImagesMRI(self.mask, self.range.shape[0])

    def combined(self, data: Tensor) -> Tensor:
        """Coil-combined image of zero-filled k-space: the adjoint over the coils' energy, whatever norm maps have.

        References
        ----------
        Roemer et al. 1990, Magn. Reson. Med. 16, 192-225 (combination of uniform sensitivity).
        """
        return self.adjoint(data) / coil_energy(self.maps)

    def noise(self, slices: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise at the sampled points, zero elsewhere."""
        return self.mask[:, None] * random_element(self.range, slices, generator)

    def _part(self, first: int, last: int) -> CartesianMRI:
        # Not by the constructor: a slab without a sampled point is no mistake, and one slice of many stays one.
        found = copy(self)
        found.__dict__.pop("norms", None)
        for name in ("mask", "_kept", "_maps"):
            values = getattr(self, name)
            setattr(found, name, values[first:last] if len(values) > 1 else values)
        found.slices = last - first
        return found

    # One slice at a time below: the coils of one fit into a core's cache, those of a volume do not.

    def _forward(self, x: Tensor) -> Tensor:
        self._check_slices(x)
        out = x.new_empty((len(x), *self.range.shape))
        for index, image in enumerate(self._shifted(x)):
            maps, kept = self._slice(index, x.dtype)
            coils = kept * torch.fft.fft2(self._seen(maps, image), norm="ortho")
            out[index] = torch.fft.fftshift(coils, dim=(-2, -1))
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        self._check_slices(y)
        out = self._shifted(y.new_empty((len(y), *self.domain.shape)))
        for index, samples in enumerate(y):
            maps, kept = self._slice(index, y.dtype)
            coils = torch.fft.ifft2(kept * torch.fft.ifftshift(samples, dim=(-2, -1)), norm="ortho")
            out[index] = self._combined(maps, coils)
        return self._shifted_back(out)

    def _normal(self, x: Tensor) -> Tensor:
        self._check_slices(x)
        axes = self._axes
        images = self._shifted(x)
        out = torch.empty_like(images)
        for index, image in enumerate(images):
            maps, kept = self._slice(index, x.dtype)
            coils = self._seen(maps, image)
            coils = torch.fft.ifftn(kept * torch.fft.fftn(coils, dim=axes), dim=axes) if axes else kept * coils
            out[index] = self._combined(maps, coils)
        return self._shifted_back(out)

    def _shifted(self, x: Tensor) -> Tensor:
        """Images with their centre first, as the maps have it."""
        found: Tensor = torch.fft.ifftshift(x, dim=(-2, -1))
        return found

    def _shifted_back(self, images: Tensor) -> Tensor:
        """Inverse of `_shifted`."""
        found: Tensor = torch.fft.fftshift(images, dim=(-2, -1))
        return found

    def _seen(self, maps: Tensor, image: Tensor) -> Tensor:
        """Image as the coils see it, ``(coils, rows, cols)``."""
        return maps * image

    def _combined(self, maps: Tensor, coils: Tensor) -> Tensor:
        """Adjoint of `_seen`."""
        found: Tensor = (maps.conj() * coils).sum(0)
        return found

    def _slice(self, index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Coil sensitivities and mask of one slice, shifted, numbers in the precision of `dtype`."""
        maps, kept = (values[index if len(values) > 1 else 0] for values in (self._maps, self._kept))
        return maps.to(dtype), kept.to(torch.empty((), dtype=dtype).real.dtype)

    def _check_slices(self, x: Tensor) -> None:
        if self.slices is not None and len(x) != self.slices:
            raise InputError(f"{len(x)} slices, the coil maps or mask have {self.slices}", field="slices")


class MapSetsMRI(CartesianMRI):
    """``y_c = M F sum_j (S_jc x_j)``: an image for each set of coil maps, where the field of view folds the object.

    Images lie one below the other: ``(slices, sets * rows, cols)`` to k-space ``(slices, coils, rows, cols)``, complex.

    Parameters
    ----------
    mask
        Sampled points, as of `CartesianMRI`.
    maps
        Coil sensitivities, complex, ``(slices or 1, sets, coils, rows, cols)``.

    References
    ----------
    Uecker et al. 2014, Magn. Reson. Med. 71, 990-1001, equation 22 ("soft" SENSE).
    """

    def __init__(self, mask: Tensor, maps: Tensor) -> None:
        if maps.ndim != 5:
            raise InputError(
                f"shape {tuple(maps.shape)}, expected (slices, sets, coils, rows, cols)", field="coil_maps"
            )
        super().__init__(mask, maps[:, 0])
        self.images = maps.shape[1]
        rows, cols = mask.shape[-2:]
        self.domain = Space((self.images * rows, cols), complex=True)
        self._maps = torch.fft.ifftshift(maps, dim=(-2, -1))

    def combined(self, data: Tensor) -> Tensor:
        """Coil-combined images: pixel by pixel the least-squares ones of what the coils see."""
        maps = self.maps.movedim(2, -1).movedim(1, -1)  # (slices, rows, cols, coils, sets)
        gram = maps.mH @ maps
        largest = gram.diagonal(dim1=-2, dim2=-1).real.amax((1, 2, 3))[:, None, None]
        images = self.adjoint(data).reshape(len(data), self.images, *self.mask.shape[-2:]).movedim(1, -1)
        found: Tensor = torch.linalg.pinv(gram, atol=FAINT * largest, hermitian=True) @ images[..., None]
        return found[..., 0].movedim(-1, 1).reshape(len(data), *self.domain.shape)

    def _shifted(self, x: Tensor) -> Tensor:
        return super()._shifted(x.reshape(len(x), self.images, *self.mask.shape[-2:]))

    def _shifted_back(self, images: Tensor) -> Tensor:
        return super()._shifted_back(images).reshape(len(images), *self.domain.shape)

    def _seen(self, maps: Tensor, image: Tensor) -> Tensor:
        found: Tensor = (maps * image[:, None]).sum(0)
        return found

    def _combined(self, maps: Tensor, coils: Tensor) -> Tensor:
        found: Tensor = (maps.conj() * coils).sum(1)
        return found


def coil_energy(maps: Tensor) -> Tensor:
    """Energy ``(slices, rows, cols)`` of coil maps ``(slices, coils, rows, cols)``, at least `FAINT` of the largest."""
    energy = maps.abs().square().sum(1)
    return energy.maximum(FAINT * energy.amax((1, 2), keepdim=True)).clamp(min=1e-30)


class CoilImagesMRI(LinearOperator):
    """``y_c = M F x_c``: coil images ``(slices, coils, rows, cols)`` to k-space of the same shape, without coil maps.

    Parameters
    ----------
    mask
        Sampled points, bool, ``(slices or 1, rows, cols)``.
    coils
        Number of coils.
    """

    def __init__(self, mask: Tensor, coils: int) -> None:
        space = Space((coils, *mask.shape[-2:]), complex=True)
        super().__init__(space, space)
        self.mask = mask[:, None]
        self.slices = len(mask) if len(mask) > 1 else None

    @cached_property
    def norms(self) -> Tensor:
        """Largest singular value, 1 for every mask."""
        return torch.ones(self.slices or 1)

    def _forward(self, x: Tensor) -> Tensor:
        return self.mask * fourier(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return inverse_fourier(self.mask * y)

    def _normal(self, x: Tensor) -> Tensor:
        # Shifts of the image cancel: only the mask has its centre first.
        kept = torch.fft.ifftshift(self.mask, dim=(-2, -1))
        out = torch.empty_like(x)
        for index, coils in enumerate(x):
            out[index] = torch.fft.ifft2(kept[index % len(kept)] * torch.fft.fft2(coils))
        return out


def _held(mask: Tensor, fold: int) -> tuple[Tensor | None, list[Tensor] | None, Tensor | None]:
    """Points of k-space to withhold in a fold, which of them make a unit, and the weights of their residuals.

    All ``(rows, cols)``; None where nothing can be spared: outside the centre, where everything is sampled, are fewer
    than `UNITS` lines or points.
    """
    rows, cols = mask.shape[-2:]
    sampled = mask.all(0)
    offsets = [torch.arange(n) - n // 2 for n in (rows, cols)]
    places = torch.stack(torch.meshgrid(*offsets, indexing="ij")).float()
    along = [axis for axis in (0, 1) if bool((sampled == sampled.narrow(axis, 0, 1)).all())]
    # Lines lie at a distance from the centre, points at a radius.
    radius = places[1 - along[0]].abs() if along else places.square().sum(0).sqrt()
    rings = (radius * RINGS / max(rows, cols)).long()
    missing = torch.bincount(rings.flatten(), (~sampled).flatten().float())
    spare = sampled & (missing > 0)[rings]
    generator = torch.Generator().manual_seed(0)
    if along:
        lines = spare.any(along[0])
        index = lines.nonzero()[:, 0]
        group = torch.full((len(lines),), -1)
        shares = min(max(len(index) // LINES, FOLDS), SHARES)
        group[index[torch.randperm(len(index), generator=generator)]] = torch.arange(len(index)) % shares
        found = group.unsqueeze(along[0]).expand(rows, cols)
        length = mask.shape[-2 + along[0]]
        segment = (torch.arange(length) * SEGMENTS // length).unsqueeze(1 - along[0])
        number = torch.arange(len(lines)).unsqueeze(along[0]) * SEGMENTS + segment
    else:
        found = torch.randint(SHARES, (rows, cols), generator=generator)
        number = torch.randint(UNITS, (rows, cols), generator=generator)
        index = spare.flatten().nonzero()[:, 0]
    if len(index) < UNITS:
        return None, None, None
    held = spare & (found == fold)
    standing = torch.bincount(rings[held], minlength=len(missing)).float()
    weights = (missing / standing.clamp(min=1)).sqrt()[rings]
    return held, [held & (number == n) for n in number[held].unique()], weights


class ReadoutPlanes(CartesianMRI):
    """3D Cartesian MRI, of which the inverse transform along the readout was taken: planes across it, one operator.

    Its norm is that of the volume, the same for all planes: they are parts of one measurement, and weigh alike.
    """

    @cached_property
    def norms(self) -> Tensor:
        """Largest singular value of the volume, ``(slices,)``."""
        found = super().norms
        return torch.full_like(found, float(found.max()))


def _moved(mask: Tensor, index: int) -> Tensor:
    """Make another sampling mask ``(rows, cols)`` of the same pattern: lines shifted, points mirrored, same centre."""
    if bool(mask.all()):
        return mask  # nothing is left to choose: the noise is another all the same
    if bool((mask == mask[:, :1]).all()):
        return _moved_lines(mask[:, 0], index)[:, None].expand_as(mask).contiguous()
    if bool((mask == mask[:1]).all()):
        return _moved_lines(mask[0], index)[None].expand_as(mask).contiguous()
    ways = [(True, False), (False, True), (True, True)]
    turned = [mask] if mask.shape[0] != mask.shape[1] else [mask, mask.T]
    found = [_mirrored(one, rows=rows, cols=cols) for one in turned for rows, cols in ways]
    return found[index % len(found)]


def _moved_lines(lines: Tensor, index: int) -> Tensor:
    """Shift lines ``(n,)`` outside the centre, by the shifts that repeat the fewest of them."""
    n, middle, half = len(lines), len(lines) // 2, 0
    while middle - half - 1 >= 0 and middle + half + 1 < n and bool(lines[middle - half - 1 : middle + half + 2].all()):
        half += 1
    centre = torch.zeros_like(lines)
    centre[middle - half : middle + half + 1] = lines[middle - half : middle + half + 1]
    outer = lines & ~centre
    moved = [torch.roll(outer, shift) for shift in range(1, n)]
    moved.sort(key=lambda one: int((one & outer).sum()))
    return moved[index % len(moved)] | centre


def _mirrored(mask: Tensor, *, rows: bool, cols: bool) -> Tensor:
    """Mirror a mask about the centre of k-space, index ``n // 2``."""
    axes = [axis for axis, wanted in enumerate((rows, cols)) if wanted]
    return torch.roll(mask.flip(axes), [1 - mask.shape[axis] % 2 for axis in axes], axes)
