"""Readouts as scanners store them, one line of k-space each, sorted into k-space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats import kspace
from recon.formats.kspace import Complex, Plane
from recon.formats.safety import check_size
from recon.measurement.coils import Matrix, covariance_of, level_of
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.kspace import transformed
from recon.spec.job import Input

CHOICES = ("contrast", "phase", "repetition", "set")
"""Counters of which one value makes an image; ``input.scan`` chooses it."""


@dataclass(frozen=True)
class Readouts:
    """Readouts of a scan, in the order of the file; arrays have an entry per readout.

    Parameters
    ----------
    counters
        ``line``, ``partition``, ``slice`` and those of `CHOICES`.
    samples, centre
        Samples, and the index of that where the readout gradient's moment is zero.
    mirrored
        Whether the readout ran backwards.
    dwell_us
        Time per sample; 0 if unknown.
    image, noise, navigator
        Whether it belongs to the image, is noise alone, or tells the phase of an EPI train.
    planes
        Place of each slice, by its number.
    positions
        Where samples lie along the readout, in points of k-space from its centre, if they were taken on the gradient's
        ramps, too; None if they are evenly spaced.
    load
        Reads one: ``(coils, samples)``.
    """

    counters: dict[str, NDArray[np.int64]]
    samples: NDArray[np.int64]
    centre: NDArray[np.int64]
    coils: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    dwell_us: NDArray[np.float64]
    image: NDArray[np.bool_]
    noise: NDArray[np.bool_]
    navigator: NDArray[np.bool_]
    planes: dict[int, Plane | None]
    load: Callable[[int], Complex]
    positions: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Encoding:
    """Encoding of a scan's k-space, as its header states it.

    Parameters
    ----------
    matrix
        Points ``(x, y, z)``: along the readout, lines and partitions.
    fov_mm
        Size that they encode, each None if unknown.
    kept, kept_partitions
        Pixels along the readout, and partitions, that are no oversampling.
    line, partition
        Counters where the phase encoding is zero.
    relative_bandwidth
        Of the receiver's noise, of imaging against noise readouts.
    in_patient
        Whether the file says how the patient lay.
    """

    matrix: tuple[int, int, int]
    fov_mm: tuple[float | None, float | None, float | None]
    kept: int
    kept_partitions: int
    line: int
    partition: int
    relative_bandwidth: float = 1.0
    in_patient: bool = False


def measurement(readouts: Readouts, encoding: Encoding, given: Input, notes: list[str]) -> Measurement:
    """Sort the readouts that are asked for into k-space."""
    if not readouts.image.any():
        raise InputError("there is no readout of an image in the file", field="input")
    coils = np.unique(readouts.coils[readouts.image])
    if len(coils) > 1:
        raise InputError(f"readouts have {coils.min()} to {coils.max()} coils, expected the same number", field="input")
    numbers = {name: np.unique(readouts.counters[name][readouts.image]).tolist() for name in CHOICES}
    wanted = kspace.chosen(given.scan, numbers, notes)
    used = readouts.image & matching(readouts, wanted)
    if not used.any():
        raise InputError(
            f"no readout has {', '.join(f'{name} {number}' for name, number in wanted.items())} together",
            field="input.scan",
            remedy="choose another combination",
        )
    slices = np.unique(readouts.counters["slice"][used]).tolist()
    deep = encoding.matrix[2] > 1
    if deep and len(slices) > 1:
        raise InputError(
            f"{len(slices)} slabs of 3D k-space; one is read", field="input", remedy="split the file by its slabs"
        )
    planes = [readouts.planes.get(number) for number in slices]
    order = [0] if deep else kspace.stacked(planes, given.slices, notes)
    slices, planes = [slices[i] for i in order], [planes[i] for i in order]
    own = readouts.navigator & (readouts.counters["repetition"] == wanted["repetition"])
    if own.any():  # phases drift from repetition to repetition
        readouts = replace(readouts, navigator=own)
    elif readouts.navigator.any():
        notes.append(f"repetition {wanted['repetition']} has no reference lines: those of the others are used")
    data, repeats = _sorted(readouts, used, slices, int(coils[0]), encoding, notes)
    noise = noise_of(readouts, used, encoding.relative_bandwidth, repeats, notes)
    return _placed(data, planes, encoding, noise, notes)


def _placed(
    data: Complex,
    planes: list[Plane | None],
    encoding: Encoding,
    noise: Matrix | None,
    notes: list[str],
) -> Measurement:
    """Place ``(slices, coils, partitions, rows, cols)``, of one slab or of slices without partitions."""
    x, y, z = encoding.fov_mm
    col = None if x is None else x / encoding.matrix[0]
    row = None if y is None else y / encoding.matrix[1]
    if encoding.matrix[2] > 1:
        notes.append("partitions of 3D k-space are taken to count along the slice direction that the file states")
        return kspace.measurement_3d(
            data[0].swapaxes(0, 1),
            planes[0],
            (None if z is None else z / encoding.matrix[2], row, col),
            kept=encoding.kept_partitions,
            in_patient=encoding.in_patient,
            noise=noise,
            notes=notes,
        )
    found = kspace.measurement(
        data[:, :, 0], planes, None if col is None or row is None else (col, row), z, in_patient=encoding.in_patient,
        noise_std=None if noise is None else level_of(noise), notes=notes,
    )  # fmt: skip
    return replace(found, noise_covariance=noise)


def matching(readouts: Readouts, wanted: dict[str, int]) -> NDArray[np.bool_]:
    """Which readouts have the wanted counters."""
    return np.asarray(np.logical_and.reduce([readouts.counters[name] == number for name, number in wanted.items()]))


def _sorted(
    readouts: Readouts, used: NDArray[np.bool_], slices: list[int], coils: int, encoding: Encoding, notes: list[str]
) -> tuple[Complex, int]:
    """Fill k-space ``(slices, coils, partitions, rows, cols)``, repeated lines averaged; return it and the repeats."""
    width, rows, partitions = encoding.matrix
    line = readouts.counters["line"] - encoding.line + rows // 2
    partition = readouts.counters["partition"] - encoding.partition + partitions // 2
    kspace.check_lines(line[used], rows, "line")
    kspace.check_lines(partition[used], partitions, "partition")
    _check_samples(readouts, used, width)
    shape = (len(slices), coils, partitions, rows, encoding.kept)
    check_size(shape, 8)
    data = np.zeros(shape, dtype=np.complex64)
    repeats = np.zeros((len(slices), partitions, rows), dtype=np.int64)
    gridding = None if readouts.positions is None else _gridding(readouts.positions, width, encoding.kept)
    trains = {number: _train_phase(readouts, number, width, gridding) for number in slices}
    places = {number: i for i, number in enumerate(slices)}
    for index in np.flatnonzero(used):
        number = int(readouts.counters["slice"][index])
        if number not in places:
            continue
        profile = _profile(readouts, int(index), width, gridding)
        phase = trains[number] if readouts.mirrored[index] else None
        samples = _line(profile if phase is None else profile * phase, encoding.kept)
        if gridding is None and readouts.samples[index] < width:
            samples[:, _beyond_echo(readouts, int(index), width, encoding.kept)] = 0  # or it would count as measured
        place = places[number], partition[index], line[index]
        data[place[0], :, place[1], place[2]] += samples
        repeats[place] += 1
    measured = repeats > 0
    data /= np.maximum(repeats, 1)[:, None, :, :, None]
    _say(readouts, used, measured, repeats, trains, encoding, notes)
    return data, int(repeats[measured].min())


def _check_samples(readouts: Readouts, used: NDArray[np.bool_], width: int) -> None:
    samples, centre = readouts.samples[used], readouts.centre[used]
    if readouts.positions is not None:
        if (samples != len(readouts.positions)).any():
            raise InputError(
                f"readouts of {samples.min()} to {samples.max()} samples, those on the gradient's ramps are of "
                f"{len(readouts.positions)}",
                field="input",
            )
        return
    first = width // 2 - centre
    if (samples < 1).any() or (first < 0).any() or (first + samples > width).any():
        raise InputError(
            f"readouts of {samples.max()} samples with centre {centre.max()}, the header says {width} points along "
            "the readout",
            field="input",
            remedy="regrid readouts that were sampled on the gradient's ramps, and correct the header",
        )


def _profile(readouts: Readouts, index: int, width: int, gridding: Complex | None) -> Complex:
    """Read one line as its image, ``(coils, width)``: turned round if it ran backwards, on an even raster."""
    samples = readouts.load(index)
    samples = samples[:, ::-1] if readouts.mirrored[index] else samples
    if gridding is not None:
        return samples @ gridding
    first = width // 2 - int(readouts.centre[index])
    line = np.zeros((len(samples), width), dtype=np.complex64)
    line[:, first : first + samples.shape[1]] = samples
    return transformed(line, -1, inverse=True)


def _line(profile: Complex, kept: int) -> Complex:
    """Transform the middle of a profile, which is no oversampling, into a line of k-space."""
    first = profile.shape[1] // 2 - kept // 2
    return transformed(profile[:, first : first + kept], -1, inverse=False)


def _beyond_echo(readouts: Readouts, index: int, width: int, kept: int) -> NDArray[np.bool_]:
    """Columns of a line that a partial echo did not measure."""
    samples = int(readouts.samples[index])
    first = width // 2 - int(readouts.centre[index])
    position = (np.arange(kept) - kept // 2) * width / kept + width // 2
    return np.asarray((position < first) | (position > first + samples - 1))


def on_ramps(
    samples: int,
    width: int,
    delay_us: float,
    duration_us: float,
    trapezoid_us: tuple[float, float, float],
    *,
    sinusoidal: bool = False,
) -> NDArray[np.float64]:
    """Find where samples lie that were taken on a gradient's ramps, in points of k-space from its centre.

    Parameters
    ----------
    samples, width
        Samples of a readout, and points of the even raster that spans as much of k-space.
    delay_us, duration_us
        From the gradient's start to the first sample, and of all samples.
    trapezoid_us
        Ramp up, flat top and ramp down.
    sinusoidal
        Whether ramps are quarters of a sine, else straight.
    """  # fmt: skip
    up, flat, down = trapezoid_us
    time = np.linspace(0.0, max(up + flat + down, delay_us + duration_us), 20_001)
    rise = np.minimum(np.minimum(time / max(up, 1e-9), (up + flat + down - time) / max(down, 1e-9)), 1.0).clip(0.0)
    gradient = np.sin(rise * np.pi / 2) if sinusoidal else rise
    moment = np.concatenate([[0.0], np.cumsum((gradient[1:] + gradient[:-1]) / 2)])
    taken = np.interp(delay_us + duration_us * (np.arange(samples) + 0.5) / samples, time, moment)
    ends = np.interp([delay_us, delay_us + duration_us], time, moment)
    steps = np.diff(taken)
    if ends[1] <= ends[0] or (len(steps) and float(steps.min()) <= 0):
        raise InputError("readouts were sampled while the header says that there was no gradient", field="input")
    return np.asarray((taken - ends.mean()) * width / (ends[1] - ends[0]))


def _gridding(positions: NDArray[np.float64], width: int, kept: int) -> Complex:
    """Make the matrix from samples at uneven positions to the profile ``(samples, width)`` that fits them best.

    The profile has as many pixels as the samples' widest gap resolves, and zeros around them.
    """
    pixels = min(width, max(kept, int(width / max(1.0, float(np.diff(positions).max())))))
    place = np.arange(pixels) - pixels // 2
    encoded = np.exp(-2j * np.pi * positions[:, None] * place / width) / np.sqrt(width)
    found = np.zeros((len(positions), width), dtype=np.complex64)
    found[:, width // 2 - pixels // 2 + np.arange(pixels)] = np.linalg.pinv(encoded, rcond=1e-3).T
    return found


def _train_phase(readouts: Readouts, number: int, width: int, gridding: Complex | None) -> Complex | None:
    """Find the phase along the readout by which lines that ran backwards differ, from an EPI train's navigators.

    References
    ----------
    Schmitt, Stehling and Turner 1998, Echo-Planar Imaging, chapter 6 (linear correction by reference lines).
    """
    length = width if readouts.positions is None else len(readouts.positions)
    mine = readouts.navigator & (readouts.counters["slice"] == number) & (readouts.samples == length)
    forward, backward = (np.flatnonzero(mine & (readouts.mirrored == way)) for way in (False, True))
    if not len(forward) or not len(backward):
        return None
    there, back = (
        np.mean([_profile(readouts, int(i), width, gridding) for i in indices], axis=0)
        for indices in (forward, backward)
    )
    product = (there * back.conj()).sum(0)
    slope = float(np.angle((product[1:] * product[:-1].conj()).sum()))
    ramp = slope * (np.arange(width) - width // 2)
    offset = float(np.angle((product * np.exp(-1j * ramp)).sum()))
    return np.asarray(np.exp(1j * (ramp + offset)), dtype=np.complex64)


def noise_of(
    readouts: Readouts, used: NDArray[np.bool_], relative_bandwidth: float, repeats: int, notes: list[str]
) -> Matrix | None:
    """Estimate the covariance of k-space's noise between its coils, per real channel, from readouts of noise alone.

    Noise has the power of the bandwidth through which it was received, so that it goes with one over the dwell time.
    """
    coils = int(readouts.coils[used][0])
    indices = np.flatnonzero(readouts.noise & (readouts.coils == coils))
    if not len(indices):
        return None
    found = covariance_of(np.concatenate([readouts.load(int(i)) for i in indices], axis=1)) / repeats
    noise_us, image_us = float(readouts.dwell_us[indices].mean()), float(readouts.dwell_us[used].mean())
    if noise_us > 0 and image_us > 0:
        found *= noise_us / (image_us * relative_bandwidth)
    if not np.diag(found).real.any():
        return None
    notes.append(f"noise of k-space from {len(indices)} readouts of noise alone: {level_of(found):.2e}")
    return found


def _say(
    readouts: Readouts,
    used: NDArray[np.bool_],
    measured: NDArray[np.bool_],
    repeats: NDArray[np.int64],
    trains: dict[int, Complex | None],
    encoding: Encoding,
    notes: list[str],
) -> None:
    """Note what the scanner left out, and what was done."""
    kept, width = encoding.kept, encoding.matrix[0]
    if readouts.positions is not None:
        notes.append(f"readouts of {len(readouts.positions)} samples, some on the gradient's ramps, were regridded")
    if kept < width:
        notes.append(f"readout oversampling removed: {width} samples became {kept}")
    lines, every = int(measured.any(axis=(0, 1)).sum()), measured.shape[2]
    if lines < every:
        notes.append(f"{lines} of {every} lines were measured (parallel imaging, partial Fourier)")
    if encoding.matrix[2] > 1:
        count, total = int(measured.sum()), measured.size
        notes.append(f"3D k-space: {count} of {total} lines were measured")
    if int(repeats.max()) > 1:
        notes.append(f"lines that were measured up to {int(repeats.max())} times were averaged")
    backwards = readouts.mirrored & used
    if backwards.any() and (used & ~readouts.mirrored).any():
        done = "their phase is corrected by reference lines"
        if any(phase is None for phase in trains.values()):
            done = "there are no reference lines for their phase: expect ghosts"
        notes.append(f"{int(backwards.sum())} of {int(used.sum())} lines ran backwards and were turned round; {done}")
