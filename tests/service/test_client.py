"""The client against a whole service: an array in, an array out; waiting instead of polling."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from operators.errors import ReconError
from recon.client.client import Client
from recon.spec.job import JobSpec
from tests.recon.formats.test_nxtomo import frames_file, master_file


@pytest.mark.usefixtures("all_cores")  # as the worker: sums of another number of threads round otherwise
def test_an_array_goes_in_and_a_volume_comes_out(service: tuple[str, Path], tmp_path: Path) -> None:
    from recon.pipeline.reconstruct import run
    from recon.spec.job import local_files

    image = np.zeros((2, 24, 24), np.float32)
    image[:, 8:16, 6:14] = 0.02
    sinogram = np.stack([image.sum(axis=1)] * 12, axis=1)  # the same projection from everywhere is data enough
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 12}, "detector_mm": 1.0}
    spec = {"acquisition": acquisition, "method": "fbp"}
    with Client(service[0]) as client:
        volume = client.reconstruct(sinogram, spec)
        same = client.reconstruct(sinogram, JobSpec.parse({**spec, "input": {"path": "any", "format": "numpy"}}))
    np.save(tmp_path / "sinogram.npy", sinogram)
    offline = JobSpec.parse(
        {**spec, "input": str(tmp_path / "sinogram.npy"), "output": {"format": "numpy", "montage": False}}
    )
    run(offline, local_files(offline), tmp_path / "offline")
    assert volume.shape[0] == 2
    assert np.array_equal(volume, np.load(tmp_path / "offline" / "volume.npy")) and np.array_equal(volume, same)


def test_the_clients_errors_are_the_jobs(service: tuple[str, Path]) -> None:
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 12}, "detector_mm": 1.0}
    with Client(service[0]) as client:
        with pytest.raises(ReconError, match="angles_rad"):
            client.reconstruct(np.zeros((5, 20), np.float32), {"acquisition": acquisition, "method": "fbp"})
        with pytest.raises(ReconError, match="method"):
            client.reconstruct(np.zeros((12, 20), np.float32), {"acquisition": acquisition, "method": "magic"})


def test_a_folder_is_reconstructed_as_it_lies(service: tuple[str, Path], tmp_path: Path) -> None:
    """With a master file that links to what lies elsewhere in it, and a mask that another folder holds."""
    folder = tmp_path / "scan"
    (folder / "nexus").mkdir(parents=True)
    frames_file(folder / "raw" / "frames.h5")
    links = [h5py.ExternalLink("../raw/frames.h5", f"/entry/{name}") for name in ("detector", "theta")]
    master_file(folder / "nexus", *links)
    acquisition = {"kind": "ct-parallel", "detector_mm": 1.0}
    output = {"format": "numpy", "montage": False, "baselines": []}
    value = {"input": str(folder), "acquisition": acquisition, "method": "fbp", "output": output}
    with Client(service[0]) as client:
        job = client.submit(JobSpec.parse(value))
        client.wait(job["id"])
        client.fetch(job["id"], tmp_path / "out")
        assert np.load(tmp_path / "out" / "volume.npy").shape == (4, 20, 20)
        np.save(tmp_path / "k.npy", np.ones((1, 1, 16, 16), np.complex64))
        (tmp_path / "masks").mkdir()
        for name in ("a.npy", "b.npy"):
            np.save(tmp_path / "masks" / name, np.ones((16, 16), bool))
        mask = {"path": str(tmp_path / "masks"), "file": "b.npy"}
        kspace = {"input": str(tmp_path / "k.npy"), "acquisition": {"kind": "mri-cartesian", "mask": mask}}
        client.wait(client.submit(JobSpec.parse({**kspace, "method": "zero-filled", "output": output}))["id"])
        one = client.upload(tmp_path / "masks" / "*.npy")
        assert client.contents(one).files == 2
        with pytest.raises(ReconError, match=r"acquisition\.mask\.file"):
            client.submit(JobSpec.parse({**kspace, "acquisition": {"kind": "mri-cartesian", "mask": {"upload": one}}}))
