"""The service as it runs: real Redis, real worker process, real HTTP; killed, restarted, misused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import dcmread

from operators.errors import BackendUnavailable, ReconError
from recon.client.client import Client, ServerError
from recon.formats import hdf5, nifti
from recon.spec.job import JobSpec
from recon.spec.job_states import TERMINAL
from tests.recon.problem.test_ct_volume import scan
from tests.service.serving import refused
from tests.service.whole_service import computing_child, processes, quick, slow, wait_for
from workers.store import JobStore


@pytest.fixture
def http(service: tuple[str, Path]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service[0], timeout=30) as client:
        yield client


@pytest.fixture
def client(service: tuple[str, Path]) -> Iterator[Client]:
    with Client(service[0]) as found:
        yield found


def test_submit_poll_fetch(client: Client, http: httpx.Client, ct_file: Path, tmp_path: Path) -> None:
    sent = quick(ct_file, name="first", seed=5)
    job = client.submit(sent)
    assert job["state"] == "queued" and job["name"] == "first"
    progress = [j["progress"] for j in client.watch(job["id"])]
    assert progress == sorted(progress) and progress[-1] == 1.0
    done = client.job(job["id"])
    assert done["state"] == "succeeded" and done["attempt"] == 1 and done["error"] is None
    fetched = {p.name for p in client.fetch(job["id"], tmp_path / "out")}
    assert fetched == {"volume.nii.gz", "montage.png", "report.html", "report.json", "job.json"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["seed"] == 5 and report["unit"] == "HU"
    # The same job offline gives the same voxels.
    from recon.pipeline.reconstruct import run
    from recon.spec.job import local_files

    run(sent, local_files(sent), tmp_path / "offline")
    online, _ = nifti.read(tmp_path / "out" / "volume.nii.gz")
    offline, _ = nifti.read(tmp_path / "offline" / "volume.nii.gz")
    assert np.array_equal(online, offline)
    # Ranges, and the manifest's sha256.
    entry = next(e for e in http.get(f"/v1/jobs/{job['id']}/results").json()["files"] if e["name"] == "volume.nii.gz")
    whole = http.get(entry["href"]).content
    assert hashlib.sha256(whole).hexdigest() == entry["sha256"] and len(whole) == entry["bytes"]
    part = http.get(entry["href"], headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == whole[10:20]
    assert http.get(f"/v1/jobs/{job['id']}/spec").json()["seed"] == 5


def test_a_thick_stack_is_refined_over_http(client: Client, tmp_path: Path) -> None:
    stack = np.zeros((3, 24, 20), np.float32)
    stack[1, 8:16, 6:14] = 100.0
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    nifti.write(tmp_path / "stack.nii.gz", stack, affine, "test")
    acquisition = {"kind": "mri-superresolution", "factor": 2, "direction": "slices"}
    spec = quick(tmp_path / "stack.nii.gz", acquisition=acquisition, method="interpolation", output={"baselines": []})
    job = client.submit(spec)
    assert [j["state"] for j in client.watch(job["id"])][-1] == "succeeded"
    client.fetch(job["id"], tmp_path / "out")
    volume, found = nifti.read(tmp_path / "out" / "volume.nii.gz")
    assert volume.shape == (6, 24, 20) and volume.max() <= 100.0
    assert found[2, 2] == pytest.approx(2.5) and found[2, 3] == pytest.approx(-1.25)
    # Three slices measured at half the resolution: a number that is no multiple of the factor.
    odd = quick(
        tmp_path / "stack.nii.gz", acquisition=acquisition, method="interpolation",
        input={"path": str(tmp_path / "stack.nii.gz"), "simulate": {}}, output={"baselines": []},
    )  # fmt: skip
    job = client.submit(odd)
    assert [j["state"] for j in client.watch(job["id"])][-1] == "succeeded"
    client.fetch(job["id"], tmp_path / "odd")
    volume, found = nifti.read(tmp_path / "odd" / "volume.nii.gz")
    assert volume.shape == (3, 24, 20) and np.allclose(found, affine)


def test_results_in_dicom_over_http(client: Client, http: httpx.Client, ct_file: Path, tmp_path: Path) -> None:
    """One archive for each volume, which is fetched like any other result."""
    wanted = {"format": "dicom", "baselines": [], "montage": False}
    job = client.submit(quick(ct_file, output=wanted))
    assert [j["state"] for j in client.watch(job["id"])][-1] == "succeeded"
    fetched = {p.name for p in client.fetch(job["id"], tmp_path / "out")}
    assert fetched == {"volume.zip", "report.json", "job.json"}
    head = http.head(f"/v1/jobs/{job['id']}/results/volume.zip")
    assert head.status_code == 200 and head.headers["Content-Type"] == "application/zip"
    shutil.unpack_archive(tmp_path / "out" / "volume.zip", tmp_path)
    slices = [dcmread(path) for path in sorted((tmp_path / "volume").iterdir())]
    volume, affine = nifti.read(ct_file)
    assert len(slices) == len(volume) and {data.Modality for data in slices} == {"CT"}
    assert np.array(slices[0].ImagePositionPatient, float) == pytest.approx(affine[:3, 3] * [-1, -1, 1], abs=1e-4)
    # A bad wish is refused before a 202.
    upload = http.post("/v1/uploads", content=ct_file.read_bytes()).json()["id"]
    body = {"input": {"upload": upload, "format": "nifti"}, "acquisition": "ct-parallel", "method": "fbp"}
    refused(http.post("/v1/jobs", json={**body, "output": {"format": "ismrmrd"}}), 422, "output.format")
    refused(http.post("/v1/jobs", json={**body, "output": {"parts": ["phase"]}}), 422, "output.parts")
    complex_dicom = {"format": "dicom", "parts": ["complex"]}
    problem = refused(http.post("/v1/jobs", json={**body, "output": complex_dicom}), 422, "output")
    assert "dicom holds no complex numbers" in problem["detail"]


def test_a_202_says_where_and_when_to_look(http: httpx.Client, ct_file: Path, service: tuple[str, Path]) -> None:
    upload = http.post("/v1/uploads", content=ct_file.read_bytes()).json()
    body = {"input": {"upload": upload["id"]}, "acquisition": "ct-parallel", "method": "fbp"}
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code == 202
    location = answer.headers["Location"]
    assert location == f"/v1/jobs/{answer.json()['id']}" and int(answer.headers["Retry-After"]) >= 1
    folder = service[1] / "jobs" / answer.json()["id"]
    assert json.loads((folder / "job.json").read_text())["input"]["upload"] == upload["id"]
    assert http.get(location).status_code == 200
    listed = http.get("/v1/jobs").json()
    assert answer.json()["id"] in [j["id"] for j in listed["jobs"]]
    assert http.get("/v1/jobs", params={"limit": 1}).json()["truncated"] is True
    put = http.put("/v1/uploads", content=ct_file.read_bytes())
    assert put.status_code == 201 and put.json()["sha256"] == hashlib.sha256(ct_file.read_bytes()).hexdigest()


def test_bad_input_is_refused_at_submission(http: httpx.Client, ct_file: Path, tmp_path: Path) -> None:
    def upload(content: bytes) -> str:
        return str(http.post("/v1/uploads", content=content).json()["id"])

    def submit(content: bytes, kind: str = "numpy", **acquisition: Any) -> httpx.Response:
        shape = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 1.0, **acquisition}
        body = {"input": {"upload": upload(content), "format": kind}, "acquisition": shape, "method": "fbp"}
        return http.post("/v1/jobs", json=body)

    def npy(array: np.ndarray) -> bytes:
        np.save(tmp_path / "a.npy", array)
        return (tmp_path / "a.npy").read_bytes()

    good = np.zeros((6, 20), np.float32)
    liar = tmp_path / "liar.npy"
    with liar.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**10,)})
    refused(submit(liar.read_bytes()), 413, "input")
    refused(submit(npy(good + np.nan)), 422, "input")
    refused(submit(npy(good[:5])), 422, "acquisition.angles_rad")
    problem = refused(submit(npy(good), angles_rad=[0, 30, 60, 90, 120, 150]), 422, "acquisition.angles_rad")
    assert "degrees" in problem["detail"]
    refused(submit(ct_file.read_bytes()[:-300], "nifti"), 422, "input")
    refused(http.post("/v1/jobs", json={"input": {"upload": "a" * 26}, "method": "magic"}), 422, "method")
    body = {"input": {"path": "/etc/passwd", "format": "numpy"}, "acquisition": "ct-parallel"}
    refused(http.post("/v1/jobs", json=body), 422, "input.path")
    body = {"input": {"upload": "a" * 26}, "acquisition": "ct-parallel"}
    refused(http.post("/v1/jobs", json=body), 404, "input.upload")
    own: dict[str, Any] = {"input": {"upload": upload(npy(good)), "format": "numpy"}, "acquisition": "ct-parallel"}
    calibrated = {"name": "boundary", "frozen_noise": "/etc/own.yaml"}
    stack = {**own, "acquisition": "mri-superresolution", "method": calibrated}
    refused(http.post("/v1/jobs", json=stack), 422, "method.frozen_noise")
    for prior in ("/etc/own.yaml", "/etc/own", "../ct", "a/b", ""):
        refused(http.post("/v1/jobs", json={**own, "method": {"name": "diffpir", "prior": prior}}), 422, "method.prior")
    refused(http.post("/v1/jobs", content=b"{not json"), 422, "body")
    refused(http.post("/v1/jobs", content=b"[" * 100_000), 422, "body")
    refused(http.post("/v1/jobs", content=b" " * 1_000_001), 413, "body")
    refused(http.post("/v1/uploads", content=b""), 422, "body")
    refused(http.post("/v1/uploads", content=b"x", headers={"X-Checksum-SHA256": "0" * 64}), 422, "X-Checksum-SHA256")
    refused(http.get("/v1/jobs", params={"limit": 0}), 422, "limit")
    assert http.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/v1/jobs/nope", "/v1/jobs/" + "a" * 26, "/v1/jobs/..%2f..%2fuploads", "/v1/nothing"])
def test_what_is_not_there_is_a_404(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"


def test_results_of_an_unfinished_job_and_names_outside_it(client: Client, http: httpx.Client, ct_file: Path) -> None:
    job = client.submit(slow(ct_file))
    refused(http.get(f"/v1/jobs/{job['id']}/results"), 409, "state")
    client.cancel(job["id"])
    done = client.submit(quick(ct_file))
    client.wait(done["id"])
    for name in ("..%2fjob.json", "nothing.nii", "%2e%2e"):
        assert http.get(f"/v1/jobs/{done['id']}/results/{name}").status_code == 404


def test_cancel_queued_running_and_finished(client: Client, ct_file: Path) -> None:
    running, queued = client.submit(slow(ct_file)), client.submit(quick(ct_file))
    wait_for(client, running["id"], "running")
    assert client.cancel(queued["id"])["state"] == "cancelled"
    assert client.cancel(running["id"])["state"] in ("cancelling", "cancelled")
    assert wait_for(client, running["id"], *TERMINAL, seconds=20)["state"] == "cancelled"
    after = client.submit(quick(ct_file))
    assert client.wait(after["id"])["state"] == "succeeded"  # the worker goes on
    assert client.cancel(after["id"])["state"] == "succeeded"
    assert client.job(queued["id"])["attempt"] == 0


def test_a_job_that_fails_says_why(client: Client, ct_file: Path) -> None:
    job = client.submit(quick(ct_file, method={"name": "diffpir", "prior": "brain-mri"}))
    with pytest.raises(ReconError, match="prior"):
        client.wait(job["id"])
    failed = client.job(job["id"])
    assert failed["state"] == "failed" and failed["error"]["code"] == "invalid_input"
    assert failed["error"]["field"] == "method.prior"


def test_a_killed_worker_loses_no_job(client: Client, ct_file: Path, service: tuple[str, Path]) -> None:
    job = client.submit(quick(ct_file, method={"name": "tv", "iterations": 400, "cg_iterations": 20}))
    wait_for(client, job["id"], "running")
    time.sleep(0.5)
    os.kill(computing_child(service[1]), signal.SIGKILL)
    done = wait_for(client, job["id"], *TERMINAL, seconds=240)
    assert done["state"] == "succeeded" and done["attempt"] == 2


def test_a_cone_beam_of_a_killed_worker_goes_on_where_it_was(
    client: Client, service: tuple[str, Path], tmp_path: Path
) -> None:
    """A volume has no finished slabs: the solver's state is kept, and gives the result that nobody disturbed."""
    hdf5.write_measurement(tmp_path / "scan.h5", scan(24, views=24, photons_per_ray=1e5))
    spec = JobSpec.parse(
        {
            "input": str(tmp_path / "scan.h5"),
            "method": {"name": "tv", "iterations": 60},
            "output": {"baselines": [], "montage": False},
        }
    )
    job = client.submit(spec)
    before = after = 0.0
    for seen in client.watch(job["id"]):
        if seen["attempt"] == 1 and seen["progress"] > 0.3 and before == 0.0:
            before = seen["progress"]
            os.kill(computing_child(service[1]), signal.SIGKILL)
        elif seen["attempt"] == 2 and seen["stage"] == "tv" and after == 0.0:
            after = seen["progress"]
    done = client.job(job["id"])
    assert done["state"] == "succeeded" and done["attempt"] == 2
    assert after > 0.2
    again = client.submit(spec)
    client.wait(again["id"])
    client.fetch(job["id"], tmp_path / "killed")
    client.fetch(again["id"], tmp_path / "undisturbed")
    killed, undisturbed = (nifti.read(tmp_path / one / "volume.nii.gz")[0] for one in ("killed", "undisturbed"))
    assert np.array_equal(killed, undisturbed)


