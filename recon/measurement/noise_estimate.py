"""Noise estimation from the measurement alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from operators.coils import acs_width
from operators.linear import each_slice

FOURTH_DIFFERENCE = (1.0, -4.0, 6.0, -4.0, 1.0)
SIZE = math.sqrt(70.0)
"""Norm of the fourth difference, which annihilates cubic trends, so that smooth structure hardly counts."""


def of_sinogram(sinogram: Tensor) -> tuple[Tensor, Tensor | None]:
    """Estimate the noise of line integrals ``(slices, views, detectors)``, each slice's from its own rays.

    Rays through air show only noise. Rays through the object have as much, or ``exp(p / 2)`` times as much if photons
    are counted, but at most their roughness, to which the object adds: where that allows it, photons are taken to be
    counted, as many as the air tells. A slice with few rays through air looks at that of its neighbours too. Without
    any the estimate is the roughness, an upper bound. It is zero if the air shows no noise, also where the air was set
    to one value: then the noise has to be given. It is zero for fewer than five detector elements.

    The roughness is the median absolute fourth difference along the detector: edges are outliers that it ignores.

    Returns
    -------
    Tensor
        Root mean square of the noise over the rays of each slice, ``(slices,)``.
    Tensor or None
        The reciprocal of each ray's noise in units of that, shape of `sinogram`; None where photons are not counted.
    """
    if sinogram.shape[-1] < len(FOURTH_DIFFERENCE):
        return torch.zeros(len(sinogram)), None
    slices = [_Rays.of(one) for one in sinogram]
    found = [rays.noise(_air_near(slices, index)) for index, rays in enumerate(slices)]
    std, counted = (torch.tensor(values) for values in zip(*found, strict=True))
    if not bool(counted.any()):
        return std, None
    by_slice, by_ray = of_photons(sinogram, torch.where(counted, std, 1.0) ** -2)
    return torch.where(counted, by_slice, std), torch.where(counted.reshape(-1, 1, 1), by_ray, 1.0)


class _Rays(NamedTuple):
    """Noise of a slice's rays: roughness of each through air, and noise of the others if that were all of it."""

    air: Tensor
    constant: float
    """Noise that all other rays have in common."""
    counted: float
    """Noise in air of which the others have ``exp(p / 2)`` times as much."""

    @classmethod
    def of(cls, sinogram: Tensor) -> _Rays:
        """Compare the rays of line integrals ``(views, detectors)``."""
        size = len(FOURTH_DIFFERENCE)
        count = sinogram.shape[-1] - size + 1
        rough = sum(w * sinogram[..., i : i + count] for i, w in enumerate(FOURTH_DIFFERENCE))
        smooth = sum(sinogram[..., i : i + count] for i in range(size)) / size
        assert isinstance(rough, Tensor)
        assert isinstance(smooth, Tensor)
        rough, smooth = _sampled(rough.abs()), _sampled(smooth)
        air = smooth < AIR_SHARE * torch.quantile(smooth, 0.99)
        if bool(air.all()):
            air = torch.zeros_like(air)
        gain = (smooth.clamp(0.0, MOST_DENSE) / 2).exp()
        return cls(rough[air], _spread(rough[~air]), _spread((rough / gain)[~air]))

    def noise(self, air: Tensor) -> tuple[float, bool]:
        """Noise in air, given the roughness of rays through air, and whether it grows as that of counted photons."""
        if len(air) < LEAST_AIR:
            return self.constant, False
        in_air = _spread(air)
        if 0 < in_air <= SLACK * self.counted:
            return in_air, True
        return min(in_air, self.constant), False


def _air_near(slices: Sequence[_Rays], index: int) -> Tensor:
    """Roughness of a slice's rays through air, and of as many neighbours' as it takes to have enough."""
    air = slices[index].air
    for reach in range(1, NEIGHBOURS + 1):
        if len(air) >= ENOUGH_AIR:
            break
        near = [slices[i].air for i in (index - reach, index + reach) if 0 <= i < len(slices)]
        air = torch.cat([air, *near])
    return air


def _spread(rough: Tensor) -> float:
    """Standard deviation of white noise from its absolute fourth differences."""
    return float(rough.median()) / (0.6745 * SIZE)


