"""A job that is computed can be watched: its preview, and when its worker was last heard of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx_sse
import numpy as np
import pytest

from recon.quality import png
from tests.service.serving import Server, job_body, refused, send, serving, until
from workers.lease import LEASE_S, Lease

CLOSE = timedelta(seconds=2)
"""By which two looks at one sign of life may differ."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("running") / "store") as found:
        yield found


def running(server: Server) -> tuple[str, str]:
    """A job that is computed, and the token of its attempt."""
    job = str(server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"])
    return job, str(server.store.transition(job, "running").token)


def test_a_preview_is_linked_when_there_is_one(server: Server) -> None:
    job, token = running(server)
    problem = refused(server.http.get(f"/v1/jobs/{job}/preview"), 404, "preview")
    assert "running" in problem["detail"] and problem["remedy"]
    assert "preview" not in server.http.get(f"/v1/jobs/{job}").json()["links"]
    first, second = (png.encode(np.full((2, 2), shade, np.uint8)) for shade in (1, 2))
    server.store.show(job, token, first)
    address = server.http.get(f"/v1/jobs/{job}").json()["links"]["preview"]
    answer = server.http.get(address)
    assert answer.content == first and answer.headers["Content-Type"] == "image/png"
    assert server.http.head(address).headers["ETag"] == answer.headers["ETag"]
    known = {"If-None-Match": answer.headers["ETag"]}
    assert server.http.get(address, headers=known).status_code == 304
    server.store.show(job, token, second)
    assert server.http.get(address, headers=known).content == second
    server.store.transition(job, "cancelling")
    server.store.transition(job, "cancelled")
    server.store.clear(job)
    assert "preview" not in server.http.get(f"/v1/jobs/{job}").json()["links"]
    assert "cancelled" in refused(server.http.get(address), 404, "preview")["detail"]


def heard(told: dict[str, str]) -> datetime:
    return datetime.fromisoformat(told["seen"])


def test_the_worker_of_a_running_job_is_heard_of(server: Server) -> None:
    job, _ = running(server)
    address = f"/v1/jobs/{job}"
    assert server.http.get(address).json()["seen"] is None
    lease = Lease(server.service.settings.redis_url, job, "token")
    assert lease.acquire()
    with lease.kept():
        until(lambda: server.http.get(address).json()["seen"], 10)
        before = server.http.get(address)
        assert abs(datetime.now(UTC) - heard(before.json())) < timedelta(seconds=LEASE_S)
        with server.http.stream("GET", f"{address}/events") as stream:
            event = next(e for e in httpx_sse.EventSource(stream).iter_sse() if e.event == "seen")
        told = heard(json.loads(event.data))
        after = heard(server.http.get(address).json())
        assert heard(before.json()) - CLOSE <= told <= after + CLOSE  # the worker goes on meanwhile
        with server.http.stream("GET", "/v1/events") as stream:
            jobs = (json.loads(e.data) for e in httpx_sse.EventSource(stream).iter_sse() if e.event == "job")
            assert next(one for one in jobs if one["id"] == job)["seen"]
    until(lambda: server.http.get(address).json()["seen"] is None, 10)
    assert server.http.get(address).headers["ETag"] == before.headers["ETag"]  # it changes with the clock
