"""Preparation of k-space: noise of the coils, more than one set of coil maps, partial Fourier, through whole jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import recon
from operators.coils import espirit_maps, espirit_sets, folded_share
from operators.errors import GeometryError, InputError
from recon.formats import bart, hdf5, reader
from recon.formats.inspect import inspect
from recon.problem import partial_fourier
from recon.spec.job import Input, JobSpec
from tests.recon.formats import mrd_files
from tests.recon.formats.mrd_files import Scan
from tests.recon.formats.test_bart import written
from tests.recon.problem.test_kspace_as_files_have_it import (
    COILS,
    MASK,
    SIZE,
    axes,
    coils,
    error,
    head,
    transformed,
)

Array = NDArray[Any]
SHARED = Path(__file__).parents[4] / "shared/data/formats"
SMALL = SHARED / "bart-smallfov/smallfov.cfl"
BOTTLES = SHARED / "mrd-grappa3-pf/meas_MID00349_FID09273_SNR_R3.h5"
PHANTOM = SHARED / "twix-gre/gre.dat"
NOISE = 0.02
"""Per real channel; the object's largest value is 2."""


def normal(shape: tuple[int, ...], seed: int) -> Array:
    generator = np.random.default_rng(seed)
    found: Array = generator.normal(size=shape) + 1j * generator.normal(size=shape)
    return found


def smooth_head() -> Array:
    """The object at half its resolution, so that the outermost samples are noise."""
    radius = np.hypot(*axes(SIZE, SIZE))
    kept = transformed(head()) * np.exp(-((radius / 0.2) ** 2))
    found: Array = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kept), norm="ortho"))
    return found


def correlated() -> Array:
    """Combination of coils that gives neighbours a correlation of 0.95, and those next to them its square."""
    distance = np.abs(np.arange(COILS)[:, None] - np.arange(COILS))
    found: Array = np.linalg.cholesky(0.95**distance)
    return found


def scanned(noise: Array, seen: Array | None = None, level: float = NOISE) -> tuple[Array, Array, Array]:
    """Samples, maps, and a noise scan of coils whose noise is combined by one matrix, what they see by another."""
    maps = np.einsum("ij,jrc->irc", np.eye(COILS) if seen is None else seen, coils())
    samples = transformed(maps * smooth_head())
    samples += level * np.einsum("ij,jrc->irc", noise, normal((COILS, SIZE, SIZE), 0))
    scan = level * noise @ normal((COILS, 20_000), 1)
    return (samples * MASK).astype(np.complex64), maps.astype(np.complex64), scan.astype(np.complex64)


def solved(data: Array, method: Any = "cg-sense", **more: Any) -> Any:
    given = {"kind": "mri-cartesian", "preparation": more.pop("preparation", {})}
    return recon.reconstruct(data.astype(np.complex64), given, method=method, progress=False, **more)


def steps(found: Any) -> dict[str, Any]:
    return {step.name: step for step in found.report.preparation}


METHODS: list[Any] = [
    "cg-sense", {"name": "tv", "iterations": 60}, {"name": "l1-wavelet", "iterations": 40}, "low-rank",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=["cg-sense", "tv", "l1-wavelet", "low-rank"])
def test_correlated_noise_costs_nothing_beyond_its_information(method: Any) -> None:
    """A fifth of a decibel at most, whether a noise scan tells the covariance or the outermost samples do."""
    white, maps, scan = scanned(np.eye(COILS), np.linalg.inv(correlated()))  # of as much information
    truth = smooth_head()
    reference = error(solved(white, method, coil_maps=maps, noise_scan=scan), truth)
    shared, shared_maps, shared_scan = scanned(correlated())
    told = solved(shared, method, coil_maps=shared_maps, noise_scan=shared_scan)
    alone = solved(shared, method, coil_maps=shared_maps)
    plain = solved(shared, method, coil_maps=shared_maps, preparation={"whitening": False})
    for found in (told, alone):
        assert 20 * np.log10(error(found, truth) / reference) < 0.2
        assert steps(found)["whitening"].changed and steps(found)["whitening"].text in found.report.notes
    assert 20 * np.log10(error(plain, truth) / reference) > 1
    assert told.report.noise_std == pytest.approx(NOISE, rel=0.05)


