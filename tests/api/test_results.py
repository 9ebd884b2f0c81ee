"""Results over HTTP are served as what they are, in formats of other packages too."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from api import result_files
from tests.service.serving import Server, job_body, refused, send, serving
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("results") / "store") as found:
        yield found


def published(server: Server, name: str, files: dict[str, bytes]) -> str:
    job = str(server.http.post("/v1/jobs", json=job_body(send(server.http), name=name)).json()["id"])
    record = server.store.transition(job, "running")
    server.store.attempt(record).mkdir()
    for file, content in files.items():
        (server.store.attempt(record) / file).write_bytes(content)
    server.store.publish(job, str(record.token), server.store.attempt(record))
    return job


def saved_as(answer: httpx.Response) -> str:
    """Name under which a browser saves an answer."""
    found = re.fullmatch(
        r"attachment; filename(?:\*=utf-8''(.*)|=\"(.*)\")", answer.headers["Content-Disposition"], re.I
    )
    assert found is not None, answer.headers["Content-Disposition"]
    return unquote(found[1] or found[2])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Knee, left", "Knee, left"),
        ("Knie läuft.nii.gz", "Knie läuft"),
        ("SCAN.H5", "SCAN"),
        ("v1.2", "v1.2"),
        ('../"x"\r\nSet-Cookie: a', "__x___Set-Cookie_ a"),
        ("...", None),
        (".npy", None),
        ("", None),
    ],
)
def test_results_are_saved_under_the_name_of_their_job(server: Server, name: str, stem: str | None) -> None:
    job = published(server, name, {"volume.nii.gz": b"x"})
    answer = server.http.get(f"/v1/jobs/{job}/results/volume.nii.gz")
    assert saved_as(answer) == f"{stem or job}-volume.nii.gz" and "Set-Cookie" not in answer.headers
    assert saved_as(server.http.get(f"/v1/jobs/{job}/results.zip")) == f"{stem or job}.zip"


def test_results_are_kept_for_good(server: Server) -> None:
    job = published(server, "kept", {"report.json": b"{}"})
    for path in (f"/v1/jobs/{job}/results/report.json", f"/v1/jobs/{job}/results.zip"):
        for method in ("GET", "HEAD"):
            answer = server.http.request(method, path)
            assert "immutable" in answer.headers["Cache-Control"] and "private" in answer.headers["Cache-Control"]
            assert "Cookie" in answer.headers["Vary"]
    assert "Cache-Control" not in server.http.get(f"/v1/jobs/{job}").headers  # which changes


def test_all_results_come_as_one_zip(server: Server, tmp_path: Path) -> None:
    files = {"volume.nii.gz": os.urandom(3_000_000), "report.json": b"{}", "empty.bin": b""}
    job = published(server, "all of it", files)
    address = server.http.get(f"/v1/jobs/{job}").json()["links"]["results_zip"]
    answer = server.http.get(address)
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {i.filename: archive.read(i) for i in archive.infolist()} == {
            f"all of it/{name}": content for name, content in files.items()
        }
        assert archive.infolist()[0].date_time[0] >= 2024
    head = server.http.head(address)
    assert head.status_code == 200 and not head.content and head.headers["Content-Type"] == "application/zip"


def test_there_is_no_zip_without_results(server: Server) -> None:
    job = server.http.post("/v1/jobs", json=job_body(send(server.http))).json()
    assert "results_zip" not in job["links"]
    refused(server.http.get(f"/v1/jobs/{job['id']}/results.zip"), 409, "state")
    refused(server.http.get(f"/v1/jobs/{'a' * 26}/results.zip"), 404, "id")


def test_a_zip_is_made_while_it_is_sent(server: Server, tmp_path: Path) -> None:
    """A part at a time: what is large is never in memory as a whole."""
    (tmp_path / "out").mkdir()
    for name in ("a.bin", "b.bin"):
        (tmp_path / "out" / name).write_bytes(bytes(5 * result_files.CHUNK))
    job = published(server, "large", {"a.bin": b"x"})
    parts = list(result_files.zipped(tmp_path / "out", server.store.record(job)))
    assert max(map(len, parts)) < 2 * result_files.CHUNK and len(parts) >= 10
