"""Contents of uploads over HTTP: the same as `recon inspect` says, of one's own complete uploads only."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest

from recon.client.client import Client, ServerError
from recon.formats import sandbox
from recon.formats.inspect import inspect
from recon.spec.contents import Contents
from recon.spec.job import Input, JobSpec
from tests.api.test_uploads import TAR, begin, packed
from tests.conftest import SAMPLES
from tests.recon.formats.test_nikon import projections
from tests.recon.formats.test_nikon import scan as nikon_scan
from tests.service.serving import Server, refused, send, serving
from workers import keys, retention


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("contents") / "store") as found:
        yield found


def test_the_client_is_told_what_the_command_line_shows(server: Server) -> None:
    with Client(server.url) as client:
        upload = client.upload(SAMPLES / "ct_tooth.h5")
        found = client.contents(upload)
    local = inspect(SAMPLES / "ct_tooth.h5", Input(path="x"))
    differs = {"specification"}
    assert found.model_dump(exclude=differs) == local.model_dump(exclude=differs)
    assert found.specification == {
        "input": {"upload": upload, "format": "dxchange"},
        "acquisition": {"kind": "ct-parallel", "detector_mm": None},
        "method": "auto",
    }
    filled = {**found.specification, "acquisition": {"kind": "ct-parallel", "detector_mm": 0.01}, "method": "fbp"}
    assert server.http.post("/v1/jobs", json=filled).status_code == 202


def test_a_folder_and_what_to_choose_in_it(server: Server, tmp_path: Path) -> None:
    nikon_scan(tmp_path, projections())
    np.save(tmp_path / "other.npy", np.zeros((6, 20), np.float32))
    upload = send(server.http, packed(tmp_path), **TAR)
    path = f"/v1/uploads/{upload}/contents"
    found = Contents.model_validate(server.http.get(path).json() | {"id": None})
    assert found.files == 12 and found.file == "bar.xtekct" and found.format == "nikon"
    assert found.missing == []  # all rows, as a cone beam
    chosen = server.http.get(path, params={"file": "other.npy"}).json()
    assert chosen["shape"] == [6, 20] and chosen["specification"]["input"]["file"] == "other.npy"
    job = JobSpec.parse({"input": {"upload": upload, "file": "bar.xtekct", "slices": [2, 3]}, "method": "fbp"})
    with Client(server.url) as client:
        assert client.submit(job)["state"] == "queued"
    for params, field in (
        ({"file": "../../other"}, "file"),
        ({"file": "nope.npy"}, "input.file"),
        ({"format": "magic"}, "format"),
    ):
        answer = server.http.get(path, params=params)
        if params.get("file") == "nope.npy":  # a question
            assert [item["field"] for item in answer.json()["missing"]] == [field]
        else:
            refused(answer, 422, field)


def test_what_cannot_be_read_is_one_line(server: Server) -> None:
    stream = BytesIO()
    np.save(stream, np.zeros((30, 30)))
    upload = send(server.http, stream.getvalue()[:2000])
    problem = refused(server.http.get(f"/v1/uploads/{upload}/contents"), 422, "input")
    assert "promises 7200 bytes" in problem["detail"] and "\n" not in problem["detail"]


def test_only_what_is_complete_has_contents(server: Server) -> None:
    assert "is not complete" in refused(server.http.get(begin(server, b"x" * 100) + "/contents"), 409, "id")["detail"]
    refused(server.http.get(f"/v1/uploads/{'a' * 26}/contents"), 404, "id")
    refused(server.http.get("/v1/uploads/nope/contents"), 404, "id")
    upload = send(server.http)
    path = f"/v1/uploads/{upload}/contents"
    assert server.http.get(path).json()["id"] == upload
    assert server.http.head(path).status_code == 200
    retention.delete_upload(server.service.index, upload, None, "for a test")
    refused(server.http.get(path), 410, "id")


def test_it_is_looked_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/uploads/{send(server.http)}/contents"
    first = server.http.get(path).json()
    monkeypatch.setattr(sandbox.shared, "_ask", None)
    assert server.http.get(path).json() == first


def test_uploads_of_others_have_no_contents(tmp_path: Path) -> None:
    secrets = {}
    lines = ""
    for name in ("anna", "ben"):
        secrets[name], key = keys.make(name)
        lines += f"- {keys.entry(key)}\n"
    (tmp_path / "keys.yaml").write_text(lines)
    with serving(tmp_path / "store", keys=tmp_path / "keys.yaml") as server:

        def of(name: str) -> httpx.Client:
            return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {secrets[name]}"}, timeout=30)

        with of("anna") as anna, of("ben") as ben:
            path = f"/v1/uploads/{send(anna)}/contents"
            begun = anna.post("/v1/uploads", headers={"Upload-Length": "100"}).headers["Location"] + "/contents"
            assert anna.get(path).status_code == 200
            assert {u["id"] for u in anna.get("/v1/uploads").json()["uploads"]} == {
                path.split("/")[3],
                begun.split("/")[3],
            }
            assert ben.get("/v1/uploads").json()["total"] == 0
            refused(anna.get(begun), 409, "id")
            for other in (path, begun):
                refused(ben.get(other), 404, "id")
                refused(server.http.get(other), 401)
        with Client(server.url, secrets["ben"]) as client, pytest.raises(ServerError):
            client.contents(path.split("/")[3])
