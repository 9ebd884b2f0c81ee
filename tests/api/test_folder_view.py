"""`recon view` shows a folder on this machine alone, as safely as a service does, and says what it cannot show."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from api import browser, folder_view
from operators.errors import InputError
from recon.formats import nifti
from tests.service.serving import showing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.mkdir()
    nifti.write(path / "volume.nii.gz", np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4), "test")
    (path / "notes.txt").write_text("mine")
    (path / ".hidden").write_text("hidden")
    (tmp_path / "secret.nii.gz").write_bytes((path / "volume.nii.gz").read_bytes())
    return path


@pytest.fixture
def client(folder: Path) -> Iterator[httpx.Client]:
    with showing(folder) as address, httpx.Client(base_url=address) as found:
        yield found


def test_a_folder_is_shown_like_a_job(client: httpx.Client) -> None:
    found = client.get("/v1/view").json()
    assert found["job"]["name"] == "results"
    assert [file["name"] for file in found["files"]] == ["notes.txt", "volume.nii.gz"]
    assert client.get(found["files"][0]["href"]).text == "mine"
    assert client.get(f"/v1/jobs/{found['job']['id']}/slices/volume.nii.gz").json()["shape"] == [3, 4, 5]
    assert client.get("/v1/jobs/folder/slices/volume.nii.gz/axial/1.png").headers["Content-Type"] == "image/png"
    page = client.get("/")
    assert "page/view.js" in page.text and client.get("/page/view.js").status_code == 200
    assert client.get("/page/viewer/graphics.js").status_code == 200


def test_another_folder_at_the_same_address_is_not_shown_from_a_browsers_cache(folder: Path) -> None:
    """Another patient's file may have the same name, size and time, and lie behind the same port."""
    paths = [f"slices/volume.nii.gz{rest}" for rest in ("", "/axial/1.png", "/volume.nii?voxels=100")]
    tags = []
    for shown in (folder, Path(shutil.copytree(folder, folder.with_name("other")))):
        with showing(shown) as address, httpx.Client(base_url=f"{address}/v1/jobs/folder/") as client:
            for path in paths:
                answer = client.get(path)
                assert answer.headers["Cache-Control"] == "no-cache"
                tags.append(answer.headers["ETag"])
                same = client.get(path, headers={"If-None-Match": tags[-1]})
                assert same.status_code == 304 and same.headers["Cache-Control"] == "no-cache"
            assert client.get("voxels/1/1/1?file=volume.nii.gz").headers["Cache-Control"] == "no-cache"
    assert len(set(tags)) == len(tags) == 6


def test_nothing_else_of_the_disk_is_shown(client: httpx.Client) -> None:
    for path in (
        "results/..%2Fsecret.nii.gz", "slices/..%2Fsecret.nii.gz", "slices/%2e%2e/secret.nii.gz", "results/absent"
    ):  # fmt: skip
        assert client.get(f"/v1/jobs/folder/{path}").status_code == 404
    assert client.get("/v1/jobs/other/results/notes.txt").status_code == 404


def test_other_sites_are_refused(client: httpx.Client) -> None:
    assert "default-src 'none'" in client.get("/").headers["Content-Security-Policy"]
    assert "unsafe-eval" not in client.get("/").headers["Content-Security-Policy"]
    refused = client.get("/v1/view", headers={"Host": "evil.example"})
    assert refused.status_code == 421 and refused.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("given", ["absent", "file", "empty"])
def test_what_is_no_folder_of_results_is_said(tmp_path: Path, given: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as error:
        folder_view.create_app(tmp_path / given)
    assert error.value.field == "folder" and error.value.remedy


def test_the_command_prints_its_address(folder: Path) -> None:
    command = [sys.executable, "-m", "recon.cli.main", "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert address is not None
            assert httpx.get(f"{address[0]}v1/view").json()["job"]["name"] == "results"
        finally:
            process.send_signal(signal.SIGINT)
        process.wait(30)


def test_a_browser_is_opened_only_in_front_of_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(browser, "_open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    browser.show("http://127.0.0.1:1/", wanted=True)
    monkeypatch.setenv("DISPLAY", ":0")
    browser.show("http://127.0.0.1:2/", wanted=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    browser.show("http://127.0.0.1:3/", wanted=True)
    assert not opened
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    browser.show("http://127.0.0.1:4/", wanted=True)
    for thread in threading.enumerate():
        if thread.name == "browser":
            thread.join()
    assert opened == ["http://127.0.0.1:4/"]
