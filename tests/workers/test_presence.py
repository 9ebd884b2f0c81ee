"""Workers say that they are there, and /readyz passes it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.serving import serving, until
from workers import presence
from workers.embedded import private_redis
from workers.presence import Presence, count, device_of
from workers.queues import queues


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with private_redis(tmp_path / "redis") as url:
        yield url


def test_a_worker_is_there_until_it_ends(redis_url: str, tmp_path: Path) -> None:
    with serving(tmp_path / "store", redis_url, devices=("cpu", "gpu")) as server:

        def there() -> dict[str, int]:
            found: dict[str, int] = server.http.get("/readyz").json()["workers"]
            return found

        assert there() == {"cpu": 0, "gpu": 0}  # which is ready all the same: jobs are accepted, and wait
        worker = Presence(redis_url, "gpu")
        worker.begin()
        until(lambda: there() == {"cpu": 0, "gpu": 1})
        worker.end()
        assert there() == {"cpu": 0, "gpu": 0}


def test_a_worker_that_died_is_forgotten(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LEASE_S", 0.5)
    Presence(redis_url, "cpu").beat()
    assert count(redis_url) == {"cpu": 1, "gpu": 0}
    until(lambda: count(redis_url) == {"cpu": 0, "gpu": 0})


def test_without_redis_nothing_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    worker = Presence("redis://127.0.0.1:1/0", "cpu")
    worker.begin()
    worker.end()
    assert "worker" in caplog.text


def test_the_device_is_that_of_the_queues() -> None:
    assert device_of(queues("gpu")) == "gpu" and device_of(queues("cpu")) == "cpu" and device_of(["celery"]) is None


def test_a_real_worker_is_seen(service: tuple[str, Path]) -> None:
    with httpx.Client(base_url=service[0], timeout=30) as http:
        until(lambda: http.get("/readyz").json()["workers"] == {"cpu": 1}, 60)