def test_estimated_maps_profit_as_well() -> None:
    """The image has the shading of the coils as they were measured, here none, and less noise."""
    data, _, scan = scanned(correlated())
    found = {name: error(solved(data, noise_scan=scan, **more), smooth_head()) for name, more in (
        ("white", {}), ("as it is", {"preparation": {"whitening": False}}),
    )}  # fmt: skip
    assert found["white"] < 0.1 and found["as it is"] > 1.25 * found["white"]


def shading(image: Array, truth: Array) -> Array:
    """Ratio of two images' magnitudes at low resolution, where the object is."""
    radius = np.hypot(*axes(SIZE, SIZE))
    window = np.fft.ifftshift(np.exp(-((radius / 0.04) ** 2)))
    smooth = [np.abs(np.fft.ifft2(np.fft.fft2(np.abs(v)) * window)) for v in (image, truth)]
    inside = np.abs(truth) > 0.5
    found: Array = (smooth[0] / smooth[1])[inside]
    return found


def loud() -> Array:
    return np.diag(np.where(np.arange(COILS) == 1, 40.0, 1.0))


@pytest.mark.parametrize("method", ["zero-filled", "cg-sense", "red-diff"])
@pytest.mark.parametrize("noise", ["correlated", "one loud coil"])
def test_whitening_does_not_change_the_shading(noise: str, method: str) -> None:
    """Whitening keeps the profile of the coils as measured, of those that are not far louder than the others."""
    mix = correlated() if noise == "correlated" else loud()
    data, maps, scan = scanned(mix, level=NOISE / 3)  # the magnitude of noise would add to the image
    clean = (transformed(maps * smooth_head()) * MASK).astype(np.complex64)
    clean = clean if noise == "correlated" else np.delete(clean, 1, axis=0)
    settings = {"partial_fourier": False}
    truth = solved(clean, method, preparation={**settings, "whitening": False}).volume[0]
    found = solved(data, method, noise_scan=scan, preparation=settings)
    assert steps(found)["whitening"].changed
    ratio = shading(found.volume[0], truth)
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.02
    if noise == "correlated":
        white = np.linalg.norm(np.linalg.solve(np.linalg.cholesky(mix @ mix.T), maps.reshape(COILS, -1)), axis=0)
        profile = white.reshape(SIZE, SIZE)[np.abs(smooth_head()) > 0.5]
        assert np.std(profile) > 0.06 * np.mean(profile)  # what it would be


def test_coils_that_are_whitened_and_combined_keep_the_shading() -> None:
    count = 24
    maps = coils(count)
    distance = np.abs(np.arange(count)[:, None] - np.arange(count))
    mix = np.linalg.cholesky(0.9**distance)
    data = transformed(maps * smooth_head()) + NOISE * np.einsum("ij,jrc->irc", mix, normal((count, SIZE, SIZE), 0))
    scan = (NOISE * mix @ normal((count, 20_000), 1)).astype(np.complex64)
    found = solved(data * MASK, noise_scan=scan)
    assert steps(found)["whitening"].changed and steps(found)["kept_energy"].changed
    assert np.sqrt(np.mean((shading(found.volume[0], smooth_head()) - 1) ** 2)) < 0.03


def test_a_faint_first_coil_does_not_give_the_image_its_phase() -> None:
    data, _, scan = scanned(np.eye(COILS))
    data[0], scan[0] = (40 * NOISE * normal(v.shape, 3) for v in (data[0], scan[0]))
    found = solved(data * MASK, noise_scan=scan).volume[0]
    inside = np.abs(head()) > 0
    neighbours = inside[:, 1:] & inside[:, :-1]
    turns = np.abs(np.angle(found[:, 1:] * found[:, :-1].conj()))[neighbours]
    assert np.median(turns) < 0.2