AIR_SHARE = 0.02
"""Fraction of the densest rays' line integral below which a ray counts as through air."""
LEAST_AIR, ENOUGH_AIR = 100, 1000
"""Minimum number of rays through air for an estimate from them, and number that tells the noise within 6 %."""
NEIGHBOURS = 4
"""Slices on either side whose air is looked at where a slice has too little of its own."""
SLACK = 1.1
"""Factor by which the air may be noisier than photons allow: both are estimates."""
MOST_DENSE = 12.0
"""Line integral beyond which hardly any photon arrives, so that larger values are clipped."""


def of_photons(sinogram: Tensor, photons: float | Tensor) -> tuple[Tensor, Tensor]:
    """Noise of line integrals for `photons` per ray in air, one number or one per slice ``(slices,)``.

    The noise of a ray is ``exp(p / 2) / sqrt(photons)``, with `p` smoothed along the detector: a value from each ray's
    own noisy `p` would favour the rays that came out too low.

    Returns
    -------
    Tensor
        Root mean square of the noise over the rays of each slice, ``(slices,)``.
    Tensor
        The reciprocal of each ray's noise in units of that, shape of `sinogram`.

    References
    ----------
    Sauer and Bouman 1993, IEEE Trans. Signal Process. 41, 534-548 (weights of the transmission log-likelihood).
    """
    flat = sinogram.reshape(-1, 1, sinogram.shape[-1])
    smooth = torch.nn.functional.avg_pool1d(flat, SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)
    given = torch.as_tensor(photons, dtype=torch.float32).reshape(-1, 1, 1)
    noise = (smooth.reshape(sinogram.shape).clamp(min=0.0).minimum(given.log()) / 2).exp() / given.sqrt()
    std = noise.square().mean(dim=(1, 2)).sqrt()
    return std, each_slice(std, noise) / noise


SMOOTHING = 5
"""Width of the smoothing in detector elements."""


def spelled(std: Tensor) -> str:
    """Spell the noise of slices ``(slices,)``: one number, or a range where slices differ by more than a tenth."""
    low, high = float(std.min()), float(std.max())
    return f"{high:.2e}" if high <= 1.1 * low else f"{low:.2e} to {high:.2e}, slice by slice"


