"""ISMRMRD images: values, place and kind of each slice as the format has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from operators.errors import InputError
from recon.formats import ismrmrd_images, reader
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.written import SHAPE, oblique, values, written


def images(path: Path, data: np.ndarray | None = None, **more: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Data, headers and attributes of a file that is written."""
    ismrmrd_images._write(path, written("mri", data, **more))
    with h5py.File(path) as file:
        group = file["dataset/image_0"]
        return group["data"][...], group["header"][...], [text.decode("ascii") for text in group["attributes"]]


def test_each_slice_is_an_image_with_its_place(tmp_path: Path) -> None:
    data, headers, _ = images(tmp_path / "volume.h5")
    slices, rows, cols = SHAPE
    assert data.shape == (slices, 1, 1, rows, cols) and data.dtype == np.float32  # images, channels, z, y, x
    assert np.array_equal(data[:, 0, 0], values("mri"))
    assert (headers["matrix_size"] == (cols, rows, 1)).all() and (headers["version"] == 1).all()
    assert headers["field_of_view"][0] == pytest.approx([0.8 * cols, 1.1 * rows, 3.3])
    assert headers["slice"].tolist() == [0, 1, 2, 3, 4] and headers["image_index"].tolist() == [1, 2, 3, 4, 5]
    for number, header in enumerate(headers):
        # Back to the affine as who reads it does: the position is that of pixel n // 2, in LPS.
        axes = [header["read_dir"] * 0.8, header["phase_dir"] * 1.1, header["slice_dir"] * 3.3]
        lps = np.stack(axes, axis=1).astype(float)
        origin = header["position"] - lps @ [cols // 2, rows // 2, number]
        assert np.diag([-1, -1, 1]) @ lps == pytest.approx(oblique()[:3, :3], abs=1e-5)
        assert origin * [-1, -1, 1] == pytest.approx(oblique()[:3, 3], abs=1e-3)


@pytest.mark.parametrize(("quantity", "kind"), [("values", 1), ("phase", 2)])
def test_the_kind_of_image_is_stated(tmp_path: Path, quantity: str, kind: int) -> None:
    _, headers, attributes = images(tmp_path / "volume.h5", quantity=quantity)
    assert (headers["image_type"] == kind).all() and (headers["data_type"] == 5).all()
    assert headers["attribute_string_len"].tolist() == [len(text) for text in attributes]
    root = ElementTree.fromstring(attributes[0])
    told = {meta.findtext("name"): meta.findtext("value") for meta in root.iterfind("meta")}
    comment = str(told["GADGETRON_ImageComment"])
    assert "not for clinical use" in comment and "red-diff with the prior ct" in comment


def test_complex_images(tmp_path: Path) -> None:
    volume = (values("mri") * np.exp(1j * np.arange(SHAPE[2]) / 5)).astype(np.complex64)
    data, headers, _ = images(tmp_path / "volume.h5", volume)
    assert data.dtype.names == ("real", "imag")  # as the format's libraries have it
    assert np.array_equal((data["real"] + 1j * data["imag"])[:, 0, 0], volume)
    assert (headers["image_type"] == 5).all() and (headers["data_type"] == 7).all()


def test_it_is_no_raw_data_when_it_is_read(tmp_path: Path) -> None:
    images(tmp_path / "volume.h5")
    given = {"path": str(tmp_path / "volume.h5"), "format": "ismrmrd"}
    spec = JobSpec.parse({"input": given, "acquisition": "mri-cartesian", "method": "tv"})
    with pytest.raises(InputError, match="holds ISMRMRD images, not raw data") as error:
        reader.check(spec, local_files(spec))
    assert "\n" not in str(error.value)
