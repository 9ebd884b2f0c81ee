"""Problems over HTTP name the field as the client knows it, and say in a sentence what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.serving import Server, job_body, refused, send, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("problems") / "store") as found:
        yield found


@pytest.mark.parametrize(
    ("path", "field", "says", "remedy"),
    [
        ("/v1/jobs?limit=0", "limit", "'0' is not at least 1", "give at least 1"),
        ("/v1/jobs?limit=many", "limit", "'many' is not a whole number", "give a whole number"),
        ("/v1/jobs?state=lost", "state", "'lost' is not 'queued'", "choose one of these"),
        (f"/v1/jobs?tag={'x' * 65}", "tag", "it has 65 characters", "give at most 64"),
        (f"/v1/uploads?name={'x' * 101}", "name", "it has 101 characters", "give at most 100"),
    ],
)
def test_queries(server: Server, path: str, field: str, says: str, remedy: str) -> None:
    problem = refused(server.http.get(path), 422, field)
    assert says in problem["detail"] and problem["remedy"] == remedy


def test_a_header(server: Server) -> None:
    job = server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"]
    answer = server.http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "9" * 21})
    assert "21 characters" in refused(answer, 422, "last-event-id")["detail"]


def test_an_address_of_nothing(server: Server) -> None:
    problem = refused(server.http.get("/v1/nothing"), 404)
    assert problem["detail"] == "there is nothing at /v1/nothing" and "/docs" in problem["remedy"]


def test_what_is_no_json(server: Server) -> None:
    for path in ("/v1/jobs", "/v1/estimates"):
        assert refused(server.http.post(path, content=b"{oops"), 422, "body")["remedy"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/estimates"])
def test_a_method_that_does_not_fit(server: Server, path: str) -> None:
    body = job_body(send(server.http))
    problem = refused(server.http.post(path, json={**body, "method": "zero-filled"}), 422, "method")
    assert problem["detail"] == "zero-filled does not fit ct-parallel" and "fbp" in problem["remedy"]
    problem = refused(server.http.post(path, json={**body, "method": "red_diff"}), 422, "method")
    assert problem["remedy"] == "did you mean red-diff?" and "{" not in problem["detail"]
