"""Hostile inputs over HTTP: each is answered with a problem document in time, and the service goes on computing."""

# ruff: noqa: E501 - the tables have one input a line

from __future__ import annotations

import gzip
import io
import json
import socket
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import httpx
import numpy as np
import pytest

from recon.client import Client
from recon.formats import nifti
from recon.job import JobSpec

IN_TIME_S = 60
Make = Callable[[Path], bytes]
CT = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 1.0}


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
    for leak in ("Traceback", "/tmp", "/uploads/", "site-packages"):
        assert leak not in answer.text
    return found


# --- files -----------------------------------------------------------------------------------------------------------


def npy_header(text: str, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    body = text.encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(body) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + body


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickled)
    return stream.getvalue()


def claims(shape: str, descr: str = "'<f4'") -> bytes:
    return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}") + b"\0" * 64


def nifti_header(**changes: tuple[int, str, tuple[Any, ...]]) -> bytes:
    """A NIfTI-1 header of a 4 x 4 x 4 float32 volume, with fields overwritten: offset, format, values."""
    header = bytearray(352)
    fields: dict[str, tuple[int, str, tuple[Any, ...]]] = {
        "sizeof_hdr": (0, "<i", (348,)),
        "dim": (40, "<8h", (3, 4, 4, 4, 1, 1, 1, 1)),
        "datatype": (70, "<2h", (16, 32)),
        "pixdim": (76, "<8f", (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
        "vox_offset": (108, "<f", (352.0,)),
        "scaling": (112, "<2f", (1.0, 0.0)),
        "codes": (252, "<2h", (0, 1)),
        "srow": (280, "<12f", (1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0)),
        "magic": (344, "4s", (b"n+1\0",)),
        **changes,
    }
    for offset, form, values in fields.values():
        struct.pack_into(form, header, offset, *values)
    return bytes(header)


VOXELS = np.linspace(-1000, 1000, 64, dtype="<f4").tobytes()


def hdf5(write: Callable[[h5py.File], Any]) -> Make:
    def make(folder: Path) -> bytes:
        path = folder / "made.h5"
        with h5py.File(path, "w") as file:
            write(file)
        return path.read_bytes()

    return make


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6, 20), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (6, 20))
    file.create_virtual_dataset("data", layout)


def external_storage(file: h5py.File) -> None:
    file.create_dataset("data", (6, 20), "f4", external=[("/etc/passwd", 0, 480)])


def link(target: Any) -> Make:
    def write(file: h5py.File) -> None:
        file["data"] = target

    return hdf5(write)


def flipped(make: Make, seed: int, count: int = 40) -> Make:
    """The file with random bytes of its first kilobyte overwritten."""

    def fuzz(folder: Path) -> bytes:
        content = bytearray(make(folder))
        rng = np.random.default_rng(seed)
        for index in rng.integers(0, min(1024, len(content)), count):
            content[index] = int(rng.integers(0, 256))
        return bytes(content)

    return fuzz


def good_hdf5(file: h5py.File) -> None:
    file["data"] = np.zeros((1, 6, 20), np.float32)


def npz_bomb(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a__sino.npy", bytes(64 * 2**20))
        for entry in archive.infolist():
            entry.file_size = 10 * 2**33  # the directory tells the truth about a bomb of 80 GB
    return stream.getvalue()


def npz_pickle(folder: Path) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream,
        a__sino=np.array([{"x": 1}], dtype=object),
        a__deg=np.zeros(1),
        **{k: np.array(1.0) for k in ("distanceSourceOrigin_mm", "distanceSourceDetector_mm", "detectorPixel_mm")},
    )
    return stream.getvalue()


def gz_bomb(folder: Path) -> bytes:
    huge = nifti_header(dim=(40, "<8h", (3, 1024, 1024, 400, 1, 1, 1, 1)))
    return gzip.compress(huge + bytes(64 * 2**20), 1)


