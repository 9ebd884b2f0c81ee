"""Uploads in pieces: interrupted anywhere they go on, and what arrives damaged is refused."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from recon.client import archive, transfer
from recon.client.client import Client
from recon.spec.files import FOLDER_MEDIA_TYPE
from tests.service.serving import Server, job_body, refused, send, serving, sinogram
from workers import keys, resumable_uploads, retention


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("uploads") / "store") as found:
        yield found


def begin(server: Server, content: bytes, sha256: str | None = None) -> str:
    digest = sha256 or hashlib.sha256(content).hexdigest()
    headers = {"Upload-Length": str(len(content)), "X-Checksum-SHA256": digest}
    answer = server.http.post("/v1/uploads", headers=headers)
    assert answer.status_code == 201 and answer.json()["complete"] is False, answer.text
    return str(answer.headers["Location"])


def piece(server: Server, where: str, offset: int, content: bytes) -> httpx.Response:
    return server.http.patch(where, content=content, headers={"Upload-Offset": str(offset)})


def test_pieces_make_a_file(server: Server) -> None:
    content = sinogram()
    where = begin(server, content)
    upload = where.rpartition("/")[2]
    first = piece(server, where, 0, content[:200])
    for path in ("/v1/jobs", "/v1/estimates"):  # not before it is whole
        problem = refused(server.http.post(path, json=job_body(upload)), 409, "input.upload")
        assert f"200 of {len(content)} bytes" in problem["detail"] and problem["remedy"] == "send the rest of it"
    assert first.status_code == 204 and first.headers["Upload-Offset"] == "200"
    for wrong in (0, 199, 201):
        assert "200 bytes are here" in refused(piece(server, where, wrong, b"x"), 409, "Upload-Offset")["detail"]
    head = server.http.head(where)
    assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == ("200", str(len(content)))
    assert head.headers["Upload-Complete"] == "?0"
    last = piece(server, where, 200, content[200:])
    assert last.status_code == 200 and last.json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert server.http.head(where).headers["Upload-Complete"] == "?1"
    assert server.http.get(where).json()["bytes"] == len(content)
    assert server.http.post("/v1/jobs", json=job_body(upload)).status_code == 202
    refused(piece(server, where, len(content), b""), 404, "id")


def test_uploads_are_listed_by_their_names(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as server:
        assert server.http.get("/v1/uploads").json() == {"uploads": [], "total": 0, "next": None}
        content = sinogram()
        first = server.http.post("/v1/uploads", params={"name": "C:\\scans\\Knie links.npy"}, content=content).json()
        assert first["name"] == "Knie links.npy" and first["complete"] is True
        headers = {"Upload-Length": "100"}
        begun = server.http.post("/v1/uploads", params={"name": "a/b/çà.npy"}, headers=headers).json()
        assert begun["name"] == "çà.npy" and begun["received"] == 0
        piece(server, f"/v1/uploads/{begun['id']}", 0, b"x" * 40)
        unnamed = send(server.http)
        listed = server.http.get("/v1/uploads").json()
        assert [u["id"] for u in listed["uploads"]] == [unnamed, begun["id"], first["id"]] and listed["total"] == 3
        assert listed["uploads"][0]["name"] == "" and listed["uploads"][2] == first
        arriving = {"complete": False, "received": 40, "bytes": 100, "name": "çà.npy"}
        assert arriving.items() <= listed["uploads"][1].items()
        assert server.http.get(f"/v1/uploads/{begun['id']}").json() == listed["uploads"][1]
        assert [u["id"] for u in server.http.get("/v1/uploads?name=KNIE").json()["uploads"]] == [first["id"]]
        # In pages, which nobody misses who comes with the next one.
        seen, url = [], "/v1/uploads?limit=1"
        while url:
            page = server.http.get(url).json()
            seen += [u["id"] for u in page["uploads"]]
            url = page["next"]
            send(server.http)
        assert seen == [unnamed, begun["id"], first["id"]]
        piece(server, f"/v1/uploads/{begun['id']}", 40, b"x" * 60)
        server.http.delete(f"/v1/uploads/{unnamed}")
        now = {u["id"]: u for u in server.http.get("/v1/uploads?limit=100").json()["uploads"]}
        assert unnamed not in now and now[begun["id"]]["complete"] is True and now[begun["id"]]["name"] == "çà.npy"
        # A job without a name has that of its upload.
        assert server.http.post("/v1/jobs", json=job_body(first["id"])).json()["name"] == "Knie links.npy"
        assert server.http.post("/v1/jobs", json=job_body(first["id"], name="mine")).json()["name"] == "mine"


@pytest.mark.parametrize(
    ("given", "kept"), [("..", ".."), ("/", ""), ("a\x00\x1b[31mb\n", "a[31mb"), ("\u202egpj.exe", "gpj.exe")]
)
def test_names_are_for_people_and_lead_nowhere(server: Server, given: str, kept: str) -> None:
    made = server.http.post("/v1/uploads", params={"name": given}, content=sinogram()).json()
    assert made["name"] == kept
    assert sorted(p.name for p in (server.store.uploads / made["id"]).iterdir()) == ["data.npy", "meta.json"]


def test_the_client_sends_names(server: Server, tmp_path: Path) -> None:
    (tmp_path / "scan one").mkdir()
    for name in (b"b.npy", b"\xff.npy"):
        (tmp_path / "scan one" / os.fsdecode(name)).write_bytes(sinogram())
    with Client(server.url) as client:
        ids = [
            client.upload(tmp_path / "scan one" / "b.npy"),
            client.upload(tmp_path / "scan one" / os.fsdecode(b"\xff.npy")),
        ]
    assert [server.http.get(f"/v1/uploads/{i}").json()["name"] for i in ids] == ["b.npy", "?.npy"]


def test_what_arrives_damaged_is_refused(server: Server) -> None:
    where = begin(server, b"x" * 100, "0" * 64)
    refused(piece(server, where, 0, b"x" * 100), 422, "X-Checksum-SHA256")
    assert server.http.head(where).status_code == 404
    where = begin(server, b"x" * 100)
    refused(piece(server, where, 0, b"x" * 101), 413, "body")
    refused(server.http.patch(where, content=b"x"), 422, "Upload-Offset")
    for length in ("0", "-1", "many", "9" * 30):
        refused(server.http.post("/v1/uploads", headers={"Upload-Length": length}), 422, "Upload-Length")
    refused(server.http.post("/v1/uploads", headers={"Upload-Length": str(10**12)}), 413, "body")
    refused(server.http.post("/v1/uploads", content=b"x", headers={"X-Checksum-SHA256": "z"}), 422, "X-Checksum-SHA256")
    for path in ("nope", "a" * 26, "..%2f..%2fetc"):
        assert server.http.head(f"/v1/uploads/{path}").status_code == 404


def test_a_broken_piece_keeps_what_arrived(server: Server) -> None:
    content = os.urandom(300_000)
    where = begin(server, content)
    address = httpx.URL(server.url)
    with socket.create_connection((address.host, int(address.port or 80))) as line:
        head = (
            f"PATCH {where} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: 0\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        line.sendall(head.encode() + content[:100_000])
        time.sleep(0.3)  # and then the line breaks
    deadline = time.monotonic() + 20
    while True:
        offset = int(server.http.head(where).headers["Upload-Offset"])
        answer = piece(server, where, offset, content[offset:])
        if answer.status_code == 200:
            break
        assert answer.status_code == 409 and time.monotonic() < deadline  # the broken piece is still being read
        time.sleep(0.1)
    assert offset > 0 and answer.json()["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\x1f\x8b\x08", "data.nii.gz"),
        (b"\x5c\x01\x00\x00", "data.nii"),
        (b"\x00\x00\x01\x5c", "data.nii"),
        (b"\x93NUMPY\x01", "data.npy"),
        (b"\x89HDF\r\n\x1a\n", "data.h5"),
        (b"PK\x03\x04", "data.npz"),
        (b"hello", "data.bin"),
    ],
)
def test_an_upload_is_named_by_its_content(server: Server, start: bytes, name: str) -> None:
    """Readers tell formats by the endings of names, and no client chooses those."""
    assert server.store.upload(send(server.http, start + bytes(100))).name == name


def test_the_client_goes_on_where_a_piece_broke(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(50_000))
    monkeypatch.setattr(transfer, "PIECE", 20_000)
    monkeypatch.setattr(transfer, "CHUNK", 4_000)
    whole = transfer._chunks
    broken: list[bool] = []

    def breaks_once(stream: Any, size: int) -> Iterator[bytes]:
        for i, chunk in enumerate(whole(stream, size)):
            if i == 3 and not broken:
                broken.append(True)
                raise httpx.WriteError("the line broke")
            yield chunk

    monkeypatch.setattr(transfer, "_chunks", breaks_once)
    with Client(server.url) as client:
        upload = client.upload(path)
    assert broken and server.http.get(f"/v1/uploads/{upload}").json()["sha256"] == transfer.sha256(path)


def test_unused_and_unfinished_uploads_expire(server: Server) -> None:
    where, kept = begin(server, b"x" * 100), send(server.http)
    settings = server.service.settings.model_copy(update={"upload_days": 7})
    retention.sweep(server.service.index, settings, datetime.now(UTC) + timedelta(hours=23))
    assert server.http.head(where).status_code == 200
    retention.sweep(server.service.index, settings, datetime.now(UTC) + timedelta(hours=25))
    assert server.http.head(where).status_code == 410
    refused(piece(server, where, 0, b"x"), 410, "id")
    assert server.http.get(f"/v1/uploads/{kept}").status_code == 200
    retention.sweep(server.service.index, settings, datetime.now(UTC) + timedelta(days=8))
    refused(server.http.get(f"/v1/uploads/{kept}"), 410, "id")


def test_an_upload_can_be_deleted(server: Server) -> None:
    upload, where = send(server.http), begin(server, b"x" * 100)
    assert server.http.delete(f"/v1/uploads/{upload}").status_code == 204
    assert server.http.delete(where).status_code == 204
    assert server.http.head(where).status_code == 410
    refused(server.http.delete(f"/v1/uploads/{upload}"), 410)


def test_what_a_newer_version_stored_of_an_upload_is_left_out(server: Server) -> None:
    upload = send(server.http)
    answer = server.http.get(f"/v1/uploads/{upload}").json()
    path = server.store.uploads / upload / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "compressed": True}))
    assert server.http.get(f"/v1/uploads/{upload}").json() == answer


def test_a_body_that_does_not_go_on_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path / "store", idle_s=1) as server:
        address = httpx.URL(server.url)
        with socket.create_connection((address.host, int(address.port or 80)), timeout=20) as line:
            line.sendall(b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            assert b" 408 " in line.recv(65536).splitlines()[0]
        assert not list(server.store.uploads.glob(".*"))  # nothing half-received stays


@pytest.mark.parametrize("way", ["announced", "unannounced", "pieces"])
def test_uploads_at_the_same_time_share_a_quota(tmp_path: Path, way: str) -> None:
    secret, key = keys.make("anna")
    (tmp_path / "keys.yaml").write_text(f"- {keys.entry(key.model_copy(update={'max_bytes': 5000}))}\n")
    begun = Barrier(6, timeout=20)
    sent: dict[str, str] = {"announced": {"Content-Length": "2000"}, "pieces": {"Upload-Length": "2000"}}.get(way, {})

    def halves() -> Iterator[bytes]:
        yield b"x" * 1000
        begun.wait()  # all are on their way
        yield b"x" * 1000

    with serving(tmp_path / "store", keys=tmp_path / "keys.yaml") as server:

        def upload(_: int) -> int:
            headers = {"Authorization": f"Bearer {secret}", **sent}
            content = None if way == "pieces" else halves()
            return server.http.post("/v1/uploads", content=content, headers=headers).status_code

        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(upload, range(6)))
        assert set(found) == {201, 507} and found.count(201) <= 2
        usage, anna = server.service.usage, key.model_copy(update={"max_bytes": 5000})
        assert usage.room(anna) == 5000 - 2000 * found.count(201)  # and what was kept for them is free again


# --- folders ----------------------------------------------------------------------------------------------------------


def packed(folder: Path) -> bytes:
    with archive.Archive(archive.files_of(folder)) as stream:
        return stream.read()


def scan_folder(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.npy").write_bytes(sinogram(i))
    return folder


TAR = {"Content-Type": FOLDER_MEDIA_TYPE}


@pytest.mark.parametrize("way", ["whole", "pieces", "client", "client in pieces"])
def test_a_folder_is_one_upload(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    folder = scan_folder(tmp_path / "scan")
    content = packed(folder)
    if way == "whole":
        upload = send(server.http, content, **TAR)
    elif way == "pieces":
        where = server.http.post("/v1/uploads", headers={"Upload-Length": str(len(content)), **TAR}).headers["Location"]
        assert piece(server, where, 0, content[:700]).status_code == 204
        assert piece(server, where, 700, content[700:]).status_code == 200
        upload = where.rpartition("/")[2]
    else:
        monkeypatch.setattr(transfer, "PIECE", 1000 if way == "client in pieces" else 2**25)
        with Client(server.url) as client:
            upload = client.upload(folder)
    described = server.http.get(f"/v1/uploads/{upload}").json()
    assert described["files"] == 3 and described["bytes"] == len(content)
    assert described["sha256"] == hashlib.sha256(content).hexdigest()
    stored = server.store.upload(upload)
    assert sorted(p.name for p in stored.iterdir()) == ["0.npy", "1.npy", "2.npy"]
    assert (stored / "1.npy").read_bytes() == sinogram(1)
    assert not (stored.parent / "data").exists()  # the archive
    assert server.http.head(f"/v1/uploads/{upload}").headers["Upload-Complete"] == "?1"
    assert server.http.delete(f"/v1/uploads/{upload}").status_code == 204 and not stored.parent.exists()


@pytest.mark.parametrize("pieces", [False, True])
def test_a_hostile_archive_is_refused_and_leaves_nothing(server: Server, tmp_path: Path, pieces: bool) -> None:
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        link = tarfile.TarInfo("frames.npy")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    content = made.getvalue()
    before = sorted(server.store.uploads.iterdir())
    if pieces:
        where = server.http.post("/v1/uploads", headers={"Upload-Length": str(len(content)), **TAR}).headers["Location"]
        answer = piece(server, where, 0, content)
        assert server.http.head(where).status_code == 404
    else:
        answer = server.http.post("/v1/uploads", content=content, headers=TAR)
    problem = refused(answer, 422, "body")
    assert "'frames.npy' is a link" in problem["detail"] and "\n" not in problem["detail"]
    assert sorted(server.store.uploads.iterdir()) == before


def test_a_folder_whose_last_piece_was_cut_off_by_a_crash_is_unpacked_again(server: Server, tmp_path: Path) -> None:
    content = packed(scan_folder(tmp_path / "scan"))
    where = server.http.post("/v1/uploads", headers={"Upload-Length": str(len(content)), **TAR}).headers["Location"]
    assert piece(server, where, 0, content[:-1]).status_code == 204
    place = resumable_uploads.folder(server.store, where.rpartition("/")[2])
    with (place / "data").open("ab") as stream:
        stream.write(content[-1:])
    for left in ("unpacking", "folder"):  # by a process that died at either moment
        (place / left / "0.npy").mkdir(parents=True)
    assert server.http.head(where).headers["Upload-Offset"] == str(len(content))
    assert piece(server, where, len(content), b"").json()["files"] == 3


def test_the_archive_of_a_folder_does_not_stay_for_long(server: Server, tmp_path: Path) -> None:
    """If its process died after the folder was published."""
    stored = server.store.upload(send(server.http, packed(scan_folder(tmp_path / "scan")), **TAR))
    (stored.parent / "data").write_bytes(b"archive")
    retention.sweep(server.service.index, server.service.settings)
    assert not (stored.parent / "data").exists() and (stored / "0.npy").exists()


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, "Content-Type"),
        ({"Content-Type": "Multipart/Mixed"}, "Content-Type"),
        ({"Content-Encoding": "gzip"}, "Content-Encoding"),
        ({"Content-Encoding": "br, gzip"}, "Content-Encoding"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "jobs"])
def test_a_wrapped_body_is_refused_with_the_way_to_send_it(
    server: Server, method: str, headers: dict[str, str], field: str
) -> None:
    path = "/v1/uploads" if method != "PATCH" else begin(server, b"x" * 100)
    headers = {**headers, "Upload-Offset": "0"} if method == "PATCH" else headers
    verb = "POST" if method == "jobs" else method
    answer = server.http.request(
        verb, "/v1/jobs" if method == "jobs" else path, content=b"--x\r\n\r\nabc", headers=headers
    )
    problem = refused(answer, 415, field)
    assert "--data-binary" in problem["remedy"] and answer.headers["Accept-Encoding"] == "identity"


def test_a_form_as_curl_announces_it_is_the_file_itself(server: Server) -> None:
    """What `curl --data-binary` sends by default."""
    for kind in ("application/x-www-form-urlencoded", "application/octet-stream", "application/x-hdf5", ""):
        send(server.http, sinogram(), **{"Content-Type": kind, "Content-Encoding": "identity"})


def test_a_folder_counts_once_and_stays_while_a_job_needs_it(tmp_path: Path) -> None:
    secret, key = keys.make("anna")
    key = key.model_copy(update={"max_bytes": 50_000})
    (tmp_path / "keys.yaml").write_text(f"- {keys.entry(key)}\n")
    content = packed(scan_folder(tmp_path / "scan"))
    with serving(tmp_path / "store", keys=tmp_path / "keys.yaml") as server:
        server.http.headers["Authorization"] = f"Bearer {secret}"
        upload = send(server.http, content, **TAR)
        assert server.service.usage.room(key) == 50_000 - len(content)
        body = job_body(upload)
        refused(server.http.post("/v1/jobs", json=body), 422, "input.file")
        body["input"]["file"] = "1.npy"
        job = server.http.post("/v1/jobs", json=body)
        assert job.status_code == 202, job.text
        refused(server.http.delete(f"/v1/uploads/{upload}"), 409, "id")
        server.http.delete(f"/v1/jobs/{job.json()['id']}")
        assert server.http.delete(f"/v1/uploads/{upload}").status_code == 204
        assert server.service.usage.room(key) == 50_000
