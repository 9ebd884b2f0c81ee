"""Other web sites cannot drive the service through a browser, and programs that are no browsers notice nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import cli, web_security
from operators.errors import InputError
from recon.client.client import Client
from tests.service.serving import Server, job_body, refused, send, serving, sinogram
from workers.settings import Settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    hosts = ("recon.example.org", "*.clinic.example")
    with serving(tmp_path_factory.mktemp("web") / "store", hosts=hosts) as found:
        yield found


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8000",
        "LOCALHOST.",
        "app.localhost",
        "127.0.0.1",
        "192.168.7.9:80",
        "[::1]:8000",
        "recon.example.org",
        "Recon.Example.org:443",
        "a.clinic.example",
    ],
)
def test_names_of_the_service_and_addresses_are_answered(server: Server, host: str) -> None:
    assert server.http.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "recon.example.org.evil.example",
        "clinic.example",
        "x",
        "localhost@evil.example",
        "localhost:port",
        "",
    ],
)
def test_foreign_hosts_are_refused_whatever_is_asked(server: Server, host: str) -> None:
    """As after DNS rebinding, when an attacker's name leads to this machine."""
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/uploads"), ("GET", "/healthz"), ("GET", "/openapi.json")):
        problem = refused(server.http.request(method, path, headers={"Host": host}), 421, "Host")
        assert "RECON_HOSTS" in problem["remedy"]


def test_any_host_can_be_allowed(tmp_path: Path) -> None:
    with serving(tmp_path / "store", hosts=("*",)) as server:
        assert server.http.get("/v1/jobs", headers={"Host": "anything.example"}).status_code == 200


def changes(server: Server) -> list[tuple[str, str, dict[str, object]]]:
    upload = send(server.http)
    job = server.http.post("/v1/jobs", json=job_body(upload)).json()["id"]
    return [
        ("POST", "/v1/uploads", {"content": b"x"}),
        ("PUT", "/v1/uploads", {"content": b"x"}),
        ("PATCH", f"/v1/uploads/{upload}", {"content": b"x"}),
        ("DELETE", f"/v1/uploads/{upload}", {}),
        ("POST", "/v1/jobs", {"json": job_body(upload)}),
        ("POST", "/v1/estimates", {"json": job_body(upload)}),
        ("DELETE", f"/v1/jobs/{job}", {}),
        ("POST", "/v1/session", {"json": {"key": "x"}}),
        ("DELETE", "/v1/session", {}),
    ]


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"Origin": "https://evil.example"}, "Origin"),
        ({"Origin": "null"}, "Origin"),
        ({"Origin": "http://localhost:1"}, "Origin"),  # another program's page on this machine
        ({"Sec-Fetch-Site": "cross-site"}, "Sec-Fetch-Site"),
        ({"Sec-Fetch-Site": "same-site"}, "Sec-Fetch-Site"),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "own"}, "Sec-Fetch-Site"),
    ],
)
def test_pages_of_other_sites_change_nothing(server: Server, sent: dict[str, str], field: str) -> None:
    headers = {name: server.url if value == "own" else value for name, value in sent.items()}
    asked = changes(server)
    before = server.http.get("/v1/jobs").json()
    for method, path, body in asked:
        problem = refused(server.http.request(method, path, headers=headers, **body), 403, field)  # type: ignore[arg-type]
        assert problem["code"] == "cross_site" and "reverse proxy" in problem["remedy"]
    after = server.http.get("/v1/jobs").json()
    assert [j["state"] for j in after["jobs"]] == [j["state"] for j in before["jobs"]]
    assert after["total"] == before["total"]
    assert server.http.get("/v1/jobs", headers=headers).status_code == 200  # looking changes nothing