# Inputs are written as (name, format, make, statuses).
FILES: list[tuple[str, str, Make, tuple[int, ...]]] = [
    ("npy of 40 TB", "numpy", lambda _: claims("(10000000000000,)"), (413,)),
    ("npy larger than its file", "numpy", lambda _: claims("(1, 6, 20)"), (422,)),
    ("npy of negative size", "numpy", lambda _: claims("(-1, 6, 20)"), (422,)),
    ("npy of zero size", "numpy", lambda _: claims("(0, 6, 20)"), (422,)),
    ("npy whose product overflows", "numpy", lambda _: claims("(4294967296, 4294967296, 4294967296)"), (413,)),
    ("npy of a million axes", "numpy", lambda _: claims("(" + "1," * 3000 + ")"), (422,)),
    ("npy of objects", "numpy", lambda _: npy(np.array([{"a": 1}], dtype=object), pickled=True), (422,)),
    ("npy of text", "numpy", lambda _: npy(np.array(["x"] * 6)), (422,)),
    ("npy of records", "numpy", lambda _: claims("(6,)", "[('a', '<f4'), ('b', '<f4')]"), (422,)),
    ("npy header of nested brackets", "numpy", lambda _: npy_header("(" * 9000), (422,)),
    ("npy header that calls", "numpy", lambda _: npy_header("__import__('os').system('true')"), (422,)),
    ("npy header of 4 GB", "numpy", lambda _: npy_header("{}", (2, 0), 2**32 - 1), (422,)),
    ("npy of another version", "numpy", lambda _: b"\x93NUMPY\x09\x00" + bytes(100), (422,)),
    ("npy of NaN", "numpy", lambda _: npy(np.full((1, 6, 20), np.nan, np.float32)), (422,)),
    ("npy of float64 infinities", "numpy", lambda _: npy(np.full((1, 6, 20), 1e300)), (422,)),
    ("npy cut short", "numpy", lambda _: npy(np.zeros((1, 6, 20), np.float32))[:-1], (422,)),
    ("random bytes as npy", "numpy", lambda _: np.random.default_rng(0).bytes(5000), (422,)),
    ("npz bomb", "htc", npz_bomb, (413, 422)),
    ("npz of pickles", "htc", npz_pickle, (422,)),
    ("npz that is no archive", "htc", lambda _: b"PK\x03\x04" + bytes(500), (422,)),
    ("nii of 32767 cubed", "nifti", lambda _: nifti_header(dim=(40, "<8h", (3, 32767, 32767, 32767, 1, 1, 1, 1))), (413,)),
    ("nii of seven axes", "nifti", lambda _: nifti_header(dim=(40, "<8h", (7, *[32767] * 7))), (422,)),
    ("nii of 99 axes", "nifti", lambda _: nifti_header(dim=(40, "<8h", (99, *[4] * 7))), (422,)),
    ("nii of negative size", "nifti", lambda _: nifti_header(dim=(40, "<8h", (3, -4, 4, 4, 1, 1, 1, 1))) + VOXELS, (422,)),
    ("nii of zero size", "nifti", lambda _: nifti_header(dim=(40, "<8h", (3, 0, 4, 4, 1, 1, 1, 1))) + VOXELS, (422,)),
    ("nii of NaN affine", "nifti", lambda _: nifti_header(srow=(280, "<12f", (np.nan,) * 12)) + VOXELS, (422,)),
    ("nii of NaN pixdim", "nifti", lambda _: nifti_header(codes=(252, "<2h", (1, 0)), pixdim=(76, "<8f", (np.nan,) * 8)) + VOXELS, (422,)),
    ("nii of singular affine", "nifti", lambda _: nifti_header(srow=(280, "<12f", (0.0,) * 12)) + VOXELS, (422,)),
    ("nii of unknown datatype", "nifti", lambda _: nifti_header(datatype=(70, "<2h", (9999, 32))) + VOXELS, (422,)),
    ("nii of RGB", "nifti", lambda _: nifti_header(datatype=(70, "<2h", (128, 24))) + VOXELS, (422,)),
    ("nii with an offset beyond its end", "nifti", lambda _: nifti_header(vox_offset=(108, "<f", (1e30,))) + VOXELS, (422,)),
    ("nii with a negative offset", "nifti", lambda _: nifti_header(vox_offset=(108, "<f", (-1e9,))) + VOXELS, (422,)),
    ("nii with NaN scaling", "nifti", lambda _: nifti_header(scaling=(112, "<2f", (np.inf, np.nan))) + bytes(256), (202, 422)),
    ("nii.gz bomb", "nifti", gz_bomb, (422,)),
    ("nii.gz cut short", "nifti", lambda _: gzip.compress(nifti_header() + VOXELS)[:-20], (422,)),
    ("nii.gz with a wrong checksum", "nifti", lambda _: gzip.compress(nifti_header() + VOXELS)[:-8] + b"\0" * 8, (422,)),
    ("gz of gz of nii", "nifti", lambda _: gzip.compress(gzip.compress(nifti_header() + VOXELS)), (422,)),
    ("hdf5 external link", "hdf5", link(h5py.ExternalLink("/etc/passwd", "/data")), (422,)),
    ("hdf5 soft link to itself", "hdf5", link(h5py.SoftLink("/data")), (422,)),
    ("hdf5 soft link to a dataset", "hdf5", hdf5(lambda f: (good_hdf5(f), f.move("data", "x"), f.__setitem__("data", h5py.SoftLink("/x")))), (422,)),
    ("hdf5 virtual dataset", "hdf5", hdf5(virtual), (422,)),
    ("hdf5 external storage", "hdf5", hdf5(external_storage), (422,)),
    ("hdf5 of 40 TB in chunks", "hdf5", hdf5(lambda f: f.create_dataset("data", (10**7, 1000, 1000), "f4", chunks=(1, 100, 100))), (413,)),
    ("hdf5 of text", "hdf5", hdf5(lambda f: f.__setitem__("data", ["a", "b"])), (422,)),
    ("hdf5 of records", "hdf5", hdf5(lambda f: f.create_dataset("data", (6,), [("a", "f4")])), (422,)),
    ("hdf5 of references", "hdf5", hdf5(lambda f: f.create_dataset("data", (6,), h5py.ref_dtype)), (422,)),
    ("hdf5 empty dataset", "hdf5", hdf5(lambda f: f.create_dataset("data", data=h5py.Empty("f4"))), (422,)),
    ("hdf5 of zero size", "hdf5", hdf5(lambda f: f.create_dataset("data", (0, 6, 20), "f4")), (422,)),
    ("hdf5 group for a dataset", "hdf5", hdf5(lambda f: f.create_group("data")), (422,)),
    ("hdf5 of ours with a lying attribute", "hdf5", hdf5(lambda f: f.attrs.update({"format": "diffusion-recon measurement 1", "acquisition": "[" * 5000})), (422,)),
    ("hdf5 whose format is an array", "hdf5", hdf5(lambda f: (good_hdf5(f), f.attrs.update({"format": np.zeros(9)}))), (202, 422)),
    ("hdf5 cut short", "hdf5", lambda d: hdf5(good_hdf5)(d)[:900], (422,)),
    ("dxchange of one link", "dxchange", hdf5(lambda f: f.__setitem__("exchange", h5py.ExternalLink("/etc/passwd", "/"))), (422,)),
    *[(f"npy fuzzed {i}", "numpy", flipped(lambda _: npy(np.zeros((1, 6, 20), np.float32)), i), (422, 413)) for i in range(4)],
    *[(f"nii fuzzed {i}", "nifti", flipped(lambda _: nifti_header() + VOXELS, i, 60), (422, 413)) for i in range(6)],
    *[(f"nii.gz fuzzed {i}", "nifti", flipped(lambda _: gzip.compress(nifti_header() + VOXELS), i), (422, 413)) for i in range(3)],
    *[(f"hdf5 fuzzed {i}", "hdf5", flipped(hdf5(good_hdf5), i, 100), (422, 413)) for i in range(10)],
    *[(f"npz fuzzed {i}", "htc", flipped(npz_pickle, i), (422, 413)) for i in range(3)],
]  # fmt: skip