def of_kspace(kspace: Tensor, mask: Tensor) -> Tensor:
    """Estimate the noise of k-space ``(slices, coils, rows, cols)`` per real channel, ``(slices,)``.

    From its outermost samples: the magnitude of complex noise is Rayleigh distributed, with median 1.1774 sigma. This
    is an upper bound: some signal reaches the outer points too, of sharp edges and fat two or three times the noise.
    Where lines were sampled as a whole, or the centre, their Fourier transforms show the air beside the object, which
    has no signal: the lowest counts.
    """
    sampled = mask if mask.ndim == 2 else mask.all(0)
    if not bool(sampled.any()):
        return torch.zeros(len(kspace))
    rows, cols = sampled.shape
    y = (torch.arange(rows) - rows // 2).abs()[:, None] / (rows / 2)
    x = (torch.arange(cols) - cols // 2).abs()[None, :] / (cols / 2)
    radius = torch.maximum(y.expand(rows, cols), x.expand(rows, cols))[sampled]
    outer = radius >= torch.quantile(radius.float(), 0.9)
    found = _of_outer([one[..., sampled][..., outer] for one in kspace])
    for lines in _whole_lines(kspace, sampled):
        found = torch.minimum(found, torch.stack([_of_air(one) for one in lines]))
    width = acs_width(sampled, LARGEST_CENTRE)
    if width >= SMALLEST_CENTRE:
        top, left = (n // 2 - width // 2 for n in sampled.shape)
        found = torch.minimum(found, _of_corners(kspace[..., top : top + width, left : left + width]))
    return found


def in_common(found: Tensor, kspace: Tensor) -> Tensor:
    """Noise that planes across the readout of 3D k-space have in common, ``(planes,)``, from what each tells.

    The Fourier transform along the readout spreads noise evenly over the planes. What an object adds to an estimate is
    least in the planes that hold least of it: they tell the noise of all.

    Parameters
    ----------
    found
        Estimate of each plane, as of `of_kspace` and `of_samples`.
    kspace
        Samples ``(planes, coils, ...)``; planes that are zero tell nothing.
    """
    energy = torch.stack([one.abs().square().sum() for one in kspace])
    held = energy > 0
    if not bool(held.any()):
        return found
    quiet = held & (energy <= energy[held].quantile(QUIET_PLANES))
    return found[quiet].square().median().sqrt().expand(len(found))


def _whole_lines(kspace: Tensor, sampled: Tensor) -> Iterator[Tensor]:
    """Lines that were sampled from end to end, ``(slices, coils, lines, n)``, for each direction that has enough."""
    for data, mask in ((kspace, sampled), (kspace.transpose(-1, -2), sampled.T)):
        whole = mask.all(1)
        if int(whole.sum()) * kspace.shape[1] >= LEAST_READOUTS:
            yield data[..., whole, :]


def _of_air(lines: Tensor) -> Tensor:
    """Noise per real channel of lines ``(coils, lines, n)`` of k-space, from the places along them that hold least.

    The mean power of so many lines differs little from place to place where there is noise alone.
    """
    places = torch.fft.ifft(lines, dim=-1, norm="ortho").abs().square().mean(dim=(0, 1))
    # Places that were set to zero, as some files have them around an object, tell nothing.
    seen = places[places > MASKED * places.max()]
    found: Tensor = (seen.quantile(EMPTY_SHARE) / 2).sqrt() if len(seen) else places.new_tensor(torch.inf)
    return found


def _of_corners(centre: Tensor) -> Tensor:
    """Noise per real channel from the centre ``(slices, coils, width, width)`` of k-space, ``(slices,)``.

    Its transform is an image of low resolution, whose corners are farthest from any object that a field of view holds.
    The window keeps what rings there below a thousandth of the object along each axis.
    """
    width = centre.shape[-1]
    window = torch.kaiser_window(width, periodic=False, beta=WINDOW)
    window = window[:, None] * window
    image = torch.fft.fftshift(torch.fft.ifft2(centre * window, norm="ortho"), dim=(-2, -1))
    near = torch.zeros(width, dtype=torch.bool)
    edge = max(width // CORNER, 1)
    near[:edge] = near[-edge:] = True
    corners = image[..., near[:, None] & near] / window.square().mean().sqrt()
    return _of_outer(list(corners))


def of_samples(data: Tensor, radius: Tensor) -> Tensor:
    """Estimate the noise of k-space off the grid ``(slices, coils, samples)``, as `of_kspace` does.

    Parameters
    ----------
    radius
        Distance of each sample from the centre of k-space, ``(samples,)``.
    """
    outer = radius >= torch.quantile(_sampled(radius).float(), 0.9)
    return _of_outer([one[..., outer] for one in data])


def _of_outer(samples: Sequence[Tensor]) -> Tensor:
    """Noise of each slice per real channel, from samples that hold hardly anything else."""
    return torch.stack([_sampled(one.abs()).median() for one in samples]) / 1.1774


def _sampled(values: Tensor) -> Tensor:
    """Subsample to at most about `SAMPLES` values: a median needs no more."""
    flat = values.flatten()
    return flat[:: max(1, len(flat) // SAMPLES)]


LEAST_READOUTS = 100
"""Lines, of all coils, from which their mean power tells the noise to some per cent."""
MASKED = 1e-10
"""Power relative to the largest of places that were set to zero, but for rounding."""
EMPTY_SHARE = 0.1
"""Fraction of the places along a line in the middle of which the noise is read: the air beside an object, if there is
any; not the emptiest, where a receiver's filter may have taken noise away."""
QUIET_PLANES = 0.25
"""Fraction of the planes across a readout, those of least energy, that tell the noise of all."""
SMALLEST_CENTRE, LARGEST_CENTRE = 16, 64
"""Sides of the fully sampled centre of k-space whose image tells the noise."""
WINDOW = 6.0
"""Shape of the Kaiser window on it."""
CORNER = 8
"""Side of the image of the centre over that of each of its corners."""
SAMPLES = 50_000