@pytest.mark.parametrize(
    "sent", [{}, {"Origin": "own"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none", "Origin": "null"}]
)
def test_its_own_page_and_programs_may_change_things(server: Server, sent: dict[str, str]) -> None:
    headers = {name: server.url if value == "own" else value for name, value in sent.items()}
    upload = send(server.http, None, **headers)
    job = server.http.post("/v1/jobs", json=job_body(upload), headers=headers)
    assert job.status_code == 202
    assert server.http.delete(f"/v1/jobs/{job.json()['id']}", headers=headers).json()["state"] == "cancelled"


def test_curl_as_documented_is_answered(server: Server, tmp_path: Path) -> None:
    """It says application/x-www-form-urlencoded of every body, unless told otherwise."""
    (tmp_path / "a.npy").write_bytes(sinogram())
    command = ["curl", "-sS", "--data-binary", f"@{tmp_path / 'a.npy'}", f"{server.url}/v1/uploads"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"sha256"' in done.stdout
    body = '{"input": {"upload": "%s"}}' % ("a" * 26)
    done = subprocess.run(["curl", "-sS", "-d", body, f"{server.url}/v1/jobs"], capture_output=True, text=True)
    assert "there is no upload" in done.stdout


@pytest.mark.parametrize(
    "kind", ["text/plain", "text/plain; charset=utf-8", "text/html", "application/xml", "application/octet-stream"]
)
def test_a_specification_is_json_by_its_media_type(server: Server, kind: str) -> None:
    for path in ("/v1/jobs", "/v1/estimates", "/v1/session"):
        answer = server.http.post(path, content=b"{}", headers={"Content-Type": kind})
        assert "application/json" in refused(answer, 415, "Content-Type")["remedy"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/problem+json", ""])
def test_json_goes_by_several_names(server: Server, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    refused(server.http.post("/v1/jobs", content=b"{}", headers=headers), 422, "input")


def test_a_file_is_no_text(server: Server) -> None:
    answer = server.http.post("/v1/uploads", content=b"x", headers={"Content-Type": "text/plain"})
    assert "application/octet-stream" in refused(answer, 415, "Content-Type")["remedy"]


def test_every_answer_restricts_what_a_page_may_do(server: Server) -> None:
    answers = [
        server.http.get("/healthz"),
        server.http.get("/v1/nothing"),
        server.http.get("/v1/jobs", headers={"Host": "evil.example"}),
        server.http.post("/v1/jobs", content=b"{"),
        server.http.request("OPTIONS", "/v1/jobs"),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_report_runs_nothing(server: Server) -> None:
    job = server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"]
    record = server.store.transition(job, "running")
    server.store.attempt(record).mkdir()
    (server.store.attempt(record) / "report.html").write_text("<style>p {}</style>")
    server.store.publish(job, str(record.token), server.store.attempt(record))
    answer = server.http.get(f"/v1/jobs/{job}/results/report.html")
    assert answer.headers["Content-Security-Policy"] == web_security.RESULT_POLICY
    assert "script-src" not in web_security.RESULT_POLICY and answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("wrong", ["https://recon.example.org", "recon.example.org:443", "a b", "*.*"])
def test_names_of_hosts_are_checked(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOSTS", "good.example, " + wrong)
    with pytest.raises(InputError, match="RECON_HOSTS"):
        Settings()
    monkeypatch.setenv("RECON_HOSTS", " Good.example,*.b.example ")
    assert Settings().hosts == ("good.example", "*.b.example")


def test_the_name_under_which_it_listens_is_its_own() -> None:
    assert cli._named(Settings(hosts=("a.example",)), "Scanner-PC").hosts == ("a.example", "scanner-pc")


def test_the_client_is_no_browser(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(sinogram())
    with Client(server.url) as client:
        assert client.contents(client.upload(tmp_path / "a.npy")).shape == [6, 20]


def test_head_is_there_wherever_get_is(server: Server) -> None:
    """With the same status and headers, and nothing after them."""
    job = server.http.post("/v1/jobs", json=job_body(upload := send(server.http))).json()["id"]
    record = server.store.transition(job, "running")
    server.store.attempt(record).mkdir()
    (server.store.attempt(record) / "report.json").write_text("{}")
    server.store.publish(job, str(record.token), server.store.attempt(record))
    paths = server.http.get("/openapi.json").json()["paths"]
    ids = {"job_id": job, "upload_id": upload, "name": "report.json", "plane": "axial"}
    ids |= dict.fromkeys(("index", "col", "row", "slice"), "0")
    asked = [path.format(**ids) for path, found in paths.items() if "get" in found]
    assert len(asked) >= 12 and f"/v1/jobs/{job}/events" in asked
    for path in [*asked, "/openapi.json"]:
        head = server.http.head(path)
        if "/events" in path:
            assert head.status_code == 200 and head.headers["Content-Type"].startswith("text/event-stream")
            continue
        got = server.http.get(path)
        assert head.status_code == got.status_code and not head.content, path
        if not path.startswith("/v1/uploads/"):  # HEAD tells how far an upload has come
            assert head.headers.get("Content-Type") == got.headers.get("Content-Type"), path