@pytest.mark.parametrize(("kind", "make", "statuses"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_hostile_files(http: httpx.Client, tmp_path: Path, kind: str, make: Make, statuses: tuple[int, ...]) -> None:
    upload = http.post("/v1/uploads", content=make(tmp_path))
    assert upload.status_code == 201
    acquisition: Any = CT if kind in ("numpy", "hdf5") else {"nifti": "ct-parallel"}.get(kind)
    body = {"input": {"upload": upload.json()["id"], "format": kind}, "acquisition": acquisition, "method": "fbp"}
    began = time.monotonic()
    answer = http.post("/v1/jobs", json={k: v for k, v in body.items() if v is not None})
    assert time.monotonic() - began < IN_TIME_S
    if answer.status_code == 202 and 202 in statuses:
        return
    problem(answer, *statuses)
    assert http.get("/healthz").status_code == 200


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
    request = f"GET {path.format(id=finished)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(service[0], request.encode(), half_close=False)
    assert answer.startswith(b"HTTP/1.1 404") and b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("bytes=9-2", 416),
        ("bytes=99999999999-", 416),
        ("bytes=0-" + "9" * 5000, 416),
        ("bytes=-0", 416),
        ("bytes=a-b", 416),
        ("bytes=", 416),
        ("bytes=--1", 416),
        ("bytes=0-0," + ",".join(f"{i}-{i}" for i in range(2, 60, 2)), 206),
        ("bytes=" + ",".join("0-" for _ in range(2000)), 200),
        ("bytes=" + "0-0," * 90 + "99999999-", 416),
        ("parsecs=0-9", 200),
        ("bytes=0-9", 206),
        ("bytes=-5", 206),
    ],
)
def test_hostile_ranges(http: httpx.Client, finished: str, header: str, status: int) -> None:
    began = time.monotonic()
    answer = http.get(f"/v1/jobs/{finished}/results/report.json", headers={"Range": header})
    assert answer.status_code == status and time.monotonic() - began < 10
    if status == 416:
        problem(answer, 416)
        assert answer.headers["content-range"].startswith("bytes */")


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=1e9", "limit=" + "9" * 5000, "limit=NaN", "state=" + "x" * 5000, "limit=%00"]
)
def test_hostile_queries(http: httpx.Client, query: str) -> None:
    problem(http.get("/v1/jobs?" + query), 422)


