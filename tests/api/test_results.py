"""Results over HTTP are served as what they are, in formats of other packages too."""

from __future__ import annotations

import os
from pathlib import Path

from tests.service.serving import job_body, send
from tests.service.whole_service import api_alone
from workers.embedded import private_redis
from workers.store import JobStore

MODULE = """
from recon.formats.format import Format
FORMAT = Format(name="metaimage", endings=(".mha", ".mhd"), media_type="application/x-metaimage")
"""
TYPES = {
    "volume.mha": "application/x-metaimage",
    "volume.nii.gz": "application/gzip",
    "volume.npy": "application/octet-stream",
    "volume.zip": "application/zip",
    "volume.dcm": "application/dicom",
    "volume.h5": "application/x-hdf5",
    "montage.png": "image/png",
    "report.html": "text/html; charset=utf-8",
    "report.json": "application/json",
    "other.bin": "application/octet-stream",
}


def installed(folder: Path) -> Path:
    """A package that adds an output format, as pip would lay it down."""
    about = folder / "metaimage-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "metaimage.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: metaimage\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[recon.output_formats]\nmetaimage = metaimage:FORMAT\n")
    return folder


def test_each_result_has_the_media_type_of_its_format(tmp_path: Path) -> None:
    path = os.pathsep.join([str(installed(tmp_path / "site")), os.environ.get("PYTHONPATH", "")])
    with (
        private_redis(tmp_path / "redis") as url,
        api_alone(tmp_path / "store", REDIS_URL=url, PYTHONPATH=path) as http,
    ):
        answer = http.post("/v1/jobs", json=job_body(send(http), output={"format": "metaimage"}))
        assert answer.status_code == 202, answer.text
        job, store = answer.json()["id"], JobStore(tmp_path / "store")
        record = store.transition(job, "running")
        store.attempt(record).mkdir()
        for name in TYPES:
            (store.attempt(record) / name).write_bytes(b"{}")
        store.publish(job, str(record.token), store.attempt(record))
        results = f"/v1/jobs/{job}/results"
        assert {name: http.get(f"{results}/{name}").headers["Content-Type"] for name in TYPES} == TYPES
        route = http.get("/openapi.json").json()["paths"]["/v1/jobs/{job_id}/results/{name}"]["get"]
        assert set(route["responses"]["200"]["content"]) == set(TYPES.values())
