"""The files of the page: open to everybody, asked about before each use, and nothing else of the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import page_files
from api.web_security import PAGE_POLICY
from tests.service.serving import Server, refused, serving
from workers import keys


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "keys").write_text(f"- {keys.entry(keys.make('anna')[1])}\n")
    with serving(folder / "store", keys=folder / "keys") as found:
        yield found


def files() -> list[str]:
    return [str(p.relative_to(page_files.FOLDER)) for p in page_files.FOLDER.rglob("*") if p.is_file()]


def test_every_file_is_served_without_a_key_and_asked_about_each_time(server: Server) -> None:
    refused(server.http.get("/v1/jobs"), 401)
    for path in ("/", *(f"/page/{name}" for name in files())):
        answer = server.http.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
        same = server.http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert (same.status_code, same.content) == (304, b"") and same.headers["Cache-Control"] == "no-cache"
        assert server.http.head(path).headers["Content-Length"] == str(len(answer.content))


def test_modules_and_styles_have_the_types_that_browsers_insist_on(server: Server) -> None:
    for ending, kind in {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}.items():
        found = [name for name in files() if name.endswith(ending)]
        assert found
        for name in found:
            assert server.http.get(f"/page/{name}").headers["Content-Type"].startswith(kind), name


@pytest.mark.parametrize(
    "path", ["/page/nothing.js", "/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/"]
)
def test_nothing_else_is(server: Server, path: str) -> None:
    refused(server.http.get(path), 404 if not path.startswith("/page/../") else 401)


def test_it_is_only_read(server: Server) -> None:
    answer = server.http.post("/page/main.js")
    refused(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_it_loads_nothing_from_elsewhere_and_runs_nothing_inline() -> None:
    ours = [p for p in page_files.FOLDER.rglob("*") if p.suffix in (".js", ".css", ".html") and "vendor" not in p.parts]
    assert ours
    for path in ours:
        text = path.read_text()
        urls = [u for u in re.findall(r"https?://[\w.-]+", text) if u != "http://www.w3.org"]  # the name of SVG
        assert not urls, (path, urls)
        assert not re.search(r"\binnerHTML\b|\bouterHTML\b|insertAdjacentHTML|document\.write|\beval\(", text), path
    index = (page_files.FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", index)


def test_every_import_leads_to_a_file() -> None:
    for path in page_files.FOLDER.glob("*.js"):
        for name in re.findall(r"""from "(\./[\w./-]+)";""", path.read_text()):
            assert (path.parent / name).is_file(), (path.name, name)


def test_modules_are_small_and_say_what_they_are() -> None:
    for path in page_files.FOLDER.glob("*.js"):
        lines = Path(path).read_text().splitlines()
        assert lines[0].startswith("/** ") and len(lines) <= 500, path.name
