"""BART arrays: k-space in its order of dimensions, coil maps beside it, and headers that lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import ReconError, ResourceLimit
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.kspace import across_readout
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.mrd_files import fourier, phantom, picture


def written(path: Path, array: np.ndarray, header: str | None = None) -> Path:
    array.astype(np.complex64).ravel(order="F").tofile(path)
    text = header if header is not None else f"# Dimensions\n{' '.join(map(str, array.shape))} \n# Command\nfft\n"
    path.with_suffix(".hdr").write_text(text)
    return path


def dimensions(array: np.ndarray, **at: int) -> np.ndarray:
    """Spread the axes of an array over BART's dimensions, by number."""
    order = list(at.values())
    found = np.moveaxis(array.reshape(*array.shape, *(1,) * (16 - array.ndim)), range(array.ndim), order)
    return found.copy()


def read(path: Path, **more: Any) -> Measurement:
    acquisition = more.pop("acquisition", "mri-cartesian")
    job = JobSpec.parse({"input": {"path": str(path), **more}, "acquisition": acquisition, "method": "zero-filled"})
    return reader.read(job, local_files(job))


def refusal(path: Path, **more: Any) -> ReconError:
    with pytest.raises(ReconError) as error:
        read(path, **more)
    assert error.value.exit_code == 2
    return error.value


def test_readout_phase_coils_and_slices(tmp_path: Path) -> None:
    images = phantom(slices=3)
    array = dimensions(fourier(images), slices=13, coils=3, rows=0, cols=1)
    path = written(tmp_path / "k.cfl", array)
    found = read(path)
    assert picture(found.data) == pytest.approx(images, abs=1e-5)
    assert found.acquisition.pixel_mm is None and "no geometry" in " ".join(found.notes)
    assert picture(read(path, slices=[1, 2]).data) == pytest.approx(images[1:2], abs=1e-5)
    assert refusal(path, slices=[1, 4]).field == "input.slices"
    # The same after a transform along the readout, as bart's tutorials have it: (1, phase1, phase2, coils).
    hybrid = written(tmp_path / "h.cfl", dimensions(fourier(images)[:1], slices=13, coils=3, rows=1, cols=2))
    assert picture(read(hybrid).data) == pytest.approx(images[:1], abs=1e-5)


def test_other_dimensions_are_chosen(tmp_path: Path) -> None:
    kspace = fourier(phantom(slices=2))
    path = written(tmp_path / "k.cfl", dimensions(kspace, time=10, coils=3, rows=0, cols=1))
    assert read(path).data == pytest.approx(kspace[:1]) and "time 0, 1" in " ".join(read(path).notes)
    assert read(path, scan="time=1").data == pytest.approx(kspace[1:])


def test_3d_k_space_becomes_slices(tmp_path: Path) -> None:
    images = phantom(slices=6)
    volume = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(fourier(images), axes=0), axis=0, norm="ortho"), axes=0)
    path = written(tmp_path / "k.cfl", dimensions(volume, partitions=2, coils=3, rows=0, cols=1))
    found = read(path)
    assert isinstance(found.acquisition, MRICartesian) and found.acquisition.readout == "slices"
    assert picture(across_readout(found.data.astype(np.complex64), "slices")) == pytest.approx(images, abs=1e-5)
    assert picture(read(path, slices=[2, 4]).data) == pytest.approx(images[2:4], abs=1e-5)


def test_coil_maps_beside_it(tmp_path: Path) -> None:
    kspace, maps = fourier(phantom()), phantom(coils=2)
    path = written(tmp_path / "k.cfl", dimensions(kspace, slices=13, coils=3, rows=0, cols=1))
    beside = written(tmp_path / "m.cfl", dimensions(maps, slices=13, coils=3, rows=0, cols=1))
    acquisition = {"kind": "mri-cartesian", "coil_maps": str(beside)}
    found = read(path, acquisition=acquisition)
    assert found.coil_maps is not None and found.coil_maps == pytest.approx(maps)
    sets = [dimensions(factor * maps, slices=13, coils=3, rows=0, cols=1) for factor in (1, 1j, 2)]
    written(beside, np.concatenate(sets[:2], axis=4))
    two = read(path, acquisition=acquisition).coil_maps
    assert two is not None and two == pytest.approx(np.stack([maps, 1j * maps], axis=1))
    written(beside, np.concatenate(sets, axis=4))
    error = refusal(path, acquisition=acquisition)
    assert error.field == "acquisition.coil_maps" and "3 sets of coil maps, 2 are taken at most" in error.message


def test_pairs_that_do_not_fit(tmp_path: Path) -> None:
    kspace = dimensions(fourier(phantom()), slices=13, coils=3, rows=0, cols=1)
    path = written(tmp_path / "k.cfl", kspace)
    path.write_bytes(path.read_bytes()[:-8])
    error = refusal(path)
    assert "24 x 32 x 1 x 2" in error.message and "truncated" in str(error.remedy)
    for header in (
        "",
        "# Dimensions\n",
        "# Dimensions\n24 x",
        "# Dimensions\n-24 32",
        "hello",
        "# Dimensions\n" + "1 " * 17,
    ):
        assert "no line of dimensions" in refusal(written(path, kspace, header)).message
    assert isinstance(refusal(written(path, kspace, "# Dimensions\n99999 99999 99999")), ResourceLimit)
    assert "empty" in refusal(written(path, kspace, "# Dimensions\n0 24")).message
    path.with_suffix(".hdr").unlink()
    error = refusal(path)
    assert error.field == "input.path" and "k.hdr" in error.message


def test_ge_raw_data_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "P20480.7"
    path.write_bytes(np.float32(26.002).tobytes() + bytes(2000))
    error = refusal(path)
    assert "GE P file, revision 26.002" in error.message and "ge_to_ismrmrd" in str(error.remedy)