def test_noise_readouts_of_a_file_tell_the_covariance(tmp_path: Path) -> None:
    scan, matrix = Scan(), np.array([[1.0, 0.0], [6.0, 8.0]])
    images = mrd_files.phantom()[0]
    for number in range(20):
        scan.add(matrix @ normal((2, mrd_files.COLS), number), flags=mrd_files.NOISE)
    scan.add_image(mrd_files.fourier(images))
    path = scan.write(tmp_path / "scan.h5")
    spec = JobSpec.parse({"input": {"path": str(path)}, "method": "zero-filled"})
    measurement = reader.read(spec, {"input": path})
    covariance = measurement.noise_covariance
    assert covariance is not None
    assert np.abs(covariance / (matrix @ matrix.T) - 1).max() < 0.25
    shown = inspect(path, Input(path=str(path))).notes[-1]
    assert "noise of 2 coils" in shown and "of the usual one" in shown and "correlated by up to 0." in shown
    found = recon.reconstruct(path, method="zero-filled", progress=False)
    kept = tmp_path / "kept.h5"
    hdf5.write_measurement(kept, measurement)
    assert np.array_equal(hdf5.read_measurement(kept).noise_covariance, covariance)  # type: ignore[arg-type]
    assert "noise scan" in steps(found)["whitening"].text
    assert steps(found)["whitening"].numbers["largest_correlation"] == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("method", ["gridding", "cg-sense"])
def test_a_loud_coil_costs_nothing_off_the_grid(method: str) -> None:
    scan = recon.simulate(
        np.abs(head())[None].astype(np.float32),
        "mri-noncartesian",
        affine=np.eye(4),
        acceleration=2,
        coils=COILS,
        seed=1,
    )
    noise = 0.05 * normal((2, *scan.data.shape), 4)
    places = scan.files["trajectory_cycles_per_fov"]
    given: dict[str, Any] = {"kind": "mri-noncartesian", "rows": SIZE}
    weights = np.where(np.arange(COILS) == 1, 40.0, 1.0)[:, None]

    def of(data: Array, **more: Any) -> Array:
        """Image of samples; a loud coil does not count in its shading, as if it were not there."""
        found = recon.reconstruct(
            data.astype(np.complex64), given, method=method, progress=False, trajectory_cycles_per_fov=places, **more
        )
        image: Array = np.abs(found.volume[0])
        return image

    quiet = of(np.delete(scan.data + noise[0], 1, axis=1))
    loud = of(scan.data + weights * noise[0], noise_scan=(weights * noise[1])[0].astype(np.complex64))
    given["preparation"] = {"whitening": False}
    plain, every = of(scan.data + weights * noise[0]), of(scan.data + noise[0])
    assert np.linalg.norm(loud - quiet) < 0.1 * np.linalg.norm(quiet)
    assert np.linalg.norm(loud - quiet) < 0.5 * np.linalg.norm(plain - every)


