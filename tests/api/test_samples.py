"""Samples are uploads of one's own with a specification that is accepted as it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api import page_files
from recon.samples import SAMPLES
from recon.samples.shipped import SHIPPED
from tests.service.serving import Server, refused, serving
from workers import keys


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("samples") / "store") as found:
        yield found


def test_the_list_names_each_with_its_source(server: Server) -> None:
    found = {one["name"]: one for one in server.http.get("/v1/samples").json()["samples"]}
    assert set(found) == set(SHIPPED)
    notice = (SAMPLES / "NOTICE").read_text()
    for name, one in found.items():
        assert one["source"] and one["about"].endswith(".") and SHIPPED[name].file in notice
        assert (page_files.FOLDER / "pictures" / f"{name}.png").is_file()


@pytest.mark.parametrize("name", list(SHIPPED))
def test_its_specification_is_accepted(server: Server, name: str) -> None:
    answer = server.http.post(f"/v1/samples/{name}")
    assert answer.status_code == 201, answer.text
    upload, specification = answer.json()["upload"], answer.json()["specification"]
    assert answer.headers["Location"] == f"/v1/uploads/{upload['id']}"
    assert upload["sha256"] == hashlib.sha256(SHIPPED[name].path.read_bytes()).hexdigest()
    assert upload["name"] == SHIPPED[name].file
    plan = server.http.post("/v1/estimates", json=specification)
    assert plan.status_code == 200 and plan.json()["fits"], plan.text
    again = server.http.post(f"/v1/samples/{name}")
    assert again.status_code == 200 and again.json() == answer.json()
    server.http.delete(f"/v1/uploads/{upload['id']}")
    assert server.http.post(f"/v1/samples/{name}").json()["upload"]["id"] != upload["id"]


def test_each_key_has_its_own_within_its_share(tmp_path: Path) -> None:
    secrets, lines = {}, []
    for owner, share in (("anna", None), ("ben", None), ("carl", 1000)):
        secrets[owner], key = keys.make(owner)
        lines.append(f"- {keys.entry(key.model_copy(update={'max_bytes': share}))}\n")
    (tmp_path / "keys").write_text("".join(lines))
    with serving(tmp_path / "store", keys=tmp_path / "keys") as server:

        def take(owner: str) -> httpx.Response:
            return server.http.post("/v1/samples/acrylic-disc", headers={"Authorization": f"Bearer {secrets[owner]}"})

        first, second = take("anna").json()["upload"], take("ben").json()["upload"]
        assert (first["owner"], second["owner"]) == ("anna", "ben") and first["id"] != second["id"]
        refused(take("carl"), 413, "max_bytes")


def test_others_are_not_there(server: Server) -> None:
    refused(server.http.post("/v1/samples/..%2fNOTICE"), 404)
    problem = refused(server.http.post("/v1/samples/knee"), 404, "name")
    assert all(name in problem["remedy"] for name in SHIPPED)
