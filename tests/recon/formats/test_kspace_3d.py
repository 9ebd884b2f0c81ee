"""3D Cartesian k-space of every format, undersampled along both phase encodings: an upright volume in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import recon
from operators.errors import InputError, ReconError
from recon.formats import reader
from recon.formats.kspace import mirrored
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.kspace import across_readout
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.job import JobSpec, local_files
from tests.recon.formats import test_bart, test_bruker, test_twix
from tests.recon.formats.mrd_files import Scan, header

SHAPE = (24, 28, 32)
"""Partitions, lines, samples of a readout; voxels of `VOXEL_MM`."""
VOXEL_MM = 2.0
CENTRE = np.array([5.0, -7.0, 11.0])
"""Centre of the field of view in the patient's LPS frame, mm."""
WHOLE = 1e5
"""Value of one in files of whole numbers."""
ORIENTATIONS = {  # directions of the readout, of lines and of partitions in LPS, right-handed in the order of twix
    "slices": ((0, 0, -1), (0, 1, 0), (-1, 0, 0)),  # a sagittal slab, read out towards the feet
    "rows": ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
    "cols": ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
}
"""Orientations of the scan by the axis of the axial volume along which it is read out."""


def at(lps_mm: np.ndarray) -> np.ndarray:
    """The object at places ``(..., 3)``: a soft ellipsoid with a bright ball to the left, in front, above."""

    def ball(middle: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        distance = np.linalg.norm((lps_mm - CENTRE - middle) / np.array(radii), axis=-1)
        return np.asarray(1 / (1 + np.exp((distance - 1) * min(radii) / 1.5)))

    return np.asarray(ball((0, 0, 0), (19, 17, 15)) + 2 * ball((8, -7, 6), (6, 6, 6)))


def measured(directions: Any, voxel_mm: tuple[float, ...] = (VOXEL_MM,) * 3, shape: Any = SHAPE) -> np.ndarray:
    """K-space ``(coils, partitions, lines, samples)`` of two coils, whose sensitivities have unit norm."""
    read, phase, across = (np.array(d, float) for d in directions)
    index = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    steps = (across * voxel_mm[0], phase * voxel_mm[1], read * voxel_mm[2])
    places = CENTRE + sum(i[..., None] * step for i, step in zip(index, steps, strict=True))
    angle = 0.7 + 0.02 * (places - CENTRE) @ np.array([1.0, 0.5, -0.7])
    coils = at(places) * np.stack([np.cos(angle), 1j * np.sin(angle)])
    axes = (1, 2, 3)
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(coils, axes=axes), axes=axes, norm="ortho"), axes=axes)


