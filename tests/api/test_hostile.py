"""Hostile inputs over HTTP: each is answered with a problem document in time, and the service goes on computing."""

# ruff: noqa: E501 - the tables have one input a line

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from recon.client import archive
from recon.client.client import Client
from recon.formats import nifti
from recon.spec.files import FOLDER_MEDIA_TYPE
from recon.spec.job import JobSpec
from tests.recon.formats.hostile_files import ACQUISITIONS, FILES, FOLDERS, Folder, Make
from tests.service.whole_service import api_alone

IN_TIME_S = 60
CT = ACQUISITIONS["numpy"]


@pytest.fixture(scope="module")
def http(service: tuple[str, Path]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service[0], timeout=IN_TIME_S) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def computes_afterwards(service: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """When everything hostile has been sent, an honest job still succeeds."""
    yield
    path = tmp_path_factory.mktemp("honest") / "volume.nii.gz"
    volume = np.full((2, 32, 32), -1000.0, np.float32)
    volume[:, 8:24, 8:24] = 0.0
    nifti.write(path, volume, np.diag([1.0, 1.0, 1.0, 1.0]), "honest")
    spec = JobSpec.parse(
        {"input": {"path": str(path), "format": "nifti"}, "acquisition": "ct-parallel", "method": "fbp"}
    )
    with Client(service[0]) as client:
        assert client.wait(client.submit(spec)["id"])["state"] == "succeeded"


def problem(answer: httpx.Response, *statuses: int) -> dict[str, Any]:
    assert answer.status_code in statuses, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code and found["detail"] and found["code"] != "internal"
    said = json.dumps({name: value for name, value in found.items() if name != "instance"})  # the address asked for
    for leak in ("Traceback", "/tmp", "/uploads/", "site-packages"):
        assert leak not in said
    return found


@pytest.mark.parametrize(("kind", "make", "statuses"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_hostile_files(http: httpx.Client, tmp_path: Path, kind: str, make: Make, statuses: tuple[int, ...]) -> None:
    upload = http.post("/v1/uploads", content=make(tmp_path))
    assert upload.status_code == 201
    body = {
        "input": {"upload": upload.json()["id"], "format": kind},
        "acquisition": ACQUISITIONS.get(kind),
        "method": "fbp",
    }
    began = time.monotonic()
    answer = http.post("/v1/jobs", json={k: v for k, v in body.items() if v is not None})
    assert time.monotonic() - began < IN_TIME_S
    if answer.status_code == 202 and 202 in statuses:
        return
    problem(answer, *statuses)
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(("kind", "make"), [f[1:3] for f in FILES], ids=[f[0] for f in FILES])
def test_contents_of_hostile_files(http: httpx.Client, tmp_path: Path, kind: str, make: Make) -> None:
    upload = http.post("/v1/uploads", content=make(tmp_path)).json()["id"]
    for query in ({}, {"format": kind}):
        answer = http.get(f"/v1/uploads/{upload}/contents", params=query)
        assert "unexpected" not in answer.text, answer.text
        if answer.status_code == 200:  # with a question, or where one slice is well
            assert len(answer.content) < 100_000 and "/uploads/" not in answer.text and "/tmp" not in answer.text
        else:
            problem(answer, 413, 422)


@pytest.mark.parametrize("folder", FOLDERS, ids=[f.name for f in FOLDERS])
def test_hostile_folders(http: httpx.Client, tmp_path: Path, folder: Folder) -> None:
    with archive.Archive(archive.files_of(folder.write(tmp_path / "scan"))) as stream:
        sent = http.post("/v1/uploads", content=stream.read(), headers={"Content-Type": FOLDER_MEDIA_TYPE})
    assert sent.status_code == 201
    given = {"format": folder.kind, "file": folder.file}
    body = {"input": {"upload": sent.json()["id"], **given}, "acquisition": "ct-parallel", "method": "fbp"}
    problem(http.post("/v1/jobs", json=body), 413, 422)
    answer = http.get(f"/v1/uploads/{sent.json()['id']}/contents", params=given)
    if answer.status_code != 200:  # where one slice is well
        problem(answer, 413, 422)


# --- specifications --------------------------------------------------------------------------------------------------

SPEC = '{"input": {"upload": "%s"}, "acquisition": "ct-parallel"' % ("a" * 26)
BODIES: list[tuple[str, bytes, tuple[int, ...]]] = [
    ("arrays nested 10000 deep", b"[" * 10_000 + b"]" * 10_000, (422,)),
    ("objects nested 10000 deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, (422,)),
    ("method nested 500 deep", (SPEC + ', "method": ' + "[" * 500 + "]" * 500 + "}").encode(), (422,)),
    ("number of 100000 digits", (SPEC + ', "seed": ' + "9" * 100_000 + "}").encode(), (422,)),
    ("number beyond floats", (SPEC + ', "seed": 1e999}').encode(), (422,)),
    ("NaN literal", (SPEC + ', "seed": NaN}').encode(), (422,)),
    ("Infinity literal", (SPEC + ', "method": {"name": "tv", "weight": -Infinity}}').encode(), (422,)),
    ("double keys", (SPEC + ', "seed": 1, "seed": 2}').encode(), (422,)),
    ("invalid UTF-8", SPEC.encode() + b', "name": "\xff\xfe"}', (422,)),
    ("lone surrogate", (SPEC + ', "name": "\\ud800"}').encode(), (404, 422)),
    ("UTF-16", (SPEC + "}").encode("utf-16"), (404, 422)),
    ("NUL in an id", b'{"input": {"upload": "' + b"a" * 25 + b'\\u0000"}}', (422,)),
    ("traversal in an id", b'{"input": {"upload": "../../../etc/passwd/aaaaaa"}}', (422,)),
    ("path of the server", b'{"input": {"path": "/etc/passwd", "format": "numpy"}, "acquisition": "ct-parallel"}', (422,)),
    ("path as mask", (SPEC.replace('"ct-parallel"', '{"kind": "mri-cartesian", "mask": "/etc/passwd"}') + "}").encode(), (404, 422)),
    ("nothing", b"", (422,)),
    ("null", b"null", (422,)),
    ("a list", b"[]", (422,)),
    ("2 MB of blanks", b" " * 2_000_000, (413,)),
    ("a million keys", b'{"input": {' + b",".join(b'"k%d":1' % i for i in range(60_000)) + b"}}", (422,)),
]  # fmt: skip


@pytest.mark.parametrize(("body", "statuses"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES])
def test_hostile_specifications(http: httpx.Client, body: bytes, statuses: tuple[int, ...]) -> None:
    found = problem(http.post("/v1/jobs", content=body), *statuses)
    assert len(json.dumps(found)) < 2000


# --- addresses, headers, ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/jobs/%00",
        "/v1/jobs/" + "a" * 25 + "%00",
        "/v1/jobs/" + "a" * 5000,
        "/v1/jobs/%ff%fe",
        "/v1/jobs/" + "a" * 26 + "%0d%0aX-Injected:%20yes",
        "/v1/jobs/" + "a" * 26 + "/results/..%2f..%2fjob.json",
        "/v1/nothing/..%2f..",
    ],
)
def test_hostile_addresses(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code in (404, 405) and "x-injected" not in answer.headers
    problem(answer, answer.status_code)


@pytest.fixture(scope="module")
def finished(service: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished job."""
    path = tmp_path_factory.mktemp("finished") / "a.npy"
    np.save(path, np.zeros((1, 6, 20), np.float32))
    value = {"input": {"path": str(path)}, "acquisition": CT, "method": "fbp", "output": {"montage": False}}
    with Client(service[0]) as client:
        job_id = str(client.submit(JobSpec.parse(value))["id"])
        client.wait(job_id)
        return job_id


@pytest.mark.parametrize("name", ["..%2fstate.json", "%2e%2e%2fjob.json", "volume.nii.gz%00", "a" * 3000, "%ff"])
def test_hostile_result_names(http: httpx.Client, finished: str, name: str) -> None:
    problem(http.get(f"/v1/jobs/{finished}/results/{name}"), 404)


@pytest.mark.parametrize(
    "path", ["/v1/jobs/..", "/v1/jobs/.", "/v1/jobs/{id}/results/..", "/v1/jobs/{id}/results/.", "/../../etc/passwd"]
)
def test_dots_are_no_names(service: tuple[str, Path], finished: str, path: str) -> None:
    """HTTP libraries fold dots away before they send; a bare connection does not."""
    request = f"GET {path.format(id=finished)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw(service[0], request.encode(), half_close=False)
    assert answer.startswith(b"HTTP/1.1 404") and b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("bytes=9-2", 416),
        ("bytes=99999999999-", 416),
        ("bytes=" + "9" * 5000 + "-", 416),
        ("bytes=0-" + "9" * 5000, 206),
        ("bytes=-0", 416),
        ("bytes=a-b", 416),
        ("bytes=", 416),
        ("bytes=--1", 416),
        ("bytes=0-0," + ",".join(f"{i}-{i}" for i in range(2, 60, 2)), 206),
        ("bytes=" + ",".join("0-" for _ in range(2000)), 200),
        ("bytes=" + "0-0," * 90 + "99999999-", 206),
        ("bytes=0-4,9-2", 416),
        ("parsecs=0-9", 200),
        ("bytes=0-9", 206),
        ("bytes=-5", 206),
    ],
)
def test_hostile_ranges(http: httpx.Client, finished: str, header: str, status: int) -> None:
    answer = http.get(f"/v1/jobs/{finished}/results/report.json", headers={"Range": header})
    assert answer.status_code == status
    if status == 416:
        problem(answer, 416)
        assert answer.headers["content-range"].startswith("bytes */")


def test_ranges_outside_the_file_do_not_spoil_those_inside(http: httpx.Client, finished: str) -> None:
    """RFC 9110, 14.2 and 15.5.17: 416 only when there is nothing to send; If-Range and HEAD come first."""
    path = f"/v1/jobs/{finished}/results/report.json"
    whole = http.get(path)
    size = len(whole.content)

    def ranged(text: str, **headers: str) -> httpx.Response:
        return http.get(path, headers={"Range": text, **headers})

    one = ranged(f"bytes=0-4,{size}-,-0")
    assert one.content == whole.content[:5] and one.headers["Content-Range"] == f"bytes 0-4/{size}"
    two = ranged(f"bytes=0-4,{size + 7}-{size + 9},-3")
    assert two.status_code == 206 and two.headers["Content-Type"].startswith("multipart/byteranges")
    assert f"bytes {size - 3}-{size - 1}/{size}" in two.text and two.text.count("Content-Range") == 2
    assert ranged(f"bytes=-{size * 2}").content == whole.content
    problem(ranged(f"bytes={size}-,-0"), 416)
    assert ranged(f"bytes={size}-", **{"If-Range": '"another"'}).content == whole.content
    assert ranged("bytes=0-4", **{"If-Range": whole.headers["ETag"]}).content == whole.content[:5]
    head = http.head(path, headers={"Range": "bytes=0-4"})
    assert head.status_code == 200 and head.headers["Content-Length"] == str(size)


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=1e9", "limit=" + "9" * 5000, "limit=NaN", "state=" + "x" * 5000, "limit=%00"]
)
def test_hostile_queries(http: httpx.Client, query: str) -> None:
    problem(http.get("/v1/jobs?" + query), 422)


@pytest.mark.parametrize("checksum", ["0" * 64, "zz", "é" * 20, "a" * 5000])
def test_hostile_checksums(http: httpx.Client, checksum: str) -> None:
    answer = http.post("/v1/uploads", content=b"x", headers={b"X-Checksum-SHA256": checksum.encode()})
    problem(answer, 422)


# --- what no HTTP library would send ----------------------------------------------------------------------------------


def raw(url: str, request: bytes, *, half_close: bool = True) -> bytes:
    """Send bytes as they are, say that no more will come, and read what comes back."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=IN_TIME_S) as connection:
        received = b""
        try:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(2**16):
                received += chunk
        except OSError:
            assert not received or received.startswith(b"HTTP/1.1 ")  # cut off: as good as an answer
        return received


REQUESTS: dict[str, bytes] = {
    "length that is no number": b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\nx",
    "negative length": b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\nx",
    "two lengths": b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length beyond everything": b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    + b"9" * 18
    + b"\r\n\r\nx",
    "broken chunks": b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nx\r\n",
    "upload cut short": b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhello",
    "specification cut short": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    "smuggled request": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "address of 100 kB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "header of 1 MB": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "header with NUL": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
}


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS.keys())
def test_malformed_requests(service: tuple[str, Path], http: httpx.Client, request_bytes: bytes) -> None:
    answer = raw(service[0], request_bytes)
    # Below HTTP the server library answers by itself, or cuts the connection.
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert http.get("/healthz").status_code == 200
    hidden = [p.name for p in (service[1] / "uploads").iterdir() if p.name.startswith(".")]
    deadline = time.monotonic() + 20
    while hidden and time.monotonic() < deadline:
        time.sleep(0.1)
        hidden = [p.name for p in (service[1] / "uploads").iterdir() if p.name.startswith(".")]
    assert not hidden  # nothing half-received stays


def test_a_slow_upload_is_cut_off_and_holds_up_nobody(tmp_path: Path) -> None:
    with api_alone(tmp_path / "store", RECON_IDLE_S="1", RECON_MIN_FREE_BYTES="0") as http:
        where = urlsplit(str(http.base_url))
        slow = []
        for _ in range(50):
            connection = socket.create_connection((where.hostname, where.port), timeout=IN_TIME_S)
            connection.sendall(b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
            slow.append(connection)
        assert http.post("/v1/uploads", content=b"x" * 1000).status_code == 201
        for connection in slow:
            with connection:
                assert connection.recv(2**16).startswith(b"HTTP/1.1 408")
        assert len(list((tmp_path / "store" / "uploads").iterdir())) == 1