REFUSED: dict[str, tuple[Array, str]] = {
    "of other coils": (normal((COILS + 1, 400), 0), f"{COILS + 1} coils of 400 samples, the data have {COILS} coils"),
    "empty": (np.zeros((COILS, 400), np.complex64), "every sample is zero"),
    "real": (np.ones((COILS, 400)), r"expected complex \(\[readouts,\] coils, samples\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_noise_scans_that_are_none_are_refused(name: str) -> None:
    noise, says = REFUSED[name]
    with pytest.raises((InputError, GeometryError), match=rf"acquisition\.noise_scan.*{says}"):
        solved(scanned(np.eye(COILS))[0], noise_scan=noise)


WIDE = 100
"""Columns of an object that the field of view of 64 does not hold."""


def folded() -> tuple[Array, Array]:
    """K-space ``(coils, rows, cols)`` of an object whose ends lie over each other, and its coils' images."""
    whole = coils(8, SIZE, WIDE) * head(SIZE, WIDE)
    images = np.zeros((8, SIZE, SIZE), complex)
    for col in range(WIDE):
        images[:, :, (col - (WIDE - SIZE) // 2) % SIZE] += whole[:, :, col]
    noisy = transformed(images) + 0.003 * normal(images.shape, 5)
    return noisy.astype(np.complex64), images


@pytest.mark.parametrize(
    ("method", "limit", "with_one"),
    [
        ("cg-sense", 0.05, 0.2), ("tv", 0.02, 0.2), ("low-rank", 0.06, 0.065), ("red-diff", 0.03, 0.2),
        ("dds", 0.05, 0.2),
    ],
)  # fmt: skip
def test_two_sets_of_maps_hold_what_is_folded_over(method: str, limit: float, with_one: float) -> None:
    """Sets of unit norm: the root sum of squares of their images is that of the coils' images."""
    data, images = folded()
    truth = np.linalg.norm(images, axis=0)
    two = solved(data * MASK.T, method)
    one = solved(data * MASK.T, method, preparation={"map_sets": 1})
    assert two.volume.shape == one.volume.shape == (1, SIZE, SIZE)
    assert error(two, truth) < limit < with_one < error(one, truth)
    assert steps(two)["map_sets"].numbers["sets"] == 2 and "map_sets" not in steps(one)
    assert any("larger than the field of view, two sets" in note for note in two.report.notes)
    assert two.report.misfit < 0.5 * one.report.misfit


OTHERS: list[tuple[Any, float]] = [
    ("zero-filled", 0.1),
    ("l1-wavelet", 0.03),
    ({"name": "diffpir", "steps": 10}, 0.03),
    ({"name": "diffusion-mbir", "steps": 12}, 0.04),
    ({"name": "dps", "steps": 50}, 0.12),
]


@pytest.mark.parametrize(("method", "limit"), OTHERS, ids=lambda v: v["name"] if isinstance(v, dict) else str(v))
def test_every_other_method_takes_two_sets(method: Any, limit: float) -> None:
    data, images = folded()
    found = solved(data * MASK.T, method)
    assert found.volume.shape == (1, SIZE, SIZE) and np.isfinite(found.volume).all()
    assert error(found, np.linalg.norm(images, axis=0)) < limit


def two_sets() -> tuple[Array, Array]:
    """Maps ``(sets, coils, rows, cols)`` of what lies in the field of view and what is folded into it, and images."""
    far, fold = coils(8, SIZE, WIDE), (WIDE - SIZE) // 2
    maps, objects = np.zeros((2, 8, SIZE, SIZE), complex), np.zeros((2, SIZE, SIZE), complex)
    for col in range(WIDE):
        at = int(not fold <= col < fold + SIZE)
        maps[at, :, :, (col - fold) % SIZE] = far[:, :, col]
        objects[at, :, (col - fold) % SIZE] = head(SIZE, WIDE)[:, col]
    return maps.astype(np.complex64), objects


@pytest.mark.parametrize("noise", ["as it is", "whitened"])
@pytest.mark.parametrize("ending", ["npy", "npy of slices", "cfl"])
def test_two_sets_of_maps_may_be_given(tmp_path: Path, ending: str, noise: str) -> None:
    (data, _), (maps, objects) = folded(), two_sets()
    given: Any = maps if ending == "npy" else maps[None]
    if ending == "cfl":
        given = written(tmp_path / "maps.cfl", maps.transpose(2, 3, 1, 0)[:, :, None])
    mix = np.linalg.cholesky(0.7 ** np.abs(np.arange(8)[:, None] - np.arange(8)))
    scan = (0.003 * mix @ normal((8, 20_000), 1)).astype(np.complex64)
    more = {} if noise == "as it is" else {"noise_scan": scan}
    found = solved(data * MASK.T, coil_maps=given, **more)
    assert steps(found)["whitening"].changed == (noise == "whitened")
    assert error(found, np.linalg.norm(objects, axis=0)) < 0.06
    assert error(solved(data * MASK.T, coil_maps=maps[0], **more), np.linalg.norm(objects, axis=0)) > 0.3


def test_one_set_of_maps_where_one_explains_the_coils() -> None:
    for noise in (0.005, 0.05, 0.2):
        data = transformed(coils() * head()) + noise * normal((COILS, SIZE, SIZE), 6)
        found = solved(data * MASK)
        assert not steps(found)["map_sets"].changed and steps(found)["map_sets"].numbers["folded"] < 0.01


def test_a_slice_of_noise_alone_is_left_empty_and_said() -> None:
    noise = 0.05 * normal((2, COILS, SIZE, SIZE), 6)
    noise[0] += transformed(coils() * head())
    found = solved((noise * MASK).astype(np.complex64))
    assert any("slice 1: the centre of k-space holds no more than noise" in note for note in found.report.notes)
    assert np.abs(found.volume[0]).max() > 0.5 and not found.volume[1].any()


def test_the_first_of_two_sets_is_the_only_one() -> None:
    data = torch.from_numpy((transformed(coils() * head()) * MASK).astype(np.complex64))[None]
    mask = torch.from_numpy(MASK)
    one, two = espirit_maps(data, mask)[0], espirit_sets(data, mask, 2)[0]
    both = (one != 0).any(0) & (two[0] != 0).any(0)
    assert float(both.float().mean()) > 0.4
    assert float((one - two[0]).abs().amax(0)[both].quantile(0.95)) < 1e-3
    assert float((two[0] * two[1].conj()).sum(0).abs().max()) < 1e-4


@pytest.mark.skipif(not SMALL.exists(), reason="needs shared/data")
def test_a_head_larger_than_its_field_of_view_is_seen() -> None:
    data = torch.from_numpy(bart.coil_maps(SMALL, "input")[:, 0])  # k-space has the same layout
    assert folded_share(data, (data != 0).any(1).all(0), None, torch.zeros(1)) > 0.2


def test_sets_that_cannot_be_are_refused() -> None:
    data, maps, _ = scanned(np.eye(COILS))
    with pytest.raises(InputError, match=r"preparation\.map_sets.*2, but 1 set of coil maps are given"):
        solved(data, coil_maps=maps, preparation={"map_sets": 2})
    with pytest.raises(InputError, match=r"acquisition\.coil_maps.*are these 2 slices, or 2 sets"):
        solved(np.stack([data, data]), coil_maps=np.stack([maps, maps]))
    solved(np.stack([data, data]), coil_maps=np.stack([maps, maps])[:, None])
    places = normal((40, 2), 8).real
    off_grid = {"kind": "mri-noncartesian", "rows": SIZE}
    samples, both = normal((1, COILS, 40), 9).astype(np.complex64), np.stack([maps, maps])[None]
    with pytest.raises(InputError, match=r"acquisition\.coil_maps.*2 sets of coil maps, one is taken off the grid"):
        recon.reconstruct(samples, off_grid, method="gridding", trajectory_cycles_per_fov=places, coil_maps=both)
    with pytest.raises(InputError, match=r"preparation\.map_sets.*there is one coil"):
        solved(data[:1], preparation={"map_sets": 2})


def curved() -> Array:
    """The object with a smooth phase of two radians from side to side."""
    y, x = axes(SIZE, SIZE)
    found: Array = np.abs(head()) * np.exp(1j * (0.4 + 1.5 * x - 2 * y + 3 * x * y))
    return found


def partly(lines: slice, axis: int = 0, noise: float = 0.002) -> Array:
    data = transformed(coils() * curved()) + noise * normal((COILS, SIZE, SIZE), 7)
    kept = np.zeros(SIZE, bool)
    kept[lines] = True
    found: Array = data * (kept[:, None] if axis == 0 else kept)
    return found


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lines", [slice(24, None), slice(0, 41)], ids=["end", "beginning"])
@pytest.mark.parametrize(
    ("method", "gain"), [("zero-filled", 3.0), ("cg-sense", 4.0), ("l1-wavelet", 3.0), ("low-rank", 3.0)]
)
def test_a_known_phase_stands_in_for_the_other_side(method: str, gain: float, lines: slice, axis: int) -> None:
    data, maps, truth = partly(lines, axis), coils().astype(np.complex64), np.abs(curved())
    found = solved(data, method, coil_maps=maps)
    free = solved(data, method, coil_maps=maps, preparation={"partial_fourier": False})
    assert error(found, truth) < 0.035 and error(free, truth) > gain * error(found, truth)
    # The image keeps its phase.
    image = found.volume[0]
    bright = np.abs(curved()) > 0.5
    assert np.median(np.abs(np.angle(image * curved().conj()))[bright]) < 0.05
    where = ("rows", "columns")[axis]
    assert steps(found)["partial_fourier"].numbers == {f"measured_{where}": pytest.approx(0.635, abs=0.02)}
    assert any("partial Fourier: k-space has" in note for note in found.report.notes)


@pytest.mark.skipif(not BOTTLES.exists(), reason="needs shared/data")
def test_a_measured_scan_of_few_lines_to_both_sides_is_no_partial_fourier() -> None:
    """Lines 0 to 105 about 54 reach as far to both sides, though the matrix has 144: two bottles, without copies."""
    found = recon.reconstruct(BOTTLES, method="cg-sense", progress=False)
    assert {"whitening", "kept_energy"} < steps(found).keys() and "partial_fourier" not in steps(found)
    image = np.abs(found.volume[0])
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
    bottles = [np.hypot(rows - row, cols - col) for row, col in ((81, 54), (79, 140))]
    inside, beside = np.minimum(*bottles) < 38, np.minimum(*bottles) > 45
    # A third of the field of view, 48 rows, from a bottle its copy would be, with some of its signal.
    assert np.median(image[beside]) < 0.01 * np.median(image[inside])
    assert np.quantile(image[beside], 0.99) < 0.1 * np.median(image[inside])
    edges = [np.median(image[(d > 39) & (d < 41)]) for d in bottles]
    assert min(edges) > 0.5 * np.median(image[inside])  # round


@pytest.mark.skipif(not PHANTOM.exists(), reason="needs shared/data")
def test_a_known_phase_stands_in_for_the_other_side_of_a_measured_scan() -> None:
    spec = JobSpec.parse({"input": {"path": str(PHANTOM), "format": "twix"}, "method": "cg-sense"})
    whole = np.asarray(reader.read(spec, {"input": PHANTOM}).data)
    cut = whole.copy()
    cut[:, :, : cut.shape[2] * 3 // 8] = 0
    truth = np.abs(solved(whole).volume[0])
    found, free = solved(cut), solved(cut, preparation={"partial_fourier": False})
    assert "20 points before and 79 after its centre along the rows" in steps(found)["partial_fourier"].text
    assert error(found, truth) < 0.75 * error(free, truth)


def test_a_prior_leaves_the_phase_free() -> None:
    data, maps = partly(slice(24, None)), coils().astype(np.complex64)
    found = solved(data, "red-diff", coil_maps=maps)
    free = solved(data, "red-diff", coil_maps=maps, preparation={"partial_fourier": False})
    assert np.array_equal(found.volume, free.volume) and steps(found)["partial_fourier"].changed


def test_too_little_of_one_side_is_said() -> None:
    found = solved(partly(slice(30, None)), coil_maps=coils().astype(np.complex64))
    step = steps(found)["partial_fourier"]
    assert step.warning and not step.changed and "too few to one side" in step.text and step.text in found.report.notes


MASKS: dict[str, tuple[Array, list[int]]] = {
    "all": (np.ones((SIZE, SIZE), bool), []),
    "seven eighths": (np.arange(SIZE)[:, None] + np.zeros(SIZE, int) >= 8, [0]),
    "every third line": (MASK, []),
    "every eighth line": (np.broadcast_to((np.arange(SIZE) % 8 == 0)[:, None], (SIZE, SIZE)), []),
    "a partial echo": (np.arange(SIZE) + np.zeros((SIZE, 1), int) < 44, [1]),
    "fewer lines to both sides": (np.broadcast_to((abs(np.arange(SIZE) - 33) < 20)[:, None], (SIZE, SIZE)), []),
    "both axes": ((np.arange(SIZE)[:, None] >= 16) & (np.arange(SIZE) >= 16), [0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_partial_fourier_is_found_in_the_sampling(name: str) -> None:
    mask, found = MASKS[name]
    assert partial_fourier.found_in(torch.from_numpy(mask.copy())) == found