def kept(shape: tuple[int, ...] = SHAPE, *, apart: bool = False) -> np.ndarray:
    """Points ``(partitions, lines)`` that are measured: a chequerboard, or rows of each axis, and a centre."""
    z, y = np.mgrid[: shape[0], : shape[1]]
    if apart:
        return np.asarray(((z % 2 == 0) | (abs(z - 12) < 6)) & ((y % 2 == 0) | (abs(y - 14) < 6)))
    return np.asarray(((z + y) % 2 == 0) | ((abs(z - shape[0] // 2) < 6) & (abs(y - shape[1] // 2) < 6)))


def ismrmrd(path: Path, directions: Any, kspace: np.ndarray, mask: np.ndarray, **sizes: Any) -> tuple[Path, str]:
    scan = Scan()
    read, phase, across = directions
    for z, y in np.argwhere(mask):
        scan.add(
            kspace[:, z, y], kspace_encode_step_1=y, kspace_encode_step_2=z, position=tuple(CENTRE), read_dir=read,
            phase_dir=phase, slice_dir=across,
        )  # fmt: skip
    matrix = kspace.shape[:0:-1]
    fov = sizes.pop("fov", tuple(VOXEL_MM * n for n in matrix))
    xml = header(matrix, sizes.pop("recon", matrix), fov, sizes.pop("recon_fov", None))
    return scan.write(path / "scan.h5", xml), "ismrmrd"


def twix(path: Path, directions: Any, kspace: np.ndarray, mask: np.ndarray) -> tuple[Path, str]:
    partitions, lines, samples = SHAPE
    wide = np.zeros((*kspace.shape[:-1], 2 * samples), complex)
    wide[..., samples // 2 : -samples // 2] = np.fft.fftshift(
        np.fft.ifft(np.fft.ifftshift(kspace, axes=-1), norm="ortho"), axes=-1
    )
    kspace = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(wide, axes=-1), norm="ortho"), axes=-1).conj()
    read, phase, across = directions
    x, y, z, w = Rotation.from_matrix(np.array([phase, read, across], float).T).as_quat()
    scan = test_twix.Twix()
    for partition, line in np.argwhere(mask):
        scan.add(
            kspace[:, partition, line], line=line, partition=partition, centre_line=lines // 2,
            centre_partition=partitions // 2, quaternion=(w, x, y, z), position=CENTRE,
        )  # fmt: skip
    sizes = {"dReadoutFOV": samples, "dPhaseFOV": lines, "dThickness": partitions}
    text = test_twix.protocol(
        sKSpace__ucDimension=4, sKSpace__lPartitions=partitions, sKSpace__lPhaseEncodingLines=lines,
        sKSpace__lBaseResolution=samples, **{f"sSliceArray.asSlice[0].{k}": VOXEL_MM * n for k, n in sizes.items()},
    )  # fmt: skip
    return scan.write(path / "meas.dat", text), "twix"


def bruker(path: Path, directions: Any, kspace: np.ndarray, mask: np.ndarray) -> tuple[Path, str]:
    partitions, lines, samples = SHAPE
    steps = [np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))]
    # The gradients' third axis runs against the patient's; both phase encodings are centred by the reconstruction.
    turns = np.array(directions, float) * (1, 1, -1)
    centre = turns @ (CENTRE * (1, 1, -1))
    blocks = []
    for partition in steps[0]:
        for line in steps[1]:
            block = np.zeros(256, "<i4")
            cycles = centre[1] * (line / lines - 0.5) + centre[2] * (partition / partitions - 0.5)
            values = WHOLE * kspace[:, partition, line] * np.exp(-2j * np.pi * cycles / VOXEL_MM)
            block[: 4 * samples] = np.rint(np.stack([values.real, values.imag], -1)).ravel()
            blocks.append(block)
    folder = path / "scan"
    folder.mkdir()
    test_bruker.scan(
        folder, ACQ_size=[2 * samples, len(steps[1]), len(steps[0])], NI=1, NSLICES=1, ACQ_obj_order=[0],
        ACQ_rare_factor=1, PVM_EncNReceivers=2, PVM_EncSteps1=(steps[1] - lines // 2).tolist(),
        PVM_EncSteps2=(steps[0] - partitions // 2).tolist(), PVM_Matrix=[samples, lines, partitions],
        PVM_Fov=[VOXEL_MM * n for n in (samples, lines, partitions)], PVM_SPackArrNSlices=[1],
        PVM_SPackArrGradOrient=turns.ravel().tolist(), PVM_SPackArrReadOffset=[centre[0]],
        PVM_SPackArrPhase1Offset=[centre[1]], PVM_SPackArrPhase2Offset=[centre[2]],
        PVM_SPackArrSliceOffset=[centre[2]],
    )  # fmt: skip
    np.concatenate(blocks).tofile(folder / "fid")
    return folder, "bruker"


def read(written: tuple[Path, str], **more: Any) -> Measurement:
    path, name = written
    acquisition = more.pop("acquisition", None)
    value: dict[str, Any] = {"input": {"path": str(path), "format": name, **more}, "method": "cg-sense"}
    job = JobSpec.parse(value if acquisition is None else {**value, "acquisition": acquisition})
    header_of_it = reader.check(job, local_files(job))
    found = reader.read(job, local_files(job))
    assert header_of_it.shape == found.data.shape and header_of_it.acquisition == found.acquisition
    return found


def expected(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The object on the voxels ``(slices, rows, cols)`` of an affine to RAS."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    ras = np.stack([x, y, z], -1) @ affine[:3, :3].T + affine[:3, 3]
    return at(ras * (-1, -1, 1))


def psnr(volume: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(truth.max() ** 2 / np.mean((np.abs(volume) - truth) ** 2)))


def assert_upright(volume: np.ndarray, affine: np.ndarray) -> None:
    """Where the affine places it, and no mirror image."""
    truth = expected(affine, volume.shape)
    found = psnr(volume, truth)
    assert found > 30
    for axis in range(3):
        assert psnr(volume, np.flip(truth, axis)) < found - 8


@pytest.mark.parametrize("readout", ORIENTATIONS)
@pytest.mark.parametrize("write", [ismrmrd, twix, bruker])
def test_the_volume_is_axial_and_upright(tmp_path: Path, write: Callable[..., tuple[Path, str]], readout: str) -> None:
    directions = ORIENTATIONS[readout]
    found = read(write(tmp_path, directions, measured(directions), kept(apart=write is bruker)))
    assert isinstance(found.acquisition, MRICartesian) and found.acquisition.readout == readout
    assert found.in_patient and found.affine is not None
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    # Columns to the left, rows to the back, slices upwards: in RAS.
    assert result.affine[:3, :3] == pytest.approx(np.diag([-VOXEL_MM, -VOXEL_MM, VOXEL_MM]), abs=1e-5)
    assert_upright(result.volume / (WHOLE if write is bruker else 1), result.affine)


def test_bart_has_no_geometry_and_keeps_its_order(tmp_path: Path) -> None:
    """Rows along the readout, columns along the first phase encoding, slices along the second."""
    directions = ((0, 1, 0), (1, 0, 0), (0, 0, 1))
    kspace = measured(directions) * kept()[..., None]
    array = test_bart.dimensions(kspace, coils=3, partitions=2, lines=1, samples=0)
    path = test_bart.written(tmp_path / "k.cfl", array)
    found = read((path, "bart"))
    assert isinstance(found.acquisition, MRICartesian) and found.acquisition.readout == "rows"
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    affine = np.diag([-VOXEL_MM, -VOXEL_MM, VOXEL_MM, 1])
    partitions, lines, samples = SHAPE
    middle = np.array([lines // 2, samples // 2, partitions // 2])
    affine[:3, 3] = CENTRE * (-1, -1, 1) - affine[:3, :3] @ middle
    assert_upright(result.volume, affine)
    # Maps in the same order of dimensions.
    maps = np.ones((2, *SHAPE)) / np.sqrt(2)
    beside = test_bart.written(
        tmp_path / "m.cfl", test_bart.dimensions(maps, coils=3, partitions=2, lines=1, samples=0)
    )
    known = read((path, "bart"), acquisition={"kind": "mri-cartesian", "coil_maps": str(beside)})
    assert known.coil_maps is not None and known.coil_maps.shape == known.data.shape
    two = test_bart.written(tmp_path / "two.cfl", np.stack([array, array], 13)[..., 0])
    with pytest.raises(InputError, match="2 slabs of 3D k-space"):
        read((two, "bart"))


def test_a_sagittal_slab_whose_partitions_are_all_there_is_axial_too(tmp_path: Path) -> None:
    directions = ORIENTATIONS["rows"]
    lines = np.broadcast_to((np.arange(28) % 2 == 0) | (abs(np.arange(28) - 14) < 6), SHAPE[:2])
    written = ismrmrd(tmp_path, directions, measured(directions), lines)
    found = read(written)
    # The partitions are axial slices here: each has a problem of its own, and may be asked for.
    assert found.acquisition.readout == "slices"  # type: ignore[attr-defined]
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    assert_upright(result.volume, result.affine)
    some = read(written, slices=[10, 14])
    assert some.acquisition.readout is None and some.affine is not None  # type: ignore[attr-defined]
    part = recon.reconstruct(some, method="cg-sense", progress=False)
    assert psnr(part.volume, expected(some.affine, part.volume.shape)) > 30
    turned = read(ismrmrd(tmp_path, ORIENTATIONS["slices"], measured(ORIENTATIONS["slices"]), lines))
    assert turned.acquisition.readout == "slices" and turned.data.shape == (32, 2, 28, 24)  # type: ignore[attr-defined]


def test_what_the_job_says_wins_unless_it_contradicts_the_data(tmp_path: Path) -> None:
    directions = ORIENTATIONS["cols"]
    whole = ismrmrd(tmp_path, directions, measured(directions), np.ones(SHAPE[:2], bool))
    assert read(whole).acquisition.readout == "slices"  # type: ignore[attr-defined]
    for readout in ("rows", "cols"):
        given = read(whole, acquisition={"kind": "mri-cartesian", "readout": readout})
        assert given.acquisition.readout == readout  # type: ignore[attr-defined]
        result = recon.reconstruct(given, method="cg-sense", progress=False)
        assert_upright(result.volume, result.affine)
    some = ismrmrd(tmp_path, directions, measured(directions), kept())
    for more in ({}, {"slices": [3, 6]}):
        with pytest.raises(InputError, match=r"along slices k-space was not measured as a whole.*give cols") as caught:
            read(some, acquisition={"kind": "mri-cartesian", "readout": "slices"}, **more)
        assert caught.value.field == "acquisition.readout"
    with pytest.raises(InputError, match=r"input\.slices: 3D k-space has no slices to choose from"):
        read(some, slices=[3, 6])
    flat = Scan()
    flat.add_image(measured(directions)[:, 12])
    path = flat.write(tmp_path / "flat.h5", header((32, 28, 1), (32, 28, 1)))
    with pytest.raises(InputError, match="'cols', but the file holds slices with 2D k-space of their own"):
        read((path, "ismrmrd"), acquisition={"kind": "mri-cartesian", "readout": "cols"})


def test_long_voxels_stay_in_the_plane_of_the_partitions(tmp_path: Path) -> None:
    """A sagittal slab with partitions of 4 mm: slices are sagittal, their pixels square."""
    directions, voxel = ORIENTATIONS["slices"], (4.0, VOXEL_MM, VOXEL_MM)
    shape = (12, *SHAPE[1:])
    kspace, fov = measured(directions, voxel, shape), (64.0, 56.0, 48.0)
    found = read(ismrmrd(tmp_path, directions, kspace, kept(shape), fov=fov))
    assert found.affine is not None and np.abs(found.affine[:3, 2]) == pytest.approx((4, 0, 0))
    assert found.acquisition.readout == "rows"  # type: ignore[attr-defined]
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    assert psnr(result.volume, expected(result.affine, result.volume.shape)) > 27


def test_slab_oversampling_is_cropped_where_it_can_be(tmp_path: Path) -> None:
    directions = ORIENTATIONS["cols"]
    recon_fov = (64.0, 56.0, 32.0)
    sizes = {"recon": (32, 28, 16), "recon_fov": recon_fov}
    whole = ismrmrd(tmp_path, directions, measured(directions), np.ones(SHAPE[:2], bool), **sizes)
    found = read(whole)
    assert found.data.shape == (16, 2, 28, 32) and "24 partitions became 16" in "; ".join(found.notes)
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    assert psnr(result.volume, expected(result.affine, result.volume.shape)) > 30
    some = read(ismrmrd(tmp_path, directions, measured(directions), kept(), **sizes))
    assert some.data.shape[0] == 24 and "8 of 24 slices are oversampling of the slab" in "; ".join(some.notes)


def test_pixels_that_become_square_along_the_readout_leave_the_noise_right(tmp_path: Path) -> None:
    """Readout pixels of 3 mm become 2 mm: the noise of as many samples, of which each plane has less."""
    directions = ORIENTATIONS["cols"]
    kspace = measured(directions, (2.0, 2.0, 3.0))
    generator = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return 0.05 * (generator.normal(size=shape) + 1j * generator.normal(size=shape))

    scan = Scan()
    for _ in range(8):
        scan.add(noise(2, 1000), flags=1 << 18)
    for z, y in np.argwhere(kept()):
        scan.add(
            kspace[:, z, y] * 0 + noise(2, 32), kspace_encode_step_1=y, kspace_encode_step_2=z, position=tuple(CENTRE)
        )
    fov = (96.0, 56.0, 48.0)
    found = read((scan.write(tmp_path / "n.h5", header((32, 28, 24), (32, 28, 24), fov)), "ismrmrd"))
    assert found.data.shape == (24, 2, 28, 48) and found.noise_std is not None
    planes = across_readout(found.data.astype(np.complex64), "cols")
    assert np.std(planes[:, :, kept()].real) == pytest.approx(found.noise_std, rel=0.05)


@pytest.mark.parametrize("n", [6, 7])
def test_mirrored_k_space_is_that_of_the_image_in_the_opposite_order(n: int) -> None:
    image = np.random.default_rng(0).normal(size=(3, n)) + 0j

    def transform(values: np.ndarray) -> np.ndarray:
        return np.fft.fftshift(np.fft.fft(np.fft.ifftshift(values, axes=-1), norm="ortho"), axes=-1)

    assert mirrored(transform(image).astype(np.complex64), 1) == pytest.approx(transform(image[:, ::-1]), abs=1e-5)


def test_readouts_that_begin_here_and_there_are_refused(tmp_path: Path) -> None:
    directions = ORIENTATIONS["cols"]
    scan = Scan()
    kspace = measured(directions)
    for z, y in np.argwhere(kept()):
        first = 10 if (z + y) % 3 else 0  # some echoes are partial
        scan.add(kspace[:, z, y, first:], kspace_encode_step_1=y, kspace_encode_step_2=z, centre=16 - first)
    path = scan.write(tmp_path / "a.h5", header((32, 28, 24), (32, 28, 24), (64.0, 56.0, 48.0)))
    with pytest.raises(ReconError, match="along cols k-space was not measured as a whole"):
        read((path, "ismrmrd"))