def test_a_worker_that_dies_is_started_again(client: Client, ct_file: Path, service: tuple[str, Path]) -> None:
    child = computing_child(service[1])
    main = processes(service[1])[child]
    job = client.submit(slow(ct_file))
    wait_for(client, job["id"], "running")
    os.killpg(main, signal.SIGKILL)  # the worker and its children, as an out-of-memory killer might
    client.cancel(job["id"])
    assert wait_for(client, job["id"], *TERMINAL)["state"] == "cancelled"
    after = client.submit(quick(ct_file))
    assert client.wait(after["id"])["state"] == "succeeded"


def test_many_submitters_at_once(client: Client, service: tuple[str, Path], ct_file: Path) -> None:
    upload = client.upload(ct_file)
    spec = JobSpec.parse({"input": {"upload": upload, "slices": [0, 1]}, "acquisition": "ct-parallel", "method": "fbp"})

    def submit(_: int) -> str:
        with Client(service[0]) as mine:
            return str(mine.submit(spec)["id"])

    with ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(submit, range(30)))
    assert len(set(ids)) == 30
    for job_id in ids:
        assert wait_for(client, job_id, *TERMINAL)["state"] == "succeeded"


def test_a_duplicate_delivery_is_dropped(client: Client, service: tuple[str, Path], ct_file: Path) -> None:
    from workers.execute import execute

    store = JobStore(service[1])
    job = client.submit(slow(ct_file))
    wait_for(client, job["id"], "running")
    execute(store, job["id"])  # what a second worker would do
    assert store.record(job["id"]).state == "running" and store.record(job["id"]).attempt == 1
    client.cancel(job["id"])
    wait_for(client, job["id"], "cancelled", seconds=20)
    execute(store, job["id"])
    assert store.record(job["id"]).state == "cancelled"


def test_openapi_describes_the_specification(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    assert {"JobSpec", "DiffPIR", "CTFan", "MRICartesian"} <= set(schema["components"]["schemas"])
    assert {"/v1/uploads", "/v1/jobs", "/v1/jobs/{job_id}/results/{name}", "/readyz"} <= set(schema["paths"])


def test_the_client_says_when_there_is_no_server() -> None:
    with Client("http://127.0.0.1:9") as client:
        assert not client.ready()
        with pytest.raises(BackendUnavailable, match="recon serve"):
            client.job("a" * 26)


def test_the_client_keeps_the_servers_error(client: Client) -> None:
    with pytest.raises(ServerError) as caught:
        client.job("a" * 26)
    assert caught.value.status == 404 and caught.value.exit_code == 2 and caught.value.code == "not_found"
