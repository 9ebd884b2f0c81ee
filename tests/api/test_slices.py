"""Pictures of slices show the right voxel in the right place, are kept for good, and refuse in sentences."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations, product
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from api import slices
from api.volumes import Decoded, VolumeCache
from operators.errors import Conflict, ResourceLimit
from recon.formats import nifti
from tests.service.serving import Server, job_body, refused, send, serving, until

SHAPE = (7, 6, 5)
"""(slices, rows, cols)"""
AFFINES = {
    f"{''.join(map(str, order))}{''.join('+-'[sign < 0] for sign in signs)}": np.vstack(
        [np.column_stack([np.eye(3)[:, order] * signs * [1.0, 2.0, 3.0], [10.0, -20.0, 30.0]]), [0, 0, 0, 1]]
    )
    for order, signs in product([list(o) for o in permutations(range(3))], product((1, -1), repeat=3))
}


def distinct() -> NDArray[np.float32]:
    """A volume in which no two voxels are alike, one shade each."""
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("slices") / "store") as found:
        yield found


@pytest.fixture(scope="module")
def job(server: Server) -> str:
    """A job whose results lie in every way in which axes can be stored."""
    made = str(server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"])
    record = server.store.transition(made, "running")
    folder = server.store.attempt(record)
    folder.mkdir()
    for name, affine in AFFINES.items():
        nifti.write(folder / f"{name}.nii.gz", distinct(), affine, "test")
    affine = np.diag([2.0, -2.0, 2.0, 1.0])
    nifti.write(folder / "volume.nii.gz", distinct(), affine, "test")
    nifti.write(folder / "baseline-fbp.nii", 2 * distinct(), affine, "test")
    nifti.write(folder / "scanner.nii.gz", distinct(), affine, nifti.OURS.decode(), nifti.SCANNER)
    damaged = distinct()
    damaged[2, 3, 1], damaged[2, 3, 2] = np.nan, np.inf
    nifti.write(folder / "nan.nii.gz", damaged, affine, "test")
    nifti.write(folder / "nothing.nii.gz", np.full(SHAPE, np.nan, np.float32), affine, "test")
    broken = nib.Nifti1Image(np.zeros(SHAPE[::-1], np.complex64), affine)
    nib.save(broken, folder / "complex.nii.gz")
    whole = (folder / "volume.nii.gz").read_bytes()
    (folder / "short.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "report.json").write_text("{}")
    server.store.publish(made, str(record.token), folder)
    return made


def picture(answer: httpx.Response) -> NDArray[np.uint8]:
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "image/png", answer.text
    found: NDArray[np.uint8] = np.rint(imread(io.BytesIO(answer.content), format="png") * 255).astype(np.uint8)
    return found


@pytest.mark.parametrize("name", AFFINES)
def test_each_voxel_is_where_the_affine_says(server: Server, job: str, name: str) -> None:
    """For all 48 orders and directions of axes: picture, description and values at a voxel agree with nibabel."""
    about = server.http.get(f"/v1/jobs/{job}/slices/{name}.nii.gz").json()
    affine = AFFINES[name]
    turned = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(distinct().transpose(2, 1, 0), affine)).dataobj)
    radiological = {"axial": (2, turned[::-1, ::-1]), "coronal": (1, turned[::-1, :, ::-1])}
    radiological["sagittal"] = (0, turned[:, ::-1, ::-1])
    for plane, (axis, whole) in radiological.items():
        view = about["planes"][plane]
        index = view["count"] // 3
        counted = index if affine[axis, view["across"]] > 0 else view["count"] - 1 - index
        expected = np.take(whole, counted, axis).T
        address = f"/v1/jobs/{job}/slices/{name}.nii.gz/{plane}/{index}.png"
        found = picture(server.http.get(address, params={"low": 0, "high": 255}))
        assert np.array_equal(found, np.clip(expected, 0, 255))
        assert found.shape == (view["height"], view["width"])
        right, down = view["width"] - 1, 1
        at = [0, 0, 0]
        at[view["across"]] = index
        at[view["right"]] = view["width"] - 1 - right if view["flip_right"] else right
        at[view["down"]] = view["height"] - 1 - down if view["flip_down"] else down
        voxel = server.http.get(
            f"/v1/jobs/{job}/voxels/{at[0]}/{at[1]}/{at[2]}", params={"file": f"{name}.nii.gz"}
        ).json()
        assert voxel["values"] == {f"{name}.nii.gz": float(expected[down, right])}
        assert voxel["mm"] == pytest.approx(list(nib.affines.apply_affine(affine, at)))


def test_windows_colours_and_differences(server: Server, job: str) -> None:
    base = f"/v1/jobs/{job}/slices/volume.nii.gz/axial/2.png"
    shown = distinct()[2, :, ::-1]  # rows run from anterior; columns to the right, which is shown on the left
    narrow = picture(server.http.get(base, params={"low": 70, "high": 80}))
    assert np.array_equal(narrow, np.rint(np.clip((shown - 70) / 10, 0, 1) * 255))
    difference = picture(server.http.get(base, params={"low": -100, "high": 0, "minus": "baseline-fbp.nii"}))
    assert np.array_equal(difference, np.rint(np.clip((100 - shown) / 100, 0, 1) * 255))
    coloured = picture(server.http.get(base, params={"low": 0, "high": 100, "colours": "inferno"}))
    assert coloured.shape[-1] in (3, 4) and len(np.unique(coloured.reshape(-1, coloured.shape[-1]), axis=0)) > 10
    assert picture(server.http.get(base)).max() > 0  # the volume's own window


def test_pictures_are_kept_for_good(server: Server, job: str) -> None:
    address = f"/v1/jobs/{job}/slices/volume.nii.gz/axial/2.png"
    for method in ("GET", "HEAD"):
        answer = server.http.request(method, address)
        assert "immutable" in answer.headers["Cache-Control"] and "private" in answer.headers["Cache-Control"]
        assert "Cookie" in answer.headers["Vary"]
    again = server.http.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 and not again.content and again.headers["ETag"] == answer.headers["ETag"]
    other = server.http.get(address, params={"low": 3}, headers={"If-None-Match": answer.headers["ETag"]})
    assert other.status_code == 200 and other.headers["ETag"] != answer.headers["ETag"]


def test_a_volume_is_described(server: Server, job: str) -> None:
    about = server.http.get(f"/v1/jobs/{job}/slices/volume.nii.gz").json()
    assert about["shape"] == list(SHAPE) and about["in_patient"] and about["affine"][0][0] == 2.0
    assert about["planes"]["axial"] == {
        "count": 7, "width": 5, "height": 6, "pixel_mm": [2.0, 2.0], "across": 2, "right": 0, "down": 1,
        "flip_right": True, "flip_down": False, "labels": ["R", "L", "A", "P"],
    }  # fmt: skip
    assert about["percentiles"]["0"] == 0.0 and about["percentiles"]["100"] == distinct().max()
    assert not server.http.get(f"/v1/jobs/{job}/slices/scanner.nii.gz").json()["in_patient"]


def test_values_that_are_not_finite_are_black_and_the_others_are_shown(server: Server, job: str) -> None:
    about = server.http.get(f"/v1/jobs/{job}/slices/nan.nii.gz").json()
    assert 0 <= about["low"] < about["high"] <= about["percentiles"]["100"] == distinct().max()
    shown = picture(server.http.get(f"/v1/jobs/{job}/slices/nan.nii.gz/axial/2.png", params={"low": 0, "high": 255}))
    expected = distinct()[2, :, ::-1].copy()
    expected[3, 3], expected[3, 2] = 0, 255  # columns are seen from the other side
    assert np.array_equal(shown, expected)
    asked: dict[str, Any] = {"low": -1, "high": 1, "minus": "nan.nii.gz"}
    picture(server.http.get(f"/v1/jobs/{job}/slices/nan.nii.gz/axial/2.png", params=asked))
    assert server.http.get(f"/v1/jobs/{job}/voxels/1/3/2?file=nan.nii.gz").json()["values"] == {"nan.nii.gz": None}
    assert not picture(server.http.get(f"/v1/jobs/{job}/slices/nothing.nii.gz/axial/2.png")).any()


def test_a_reduced_volume_lies_where_the_whole_one_does(
    server: Server, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLAB_BYTES", 240)  # it is sent in several
    for name in ("012+++", "201-+-"):
        address = f"/v1/jobs/{job}/slices/{name}.nii.gz/volume.nii"
        for voxels, cut, factor in ((210, distinct(), 1), (209, distinct()[:6, :6, :4], 2)):
            (tmp_path / "sent.nii").write_bytes(server.http.get(address, params={"voxels": voxels}).content)
            found, affine = nifti.read(tmp_path / "sent.nii")
            count, rows, cols = (n // factor for n in cut.shape)
            means = cut.reshape(count, factor, rows, factor, cols, factor).mean((1, 3, 5))
            assert np.array_equal(found, means)
            middle = nib.affines.apply_affine(AFFINES[name], np.full(3, (factor - 1) / 2))  # of the first block
            assert np.allclose(affine[:3, 3], middle)


@pytest.mark.parametrize(
    ("path", "params", "status", "field"),
    [
        ("slices/absent.nii.gz/axial/0.png", {}, 404, "name"),
        ("slices/..%2F..%2Fjob.json/axial/0.png", {}, 404, None),
        ("slices/report.json/axial/0.png", {}, 422, "name"),
        ("slices/complex.nii.gz", {}, 422, "name"),
        ("slices/short.nii.gz", {}, 422, "name"),
        ("slices/volume.nii.gz/axial/7.png", {}, 422, "index"),
        ("slices/volume.nii.gz/axial/-1.png", {}, 422, "index"),
        ("slices/volume.nii.gz/axial/x.png", {}, 422, "index"),
        ("slices/volume.nii.gz/oblique/0.png", {}, 422, "plane"),
        ("slices/volume.nii.gz/axial/0.png", {"low": "5", "high": "5"}, 422, "high"),
        ("slices/volume.nii.gz/axial/0.png", {"low": "nan"}, 422, "low"),
        ("slices/volume.nii.gz/axial/0.png", {"minus": "012+++.nii.gz", "low": "0", "high": "1"}, 422, "minus"),
        ("slices/volume.nii.gz/axial/0.png", {"minus": "baseline-fbp.nii"}, 422, "low"),
        ("slices/volume.nii.gz/volume.nii", {}, 422, "voxels"),
        ("slices/volume.nii.gz/volume.nii", {"voxels": "0"}, 422, "voxels"),
        ("voxels/5/0/0", {"file": "volume.nii.gz"}, 422, "col"),
        ("voxels/0/0/-1", {"file": "volume.nii.gz"}, 422, "slice"),
        ("voxels/0/0/0", {}, 422, "file"),
    ],
)
def test_what_cannot_be_shown_is_said(
    server: Server, job: str, path: str, params: dict[str, str], status: int, field: str | None
) -> None:
    problem = refused(server.http.get(f"/v1/jobs/{job}/{path}", params=params), status, field)
    assert "{" not in problem["detail"] and (status == 404 or "short" in path or problem["remedy"])


def test_there_are_no_pictures_before_the_end(server: Server) -> None:
    waiting = server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"]
    refused(server.http.get(f"/v1/jobs/{waiting}/slices/volume.nii.gz"), 409, "state")
    refused(server.http.get(f"/v1/jobs/{'a' * 26}/slices/volume.nii.gz/axial/0.png"), 404, "id")


def written(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.nii.gz" for number in range(count)]
    for path in paths:
        nifti.write(path, distinct(), np.eye(4), "test")
    return paths


def test_a_whole_volume_has_its_size_without_being_made(
    server: Server, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"/v1/jobs/{job}/slices/volume.nii.gz/volume.nii?voxels=100"
    whole = server.http.get(address)
    assert whole.headers["Content-Length"] == str(len(whole.content))
    monkeypatch.setattr(VolumeCache, "use", None)
    head = server.http.head(address)
    assert head.status_code == 200 and head.headers["Content-Length"] == whole.headers["Content-Length"]
    assert head.headers["ETag"] == whole.headers["ETag"]
    monkeypatch.setattr(slices, "MOST_SENDING", 0)
    assert refused(server.http.get(address), 503, "name")["remedy"]
    assert server.http.head(address).status_code == 200


def test_a_volume_that_changes_while_it_is_sent_is_not_mixed_with_the_other(tmp_path: Path) -> None:
    (path,), cache = written(tmp_path, 1), VolumeCache(10**6)
    tag = slices._tag(path)
    assert slices._slab(cache, path, tag, 1, 1, 2) == distinct()[1].tobytes()
    nifti.write(path, -3 * distinct(), np.eye(4), "test, another length")
    with pytest.raises(Conflict, match="written anew"):
        slices._slab(cache, path, tag, 1, 2, 3)


def test_volumes_that_take_their_time_hold_up_nothing_else(
    server: Server, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many requests wait for pictures as there are threads for all routes, and the list of jobs is there."""
    arrived, may_go, use, pictures = [], threading.Event(), VolumeCache.use, slices._pictures

    def arriving(request: Any) -> slices.Pictures:
        arrived.append(request)
        return pictures(request)

    def waiting(*given: Any) -> Any:
        assert may_go.wait(60)
        return use(*given)

    monkeypatch.setattr(slices, "_pictures", arriving)
    monkeypatch.setattr(VolumeCache, "use", waiting)
    address = f"/v1/jobs/{job}/slices/volume.nii.gz/axial/2.png"
    with ThreadPoolExecutor(41) as pool:
        asked = [pool.submit(httpx.get, f"{server.url}{address}", timeout=60) for _ in range(41)]
        try:
            until(lambda: len({id(request) for request in arrived}) == 41, 60)
            assert server.http.get("/v1/jobs").status_code == 200
            assert not any(one.done() for one in asked)
        finally:
            may_go.set()
        assert all(one.result().status_code == 200 for one in asked)