@pytest.mark.parametrize("checksum", ["0" * 64, "zz", "é" * 20, "a" * 5000])
def test_hostile_checksums(http: httpx.Client, checksum: str) -> None:
    answer = http.post("/v1/uploads", content=b"x", headers={"X-Checksum-SHA256": checksum.encode()})
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
    "length that is no number": b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\nx",
    "negative length": b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nx",
    "two lengths": b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length beyond everything": b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 18 + b"\r\n\r\nx",
    "broken chunks": b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nx\r\n",
    "upload cut short": b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhello",
    "specification cut short": b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    "smuggled request": b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "address of 100 kB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "header of 1 MB": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "header with NUL": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
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
    from tests.test_service import api_alone

    with api_alone(tmp_path / "store", RECON_IDLE_S="1", RECON_MIN_FREE_BYTES="0") as http:
        where = urlsplit(str(http.base_url))
        slow = []
        for _ in range(50):
            connection = socket.create_connection((where.hostname, where.port), timeout=IN_TIME_S)
            connection.sendall(b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
            slow.append(connection)
        assert http.post("/v1/uploads", content=b"x" * 1000).status_code == 201
        for connection in slow:
            with connection:
                assert connection.recv(2**16).startswith(b"HTTP/1.1 408")
        assert len(list((tmp_path / "store" / "uploads").iterdir())) == 1


def test_a_reader_that_crashes_or_eats_memory_is_a_problem_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from operators.errors import InputError, ResourceLimit
    from recon.formats import sandbox

    np.save(tmp_path / "a.npy", np.zeros((8, 600, 2000), np.float32))
    files = {"input": tmp_path / "a.npy"}
    value = {"input": str(files["input"]), "acquisition": {**CT, "angles_rad": {"count": 600}}, "method": "fbp"}
    spec, box = JobSpec.parse(value), sandbox.Sandbox()
    try:
        assert box.check(spec, files).shape == (8, 600, 2000)
        with monkeypatch.context() as patch:
            patch.setattr(sandbox, "memory_limit", lambda: 64 * 2**20)
            with pytest.raises(ResourceLimit, match="memory"):
                box.check(spec, files)
        # A child that ends without a word, as after a crash: a limit that is no number kills it.
        with monkeypatch.context() as patch:
            patch.setattr(sandbox, "memory_limit", lambda: "none")
            with pytest.raises(InputError, match="crash"):
                box.check(spec, files)
        # Its helper killed while nothing was asked: the next check starts another.
        helper = box._take()
        helper._process.kill()
        helper._process.wait()
        box._idle.put(helper)
        box._known.clear()
        assert box.check(spec, files).shape == (8, 600, 2000)
        with pytest.raises(InputError, match="there is no file"):
            box.check(spec, {"input": tmp_path / "b.npy"})
    finally:
        box.close()