def test_more_pictures_than_may_wait_are_refused_for_a_moment(
    server: Server, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go, use = threading.Event(), VolumeCache.use

    def waiting(*given: Any) -> Any:
        assert may_go.wait(60)
        return use(*given)

    monkeypatch.setattr(VolumeCache, "use", waiting)
    monkeypatch.setattr(slices, "MOST_WAITING", 3)
    address = f"/v1/jobs/{job}/slices/volume.nii.gz/axial/2.png"
    room = slices.THREADS + 3
    with ThreadPoolExecutor(room + 4) as pool:
        asked = [pool.submit(httpx.get, f"{server.url}{address}", timeout=60) for _ in range(room + 4)]
        try:
            until(lambda: sum(one.done() for one in asked) == 4, 60)
        finally:
            may_go.set()
        answers = [one.result() for one in asked]
    busy = [one for one in answers if one.status_code != 200]
    assert len(busy) == 4 and refused(busy[0], 503, "name")["remedy"] == "try again in a moment"


def kept(cache: VolumeCache, path: Path) -> Decoded:
    return cache.use(path, lambda found: found)


def test_decoded_volumes_take_no_more_memory_than_they_may(tmp_path: Path) -> None:
    one = distinct().nbytes
    cache, paths = VolumeCache(4 * one), written(tmp_path, 4)
    found = [kept(cache, path) for path in paths]
    assert cache.nbytes == 3 * one  # when the fourth was decoded, which takes two, the others were two
    assert all(kept(cache, path) is before for path, before in zip(paths[:0:-1], found[:0:-1], strict=True))
    assert kept(cache, paths[0]) is not found[0]  # the one that was asked for the longest ago
    with pytest.raises(ResourceLimit, match="no room"):
        kept(VolumeCache(4 * one - 1), paths[0])


def test_what_is_in_use_counts_and_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, read, decoded = distinct().nbytes, nifti.read, []
    cache, paths = VolumeCache(4 * one), written(tmp_path, 4)

    def noted(path: Path, *given: Any, **more: Any) -> Any:
        decoded.append(path)
        return read(path, *given, **more)

    monkeypatch.setattr(nifti, "read", noted)
    fourth = threading.Thread(target=kept, args=(cache, paths[3]))

    def with_all_in_use(_found: Decoded) -> None:
        fourth.start()
        until(lambda: cache._changed._waiters)  # type: ignore[attr-defined]
        assert decoded == paths[:3] and cache.nbytes == 3 * one

    cache.use(paths[0], lambda _: cache.use(paths[1], lambda _: cache.use(paths[2], with_all_in_use)))
    fourth.join(60)
    assert decoded == paths and cache.nbytes <= 3 * one


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """As in a folder that `recon view` shows; results of a service never change."""
    cache, (path,) = VolumeCache(10**6), written(tmp_path, 1)
    assert kept(cache, path).values[0, 0, 1] == 1.0
    nifti.write(path, -3 * distinct(), np.eye(4), "test, another length")
    assert kept(cache, path).values[0, 0, 1] == -3.0


def test_a_volume_that_many_ask_for_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,), read, times = written(tmp_path, 1), nifti.read, []

    def counted(*given: Any, **more: Any) -> Any:
        times.append(given)
        return read(*given, **more)

    monkeypatch.setattr(nifti, "read", counted)
    cache = VolumeCache(10**6)
    threads = [threading.Thread(target=kept, args=(cache, path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 1
